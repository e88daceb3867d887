"""The order of messages, and what is in them."""
from tlslite.constants import ExtensionType as Ext

from case import case, hello
from client import CCS, DATA, FINISHED, GET, HANDSHAKE, KEY_EXCHANGE, KEY_UPDATE
from hello import TLS12, TLS13, Hello, message, vec

BOTH = (("1.2", TLS12), ("1.3", TLS13))


def put(kind, data=b""):
    return lambda hello: hello.put(kind, data)


def flip(position):
    def change(data):
        data = bytearray(data)
        data[position] ^= 1
        return bytes(data)

    return change


def to_finished(client, version):
    """Up to the Finished, which is returned."""
    client.greet(Hello(version), version)
    if version == TLS13:
        return client.finished13()
    client.key_exchange()
    client.change_cipher()
    return client.finished12()


for label, version in BOTH:
    script = "test-tls13-finished" if version == TLS13 else "test-fuzzed-finished"
    for what, change, expected in (
        ("its first bit", flip(4), "decrypt_error"),
        ("its last bit", flip(-1), "decrypt_error"),
        ("zeros", lambda data: message(FINISHED, bytes(len(data) - 4)), "decrypt_error"),
        ("nothing in it", lambda data: message(FINISHED, b""), "decode_error|decrypt_error"),
        ("a byte less", lambda data: message(FINISHED, data[4:-1]), "decode_error|decrypt_error"),
        ("a byte more", lambda data: message(FINISHED, data[4:] + b"\0"), "decode_error|decrypt_error"),
        ("64 KB more", lambda data: message(FINISHED, data[4:] + bytes(0xFF00)), "refused"),
    ):

        @case(script, f"TLS {label}: {what}", expected)
        def _(client, version=version, change=change):
            data = change(to_finished(client, version))
            for start in range(0, len(data), 1 << 14):
                client.send(HANDSHAKE, data[start : start + (1 << 14)])

    @case("test-message-duplication", f"TLS {label}: a second ClientHello",
          "unexpected_message|bad_record_mac")
    def _(client, version=version):
        made = Hello(version)
        client.say(made)
        client.send(HANDSHAKE, made.write())
        client.read_server_hello()
        client.greeted()

    for kind, what in (
        (0, "HelloRequest"), (1, "ClientHello"), (2, "ServerHello"), (4, "NewSessionTicket"),
        (5, "EndOfEarlyData"), (8, "EncryptedExtensions"), (11, "Certificate"),
        (13, "CertificateRequest"), (15, "CertificateVerify"), (20, "Finished"), (254, "message_hash"),
        (99, "one unheard of"),
    ):
        script = "test-hello-request-by-client" if kind == 0 else "test-message-skipping"
        if kind != FINISHED:

            @case(script, f"TLS {label}: {what} in place of a Finished",
                  "unexpected_message|decode_error")
            def _(client, version=version, kind=kind):
                size = len(to_finished(client, version)) - 4
                client.send(HANDSHAKE, message(kind, bytes(size)))

        if (kind, version) == (1, TLS12):
            continue

        @case(script, f"TLS {label}: {what} after the handshake", "unexpected_message|decode_error")
        def _(client, version=version, kind=kind):
            client.settle(Hello(version), version)
            client.send(HANDSHAKE, message(kind, bytes(32)))


# TLS 1.2's change of keys.

CHANGES = "test-ccs"
for what, data, expected in (
    ("of nothing", b"", "unexpected_message|decode_error|illegal_parameter"),
    ("with a two in it", b"\2", "unexpected_message|decode_error|illegal_parameter"),
    ("of two bytes", b"\1\1", "unexpected_message|decode_error|illegal_parameter"),
):

    @case(CHANGES, f"TLS 1.2: one {what}", expected)
    def _(client, data=data):
        client.greet(Hello(TLS12), TLS12)
        client.key_exchange()
        client.send(CCS, data)


@case(CHANGES, "TLS 1.2: in place of a ClientHello", "unexpected_message")
def _(client):
    client.send(CCS, b"\1")
    client.shake(Hello(TLS12), TLS12)
    return client.get()


@case(CHANGES, "TLS 1.2: before the ClientKeyExchange (CVE-2014-0224)", "unexpected_message")
def _(client):
    client.greet(Hello(TLS12), TLS12)
    client.send(CCS, b"\1")
    client.key_exchange()
    client.change_cipher()
    client.handshake(client.finished12())


@case(CHANGES, "TLS 1.2: twice", "refused")
def _(client):
    client.greet(Hello(TLS12), TLS12)
    client.key_exchange()
    client.send(CCS, b"\1")
    client.send(CCS, b"\1")


@case(CHANGES, "TLS 1.2: after the handshake", "unexpected_message|decode_error")
def _(client):
    client.settle(Hello(TLS12), TLS12)
    client.send(CCS, b"\1")


@case("test-message-skipping", "TLS 1.2: no ClientKeyExchange", "unexpected_message")
def _(client):
    client.greet(Hello(TLS12), TLS12)
    client.send(HANDSHAKE, message(FINISHED, bytes(12)))


@case("test-message-skipping", "TLS 1.2: no change of keys", "unexpected_message")
def _(client):
    client.greet(Hello(TLS12), TLS12)
    client.key_exchange()
    client.send(HANDSHAKE, client.finished12())


@case("test-message-duplication", "TLS 1.2: a second ClientKeyExchange", "unexpected_message")
def _(client):
    client.greet(Hello(TLS12), TLS12)
    client.key_exchange()
    client.send(HANDSHAKE, message(KEY_EXCHANGE, vec(1, bytes(32))))


# TLS 1.3's, which means nothing (RFC 8446 §5).

CHANGES13, MANY = "test-tls13-ccs", "test-cve-2020-25648"


@case(CHANGES13, "in place of a ClientHello", "unexpected_message")
def _(client):
    client.send(CCS, b"\1")
    client.shake(Hello())
    return client.get()


@case(CHANGES13, "before the Finished", "served")
def _(client):
    client.greet(Hello())
    client.send(CCS, b"\1")
    return client.finish().get()


@case(MANY, "100 before the Finished", "refused")
def _(client):
    client.greet(Hello())
    for _ in range(100):
        client.send(CCS, b"\1")
    return client.finish().get()


for what, data in (("of nothing", b""), ("with a two in it", b"\2"), ("of two bytes", b"\1\1")):

    @case(CHANGES13, f"one {what}", "unexpected_message|decode_error|illegal_parameter")
    def _(client, data=data):
        client.greet(Hello())
        client.send(CCS, data)


@case(CHANGES13, "encrypted", "unexpected_message")
def _(client):
    client.greet(Hello())
    # The record layer by itself would not encrypt it.
    sealed = client.records._encryptThenSeal(bytearray(b"\1\x14"), DATA)
    client.raw(b"\x17\3\3" + vec(2, sealed))


@case(CHANGES13, "after the handshake", "unexpected_message")
def _(client):
    client.settle(Hello())
    client.send(CCS, b"\1")


# Renegotiation.

RENEGOTIATION = "test-renegotiation-disabled"


@case(RENEGOTIATION, "TLS 1.2: a ClientHello after the handshake", "no_renegotiation|refused")
def _(client):
    client.settle(Hello(TLS12), TLS12)
    client.send(HANDSHAKE, Hello(TLS12).write())
    client.send(DATA, GET)
    client.answer()
    # A warning leaves the connection as it was.
    assert client.warnings == ["no_renegotiation"], f"warned of {client.warnings}"
    return "no_renegotiation"


@case(RENEGOTIATION, "TLS 1.2: 100 of them", "refused|closed")
def _(client):
    client.settle(Hello(TLS12), TLS12)
    whole = Hello(TLS12).write()
    for _ in range(100):
        client.send(HANDSHAKE, whole)


@case(RENEGOTIATION, "TLS 1.3: a ClientHello after the handshake", "unexpected_message")
def _(client):
    client.settle(Hello())
    client.send(HANDSHAKE, Hello().write())


LEGACY = "test-legacy-renegotiation"
hello(LEGACY, "TLS 1.2: renegotiation_info with something in it", "handshake_failure",
      put(Ext.renegotiation_info, vec(1, bytes(12))), TLS12,
      known="rustls does not look into it (RFC 5746 §3.6 has it look), and never renegotiates")
hello(LEGACY, "TLS 1.2: no renegotiation_info", "served",
      lambda hello: hello.drop(Ext.renegotiation_info), TLS12)


@case(LEGACY, "TLS 1.2: the SCSV is answered with the extension", "served")
def _(client):
    made = Hello(TLS12).drop(Ext.renegotiation_info)
    made.ciphers.append(0x00FF)
    client.shake(made, TLS12)
    assert client.server_hello.getExtension(Ext.renegotiation_info) is not None, "it is not"
    return client.get()


# Extended master secret (RFC 7627).

EMS = "test-extended-master-secret-extension"
hello(EMS, "TLS 1.2: not offered", "served",
      lambda hello: hello.drop(Ext.extended_master_secret), TLS12)
hello(EMS, "TLS 1.2: with something in it", "decode_error|illegal_parameter|served",
      put(Ext.extended_master_secret, b"\0"), TLS12)


@case(EMS, "TLS 1.2: is answered", "served")
def _(client):
    client.shake(Hello(TLS12), TLS12)
    assert client.server_hello.getExtension(Ext.extended_master_secret) is not None, "it is not"
    return client.get()


# Keys.

UPDATES = "test-tls13-keyupdate"


@case(UPDATES, "one", "served")
def _(client):
    client.shake(Hello()).update_keys()
    assert client.get() == "served" and client.updates == 0, "an answer nobody asked for"
    return client.get()


@case(UPDATES, "one that asks for another", "served")
def _(client):
    client.shake(Hello()).update_keys(1)
    assert client.get() == "served" and client.updates == 1, "no answer"
    return client.get()


@case(UPDATES, "20, each before a request", "served")
def _(client):
    client.shake(Hello())
    for _ in range(20):
        client.update_keys()
        assert client.get() == "served", "not served"
    return "served"


@case(UPDATES, "2000 at once that each ask for another", "any")
def _(client):
    client.shake(Hello())
    client.raw(b"".join(updates(client, 2000)))
    return client.get()


def updates(client, count):
    for _ in range(count):
        client.wire.held = []
        client.update_keys(1)
        yield from client.wire.held
    client.wire.held = None


for what, data, expected in (
    ("a request unheard of", b"\2", "illegal_parameter|decode_error"),
    ("nothing in it", b"", "decode_error"),
    ("a byte more", b"\0\0", "decode_error"),
):

    @case(UPDATES, what, expected)
    def _(client, data=data):
        client.settle(Hello()).send(HANDSHAKE, message(KEY_UPDATE, data))


@case(UPDATES, "more in the same record", "unexpected_message")
def _(client):
    client.settle(Hello()).send(HANDSHAKE, message(KEY_UPDATE, b"\0") * 2)


@case(UPDATES, "before the Finished", "unexpected_message")
def _(client):
    client.greet(Hello())
    client.send(HANDSHAKE, message(KEY_UPDATE, b"\0"))


@case(UPDATES, "TLS 1.2 has none", "unexpected_message|decode_error")
def _(client):
    client.settle(Hello(TLS12), TLS12)
    client.send(HANDSHAKE, message(KEY_UPDATE, b"\0"))


@case("test-tls13-certificate-request", "a Certificate nobody asked for", "unexpected_message")
def _(client):
    client.greet(Hello())
    client.send(HANDSHAKE, message(11, b"\0\0\0\0"))


@case("test-certificate-request", "TLS 1.2: a Certificate nobody asked for", "unexpected_message")
def _(client):
    client.greet(Hello(TLS12), TLS12)
    client.send(HANDSHAKE, message(11, b"\0\0\0"))
