"""The service that knows the keys: HTTP on a Unix socket."""

import json
import socketserver
import urllib.parse
from http.server import BaseHTTPRequestHandler
from pathlib import Path

HERE = Path(__file__).parent
OWNERS = {"green": "Alice", "blue": "Bob"}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("key", [""])[0]
        owner = OWNERS.get(bytes.fromhex(asked).decode("latin-1"))
        body = json.dumps({"owner": owner}).encode()
        self.send_response(200 if owner else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "edge"

    def log_message(self, text, *arguments):
        print("key service:", text % arguments, flush=True)


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


with Server(str(HERE / "keys.sock"), Handler) as server:
    (HERE / "ready").touch()
    server.serve_forever()
