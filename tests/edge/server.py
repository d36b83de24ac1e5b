"""Real servers for tests: an origin with answers of chosen length and delay, `edge` as a process, and a load on it."""

import http.client
import os
import re
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGTERM

from tests.e2e.processes import ROOT, Process, free_port, titled, wait_until


class Origin:
    """GET /NAME/MILLISECONDS/BYTES answers with BYTES bytes after MILLISECONDS; the response names the origin."""

    def __init__(self, name="origin"):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                parts = self.path.strip("/").split("/")
                delay, length = (int(p) for p in parts[-2:]) if len(parts) >= 2 else (0, 2)
                if delay:
                    time.sleep(delay / 1000)
                self.send_response(200)
                self.send_header("Content-Length", str(length))
                self.send_header("Origin", name)
                self.end_headers()
                self.wfile.write(b"x" * length)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 512
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Edge:
    """`edge run` on a configuration in a directory, and what tests ask of it."""

    def __init__(self, directory, ca, *, program=None, environment=None, descriptors=()):
        self.directory = Path(directory)
        self.file = self.directory / "edge.toml"
        self.context = ssl.create_default_context(cafile=ca)
        self.program = program or ["-m", "edge"]
        self.environment = environment or {}
        self.descriptors = descriptors
        self.process = None
        self.port = free_port()

    def configure(self, origin, *, server="workers = 2", bind=None, extra=""):
        bind = bind or [f"127.0.0.1:{self.port}"]
        self.file.write_text(f"""\
[server]
{server}
[[listener]]
bind = {bind!r}
[[certificate]]
chain = "localhost.pem"
key = "localhost.key"
[[upstream]]
name = "origin"
servers = ["{origin.address}"]
[[route]]
match = {{}}
upstream = "origin"
{extra}
""")

    def start(self, *arguments, generation=1):
        command = [sys.executable, *self.program, *(arguments or ("run", "--config", self.file))]
        with (self.directory / "stderr").open("wb") as err:
            self.process = Process(
                command,
                self.directory / "stdout",
                cwd=ROOT,
                stderr=err,
                env={**os.environ, **self.environment},
                pass_fds=self.descriptors,
            )
        if generation:
            self.wait_generation(generation)
        return self

    def log(self):
        return (self.directory / "stderr").read_text()

    def wait_log(self, pattern, *, seconds=15, count=1):
        def found():
            return len(re.findall(pattern, self.log())) >= count

        wait_until(found, seconds, lambda: f"{pattern!r} in:\n{self.log()}")

    def wait_generation(self, number):
        self.wait_log(rf"generation {number} serves")

    def signal(self, number):
        os.kill(self.process.pid, number)

    def workers(self):
        """{pid: title} of the master's children."""
        return titled(self.process.pid, "edge: worker")

    def connect(self, port=None, timeout=10):
        """A TLS connection, as http.client."""
        return http.client.HTTPSConnection("localhost", port or self.port, context=self.context, timeout=timeout)

    def get(self, path="/", port=None):
        connection = self.connect(port)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.body = response.read()
            return response
        finally:
            connection.close()

    def stop(self, number=SIGTERM, seconds=15):
        """-> the exit code."""
        self.signal(number)
        try:
            return self.process.wait(seconds)
        finally:
            self.close()

    def close(self):
        """If it runs still, it is killed, and all of its processes with it."""
        if self.process and self.process.popen.poll() is None:
            self.process.kill()


class Load:
    """Clients that ask without pause until left; every failure is kept. Half of them keep their connections.

    As every HTTP client does, they ask once more when a kept connection turns out to have been closed.
    """

    def __init__(self, edge, clients=6, path="/load/0/2000"):
        self.edge = edge
        self.path = path
        self.requests = 0
        self.failures = []
        self.origins = set()
        self._running = True
        self._threads = [threading.Thread(target=self._client, args=(i % 2 == 0,)) for i in range(clients)]

    def __enter__(self):
        for t in self._threads:
            t.start()
        return self

    def __exit__(self, *_):
        self._running = False
        for t in self._threads:
            t.join(20)

    def _client(self, keep):
        connection = None
        while self._running:
            reused = connection is not None
            connection = connection or self.edge.connect()
            try:
                connection.request("GET", self.path)
                response = connection.getresponse()
                body = response.read()
                if response.status != 200 or len(body) != int(self.path.rpartition("/")[2]):
                    self.failures.append((time.monotonic(), f"status {response.status}, {len(body)} bytes"))
                self.requests += 1
                self.origins.add(response.headers["Origin"])
                if not keep or response.will_close:
                    connection.close()
                    connection = None
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as e:
                connection.close()
                connection = None
                if not reused:
                    self.failures.append((time.monotonic(), repr(e)))
            except (OSError, http.client.HTTPException) as e:
                connection.close()
                connection = None
                self.failures.append((time.monotonic(), repr(e)))
