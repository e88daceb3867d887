"""Groups and what is sent of them."""
from tlslite.constants import ExtensionType as Ext
from tlslite.constants import GroupName as Group

from case import NO_ALERT, NOT_MISSING, case, hello
from client import CCS, HANDSHAKE, KEY_EXCHANGE, RETRY
from hello import GREASE, TLS12, TLS13, Hello, message, shares, u16s, vec

X25519, P256, P384, HYBRID = Group.x25519, Group.secp256r1, Group.secp384r1, Group.x25519mlkem768
SHARES, RETRIES = "test-tls13-keyshare-omitted", "test-tls13-hrr"
# The prime of P-256 has no point with this x.
OFF_CURVE = b"\4" + (5).to_bytes(32, "big") + (1).to_bytes(32, "big")


def put(kind, data=b""):
    return lambda hello: hello.put(kind, data)


def groups(*values):
    return put(Ext.supported_groups, vec(2, u16s(*values)))


def share(group, data, *more):
    def change(hello):
        groups(group)(hello)
        hello.put(Ext.key_share, shares((group, data), *more))

    return change


for group, name, script in (
    (X25519, "x25519", "test-tls13-crfg-curves"),
    (P256, "secp256r1", "test-tls13-ecdhe-curves"),
    (P384, "secp384r1", "test-tls13-ecdhe-curves"),
    (HYBRID, "X25519MLKEM768", "test-tls13-mlkem"),
):

    @case(script, f"{name} is spoken", "served")
    def _(client, group=group):
        client.shake(Hello(groups=(group,)))
        return client.get()

    if group == HYBRID:
        continue

    @case(RETRIES, f"no share, a retry with {name}", "served")
    def _(client, group=group):
        made = Hello(groups=(group,))
        made.put(Ext.key_share, shares())
        client.shake(made)
        return client.get()

    @case("test-x25519" if group == X25519 else "test-ecdhe-rsa-key-exchange",
          f"TLS 1.2: {name} is spoken", "served")
    def _(client, group=group):
        client.shake(Hello(TLS12, groups=(group,)), TLS12)
        return client.get()


@case(SHARES, "X25519MLKEM768 is taken where it is listed first", "served")
def _(client):
    client.greet(Hello(groups=(HYBRID, X25519, P256)))
    chosen = client.server_hello.getExtension(Ext.key_share).server_share.group
    assert chosen == HYBRID, f"group {chosen}"
    client.finish()
    return client.get()


@case("test-no-mlkem-in-old-tls", "TLS 1.2: X25519MLKEM768 is not chosen", "served")
def _(client):
    made = Hello(TLS12)
    groups(HYBRID, X25519)(made)
    client.shake(made, TLS12)
    assert client.group == X25519, f"group {client.group}"
    return client.get()


hello("test-no-mlkem-in-old-tls", "TLS 1.2: X25519MLKEM768 only", "handshake_failure",
      groups(HYBRID), TLS12)
hello(SHARES, "no key_share", "missing_extension", lambda hello: hello.drop(Ext.key_share),
      known=NOT_MISSING)
hello(SHARES, "no supported_groups", "missing_extension",
      lambda hello: hello.drop(Ext.supported_groups), known=NOT_MISSING)
hello(SHARES, "neither", "missing_extension",
      lambda hello: hello.drop(Ext.key_share).drop(Ext.supported_groups), known=NOT_MISSING)
hello(SHARES, "no list of groups", "decode_error|illegal_parameter", groups())
hello("test-tls13-unrecognised-groups", "only groups unheard of", "handshake_failure",
      lambda hello: (groups(GREASE, 0x6B6B)(hello), hello.put(Ext.key_share, shares((GREASE, b"x")))))
hello("test-tls13-unrecognised-groups", "a share unheard of before one that is known", "served",
      lambda hello: (groups(GREASE, X25519)(hello),
                     hello.put(Ext.key_share, shares((GREASE, b"x"), (X25519, hello.key(X25519))))))
hello("test-tls13-unrecognised-groups", "a share unheard of, a retry", "served",
      lambda hello: (groups(GREASE, X25519)(hello), hello.put(Ext.key_share, shares((GREASE, b"x")))))
hello("test-tls13-obsolete-curves", "only obsolete groups", "handshake_failure",
      lambda hello: (groups(1, 9, 14, 19, 22)(hello), hello.put(Ext.key_share, shares((19, bytes(49))))))
hello("test-tls13-ffdhe-groups", "only finite fields", "handshake_failure",
      lambda hello: (groups(256, 257)(hello), hello.put(Ext.key_share, shares((256, b"\2" * 256)))))
hello("test-unsupported-curve-fallback", "TLS 1.2: only groups unheard of", "handshake_failure",
      groups(1, 22, GREASE), TLS12)
hello("test-unsupported-curve-fallback", "TLS 1.2: no supported_groups", "served|refused",
      lambda hello: hello.drop(Ext.supported_groups), TLS12)
hello(SHARES, "the same share twice", "illegal_parameter",
      lambda hello: share(X25519, hello.key(X25519), (X25519, hello.key(X25519)))(hello))
hello(SHARES, "a share of a group that is not listed", "illegal_parameter|served",
      lambda hello: hello.put(
          Ext.key_share, shares((P256, hello.key(P256)), (X25519, hello.key(X25519)))))
hello(SHARES, "a list longer than what there is", "decode_error", put(Ext.key_share, b"\0\xff\0\x1d"))
hello(SHARES, "a share longer than what there is", "decode_error",
      put(Ext.key_share, b"\0\x05\0\x1d\0\x20x"))
hello(SHARES, "a byte behind the list", "decode_error",
      lambda hello: hello.put(Ext.key_share, shares((X25519, hello.key(X25519))) + b"\0"))

CURVES = "test-tls13-crfg-curves"
for what, data in (
    ("zeros", bytes(32)),
    ("a point of order 1", b"\1" + bytes(31)),
    ("a point of order 8", bytes.fromhex(
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800")),
    ("another point of order 8", bytes.fromhex(
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157")),
    ("the prime, which is zero", bytes.fromhex("ed" + "ff" * 30 + "7f")),
):
    hello(CURVES, f"x25519: {what}", "illegal_parameter", share(X25519, data))
for size in (0, 1, 31, 33, 64):
    expected = "decode_error|illegal_parameter"
    hello(CURVES, f"x25519: {size} bytes", expected, share(X25519, b"\x09" * size))

POINTS = "test-tls13-ecdhe-curves"
for what, data in (
    ("not on the curve", OFF_CURVE),
    ("zeros", b"\4" + bytes(64)),
    ("coordinates above the prime", b"\4" + b"\xff" * 64),
    ("infinity", b"\0"),
    ("compressed", b"\2" + (3).to_bytes(32, "big")),
    ("hybrid form", b"\6" + OFF_CURVE[1:]),
    ("nothing", b""),
    ("a byte short", OFF_CURVE[:-1]),
    ("a byte long", OFF_CURVE + b"\0"),
):
    hello(POINTS, f"secp256r1: {what}", "illegal_parameter|decode_error", share(P256, data))


def hybrid(change):
    def run(hello):
        share(HYBRID, change(hello.key(HYBRID)))(hello)

    return run


HYBRIDS = "test-tls13-mlkem"
for what, change in (
    ("nothing", lambda data: b""),
    ("a byte short", lambda data: data[:-1]),
    ("a byte long", lambda data: data + b"\0"),
    ("only the half of ML-KEM", lambda data: data[:1184]),
    ("only the half of x25519", lambda data: data[1184:]),
    ("coefficients above the modulus", lambda data: b"\xff" * 1152 + data[1152:]),
    ("x25519 of zeros", lambda data: data[:1184] + bytes(32)),
    ("the halves in the other order", lambda data: b"\xff" * 32 + data[:1184]),
):
    hello(HYBRIDS, f"X25519MLKEM768: {what}", "illegal_parameter|decode_error", hybrid(change))

# The second ClientHello.


def retried(change, group=P256):
    def run(client):
        made = Hello(groups=(group,))
        made.put(Ext.key_share, shares())
        client.say(made)
        client.read_server_hello()
        assert client.server_hello.random == RETRY, "no retry"
        client.retry(change)
        client.read_server_hello()
        assert client.server_hello.random != RETRY, "a second retry"
        return "served"

    return run


case(RETRIES, "the second has no share", "illegal_parameter")(
    retried(lambda hello: hello.put(Ext.key_share, shares())))
case(RETRIES, "the second has no key_share", "missing_extension|illegal_parameter", NOT_MISSING)(
    retried(lambda hello: hello.drop(Ext.key_share)))
# RFC 8446 §4.2.8 forbids it to clients and has no server look.
case(RETRIES, "the second has a share of another group", "illegal_parameter|served")(
    retried(lambda hello: share(X25519, hello.key(X25519))(hello)))
case(RETRIES, "the second has other suites", "illegal_parameter|handshake_failure")(
    retried(lambda hello: hello.set(ciphers=[0x1303])))
case(RETRIES, "the second is TLS 1.2's", "refused")(
    retried(lambda hello: hello.drop(Ext.supported_versions)))
case(RETRIES, "the second's point is not on the curve", "illegal_parameter")(
    retried(lambda hello: hello.put(Ext.key_share, shares((P256, OFF_CURVE)))))


@case(RETRIES, "a change of keys before the second is nothing", "served")
def _(client):
    made = Hello(groups=(P256,))
    made.put(Ext.key_share, shares())
    client.say(made)
    client.read_server_hello()
    client.send(CCS, b"\1")
    client.retry()
    client.read_server_hello()
    client.greeted()
    client.finish()
    return client.get()


@case(RETRIES, "something else than the second", "unexpected_message")
def _(client):
    made = Hello()
    made.put(Ext.key_share, shares())
    client.say(made)
    client.read_server_hello()
    client.send(HANDSHAKE, message(20, bytes(32)))


# TLS 1.2's ClientKeyExchange.

EXCHANGES = "test-ecdhe-rsa-key-exchange-with-bad-messages"
for group, what, body, expected, known in (
    (P256, "a point not on the curve", vec(1, OFF_CURVE), "illegal_parameter", None),
    (P256, "infinity", vec(1, b"\0"), "illegal_parameter|decode_error", None),
    (P256, "an empty point", vec(1, b""), "illegal_parameter|decode_error", NO_ALERT),
    (P256, "a byte behind the point", vec(1, OFF_CURVE) + b"\0", "decode_error", None),
    (P256, "a point longer than what there is", b"\xff" + OFF_CURVE, "decode_error", NO_ALERT),
    (P256, "nothing", b"", "decode_error", NO_ALERT),
    (X25519, "zeros", vec(1, bytes(32)), "illegal_parameter", None),
    (X25519, "31 bytes", vec(1, b"\x09" * 31), "illegal_parameter|decode_error", None),
):
    name = "x25519" if group == X25519 else "secp256r1"

    @case(EXCHANGES, f"TLS 1.2, {name}: {what}", expected, known)
    def _(client, group=group, body=body):
        client.greet(Hello(TLS12, groups=(group,)), TLS12)
        client.send(HANDSHAKE, message(KEY_EXCHANGE, body))
        # Some look at the key only when it is needed.
        client.send(CCS, b"\1")


for what, formats, expected in (
    ("only compressed points", b"\1\2", "illegal_parameter|handshake_failure|served"),
    ("all forms", b"\0\1\2", "served"),
    ("no forms", b"", "decode_error|illegal_parameter|served"),
):
    hello("test-point-extension", f"TLS 1.2: {what}", expected,
          put(Ext.ec_point_formats, vec(1, formats)), TLS12)
