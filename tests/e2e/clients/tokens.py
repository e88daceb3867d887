"""Prints tokens, and the keys they are verified by, as JSON. PyJWT makes what is right; what is wrong is put
together by hand, since it makes no such thing."""

import base64
import hashlib
import hmac
import json
import sys
import time

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

# Where a server would be that hands out an attacker's keys.
EVIL = sys.argv[1]
NOW = int(time.time())
SECRET = "correct horse battery staple, which is more than sixty-four bytes long"
CLAIMS = {
    "iss": "https://id.example.com/",
    "aud": ["orders", "other"],
    "sub": "alice",
    "exp": NOW + 3600,
    "nbf": NOW - 10,
    "scope": "orders:read orders:write",
    "tenant": "a",
    "email": "alice@example.com",
    "level": 7,
    "realm_access": {"roles": ["ops", "staff"]},
}


def text(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value):
    return text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def jwk(key, kid, **more):
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        numbers = public.public_numbers()
        own = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
    elif isinstance(public, ed25519.Ed25519PublicKey):
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        own = {"kty": "OKP", "crv": "Ed25519", "x": text(raw)}
    else:
        numbers, length = public.public_numbers(), (public.curve.key_size + 7) // 8
        x, y = (text(value.to_bytes(length, "big")) for value in (numbers.x, numbers.y))
        own = {"kty": "EC", "crv": {256: "P-256", 384: "P-384", 521: "P-521"}[public.curve.key_size], "x": x, "y": y}
    return own | ({"kid": kid} if kid else {}) | more


def pem(key):
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form)


RSA = rsa.generate_private_key(65537, 2048)
NEXT = rsa.generate_private_key(65537, 2048)
ATTACKER = rsa.generate_private_key(65537, 2048)
SMALL = rsa.generate_private_key(65537, 1024)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED = ed25519.Ed25519PrivateKey.generate()

FIRST = [
    jwk(RSA, "rsa", use="sig"),
    jwk(P256, "p256", alg="ES256"),
    jwk(P384, "p384", key_ops=["verify"]),
    jwk(P521, "p521"),
    jwk(ED, "ed"),
    # What nothing is to be verified by.
    jwk(SMALL, "small"),
    jwk(ATTACKER, "encrypts", use="enc"),
    jwk(ATTACKER, "only-rs512", alg="RS512"),
    {"kty": "oct", "kid": "oct", "k": text(b"public knowledge, and long enough for it")},
    {"kty": "future", "kid": "unknown"},
]


def right(algorithm, key, kid, claims={}, without=(), **header):
    claims = {name: value for name, value in (CLAIMS | claims).items() if name not in without}
    header = header | ({"kid": kid} if kid else {})
    return jwt.encode(claims, key, algorithm, headers=header)


def rs256(key, message):
    return key.sign(message, padding.PKCS1v15(), hashes.SHA256())


def raw(header, payload=None, sign=lambda message: rs256(RSA, message)):
    """Any header and payload, signed by the right key unless told otherwise."""
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    payload = payload if payload is not None else json.dumps(CLAIMS).encode()
    message = f"{text(header)}.{text(payload)}".encode()
    return f"{message.decode()}.{text(sign(message))}"


def own(**more):
    return {"alg": "RS256", "typ": "JWT", "kid": "rsa"} | more


def hs(key):
    return lambda message: hmac.new(key, message, hashlib.sha256).digest()


def by_attacker(message):
    return rs256(ATTACKER, message)


good = right("RS256", RSA, "rsa")
head, body, signature = good.split(".")
other = text(json.dumps(CLAIMS | {"sub": "root"}).encode())

wrong = {
    # No signature.
    **{
        f"none {name}": raw({"alg": name, "kid": "rsa"}, sign=lambda _: b"")
        for name in ["none", "None", "NONE", "nOnE", "none ", ""]
    },
    "none with a signature": raw({"alg": "none", "kid": "rsa"}),
    "no alg": raw({"kid": "rsa"}),
    "alg is null": raw({"alg": None, "kid": "rsa"}),
    "alg is a list": raw({"alg": ["RS256"], "kid": "rsa"}),
    "alg in other letters": raw(own(alg="rs256")),
    "signature left out": f"{head}.{body}.",
    "signature missing": f"{head}.{body}",
    # A public key taken for a secret, and a secret that is public.
    "HS256 by PEM": raw(own(alg="HS256"), sign=hs(pem(RSA))),
    "HS256 by PEM without its end": raw(own(alg="HS256"), sign=hs(pem(RSA).strip())),
    "HS256 by the modulus": raw(
        own(alg="HS256"), sign=hs(RSA.public_key().public_numbers().n.to_bytes(256, "big"))
    ),
    "HS256 by nothing": raw(own(alg="HS256"), sign=hs(b"")),
    "HS256 by the set's own": raw(
        own(alg="HS256", kid="oct"), sign=hs(b"public knowledge, and long enough for it")
    ),
    # Keys and algorithms that do not belong together.
    "RS512 is not let in": right("RS512", RSA, "rsa"),
    "PS256 signed by RS256": raw(own(alg="PS256")),
    "RS256 signed by PS256": raw(
        own(),
        sign=lambda message: RSA.sign(
            message, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()
        ),
    ),
    "ES256 by the name of an RSA key": right("ES256", P256, "rsa"),
    "ES384 by the name of a P-256 key": right("ES384", P384, "p256"),
    "ES512 by another key": right("ES512", ec.generate_private_key(ec.SECP521R1()), "p521"),
    "key too small": right("RS256", SMALL, "small"),
    "key for encryption": right("RS256", ATTACKER, "encrypts"),
    "key for another algorithm": right("RS256", ATTACKER, "only-rs512"),
    "ES256 of zeros": raw({"alg": "ES256", "kid": "p256"}, sign=lambda _: bytes(64)),
    "ES256 in DER": raw(
        {"alg": "ES256", "kid": "p256"},
        sign=lambda message: P256.sign(message, ec.ECDSA(hashes.SHA256())),
    ),
    # The header's word for where the key is.
    "another key": right("RS256", ATTACKER, "rsa"),
    "another key without a name": right("RS256", ATTACKER, None),
    "kid is a path": raw(own(kid="../../../../dev/null"), sign=hs(b"")),
    "kid is SQL": raw(own(kid="x' UNION SELECT 'secret' --"), sign=hs(b"secret")),
    "kid is a command": raw(own(kid="rsa|/bin/true"), sign=by_attacker),
    "kid is long": raw(own(kid="x" * 5000), sign=by_attacker),
    "kid is empty": raw(own(kid="")),
    "kid has a NUL": raw(own(kid="rsa\0")),
    "kid is a number": raw(own(kid=7)),
    "kid is null": raw(own(kid=None)),
    "kid is a list": raw(own(kid=["rsa"])),
    "kid is a table": raw(own(kid={"rsa": 1})),
    "jku": raw(own(kid="evil", jku=f"{EVIL}/jku"), sign=by_attacker),
    "jku with a known kid": raw(own(jku=f"{EVIL}/jku"), sign=by_attacker),
    "x5u": raw(own(kid="evil", x5u=f"{EVIL}/x5u"), sign=by_attacker),
    "x5c": raw(own(x5c=[text(pem(ATTACKER))]), sign=by_attacker),
    "jwk": raw(own(jwk=jwk(ATTACKER, "rsa")), sign=by_attacker),
    "jwk without kid": raw({"alg": "RS256", "jwk": jwk(ATTACKER, "rsa")}, sign=by_attacker),
    "crit": raw(own(crit=["exp"])),
    "crit is empty": raw(own(crit=[])),
    "b64": raw(own(crit=["b64"], b64=False)),
    # When, by whom, for whom.
    "expired": right("RS256", RSA, "rsa", {"exp": NOW - 120}),
    "expired long ago": right("RS256", RSA, "rsa", {"exp": 0}),
    "never expires": right("RS256", RSA, "rsa", without=["exp"]),
    "exp is a text": raw(own(), json.dumps(CLAIMS | {"exp": str(NOW + 60)}).encode()),
    "exp is null": raw(own(), json.dumps(CLAIMS | {"exp": None}).encode()),
    "exp is beyond numbers": raw(
        own(), json.dumps(CLAIMS).replace(str(NOW + 3600), "1e999").encode()
    ),
    "not yet": right("RS256", RSA, "rsa", {"nbf": NOW + 600}),
    "nbf is a text": raw(own(), json.dumps(CLAIMS | {"nbf": "0"}).encode()),
    "another issuer": right("RS256", RSA, "rsa", {"iss": "https://id.example.com"}),
    "no issuer": right("RS256", RSA, "rsa", without=["iss"]),
    "issuers": raw(own(), json.dumps(CLAIMS | {"iss": [CLAIMS["iss"]]}).encode()),
    "another audience": right("RS256", RSA, "rsa", {"aud": ["payments", "orders "]}),
    "no audience": right("RS256", RSA, "rsa", without=["aud"]),
    "audience is a number": raw(own(), json.dumps(CLAIMS | {"aud": 1}).encode()),
    "another tenant": right("RS256", RSA, "rsa", {"tenant": "b"}),
    "no tenant": right("RS256", RSA, "rsa", without=["tenant"]),
    "nobody": right("RS256", RSA, "rsa", without=["sub"]),
    "sub is a number": raw(own(), json.dumps(CLAIMS | {"sub": 7}).encode()),
    "sub is empty": right("RS256", RSA, "rsa", {"sub": ""}),
    "sub has a line's end": right("RS256", RSA, "rsa", {"sub": "alice\r\nX-Admin: 1"}),
    "sub is long": right("RS256", RSA, "rsa", {"sub": "x" * 257}),
    # What has been changed, or is no token.
    "payload changed": f"{head}.{other}.{signature}",
    "signature changed": f"{head}.{body}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}",
    "signature cut": f"{head}.{body}.{signature[:-4]}",
    "signature of another": f"{head}.{body}.{right('RS256', RSA, 'rsa', {'sub': 'bob'}).split('.')[2]}",
    "header changed": f"{text(json.dumps(own(typ='x')).encode())}.{body}.{signature}",
    "one part": head,
    "four parts": f"{good}.{signature}",
    "five parts": f"{good}.{signature}.{signature}",
    "dots": "..",
    "many dots": "." * 2000,
    "padding": f"{head}.{body}.{signature}==",
    "bits behind the end": f"{head}.{body}.{signature[:-1]}{'B' if signature[-1] == 'A' else chr(ord(signature[-1]) + 1)}",
    "space": f"{head}. {body}.{signature}",
    "header is no JSON": raw(b"RS256"),
    "header is a list": raw(b"[]"),
    "payload is a list": raw(own(), b"[]"),
    "payload is no JSON": raw(own(), b"\xff\xfe"),
    "payload is deep": raw(own(), b"[" * 5000 + b"]" * 5000),
    "payload is a token": raw(own(cty="JWT"), good.encode()),
    "long": f"{head}.{'A' * 11000}.{signature}",
}

scopeless = {
    "less": right("RS256", RSA, "rsa", {"scope": "orders:read"}),
    "longer word": right("RS256", RSA, "rsa", {"scope": "orders:read orders:writer"}),
    "none": right("RS256", RSA, "rsa", without=["scope"]),
    "a table": right("RS256", RSA, "rsa", {"scope": {"orders:read": 1, "orders:write": 1}}),
}

print(
    json.dumps(
        {
            "first": json.dumps({"keys": FIRST}),
            "second": json.dumps({"keys": [jwk(NEXT, "next")]}),
            "nameless": json.dumps({"keys": [jwk(P256, None), jwk(RSA, None)]}),
            "secret": SECRET,
            "right": {
                "RS256": good,
                "RS384": right("RS384", RSA, "rsa"),
                "PS256": right("PS256", RSA, "rsa"),
                "PS384": right("PS384", RSA, "rsa"),
                "PS512": right("PS512", RSA, "rsa"),
                "ES256": right("ES256", P256, "p256"),
                "ES384": right("ES384", P384, "p384"),
                "ES512": right("ES512", P521, "p521"),
                "EdDSA": right("EdDSA", ED, "ed"),
                "no kid": right("RS256", RSA, None),
                "no kid, another key": right("ES256", P256, None),
                "one audience": right("RS256", RSA, "rsa", {"aud": "orders"}),
                "scopes in a list": right(
                    "RS256", RSA, "rsa", {"scp": ["orders:read", "orders:write"]}, ["scope"]
                ),
                "within the leeway": right("RS256", RSA, "rsa", {"exp": NOW - 5, "nbf": NOW + 30}),
                "fractions": right("RS256", RSA, "rsa", {"exp": NOW + 60.5}),
                "what is ignored": raw(own(jku=EVIL, x5u=EVIL, jwk=jwk(ATTACKER, "x"), b64=True)),
            },
            "wrong": wrong,
            "scopeless": scopeless,
            "next": right("RS256", NEXT, "next"),
            "unknown": [right("RS256", ATTACKER, f"unknown-{number}") for number in range(30)],
            "HS256": right("HS256", SECRET, "any"),
            "HS512": right("HS512", SECRET, None),
            "HS256 by another": right("HS256", SECRET[:-1] + "!", None),
            "bob": right("RS256", RSA, "rsa", {"sub": "bob", "tenant": "b"}),
            "access": right("RS256", RSA, "rsa", typ="at+jwt"),
        }
    )
)
