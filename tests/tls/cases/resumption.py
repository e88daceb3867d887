"""Sessions known again, and early data."""
from os import urandom

from tlslite.constants import ExtensionType as Ext

from case import case
from client import DATA, GET, HANDSHAKE, Client
from hello import AES128_SHA256, AES256_SHA384, TLS12, Hello, Session, message, vec

SESSIONS = "test-tls13-session-resumption"
OLD = "test-sessionID-resumption"
EARLY = "test-tls13-0rtt-garbage"


def session13(client):
    """A session, from a connection of its own."""
    first = Client(client.wire.socket.getpeername()[1])
    first.shake(Hello())
    assert first.get() == "served" and first.session, "no ticket"
    first.close()
    return first.session


def session12(client, with_ticket=True, change=lambda hello: None):
    first = Client(client.wire.socket.getpeername()[1])
    made = Hello(TLS12)
    if with_ticket:
        made.put(Ext.session_ticket)
    change(made)
    first.shake(made, TLS12)
    assert first.get() == "served", "not served"
    first.close()
    return first.session


def ends_as(resumed, client):
    said = client.get()
    assert client.resumed == resumed, "resumed" if client.resumed else "not resumed"
    return said


def damage(ticket):
    return ticket[:-1] + bytes([ticket[-1] ^ 1])


TICKETS = (
    ("its last bit", damage),
    ("its first bit", lambda ticket: bytes([ticket[0] ^ 1]) + ticket[1:]),
    ("a byte less", lambda ticket: ticket[:-1]),
    ("a byte more", lambda ticket: ticket + b"\0"),
    ("one byte of it", lambda ticket: ticket[:1]),
    ("random bytes as long", lambda ticket: urandom(len(ticket))),
    ("16 KB of random bytes", lambda ticket: urandom(16000)),
)


@case(SESSIONS, "a ticket", "served")
def _(client):
    client.shake(Hello().resume(session13(client)))
    return ends_as(True, client)


@case(SESSIONS, "a ticket, twice", "served")
def _(client):
    session = session13(client)
    second = Client(client.wire.socket.getpeername()[1])
    second.shake(Hello().resume(session))
    assert second.get() == "served", "not served"
    client.shake(Hello().resume(session))
    return client.get()


for what, change in TICKETS:

    @case(SESSIONS, f"a ticket with {what}: a full handshake", "served")
    def _(client, change=change):
        session = session13(client)
        client.shake(Hello().resume(session, identity=change(session.ticket)))
        return ends_as(False, client)

    @case(OLD, f"TLS 1.2: a ticket with {what}: a full handshake", "served")
    def _(client, change=change):
        session = session12(client)
        session.ticket = change(session.ticket)
        client.shake(Hello(TLS12).resume12(session), TLS12)
        return ends_as(False, client)


for what, age in (("zero", 0), ("half of all", 1 << 31)):

    @case(SESSIONS, f"a ticket whose age is {what}", "served")
    def _(client, age=age):
        client.shake(Hello().resume(session13(client), age=age))
        return client.get()


BINDERS = "test-tls13-psk_dhe_ke"
for what, binder, expected in (
    ("random", urandom(32), "decrypt_error"),
    ("zeros", bytes(32), "decrypt_error"),
    ("as long as another hash's", urandom(48), "decrypt_error|illegal_parameter"),
    ("a byte short", urandom(31), "decode_error|decrypt_error|illegal_parameter"),
    ("nothing", b"", "decode_error|decrypt_error|illegal_parameter"),
):

    @case(BINDERS, f"a binder: {what}", expected)
    def _(client, binder=binder):
        client.shake(Hello().resume(session13(client), binder=binder))
        return client.get()


def offered(change):
    """A ClientHello with a ticket, and its pre_shared_key made into something else."""

    def run(client):
        session = session13(client)
        made = Hello().resume(session)
        made.write()
        made.psk, body = None, dict(made.extensions)[Ext.pre_shared_key]
        identities = 2 + int.from_bytes(body[:2], "big")
        change(made, body[2:identities], body[identities + 2 :])
        client.shake(made)
        return client.get()

    return run


def psk(identities, binders):
    return vec(2, identities) + vec(2, binders)


case(BINDERS, "two tickets and one binder", "illegal_parameter|decode_error")(
    offered(lambda hello, one, binder: hello.put(Ext.pre_shared_key, psk(one + one, binder))))
case(BINDERS, "one ticket and two binders", "illegal_parameter|decode_error")(
    offered(lambda hello, one, binder: hello.put(Ext.pre_shared_key, psk(one, binder + binder))))
case(BINDERS, "no tickets", "illegal_parameter|decode_error")(
    offered(lambda hello, one, binder: hello.put(Ext.pre_shared_key, psk(b"", binder))))
case(BINDERS, "no binders", "illegal_parameter|decode_error")(
    offered(lambda hello, one, binder: hello.put(Ext.pre_shared_key, psk(one, b""))))
case(BINDERS, "an empty ticket", "illegal_parameter|decode_error|served")(
    offered(lambda hello, one, binder: hello.put(
        Ext.pre_shared_key, psk(vec(2, b"") + bytes(4), binder))))
case(BINDERS, "a byte behind the binders", "decode_error")(
    offered(lambda hello, one, binder: hello.put(Ext.pre_shared_key, psk(one, binder) + b"\0")))
case(BINDERS, "1000 tickets unheard of", "any")(
    offered(lambda hello, one, binder: hello.put(
        Ext.pre_shared_key, psk((vec(2, b"t") + bytes(4)) * 1000, binder * 1000))))
case(BINDERS, "not the last extension", "illegal_parameter")(
    offered(lambda hello, one, binder: hello.add(0xFACE)))


@case("test-tls13-psk_ke", "a ticket without psk_key_exchange_modes", "missing_extension")
def _(client):
    made = Hello().resume(session13(client))
    client.shake(made.drop(Ext.psk_key_exchange_modes))
    return client.get()


@case("test-tls13-psk_ke", "a ticket without a new key exchange: a full handshake", "served")
def _(client):
    made = Hello().resume(session13(client))
    client.shake(made.put(Ext.psk_key_exchange_modes, b"\1\0"))
    return ends_as(False, client)


@case("test-resumption-with-wrong-ciphers", "a suite with another hash: a full handshake", "served")
def _(client):
    made = Hello().resume(session13(client))
    client.shake(made.set(ciphers=[AES256_SHA384]))
    return ends_as(False, client)


@case("test-invalid-server-name-extension-resumption", "a ticket with another name", "served")
def _(client):
    made = Hello().resume(session13(client))
    made.put(Ext.server_name, vec(2, b"\0" + vec(2, b"www.example.com")))
    client.shake(made)
    return ends_as(False, client)


@case("test-tls13-count-tickets", "one ticket", "served")
def _(client):
    client.shake(Hello())
    seen, take = [], client.after_handshake
    client.after_handshake = lambda kind, data: (seen.append(data[:1]), take(kind, data))
    said = client.get()
    client.get()
    assert seen.count(b"\4") == 1, f"{seen}"
    return said


# TLS 1.2.


@case(OLD, "TLS 1.2: a ticket", "served")
def _(client):
    client.shake(Hello(TLS12).resume12(session12(client)), TLS12)
    return ends_as(True, client)


@case(OLD, "TLS 1.2: a session id", "served")
def _(client):
    client.shake(Hello(TLS12).resume12(session12(client, with_ticket=False)), TLS12)
    return ends_as(True, client)


@case(OLD, "TLS 1.2: a session id unheard of: a full handshake", "served")
def _(client):
    session = session12(client, with_ticket=False)
    session.session_id = urandom(32)
    client.shake(Hello(TLS12).resume12(session), TLS12)
    return ends_as(False, client)


@case(OLD, "TLS 1.2: a ticket of TLS 1.3: a full handshake", "served")
def _(client):
    session = session13(client)
    client.shake(Hello(TLS12).resume12(session), TLS12)
    return ends_as(False, client)


@case(OLD, "TLS 1.3: a ticket of TLS 1.2", "served|refused")
def _(client):
    session = session12(client)
    client.shake(Hello().resume(Session(session.version, AES128_SHA256, bytes(32), session.ticket)))
    return client.get()


@case("test-extended-master-secret-extension", "TLS 1.2: resumed without what it began with",
      "handshake_failure|illegal_parameter")
def _(client):
    made = Hello(TLS12).resume12(session12(client))
    client.shake(made.drop(Ext.extended_master_secret), TLS12)
    return client.get()


@case("test-extended-master-secret-extension", "TLS 1.2: resumed with what it began without",
      "served")
def _(client):
    session = session12(client, change=lambda hello: hello.drop(Ext.extended_master_secret))
    client.shake(Hello(TLS12).resume12(session), TLS12)
    return ends_as(False, client)


@case("test-resumption-with-wrong-ciphers", "TLS 1.2: another suite: a full handshake", "served")
def _(client):
    made = Hello(TLS12).resume12(session12(client))
    client.shake(made.set(ciphers=[0xC02C]), TLS12)
    return ends_as(False, client)


# Early data (RFC 8446 §4.2.10), of which none is taken.


def early(client, garbage, session=None):
    made = Hello().put(Ext.early_data)
    if session:
        made.resume(session)
    client.say(made)
    for data in garbage:
        client.raw(b"\x17\3\3" + vec(2, data))
    client.read_server_hello()
    client.greeted()
    assert b"\0\x2a" not in client.encrypted[4:], "it is accepted"
    return client.finish().get()


@case(EARLY, "none sent, no ticket", "served|refused")
def _(client):
    return early(client, [])


@case(EARLY, "none sent, with a ticket", "served")
def _(client):
    return early(client, [], session13(client))


for what, garbage in (
    ("one record", [urandom(100)]),
    ("ten records", [urandom(100) for _ in range(10)]),
):

    @case(EARLY, f"{what}, with a ticket: skipped", "served")
    def _(client, garbage=garbage):
        return early(client, garbage, session13(client))


@case(EARLY, "one record, with a ticket unheard of: skipped", "served")
def _(client):
    session = session13(client)
    session.ticket = urandom(100)
    return early(client, [urandom(100)], session)


@case(EARLY, "200 KB, with a ticket", "refused|served")
def _(client):
    return early(client, [urandom(1 << 14) for _ in range(13)], session13(client))


@case(EARLY, "a record nobody announced", "bad_record_mac|unexpected_message|decode_error")
def _(client):
    client.say(Hello())
    client.raw(b"\x17\3\3" + vec(2, urandom(100)))
    client.read_server_hello()
    client.greeted()


@case(EARLY, "EndOfEarlyData where there was none", "unexpected_message")
def _(client):
    client.greet(Hello())
    client.send(HANDSHAKE, message(5, b""))
