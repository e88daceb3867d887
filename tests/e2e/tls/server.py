"""server.py CHAIN KEY [CLIENT-CA]: an HTTPS server that prints its port and tells what it knows of its client."""
import http.server
import ssl
import sys


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    requests = 0

    def do_GET(self):
        self.requests += 1
        certificate = self.connection.getpeercert() or {}
        names = [value for part in certificate.get("subject", ()) for _, value in part]
        said = " ".join(names) or "nobody"
        how = "resumed" if self.connection.session_reused else "full"
        body = f"{said} {how} {self.connection.version()} {self.requests}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
if len(sys.argv) > 3:
    context.load_verify_locations(sys.argv[3])
    context.verify_mode = ssl.CERT_REQUIRED
server = Server(("127.0.0.1", 0), Handler)
# Each connection shakes hands in a thread of its own, when it first reads.
server.socket = context.wrap_socket(
    server.socket, server_side=True, do_handshake_on_connect=False
)
print(server.server_port, flush=True)
server.serve_forever()
