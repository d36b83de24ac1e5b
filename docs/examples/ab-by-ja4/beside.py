"""Both versions of the service, which tell which one they are."""

import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

HERE = Path(__file__).parent


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"variant {self.server.name}, for {self.headers['X-JA4']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def __init__(self, name):
        super().__init__(str(HERE / f"{name}.sock"), Handler)
        self.name = name


servers = [Server("a"), Server("b")]
(HERE / "ready").touch()
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
servers[0].serve_forever()
