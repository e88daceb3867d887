"""Records: their limits, their kinds, and what has been done to them."""
import time

from tlslite.constants import ExtensionType as Ext

from case import NO_ALERT, case
from client import ALERT, CCS, DATA, GET, HANDSHAKE, Client, Ended
from hello import TLS12, TLS13, Hello, message, vec

LIMIT = 1 << 14
BOTH = (("1.2", TLS12), ("1.3", TLS13))
LIMITS, FRAGMENTS = "test-tls13-record-layer-limits", "test-record-layer-fragmentation"


def shaken(client, version=TLS13):
    return client.settle(Hello(version), version)


def each(script, what, expected, known=None):
    """The case with each version; it is given the client after the handshake."""

    def add(run):
        for label, version in BOTH:

            @case(script, f"TLS {label}: {what}", expected, known)
            def _(client, version=version):
                return run(shaken(client, version))

        return run

    return add


def post(size):
    """A request of so many bytes."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %05d\r\n\r\n"
    body = size - len(head % 0)
    return head % body + b"x" * body


# Limits.


@case("test-invalid-client-hello-w-record-overflow", "a ClientHello in a record too large",
      "record_overflow|decode_error",
      "rustls lets records that are not encrypted be 2048 bytes larger")
def _(client):
    client.hello = Hello().add(21, bytes(LIMIT))
    data = client.hello.write()
    client.hashes.update(bytearray(data))
    client.send(HANDSHAKE, data)
    client.read_server_hello()
    return client.greeted().finish().get()


@case("test-invalid-client-hello-w-record-overflow", "a record of 65535 bytes",
      "record_overflow|decode_error")
def _(client):
    client.raw(b"\x16\3\1\xff\xff" + bytes(0xFFFF))


@case("test-client-hello-max-size", "a ClientHello of 16 MB, as announced", "refused")
def _(client):
    client.send(HANDSHAKE, b"\1\xff\xff\xff" + bytes(LIMIT - 4))
    # It must not be waited for.
    for _ in range(8):
        client.send(HANDSHAKE, bytes(LIMIT))


@case("test-cve-2016-6309", "a ClientHello of 64 KB and one byte", "refused")
def _(client):
    body = Hello().body()
    whole = message(1, body + bytes(0x10000 - len(body)))
    for start in range(0, len(whole), LIMIT):
        client.send(HANDSHAKE, whole[start : start + LIMIT])


@each(LIMITS, "a record of 2^14 bytes", "served")
def _(client):
    client.send(DATA, post(LIMIT))
    return client.answer()


@each(LIMITS, "a record of 2^14 + 1 bytes", "record_overflow")
def _(client):
    client.send(DATA, post(LIMIT + 1))


@each(LIMITS, "a record of 2^14 + 2048 bytes", "record_overflow",
      "rustls says decode_error; RFC 8446 §5.2 has it say record_overflow")
def _(client):
    client.send(DATA, post(LIMIT + 2048))


@each(LIMITS, "a record that is announced and never whole", "closed")
def _(client):
    client.raw(b"\x17\3\3\x40\0" + bytes(100))
    client.end_of_stream()


@each("test-zero-length-data", "records of nothing before a request", "served")
def _(client):
    for _ in range(20):
        client.send(DATA, b"")
    return client.get()


@each("test-zero-length-data", "records of nothing within a request", "served")
def _(client):
    for byte in GET:
        client.send(DATA, b"")
        client.send(DATA, bytes([byte]))
    return client.answer()


for size in (0, 1, 255, LIMIT - len(GET)):

    @case("test-tls13-record-padding", f"{size} bytes of padding", "served")
    def _(client, size=size):
        shaken(client).records.padding_cb = lambda *_: size
        return client.get()


@case("test-tls13-record-padding", "padding above the limit", "record_overflow")
def _(client):
    shaken(client).records.padding_cb = lambda *_: LIMIT
    client.send(DATA, GET)


@case("test-tls13-zero-content-type", "nothing but padding", "unexpected_message", NO_ALERT)
def _(client):
    shaken(client).send(0, bytes(100))


@case("test-tls13-zero-content-type", "nothing at all", "unexpected_message", NO_ALERT)
def _(client):
    shaken(client).send(0, b"")


# Pieces.


@case(FRAGMENTS, "a ClientHello byte by byte, in one record", "served")
def _(client):
    made = Hello()
    client.wire.held = []
    client.say(made)
    (whole,), client.wire.held = client.wire.held, None
    for byte in whole:
        client.raw(bytes([byte]))
    client.read_server_hello()
    client.greeted()
    client.finish()
    return client.get()


for label, version in BOTH:
    for size in (1, 2, 3, 50):

        @case(FRAGMENTS, f"TLS {label}: a ClientHello in records of {size}", "served")
        def _(client, version=version, size=size):
            split(client, size)
            client.greet(Hello(version), version)
            return client.finish().get()

    @case(FRAGMENTS, f"TLS {label}: a Finished in records of one byte", "served")
    def _(client, version=version):
        client.greet(Hello(version), version)
        if version == TLS12:
            client.key_exchange()
            client.change_cipher()
            split(client, 1)
            client.handshake(client.finished12())
            client.read_end12()
        else:
            split(client, 1)
            client.finish()
        return client.get()

    @case(FRAGMENTS, f"TLS {label}: a handshake record of nothing", "refused")
    def _(client, version=version):
        client.send(HANDSHAKE, b"")
        client.greet(Hello(version), version)
        return client.finish().get()


def split(client, size):
    """The next handshake message is sent in so many records."""
    plain = type(client).send

    def send(kind, data):
        if kind != HANDSHAKE:
            return plain(client, kind, data)
        del client.send
        for start in range(0, len(data), size):
            plain(client, kind, data[start : start + size])

    client.send = send


@each(FRAGMENTS, "a request in records of one byte", "served")
def _(client):
    for byte in GET:
        client.send(DATA, bytes([byte]))
    return client.answer()


@each(FRAGMENTS, "40 records in one segment", "served")
def _(client):
    client.raw(b"".join(client.sent_as(DATA, bytes([byte])) for byte in GET))
    return client.answer()


# Kinds.

KINDS = "test-invalid-content-type"
for kind in (0, 19, 24, 25, 128, 255):
    # An SSLv2 hello for all that the first byte says.
    expected = "unexpected_message|decode_error" if kind < 128 else "refused"

    @case(KINDS, f"{kind} before the handshake", expected)
    def _(client, kind=kind):
        client.raw(bytes([kind]) + b"\3\1" + vec(2, Hello().write()))

    @each(KINDS, f"{kind} after the handshake", "unexpected_message|decode_error")
    def _(client, kind=kind):
        client.send(kind, b"hello")


@case(KINDS, "TLS 1.3: another kind outside of an encrypted record", "served|refused")
def _(client):
    shaken(client).wire.change = lambda data: b"\x16" + data[1:]
    return client.get()


@case("test-early-application-data", "data in place of a ClientHello", "unexpected_message|decode_error")
def _(client):
    client.send(DATA, GET)


@case("test-early-application-data", "TLS 1.2: data before the keys change", "unexpected_message")
def _(client):
    client.greet(Hello(TLS12), TLS12)
    client.send(DATA, GET)


@case("test-early-application-data", "TLS 1.2: data before the Finished", "unexpected_message")
def _(client):
    client.greet(Hello(TLS12), TLS12)
    client.key_exchange()
    client.change_cipher()
    client.send(DATA, GET)


@case("test-early-application-data", "TLS 1.3: data before the Finished", "unexpected_message")
def _(client):
    client.greet(Hello())
    client.send(DATA, GET)


@case("test-tls13-finished-plaintext", "a Finished that is not encrypted", "refused")
def _(client):
    client.greet(Hello())
    client.raw(b"\x16\3\3" + vec(2, client.finished13()))


@each("test-heartbeat", "a heartbeat after the handshake", "unexpected_message|decode_error")
def _(client):
    # What heartbleed asked for: 16 KB of one byte.
    client.send(24, b"\1\x40\0x")


@case("test-no-heartbeat", "the extension is not answered", "served")
def _(client):
    made = Hello(TLS12)
    made.put(Ext.heartbeat, b"\1")
    client.shake(made, TLS12)
    assert client.server_hello.getExtension(Ext.heartbeat) is None, "it is"
    return client.get()


@case("test-heartbeat", "a heartbeat before the handshake", "refused")
def _(client):
    client.raw(b"\x18\3\1\0\3\1\x40\0")


# Between the parts of a message.

for what, kind, data in (
    ("data", DATA, b"x"),
    ("a change of keys", CCS, b"\1"),
    ("an alert", ALERT, b"\1\x5a"),
):

    @case("test-interleaved-application-data-in-renegotiation",
          f"{what} between the halves of a ClientHello", "unexpected_message|decode_error", NO_ALERT)
    def _(client, kind=kind, data=data):
        whole = Hello().write()
        client.send(HANDSHAKE, whole[:60])
        client.send(kind, data)
        client.send(HANDSHAKE, whole[60:])

    @case("test-interleaved-CKE-with-CCS",
          f"TLS 1.2: {what} between the halves of a ClientKeyExchange",
          "unexpected_message|decode_error", NO_ALERT)
    def _(client, kind=kind, data=data):
        client.greet(Hello(TLS12), TLS12)
        client.send(HANDSHAKE, message(16, b"\x20" + bytes(32))[:10])
        client.send(kind, data)
        client.send(HANDSHAKE, bytes(27))


@case("test-tls13-keyupdate", "data between the halves of a KeyUpdate", "unexpected_message",
      NO_ALERT)
def _(client):
    shaken(client).send(HANDSHAKE, b"\x18\0")
    client.send(DATA, GET)
    client.send(HANDSHAKE, b"\0\1\0")


@case("test-tls13-record-layer-limits", "a ClientHello and more in the same record",
      "unexpected_message|decode_error")
def _(client):
    client.send(HANDSHAKE, Hello().write() + message(20, bytes(32)))


@case("test-tls13-finished", "a Finished and more in the same record", "unexpected_message")
def _(client):
    client.greet(Hello())
    client.send(HANDSHAKE, client.finished13() + message(24, b"\0"))


# What breaks the seal.


def flipped(position):
    def change(data):
        data = bytearray(data)
        data[position] ^= 1
        return bytes(data)

    return change


for what, change in (
    ("a bit of the tag", flipped(-1)),
    ("a bit of the text", flipped(15)),
    ("a bit of the first byte", flipped(5)),
    ("the tag cut off", lambda data: data[:3] + vec(2, data[5:-16])),
    ("a byte behind the tag", lambda data: data[:3] + vec(2, data[5:] + b"\0")),
    ("a byte less than a tag", lambda data: data[:3] + vec(2, data[5:20])),
    ("an empty record", lambda data: data[:3] + b"\0\0"),
    ("no encryption at all", lambda data: data[:3] + vec(2, GET)),
):
    script = "test-fuzzed-MAC" if "tag" in what else "test-fuzzed-ciphertext"

    @each(script, what, "bad_record_mac|decode_error" if "tag" in what[-5:] or "empty" in what
          or "tag cut" in what else "bad_record_mac")
    def _(client, change=change):
        client.wire.change = change
        client.send(DATA, GET)


@each("test-aes-gcm-nonces", "a record twice", "bad_record_mac")
def _(client):
    whole = client.sent_as(DATA, GET)
    client.raw(whole + whole)
    client.answer()


@each("test-aes-gcm-nonces", "a record left out", "bad_record_mac")
def _(client):
    client.sent_as(DATA, b"x")
    client.send(DATA, GET)


for label, version in BOTH:

    @case("test-fuzzed-finished", f"TLS {label}: a bit of the Finished's record", "bad_record_mac")
    def _(client, version=version):
        client.greet(Hello(version), version)
        if version == TLS12:
            client.key_exchange()
            client.change_cipher()
        client.wire.change = flipped(-1)
        client.handshake(client.finished12() if version == TLS12 else client.finished13())


@case("test-fuzzed-ciphertext", "200 just after the handshake: each is told", "bad_record_mac")
def _(client):
    # The gateway reads once before it waits; what breaks then must not be waited behind.
    for number in range(200):
        one = Client(client.wire.socket.getpeername()[1])
        one.shake(Hello())
        time.sleep(number * 2e-6)
        one.wire.change = flipped(-1)
        one.send(DATA, GET)
        try:
            one.end()
        except Ended as ended:
            outcome = str(ended)
        finally:
            one.close()
        if outcome != "bad_record_mac":
            return outcome
    return outcome


# Alerts.

ALERTS = "test-ssl-death-alert"


@each(ALERTS, "close_notify is answered", "close_notify")
def _(client):
    client.alert(1, 0)


@each(ALERTS, "a fatal alert ends it", "closed")
def _(client):
    client.alert(2, 80)


@each(ALERTS, "50 warnings", "refused|closed|served")
def _(client):
    for _ in range(50):
        client.alert(1, 90)
    return client.get()


@each(ALERTS, "an alert unheard of", "closed|refused|served")
def _(client):
    client.alert(2, 222)


@each("test-tls13-empty-alert", "an alert of nothing", "unexpected_message|decode_error")
def _(client):
    client.send(ALERT, b"")


@each("test-tls13-empty-alert", "an alert of one byte", "unexpected_message|decode_error")
def _(client):
    client.send(ALERT, b"\2")


@each("test-tls13-empty-alert", "an alert of three bytes", "unexpected_message|decode_error")
def _(client):
    client.send(ALERT, b"\1\0\0")


@each(ALERTS, "a level unheard of", "refused|close_notify")
def _(client):
    client.send(ALERT, b"\7\x5a")


for what, level, code in (("close_notify", 1, 0), ("a fatal alert", 2, 40)):

    waits = "it is waited for more until the handshake's deadline" if code == 0 else None

    @case("test-connection-abort", f"{what} in place of a ClientHello", "closed|refused", waits)
    def _(client, level=level, code=code):
        client.alert(level, code)

    for label, version in BOTH:

        known = waits if version == TLS12 else None

        @case("test-connection-abort", f"TLS {label}: {what} in place of a Finished",
              "closed|refused", known)
        def _(client, version=version, level=level, code=code):
            client.greet(Hello(version), version)
            client.alert(level, code)


@each("test-connection-abort", "the end without close_notify", "closed")
def _(client):
    client.end_of_stream()


@case("test-connection-abort", "nothing but an end", "closed")
def _(client):
    client.end_of_stream()


@each("test-connection-abort", "a request behind close_notify is none", "close_notify")
def _(client):
    client.alert(1, 0)
    client.send(DATA, GET)
    return client.answer()
