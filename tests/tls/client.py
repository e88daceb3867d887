"""A TLS client that does as it is told, and tells what comes of it. Keys, hashes and records are
tlslite-ng's; certificates are not looked at, which the handshake after each case does."""
import socket

from tlslite.constants import AlertDescription, CipherSuite, ContentType
from tlslite.constants import ExtensionType as Ext
from tlslite.errors import BaseTLSException, TLSAbruptCloseError
from tlslite.handshakehashes import HandshakeHashes
from tlslite.mathtls import calc_key
from tlslite.messages import Message, NewSessionTicket, NewSessionTicket1_0, ServerHello
from tlslite.recordlayer import RecordLayer
from tlslite.utils.codec import Parser
from tlslite.utils.cryptomath import HKDF_expand_label, derive_secret, secureHash, secureHMAC

from hello import TLS12, TLS13, Session, exchange, message, shares, u16s, vec

CCS, ALERT, HANDSHAKE, DATA = (
    ContentType.change_cipher_spec,
    ContentType.alert,
    ContentType.handshake,
    ContentType.application_data,
)
CLIENT_HELLO, TICKET, DONE, KEY_EXCHANGE, FINISHED, KEY_UPDATE = 1, 4, 14, 16, 20, 24
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
# Less than the gateway allows a handshake: what is over only then counts as silence.
PATIENCE = 3


class Ended(Exception):
    """The connection is over, and how: an alert's name, closed, reset, or silence."""


class Wire:
    """The socket, with a say in what is sent."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # For the next record: what is sent in its place.
        self.change = None
        # When a list, records are put there.
        self.held = None

    def send(self, data):
        data = bytes(data)
        if self.change:
            data, self.change = self.change(data), None
        if self.held is not None:
            self.held.append(data)
            return len(data)
        try:
            self.socket.sendall(data)
        except ConnectionError:
            # The answer may have come before; reading tells.
            pass
        return len(data)

    def recv(self, size):
        return self.socket.recv(size)


class Client:
    def __init__(self, port):
        self.wire = Wire(port)
        self.records = RecordLayer(self.wire)
        self.records.version = (3, 1)
        self.hashes, self.partial = HandshakeHashes(), b""
        self.hello = self.server_hello = self.session = self.master = None
        self.warnings, self.updates = [], 0
        self.is13 = self.resumed = False

    def close(self):
        self.wire.socket.close()

    # What is sent.

    def raw(self, data):
        self.wire.send(data)

    def send(self, kind, data):
        """One record, encrypted if there are keys."""
        for _ in self.records.sendRecord(Message(kind, bytearray(data))):
            pass

    def sent_as(self, kind, data):
        """The record that would be sent."""
        self.wire.held = []
        self.send(kind, data)
        held, self.wire.held = self.wire.held, None
        return b"".join(held)

    def handshake(self, data):
        self.hashes.update(bytearray(data))
        for start in range(0, len(data), 1 << 14):
            self.send(HANDSHAKE, data[start : start + (1 << 14)])

    def alert(self, level, description):
        self.send(ALERT, bytes([level, description]))

    def end_of_stream(self):
        self.wire.socket.shutdown(socket.SHUT_WR)

    # What is read.

    def record(self):
        try:
            for result in self.records.recvRecord():
                if result in (0, 1):
                    continue
                return result[0].type, bytes(result[1].bytes)
        except TLSAbruptCloseError:
            raise Ended("closed") from None
        except TimeoutError:
            raise Ended("silence") from None
        except ConnectionError:
            raise Ended("reset") from None
        except BaseTLSException as error:
            raise AssertionError(f"what came cannot be read: {error!r}") from None

    def read(self):
        """The next handshake message or record of another kind."""
        while True:
            if len(self.partial) >= 4:
                size = 4 + int.from_bytes(self.partial[1:4], "big")
                if len(self.partial) >= size:
                    whole, self.partial = self.partial[:size], self.partial[size:]
                    return HANDSHAKE, whole
            kind, data = self.record()
            if kind == HANDSHAKE:
                self.partial += data
            elif kind == ALERT:
                level, description = data
                name = AlertDescription.toRepr(description) or str(description)
                if level == 2 or description == AlertDescription.close_notify:
                    raise Ended(name)
                self.warnings.append(name)
            elif kind != CCS or not self.is13:
                return kind, data

    def expect(self, *kinds):
        """The next message, which is one of these."""
        kind, data = self.read()
        assert kind == HANDSHAKE and data[0] in kinds, f"content {kind}, message {data[:1]!r}"
        if data[0] != FINISHED:
            self.hashes.update(bytearray(data))
        return data

    def end(self):
        """Reads on until it is over."""
        while True:
            self.after_handshake(*self.read())

    def after_handshake(self, kind, data):
        if kind != HANDSHAKE or not self.is13 or self.master is None:
            return
        if data[0] == TICKET:
            ticket = NewSessionTicket().parse(Parser(bytearray(data[1:])))
            size = len(self.resumption)
            secret = HKDF_expand_label(
                self.resumption, b"resumption", ticket.ticket_nonce, size, self.prf
            )
            self.session = Session(
                TLS13, self.cipher, secret, bytes(ticket.ticket), age_add=ticket.ticket_age_add
            )
        elif data[0] == KEY_UPDATE:
            self.updates += 1
            self.secrets[1] = self.records.calcTLS1_3KeyUpdate_sender(
                self.cipher, *self.secrets
            )[1]

    def answer(self):
        """The answer to one request."""
        got = b""
        while True:
            head, gap, body = got.partition(b"\r\n\r\n")
            if gap:
                fields = head.lower().split(b"\r\n")
                size = next(int(f[15:]) for f in fields if f.startswith(b"content-length:"))
                if len(body) >= size:
                    return "served" if got[9:12] == b"200" else f"status {got[9:12].decode()}"
            kind, data = self.read()
            if kind == DATA:
                got += data
            else:
                self.after_handshake(kind, data)

    def get(self):
        self.send(DATA, GET)
        return self.answer()

    # Handshakes, in steps that a case may take by itself.

    def greet(self, hello, version=TLS13):
        """Sends the ClientHello, once more if asked to, and reads what the server says to it."""
        self.say(hello)
        self.read_server_hello()
        if self.server_hello.random == RETRY:
            self.retry()
            self.read_server_hello()
        assert self.is13 == (version == TLS13), "the other version"
        return self.greeted()

    def greeted(self):
        """What follows the ServerHello."""
        self.cipher = self.server_hello.cipher_suite
        self.prf = "sha384" if self.cipher in CipherSuite.sha384PrfSuites else "sha256"
        self.greeted13() if self.is13 else self.greeted12()
        return self

    def shake(self, hello, version=TLS13):
        """A whole handshake."""
        self.greet(hello, version)
        return self.finish()

    def settle(self, hello, version=TLS13):
        """A whole handshake and a request."""
        self.shake(hello, version)
        assert self.get() == "served", "not served"
        return self

    def finish(self):
        self.finish13() if self.is13 else self.finish12()
        return self

    def say(self, hello):
        self.hello = hello
        self.handshake(hello.write())

    def read_server_hello(self):
        data = self.expect(2)
        self.server_hello = ServerHello().parse(Parser(bytearray(data[1:])))
        self.server_hello_bytes = data
        self.is13 = self.server_hello.getExtension(Ext.supported_versions) is not None

    def retry(self, change=lambda hello: None):
        """The second ClientHello (RFC 8446 §4.1.2, §4.4.1)."""
        is_long = self.server_hello.cipher_suite in CipherSuite.sha384PrfSuites
        prf = "sha384" if is_long else "sha256"
        first = secureHash(bytearray(self.hello.write()), prf)
        self.hashes = HandshakeHashes()
        self.hashes.update(bytearray(message(254, first)))
        self.hashes.update(bytearray(self.server_hello_bytes))
        group = self.server_hello.getExtension(Ext.key_share).selected_group
        self.hello.put(Ext.key_share, shares((group, self.hello.key(group))))
        change(self.hello)
        self.say(self.hello)

    def greeted13(self):
        share = self.server_hello.getExtension(Ext.key_share).server_share
        kex = exchange(share.group)
        shared = kex.calc_shared_key(self.hello.keys[share.group], share.key_exchange)
        zeros = bytearray(48 if self.prf == "sha384" else 32)
        self.resumed = self.server_hello.getExtension(Ext.pre_shared_key) is not None
        psk = self.hello.psk[0].secret if self.resumed else zeros
        early = secureHMAC(zeros, psk, self.prf)
        secret = secureHMAC(derive_secret(early, b"derived", None, self.prf), shared, self.prf)
        names = (b"c hs traffic", b"s hs traffic")
        self.secrets = [derive_secret(secret, name, self.hashes, self.prf) for name in names]
        self.main = secureHMAC(derive_secret(secret, b"derived", None, self.prf), zeros, self.prf)
        self.records.version, self.records.tls13record = TLS13, True
        self.records.calcTLS1_3PendingState(self.cipher, *self.secrets, ["python"])
        self.records.changeReadState()
        self.records.changeWriteState()
        self.encrypted = self.expect(8)
        while True:
            data = self.expect(11, 13, 15, FINISHED)
            if data[0] == FINISHED:
                break
        assert data[4:] == self.verify_data(self.secrets[1]), "the server's Finished"
        self.hashes.update(bytearray(data))
        # From here on the server writes with the keys that are there to stay.
        names = (b"c ap traffic", b"s ap traffic")
        self.next = [derive_secret(self.main, name, self.hashes, self.prf) for name in names]
        self.records.calcTLS1_3PendingState(self.cipher, *self.next, ["python"])
        self.records.changeReadState()

    def verify_data(self, secret):
        size = len(secret)
        key = HKDF_expand_label(secret, b"finished", b"", size, self.prf)
        return bytes(secureHMAC(key, self.hashes.digest(self.prf), self.prf))

    def finished13(self):
        """The message, which is not sent."""
        return message(FINISHED, self.verify_data(self.secrets[0]))

    def finish13(self):
        self.handshake(self.finished13())
        self.resumption = derive_secret(self.main, b"res master", self.hashes, self.prf)
        self.secrets, self.master = self.next, self.main
        self.records.changeWriteState()

    def update_keys(self, request=0):
        self.send(HANDSHAKE, message(KEY_UPDATE, bytes([request])))
        self.secrets[0] = self.records.calcTLS1_3KeyUpdate_reciever(self.cipher, *self.secrets)[0]

    def greeted12(self):
        self.records.version = TLS12
        offered = self.hello.offered
        kind = None
        if offered and offered.session_id == bytes(self.server_hello.session_id):
            # What comes next tells.
            kind, data = self.read()
            if kind == HANDSHAKE and data[0] == TICKET:
                self.take_ticket12(data)
                kind, data = self.read()
        self.resumed = kind == CCS
        if self.resumed:
            self.master = offered.secret
            self.calculate12()
            self.records.changeReadState()
            return self.read_finished12()
        if kind == HANDSHAKE:
            self.hashes.update(bytearray(data))
        while True:
            data = self.expect(11, 12, 13, DONE)
            if data[0] == 12:
                self.group = int.from_bytes(data[5:7], "big")
                self.point = bytearray(data[8 : 8 + data[7]])
            if data[0] == DONE:
                return

    def key_exchange(self):
        """ClientKeyExchange, and the keys that follow from it."""
        public = self.hello.key(self.group)
        kex = exchange(self.group)
        premaster = kex.calc_shared_key(self.hello.keys[self.group], self.point)
        self.handshake(message(KEY_EXCHANGE, vec(1, public)))
        extended = self.server_hello.getExtension(Ext.extended_master_secret)
        randoms = {
            "client_random": bytearray(self.hello.random),
            "server_random": self.server_hello.random,
        }
        label = b"extended master secret" if extended else b"master secret"
        self.master = calc_key(
            TLS12, premaster, self.cipher, label, self.hashes, output_length=48, **randoms
        )
        self.calculate12()

    def calculate12(self):
        randoms = (bytearray(self.hello.random), self.server_hello.random)
        self.records.calcPendingStates(self.cipher, self.master, *randoms, ["python"])

    def finished12(self, who=b"client finished"):
        data = calc_key(
            TLS12, self.master, self.cipher, who, self.hashes, output_length=12
        )
        return message(FINISHED, data)

    def change_cipher(self):
        self.send(CCS, b"\1")
        self.records.changeWriteState()

    def finish12(self):
        if self.resumed:
            self.change_cipher()
            return self.handshake(self.finished12())
        self.key_exchange()
        self.change_cipher()
        self.handshake(self.finished12())
        self.read_end12()

    def read_end12(self):
        kind, data = self.read()
        if kind == HANDSHAKE and data[0] == TICKET:
            self.take_ticket12(data)
            kind, data = self.read()
        assert kind == CCS, f"content {kind} before the change of keys"
        self.records.changeReadState()
        self.read_finished12()

    def read_finished12(self):
        kind, data = self.read()
        assert data == self.finished12(b"server finished"), "the server's Finished"
        self.hashes.update(bytearray(data))
        if self.session is None:
            self.session = Session(
                TLS12, self.cipher, self.master, session_id=bytes(self.server_hello.session_id)
            )
        self.session.secret = self.master

    def take_ticket12(self, data):
        self.hashes.update(bytearray(data))
        ticket = NewSessionTicket1_0().parse(Parser(bytearray(data[1:])))
        self.session = Session(TLS12, self.cipher, None, bytes(ticket.ticket))
