"""A ClientHello whose every part can be something else."""
import struct
from os import urandom

from tlslite.constants import ExtensionType as Ext
from tlslite.constants import GroupName as Group
from tlslite.keyexchange import ECDHKeyExchange, KEMKeyExchange
from tlslite.utils.cryptomath import HKDF_expand_label, derive_secret, secureHash, secureHMAC

TLS12, TLS13 = (3, 3), (3, 4)
HOST = b"localhost"
AES128_SHA256, AES256_SHA384, CHACHA20_SHA256 = 0x1301, 0x1302, 0x1303
ECDHE_ECDSA_AES128, ECDHE_ECDSA_AES256, ECDHE_ECDSA_CHACHA20 = 0xC02B, 0xC02C, 0xCCA9
ECDSA_P256, RSA_PSS_SHA256, ECDSA_SHA1 = 0x0403, 0x0804, 0x0203
# What the private extension of a client that greases may be (RFC 8701).
GREASE = 0x3A3A


def vec(width, data):
    """`data` behind its length, of `width` bytes."""
    return len(data).to_bytes(width, "big") + bytes(data)


def u16s(*values):
    return struct.pack(f">{len(values)}H", *values)


def message(kind, body):
    """A handshake message."""
    return bytes([kind]) + vec(3, body)


def exchange(group):
    kind = KEMKeyExchange if group in Group.allKEM else ECDHKeyExchange
    return kind(group, TLS13)


def shares(*entries):
    """The key_share extension of a ClientHello."""
    return vec(2, b"".join(u16s(group) + vec(2, share) for group, share in entries))


class Hello:
    def __init__(self, version=TLS13, groups=(Group.x25519,)):
        self.legacy_version, self.random, self.session_id = TLS12, urandom(32), b""
        self.compressions, self.keys = b"\0", {}
        # Sessions offered: of TLS 1.3, with what is to be wrong with it, and of TLS 1.2.
        self.psk = self.offered = None
        self.extensions = [
            (Ext.server_name, vec(2, b"\0" + vec(2, HOST))),
            (Ext.supported_groups, vec(2, u16s(*groups))),
            (Ext.signature_algorithms, vec(2, u16s(ECDSA_P256))),
        ]
        if version == TLS13:
            self.ciphers, self.session_id = [AES128_SHA256], urandom(32)
            self.put(Ext.supported_versions, vec(1, bytes(TLS13)))
            self.put(Ext.key_share, shares(*((group, self.key(group)) for group in groups)))
            self.put(Ext.psk_key_exchange_modes, b"\1\1")
        else:
            self.ciphers = [ECDHE_ECDSA_AES128]
            self.put(Ext.ec_point_formats, vec(1, b"\0"))
            self.put(Ext.extended_master_secret)
            self.put(Ext.renegotiation_info, vec(1, b""))

    def key(self, group):
        """The public half of a new key."""
        secret = exchange(group).get_random_private_key()
        self.keys[group] = secret
        return bytes(exchange(group).calc_public_value(secret))

    def put(self, kind, data=b""):
        """In place of the one of that kind, or as the last."""
        kinds = [known for known, _ in self.extensions]
        if kind in kinds:
            self.extensions[kinds.index(kind)] = (kind, data)
        else:
            self.extensions.append((kind, data))
        return self

    def add(self, kind, data=b""):
        """Even if there is one."""
        self.extensions.append((kind, data))
        return self

    def drop(self, kind):
        self.extensions = [one for one in self.extensions if one[0] != kind]
        return self

    def set(self, **parts):
        vars(self).update(parts)
        return self

    def resume(self, session, identity=None, binder=None, age=None):
        """Offers a session of TLS 1.3; what is not given is as it has to be."""
        self.psk = (session, identity, binder, age)
        return self

    def resume12(self, session, **parts):
        """Offers a session of TLS 1.2: its ticket, and an id to know by that it was taken."""
        self.offered, self.session_id = session, session.session_id or urandom(32)
        session.session_id = self.session_id
        if session.ticket:
            self.put(Ext.session_ticket, session.ticket)
        return self.set(**parts)

    def body(self):
        whole = bytes(self.legacy_version) + self.random + vec(1, self.session_id)
        whole += vec(2, u16s(*self.ciphers)) + vec(1, self.compressions)
        if self.extensions is None:
            return whole
        return whole + vec(2, b"".join(u16s(kind) + vec(2, data) for kind, data in self.extensions))

    def write(self):
        if self.psk is None:
            return message(1, self.body())
        session, identity, binder, age = self.psk
        age = session.age_add if age is None else age
        identity = session.ticket if identity is None else identity
        identities = vec(2, vec(2, identity) + struct.pack(">I", age & 0xFFFFFFFF))
        size = len(session.secret) if binder is None else len(binder)
        self.put(Ext.pre_shared_key, identities + vec(2, vec(1, bytes(size))))
        if binder is None:
            truncated = message(1, self.body())[: -(2 + 1 + size)]
            binder = session.binder(truncated)
        self.put(Ext.pre_shared_key, identities + vec(2, vec(1, binder)))
        return message(1, self.body())


class Session:
    """What it takes to be known again."""

    def __init__(self, version, cipher, secret, ticket=b"", session_id=b"", age_add=0):
        self.version, self.cipher, self.secret = version, cipher, secret
        self.ticket, self.session_id, self.age_add = ticket, session_id, age_add

    def binder(self, truncated):
        """RFC 8446 §4.2.11.2."""
        prf = "sha384" if len(self.secret) == 48 else "sha256"
        early = secureHMAC(bytearray(len(self.secret)), self.secret, prf)
        key = derive_secret(early, b"res binder", None, prf)
        finished = HKDF_expand_label(key, b"finished", b"", len(self.secret), prf)
        return bytes(secureHMAC(finished, secureHash(bytearray(truncated), prf), prf))
