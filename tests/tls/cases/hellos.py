"""The parts of a ClientHello, and its extensions."""
import random
from os import urandom

from tlslite.constants import ExtensionType as Ext
from tlslite.constants import GroupName as Group

from case import NOT_MISSING, case, hello
from client import HANDSHAKE, Client, Ended
from hello import (
    AES128_SHA256, AES256_SHA384, CHACHA20_SHA256, ECDHE_ECDSA_AES128, ECDHE_ECDSA_AES256,
    ECDHE_ECDSA_CHACHA20, ECDSA_P256, ECDSA_SHA1, GREASE, HOST, RSA_PSS_SHA256, TLS12, TLS13,
    Hello, message, u16s, vec,
)

BOTH = (("1.2", TLS12), ("1.3", TLS13))
# What the random cases begin with.
SEED = 20260101


def put(kind, data=b""):
    return lambda hello: hello.put(kind, data)


# Session ids, compression, suites.

for size in (1, 31, 32):
    change = lambda hello, size=size: hello.set(session_id=urandom(size))
    hello("test-invalid-session-id", f"of {size} bytes", "served", change)
for size in (33, 255):
    change = lambda hello, size=size: hello.set(session_id=urandom(size))
    hello("test-invalid-session-id", f"of {size} bytes", "decode_error|illegal_parameter", change)

COMPRESSION = "test-invalid-compression-methods"
for name, version in BOTH:
    for methods, what, expected in (
        (b"", "none", "decode_error|illegal_parameter"),
        (b"\1", "only DEFLATE", "illegal_parameter"),
        (b"\1\x40", "DEFLATE and LZS", "illegal_parameter"),
    ):
        change = lambda hello, methods=methods: hello.set(compressions=methods)
        hello(COMPRESSION, f"TLS {name}: {what}", expected, change, version)
hello(COMPRESSION, "TLS 1.2: none, and DEFLATE", "served", lambda h: h.set(compressions=b"\0\1"), TLS12)
hello(
    COMPRESSION,
    "TLS 1.3: null, and DEFLATE",
    "illegal_parameter",
    lambda hello: hello.set(compressions=b"\0\1"),
)

SUITES = (
    ("test-invalid-cipher-suites", "NULL", (0x0001, 0x0002, 0x003B, 0xC006, 0xC010)),
    ("test-invalid-cipher-suites", "anonymous", (0x0018, 0x0034, 0x006C, 0x00A6, 0xC018)),
    ("test-export-ciphers-rejected", "export", (0x0003, 0x0006, 0x0008, 0x0014, 0x0062)),
    ("test-invalid-cipher-suites", "RC4", (0x0004, 0x0005, 0xC007, 0xC011)),
    ("test-invalid-cipher-suites", "DES and 3DES", (0x0009, 0x000A, 0x0016, 0xC008, 0xC012)),
    ("test-invalid-cipher-suites", "CBC", (0x002F, 0x003C, 0xC009, 0xC00A, 0xC023, 0xC024)),
    ("test-bleichenbacher-workaround", "RSA key exchange", (0x002F, 0x009C, 0x009D, 0x0035)),
    ("test-dhe-rsa-key-exchange", "finite-field DHE", (0x0033, 0x0039, 0x009E, 0x009F, 0xCCAA)),
    ("test-ecdhe-rsa-key-exchange", "ECDHE with RSA, which has no key", (0xC02F, 0xC030, 0xCCA8)),
    ("test-rsa-psk", "PSK", (0x008C, 0x00A8, 0x00AC, 0xC035)),
    ("test-aesccm", "AES-CCM", (0xC0AC, 0xC0AD, 0xC0AE)),
    ("test-invalid-cipher-suites", "unassigned", (0x00FE, 0x1399, 0xFFEE, 0x4A4A)),
)
for script, what, suites in SUITES:
    change = lambda hello, suites=suites: hello.set(ciphers=[*suites])
    hello(script, f"TLS 1.2: {what} suites only", "handshake_failure", change, TLS12)
for name, version in BOTH:
    change = lambda hello: hello.set(ciphers=[])
    script = "test-tls13-nociphers" if version == TLS13 else "test-invalid-cipher-suites"
    expected = "decode_error|illegal_parameter|handshake_failure"
    hello(script, f"TLS {name}: no suites", expected, change, version)
hello(
    "test-tls13-invalid-ciphers",
    "TLS 1.3: suites unheard of only",
    "handshake_failure",
    lambda hello: hello.set(ciphers=[0x1399, GREASE]),
)
for suite in (AES128_SHA256, AES256_SHA384, CHACHA20_SHA256):
    change = lambda hello, suite=suite: hello.set(ciphers=[GREASE, suite])
    hello("test-tls13-symetric-ciphers", f"TLS 1.3: 0x{suite:04x}", "served", change)
for suite in (ECDHE_ECDSA_AES128, ECDHE_ECDSA_AES256, ECDHE_ECDSA_CHACHA20):
    change = lambda hello, suite=suite: hello.set(ciphers=[GREASE, suite])
    hello("test-chacha20", f"TLS 1.2: 0x{suite:04x}", "served", change, TLS12)
hello(
    "test-large-hello",
    "5000 suites, the last is known",
    "served",
    lambda hello: hello.set(ciphers=[*range(0x2000, 0x2000 + 5000), AES128_SHA256]),
)

# Lengths and ends.


def resized(change):
    """A ClientHello whose body is changed, its length right again."""

    def run(client, version=TLS13):
        client.send(HANDSHAKE, message(1, change(Hello(version).body())))

    return run


case("test-invalid-client-hello", "a byte behind the extensions", "decode_error")(
    resized(lambda body: body + b"\0")
)
case("test-invalid-client-hello", "no body", "decode_error")(resized(lambda body: b""))
case("test-invalid-client-hello", "an odd length of suites", "decode_error")(
    resized(lambda body: body[:68] + b"\1" + body[69:])
)


def answer_to(port, body):
    one = Client(port)
    try:
        one.send(HANDSHAKE, message(1, body))
        one.read()
        return "served"
    except Ended as ended:
        return str(ended)
    finally:
        one.close()


@case("test-truncating-of-client-hello", "cut at every byte, its length right", "refused")
def _(client):
    port = client.wire.socket.getpeername()[1]
    for version in (TLS12, TLS13):
        body = Hello(version).body()
        for size in range(len(body)):
            outcome = answer_to(port, body[:size])
            assert outcome not in ("served", "silence", "close_notify"), f"at {size}: {outcome}"
    return outcome


@case("test-truncating-of-client-hello", "cut at the half, then the connection's end", "closed")
def _(client):
    whole = Hello().write()
    client.send(HANDSHAKE, whole[: len(whole) // 2])
    client.end_of_stream()


@case("test-fuzzed-plaintext", "300 with random bytes changed", "any")
def _(client):
    port = client.wire.socket.getpeername()[1]
    dice = random.Random(SEED)
    for number in range(300):
        body = bytearray(Hello((TLS12, TLS13)[number % 2]).body())
        for _ in range(dice.randrange(1, 4)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        outcome = answer_to(port, body)
        assert outcome != "silence", f"number {number}: silence"
    return "served"


# Extensions in general.

EXTENSIONS = "test-extensions"
for name, version in BOTH:
    twice = lambda hello: hello.add(Ext.supported_groups, vec(2, u16s(Group.x25519)))
    expected = "decode_error|illegal_parameter"
    hello(EXTENSIONS, f"TLS {name}: one of them twice", expected, twice, version)
    twice = lambda hello: hello.add(GREASE).add(GREASE)
    hello(EXTENSIONS, f"TLS {name}: an unknown one twice", expected, twice, version)
    backwards = lambda hello: hello.extensions.reverse()
    script = "test-tls13-shuffled-extentions"
    hello(script, f"TLS {name}: backwards", "served", backwards, version)
    many = lambda hello: [hello.add(n, b"x") for n in range(20000, 20400)]
    script = "test-tls13-large-number-of-extensions" if version == TLS13 else \
        "test-large-number-of-extensions"
    hello(script, f"TLS {name}: 400 unknown ones", "served", many, version)
    padded = lambda hello: hello.add(21, bytes(5000))
    hello("test-client-hello-max-size", f"TLS {name}: 5000 bytes of padding", "served", padded, version)
    pads = lambda hello: [hello.add(n, bytes(5000)) for n in range(20000, 20010)]
    hello("test-large-hello", f"TLS {name}: 50 KB in four records", "served", pads, version)
hello("test-empty-extensions", "TLS 1.2: none at all", "refused|served",
      lambda hello: hello.set(extensions=None), TLS12)
hello("test-empty-extensions", "TLS 1.2: an empty list", "refused|served",
      lambda hello: hello.set(extensions=[]), TLS12)
for kind, name in (
    (Ext.server_name, "server_name"),
    (Ext.supported_groups, "supported_groups"),
    (Ext.signature_algorithms, "signature_algorithms"),
    (Ext.alpn, "application_layer_protocol_negotiation"),
    (Ext.key_share, "key_share"),
    (Ext.psk_key_exchange_modes, "psk_key_exchange_modes"),
    (Ext.ec_point_formats, "ec_point_formats"),
    (Ext.cookie, "cookie"),
    (Ext.pre_shared_key, "pre_shared_key"),
):
    version = TLS12 if kind == Ext.ec_point_formats else TLS13
    hello("test-empty-extensions", f"{name} without a body", "decode_error", put(kind), version)


def greased(hello):
    hello.ciphers.insert(0, GREASE)
    hello.put(Ext.supported_groups, vec(2, u16s(GREASE, Group.x25519)))
    hello.put(Ext.signature_algorithms, vec(2, u16s(GREASE, ECDSA_P256)))
    hello.put(Ext.alpn, vec(2, vec(1, b"\x3a\x3a") + vec(1, b"http/1.1")))
    hello.extensions.insert(0, (GREASE, b""))
    hello.add(0x4A4A, b"\0")


hello("test-tls13-unrecognised-groups", "GREASE wherever there is a list", "served", greased)
hello("test-extensions", "TLS 1.2: GREASE wherever there is a list", "served", greased, TLS12)
for kind, name, data in (
    (1, "max_fragment_length", b"\1"),
    (5, "status_request", b"\1\0\0\0\0"),
    (15, "heartbeat", b"\1"),
    (18, "signed_certificate_timestamp", b""),
    (22, "encrypt_then_mac", b""),
    (27, "compress_certificate", b"\2\0\2"),
    (28, "record_size_limit", b"\x40\1"),
    (49, "post_handshake_auth", b""),
    (13172, "next_protocol_negotiation", b""),
    (17513, "application_settings", b"\0\3\2h2"),
):
    hello("test-extensions", f"{name} is not needed", "served", put(kind, data))

# Server names (RFC 6066 §3).

NAMES = "test-invalid-server-name-extension"


def server_names(*entries):
    return put(Ext.server_name, vec(2, b"".join(bytes([t]) + vec(2, name) for t, name in entries)))


hello(NAMES, "none", "served", lambda hello: hello.drop(Ext.server_name))
hello(NAMES, "one no certificate has", "served", server_names((0, b"other.test")))
hello(NAMES, "in capitals", "served", server_names((0, b"LOCALHOST")))
hello(NAMES, "an empty list", "decode_error|illegal_parameter", server_names())
hello(NAMES, "an empty name", "refused", server_names((0, b"")))
hello(NAMES, "two names", "decode_error|illegal_parameter", server_names((0, HOST), (0, b"b.test")))
hello(NAMES, "a name with a zero byte", "refused", server_names((0, b"local\0host")))
hello(NAMES, "a name not in ASCII", "refused", server_names((0, "löcalhost".encode())))
hello(NAMES, "an address", "served|refused", server_names((0, b"127.0.0.1")))
hello(NAMES, "a dot at the end", "served|refused", server_names((0, b"localhost.")))
hello(NAMES, "a name of 64 KB", "refused", server_names((0, b"a" * 65000)))
hello(NAMES, "a name of 300 bytes", "served|refused", server_names((0, b"a." * 150 + b"a")))
hello(NAMES, "a type unheard of", "served|refused", server_names((7, HOST)))
hello(NAMES, "a type unheard of behind a name", "served|refused", server_names((0, HOST), (7, b"x")))
hello(NAMES, "a list longer than what there is", "decode_error",
      put(Ext.server_name, b"\0\xff\0\0\x09localhost"))
hello(NAMES, "a name longer than what there is", "decode_error",
      put(Ext.server_name, b"\0\x0c\0\0\xfflocalhost"))
hello(NAMES, "a byte behind the list", "decode_error",
      put(Ext.server_name, vec(2, b"\0" + vec(2, HOST)) + b"\0"))

# Protocols (RFC 7301).

ALPN = "test-alpn-negotiation"


def protocols(*names):
    return put(Ext.alpn, vec(2, b"".join(vec(1, name) for name in names)))


for label, version in BOTH:
    for names in ((b"http/1.1",), (b"h2", b"http/1.1"), (b"http/1.1", b"h2")):
        what = f"TLS {label}: {' and '.join(name.decode() for name in names)}"

        @case(ALPN, f"{what}: http/1.1 is agreed on", "served")
        def _(client, version=version, names=names):
            protocols(*names)(made := Hello(version))
            client.shake(made, version)
            source = client.encrypted if version == TLS13 else client.server_hello_bytes
            assert vec(2, vec(1, b"http/1.1")) in source, "another"
            return client.get()

    for names in ((b"h2",), (b"HTTP/1.1",), (b"http/1.0", b"spdy/3")):
        what = f"TLS {label}: only {' and '.join(name.decode() for name in names)}"
        hello(ALPN, what, "no_application_protocol", protocols(*names), version)
    hello(ALPN, f"TLS {label}: an empty list", "decode_error|illegal_parameter", protocols(), version)
    hello(ALPN, f"TLS {label}: an empty name", "decode_error|illegal_parameter",
          protocols(b"", b"http/1.1"), version)
    hello(ALPN, f"TLS {label}: a name longer than what there is", "decode_error",
          put(Ext.alpn, b"\0\x03\x08h2"), version)
    hello(ALPN, f"TLS {label}: a byte behind the list", "decode_error",
          put(Ext.alpn, vec(2, vec(1, b"http/1.1")) + b"\0"), version)
hello(ALPN, "5000 protocols, the last is http/1.1", "served",
      protocols(*[b"p%06d" % n for n in range(5000)], b"http/1.1"))

# Signature algorithms.

for label, version in BOTH:
    script = "test-tls13-signature-algorithms" if version == TLS13 else "test-sig-algs"

    def algorithms(*values):
        return put(Ext.signature_algorithms, vec(2, u16s(*values)))

    expected = "missing_extension" if version == TLS13 else "handshake_failure|missing_extension"
    hello(script, f"TLS {label}: none sent", expected,
          lambda hello: hello.drop(Ext.signature_algorithms), version,
          known=NOT_MISSING if version == TLS13 else None)
    for what, values in (
        ("unknown ones", (GREASE, 0xFEFE)),
        ("RSA, which has no key", (RSA_PSS_SHA256, 0x0401, 0x0805)),
        ("SHA-1", (ECDSA_SHA1, 0x0201)),
        ("MD5", (0x0103, 0x0101)),
    ):
        hello(script, f"TLS {label}: only {what}", "handshake_failure", algorithms(*values), version)
    hello(script, f"TLS {label}: an empty list", "decode_error|illegal_parameter", algorithms(), version)
    hello(script, f"TLS {label}: half of one", "decode_error",
          put(Ext.signature_algorithms, vec(2, u16s(ECDSA_P256) + b"\4")), version)
    hello(script, f"TLS {label}: 2000, the last is known", "served",
          algorithms(*range(0xE000, 0xE000 + 2000), ECDSA_P256), version)
