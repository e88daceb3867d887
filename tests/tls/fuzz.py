"""fuzz.py PORT CA [WORD…]: runs every case, or those with all of these words, and says what came of
each as a line of JSON. After each, a client nobody here wrote must still be served."""
import importlib
import json
import socket
import ssl
import sys

from case import CASES

# In the order of the report.
for theme in ("versions", "hellos", "groups", "records", "handshakes", "resumption"):
    importlib.import_module(f"cases.{theme}")

PORT, CA, WORDS = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
TRUSTING = ssl.create_default_context(cafile=CA)


def still_serves():
    try:
        with socket.create_connection(("127.0.0.1", PORT), timeout=10) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with TRUSTING.wrap_socket(plain, server_hostname="localhost") as secure:
                secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return secure.recv(1 << 14).startswith(b"HTTP/1.1 200 ")
    except OSError as error:
        print(error, file=sys.stderr)
        return False


for case in CASES:
    if not all(word in f"{case.script} {case.what}" for word in WORDS):
        continue
    outcome = case.outcome(PORT)
    passed = case.permits(outcome)
    if not still_serves():
        passed, outcome = False, f"{outcome}, and then nobody is served"
    line = {"script": case.script, "what": case.what, "expected": case.expected}
    print(json.dumps(line | {"outcome": outcome, "passed": passed, "known": case.known}), flush=True)
