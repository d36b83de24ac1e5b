"""Backends that are servers of their own: nginx with files, gunicorn with an application."""

import hashlib
import os
import sys
from pathlib import Path

from tests.e2e.processes import ROOT, Process, answers, free_port, peer

SIZES = {"1k": 1024, "100k": 100 * 1024, "10m": 10 * 1024 * 1024}

PAGE = """<!doctype html>
<html><head><meta charset="utf-8"><title>loading</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page/style.css">
<script src="/page/early.js"></script>
</head><body>
<h1 id="heading">page</h1>
<img id="image" src="/page/image.svg" width="24" height="24">
<img id="image2" src="/page/image.svg?second" width="24" height="24">
<div id="result">pending</div>
<script src="/page/late.js"></script>
</body></html>
"""

# Everything is awaited before the result is written: the dumped DOM shows whether each resource arrived whole.
LATE_JS = """
const facts = {early: window.early === 1};
const loaded = new Promise(done => window.addEventListener("load", done));
const text = (...a) => fetch(...a).then(r => r.text());
const pieces = (left, size) => new ReadableStream({
  pull(controller) {
    left-- ? controller.enqueue(new Uint8Array(size)) : controller.close();
  },
});
Promise.all([
  loaded.then(() => {
    facts.css = getComputedStyle(document.getElementById("heading")).color === "rgb(1, 2, 3)";
    facts.images = [...document.images].every(i => i.complete && i.naturalWidth > 0);
  }),
  fetch("/1k").then(r => r.arrayBuffer()).then(b => { facts.small = b.byteLength === 1024; }),
  fetch("/10m").then(r => r.arrayBuffer()).then(b => crypto.subtle.digest("SHA-256", b)).then(d => {
    facts.large = [...new Uint8Array(d)].map(x => x.toString(16).padStart(2, "0")).join("") === "SHA256_10M";
  }),
  text("/chunked/1k").then(t => { facts.chunked = t.length > 0; }),
  text("/app/stream?n=5&size=1000").then(t => { facts.stream = t.length === 5000; }),
  text("/app/sha256", {method: "POST", body: "x".repeat(300000)}).then(t => {
    facts.upload = t.endsWith(" 300000");
  }),
  text("/app/sha256", {method: "POST", duplex: "half", body: pieces(5, 10000)}).then(t => {
    facts.streamed = t.endsWith(" 50000");
  }),
  fetch("/app/status/404").then(r => { facts.missing = r.status === 404; }),
  Promise.all([...Array(12).keys()].map(i => text("/app/echo?" + i))).then(all => {
    facts.parallel = all.every((t, i) => JSON.parse(t).query === String(i));
  }),
]).then(() => JSON.stringify(facts), e => "failed: " + e).then(t => {
  document.getElementById("result").textContent = t;
  document.title = "done";
});
"""

_NGINX = """daemon off; worker_processes 1; pid {dir}/nginx.pid; error_log {dir}/nginx.err warn; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; keepalive_requests 1000000; keepalive_timeout 60s; client_max_body_size 0;
  client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
  types {{ text/html html; text/css css; text/javascript js; image/svg+xml svg; }}
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    listen unix:{dir}/nginx.sock;
    root {dir}/www;
    location /chunked/ {{ alias {dir}/www/; add_trailer X-Trailer "at the end"; }}
    location /headers {{
      default_type text/plain;
      return 200 "host=$http_host xff=$http_x_forwarded_for conn=$http_connection uri=$request_uri";
    }}
    location /status/404 {{ return 404; }}
    location /redirect {{ return 302 /1k; }}
    location /put/ {{ dav_methods PUT DELETE; create_full_put_path on; }}
  }}
}}
"""


class Nginx:
    """Static files, chunked responses with a trailer, uploads to /put/."""

    def __init__(self, directory: Path) -> None:
        program = peer("nginx")
        www = directory / "www"
        (www / "put").mkdir(parents=True)
        (www / "page").mkdir()
        self.digests = {}
        for name, size in SIZES.items():
            content = os.urandom(size)
            (www / name).write_bytes(content)
            self.digests[name] = hashlib.sha256(content).hexdigest()
        # Sparse: a large body that takes no disk.
        with open(www / "256m", "wb") as f:
            f.truncate(1 << 28)
        self._write_page(www)
        self.port = free_port()
        self.server = f"127.0.0.1:{self.port}"
        self.unix = f"unix:{directory}/nginx.sock"
        config = directory / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(_NGINX.format(dir=directory, port=self.port, user=user))
        command = [program, "-c", config, "-p", directory, "-e", directory / "nginx.err"]
        self.process = Process(command, directory / "nginx.log")
        self.process.started(lambda: answers(self.port))

    def _write_page(self, www: Path) -> None:
        (www / "index.html").write_text(PAGE)
        page = www / "page"
        (page / "style.css").write_text("h1 { color: rgb(1, 2, 3); }\n" + "/* " + "x" * 50_000 + " */\n")
        (page / "early.js").write_text("window.early = 1;\n")
        (page / "late.js").write_text(LATE_JS.replace("SHA256_10M", self.digests["10m"]))
        (page / "image.svg").write_text(
            '<svg xmlns="http://www.w3.org/2000/svg" width="24" height="24">'
            '<rect width="24" height="24" fill="#36c"/></svg>'
        )

    def stop(self) -> None:
        self.process.stop()


class Gunicorn:
    """The application of `wsgi_app`, on TCP and on a Unix socket."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.server = f"127.0.0.1:{self.port}"
        socket = directory / "gunicorn.sock"
        self.unix = f"unix:{socket}"
        options = ["--worker-class", "gthread", "--threads", "24", "--workers", "1", "--keep-alive", "30"]
        command = [sys.executable, "-m", "gunicorn", *options, "--no-control-socket", "--bind", self.server]
        command += ["--bind", self.unix, "--graceful-timeout", "1", "tests.e2e.wsgi_app:application"]
        self.process = Process(command, directory / "gunicorn.log", cwd=ROOT)
        self.process.started(lambda: socket.exists() and answers(self.port))

    def stop(self) -> None:
        self.process.stop()
