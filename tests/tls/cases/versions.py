"""Which version is spoken."""
from tlslite.constants import ExtensionType as Ext

from case import case, hello
from client import HANDSHAKE
from hello import AES128_SHA256, ECDHE_ECDSA_AES128, TLS12, TLS13, Hello, vec

VERSIONS = "test-tls13-version-negotiation"
NUMBERS = "test-version-numbers"
SCSV = 0x5600


def versions(*offered):
    return lambda hello: hello.put(Ext.supported_versions, vec(1, b"".join(map(bytes, offered))))


def legacy(version, *suites):
    return lambda hello: hello.set(legacy_version=version, ciphers=[*hello.ciphers, *suites])


for name, version in (("SSL 3.0", (3, 0)), ("TLS 1.0", (3, 1)), ("TLS 1.1", (3, 2))):
    hello(NUMBERS, f"{name} as the highest", "protocol_version", legacy(version), TLS12)
    hello(VERSIONS, f"{name} alone in supported_versions", "protocol_version", versions(version))
for version in ((3, 3), (3, 4), (3, 5), (3, 255), (4, 0), (255, 255)):
    name = f"{version[0]}.{version[1]} as the highest, no supported_versions: TLS 1.2"
    hello(NUMBERS, name, "served", legacy(version), TLS12)
for version in ((0, 0), (0, 3), (2, 0), (2, 3)):
    name = f"{version[0]}.{version[1]} as the highest"
    hello(NUMBERS, name, "protocol_version", legacy(version), TLS12)
hello(
    "test-tls13-legacy-version",
    "SSL 3.0 in legacy_version beside supported_versions",
    "protocol_version",
    legacy((3, 0)),
    known="rustls looks only at supported_versions; RFC 8446 appendix D.5 has it look",
)
for version in ((3, 1), (3, 4), (3, 5)):
    name = f"{version[0]}.{version[1]} in legacy_version beside supported_versions"
    hello("test-tls13-legacy-version", name, "served|protocol_version", legacy(version))

hello(VERSIONS, "TLS 1.3 before 1.2", "served", versions(TLS13, TLS12))
hello(VERSIONS, "TLS 1.3 after 1.2", "served", versions(TLS12, TLS13))
hello(VERSIONS, "TLS 1.3 after all before it", "served", versions((3, 0), (3, 1), (3, 2), TLS13))
hello(VERSIONS, "TLS 1.3 after versions unheard of", "served", versions((0x3A, 0x3A), (9, 9), TLS13))
hello(VERSIONS, "a draft of TLS 1.3 alone", "protocol_version", versions((127, 28)))
hello(VERSIONS, "versions unheard of alone", "protocol_version", versions((3, 5), (0x3A, 0x3A)))
hello(VERSIONS, "the same version twice", "served|illegal_parameter", versions(TLS13, TLS13))
hello(VERSIONS, "an empty list", "decode_error", versions())
hello(VERSIONS, "half a version", "decode_error", versions(TLS13, [3]))
hello(
    VERSIONS,
    "no body",
    "decode_error",
    lambda hello: hello.put(Ext.supported_versions),
)
hello(
    VERSIONS,
    "a list that ends early",
    "decode_error",
    lambda hello: hello.put(Ext.supported_versions, b"\4\3\4"),
)
hello(
    VERSIONS,
    "a byte behind the list",
    "decode_error",
    lambda hello: hello.put(Ext.supported_versions, b"\2\3\4\0"),
)
hello(
    VERSIONS,
    "127 versions, the last is TLS 1.3",
    "served",
    versions(*[(9, n) for n in range(126)], TLS13),
)


@case(VERSIONS, "TLS 1.2 alone in supported_versions", "served")
def _(client):
    versions(TLS12)(made := Hello(TLS12))
    client.shake(made, TLS12)
    return client.get()


@case("test-downgrade-protection", "TLS 1.2: the random says that 1.3 is spoken", "served")
def _(client):
    client.shake(Hello(TLS12), TLS12)
    assert bytes(client.server_hello.random).endswith(b"DOWNGRD\1"), "no sentinel"
    return client.get()


@case("test-tls13-serverhello-random", "TLS 1.3: the random says nothing, and changes", "served")
def _(client):
    client.shake(Hello())
    random = bytes(client.server_hello.random)
    assert b"DOWNGRD" not in random and len(set(random)) > 8, "no random"
    return client.get()


hello(
    "test-fallback-scsv",
    "TLS_FALLBACK_SCSV with TLS 1.2",
    "inappropriate_fallback",
    lambda hello: hello.ciphers.append(SCSV),
    TLS12,
    known="rustls does not know RFC 7507; the end of its random tells clients of TLS 1.3 the same",
)
hello(
    "test-fallback-scsv",
    "TLS_FALLBACK_SCSV with TLS 1.3",
    "served",
    lambda hello: hello.ciphers.append(SCSV),
)
hello(
    "test-tls13-invalid-ciphers",
    "TLS 1.3 with suites of TLS 1.2",
    "handshake_failure",
    lambda hello: hello.set(ciphers=[ECDHE_ECDSA_AES128]),
)
hello(
    "test-tls13-invalid-ciphers",
    "TLS 1.2 with suites of TLS 1.3",
    "handshake_failure",
    lambda hello: hello.set(ciphers=[AES128_SHA256]),
    TLS12,
)

# SSLv2's ClientHello: no record, a length with the highest bit set, suites of three bytes.
SSLV2_SUITES = b"\x01\x00\x80\x07\x00\xc0\x00\xc0\x2b"


def sslv2(client, version):
    body = b"\1" + bytes(version) + b"\0\x09\0\0\0\x10" + SSLV2_SUITES + bytes(16)
    client.raw((0x8000 | len(body)).to_bytes(2, "big") + body)


for version in ((0, 2), (3, 0), (3, 3)):
    script = "test-sslv2hello-protocol" if version[0] else "test-sslv2-connection"

    @case(script, f"SSLv2's ClientHello with {version[0]}.{version[1]}", "refused")
    def _(client, version=version):
        sslv2(client, version)


for version in ((2, 0), (3, 0), (3, 1), (3, 4), (3, 255), (4, 0)):
    # RFC 8446 §5.1 has it ignored, RFC 5246 appendix E.1 takes any that begins with 3.
    expected = "served" if version[0] == 3 else "served|refused"

    @case("test-invalid-version", f"{version[0]}.{version[1]} in the record's head", expected)
    def _(client, version=version):
        client.wire.change = lambda data: data[:1] + bytes(version) + data[3:]
        client.shake(Hello())
        return client.get()


@case("test-invalid-version", "2.0 in a later record's head", "served|refused")
def _(client):
    client.settle(Hello())
    client.wire.change = lambda data: data[:1] + bytes((2, 0)) + data[3:]
    return client.get()


@case("test-tls13-non-support", "a ServerHello in place of a ClientHello",
      "unexpected_message|decode_error")
def _(client):
    client.send(HANDSHAKE, b"\2" + Hello().write()[1:])
