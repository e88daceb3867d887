"""tls.py FUNCTION PORT CA [MORE]: what the standard library's client finds."""
import socket
import ssl
import sys
import time

PORT, CA = int(sys.argv[2]), sys.argv[3]
MORE = sys.argv[4] if len(sys.argv) > 4 else ""
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context(version=None, **settings):
    made = ssl.create_default_context(cafile=CA)
    if version:
        made.minimum_version = made.maximum_version = VERSIONS[version]
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def connect(made, name="localhost", session=None, port=PORT):
    plain = socket.create_connection(("127.0.0.1", port), timeout=20)
    return made.wrap_socket(
        plain, server_hostname=name, session=session, suppress_ragged_eofs=False
    )


def request(secure, target="/bytes/5", fields=""):
    secure.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode())
    return read(secure)


def read(secure):
    answer = b""
    while b"\r\n\r\n" not in answer:
        part = secure.recv(1 << 16)
        assert part, "closed before an answer"
        answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    lines = head.lower().split(b"\r\n")
    length = int(next(line[15:] for line in lines if line.startswith(b"content-length:")))
    while len(body) < length:
        body += secure.recv(1 << 16)
    return body


def versions():
    for version in VERSIONS:
        try:
            with connect(context(version)) as secure:
                assert version in MORE, f"{version} is spoken"
                assert secure.version() == f"TLSv{version}"
                assert len(request(secure)) == 5
                assert secure.selected_alpn_protocol() is None
        except ssl.SSLError:
            assert version not in MORE, f"{version} is not spoken"


def protocols():
    for offered, selected in ((["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1")):
        made = context()
        made.set_alpn_protocols(offered)
        with connect(made) as secure:
            assert secure.selected_alpn_protocol() == selected
            assert len(request(secure)) == 5
    made = context()
    made.set_alpn_protocols(["h2"])
    try:
        connect(made)
        raise AssertionError("h2 is spoken")
    except ssl.SSLError as error:
        assert "no application protocol" in str(error).lower().replace("_", " "), error


def resumption():
    for version in VERSIONS:
        made = context(version)
        with connect(made) as secure:
            request(secure)
            session = secure.session
        for _ in range(int(MORE)):
            with connect(made, session=session) as secure:
                request(secure)
                assert secure.session_reused, version
                session = secure.session


def elsewhere():
    """A session made at one port is taken up at another, and back; MORE is PORT and whether it is."""
    other, expected = MORE.split()
    for version in VERSIONS:
        made = context(version)
        with connect(made) as secure:
            request(secure, "/")
            session = secure.session
        for port in (int(other), PORT):
            with connect(made, session=session, port=port) as secure:
                request(secure, "/")
                reused = "yes" if secure.session_reused or port == PORT else "no"
                assert reused == expected or port == PORT, f"{version} {port}: {reused}"
                session = secure.session


def names():
    for pair in MORE.split():
        name, expected = pair.split("=")
        made = context(check_hostname=False)
        try:
            with connect(made, name=None if name == "-" else name) as secure:
                request(secure)
                shown = [value for _, value in secure.getpeercert()["subjectAltName"]]
                assert expected in shown, f"{name}: {shown}"
        except ssl.SSLError as error:
            assert expected == "refused", f"{name}: {error}"


def ends():
    with connect(context()) as secure:
        request(secure, fields="Connection: close\r\n")
        # Without the announcement this raises.
        assert secure.recv(1) == b""
    secure = connect(context())
    secure.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf of it")
    # The socket closes, and TLS knows nothing of it.
    socket.socket(fileno=secure.detach()).close()


def pipelining():
    with connect(context()) as secure:
        assert len(request(secure)) == 5
        secure.sendall(b"GET /bytes/3 HTTP/1.1\r\nHost: a\r\n\r\n" * 50)
        for _ in range(50):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += secure.recv(1)
            assert head.startswith(b"HTTP/1.1 200 "), head
            assert len(secure.recv(3)) == 3


def shown(version, pair):
    made = context(version)
    if pair != "-":
        made.load_cert_chain(f"{pair}.pem", f"{pair}.key")
    return made


def mutual():
    """MORE: lines of VERSION PAIR and `served`, or of what the refusal says."""
    for line in MORE.splitlines():
        version, pair, expected = line.split(" ", 2)
        try:
            with connect(shown(version, pair)) as secure:
                request(secure)
            found = "served"
        except ssl.SSLError as error:
            found = str(error)
        assert expected in found.replace("_", " "), f"{line}: {found}"


def taken_up():
    """Takes up one session until that is refused; MORE is the pair."""
    made = shown("1.3", MORE)
    with connect(made) as secure:
        request(secure)
        session = secure.session
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            with connect(made, session=session) as secure:
                assert secure.session_reused
                request(secure)
                session = secure.session
        except (AssertionError, OSError) as error:
            assert "closed before" in str(error) or "EOF" in str(error), error
            return
    raise AssertionError("still served")


def suites():
    """MORE: lines of VERSION and the cipher that is to be chosen."""
    for line in MORE.splitlines():
        version, cipher = line.split()
        with connect(context(version)) as secure:
            assert secure.cipher()[0] == cipher, secure.cipher()
            request(secure)


def certificate():
    """Prints the serial number of what is shown."""
    with connect(context()) as secure:
        request(secure, "/")
        print(secure.getpeercert()["serialNumber"])


def load():
    with connect(context()) as kept:
        for number in range(int(MORE)):
            assert request(kept, "/") == b"hello"
            if number % 20 == 0:
                with connect(context()) as fresh:
                    assert request(fresh, "/") == b"hello"


globals()[sys.argv[1]]()
