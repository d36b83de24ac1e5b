"""What `edge run` serves without a configuration: a development CA, a certificate and a small origin.

All of it lies in `$XDG_STATE_HOME/edge` (`~/.local/state/edge`) and is made on the spot; the CA is kept, so that
a browser has to be told of it once. It may only vouch for this machine's own names. The origin is a process of its
own (`python -m edge.demo SOCKET`) that ends when edge does.
"""

import datetime
import ipaddress
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge.errors import EdgeError

PORT: Final = 8443

_CA_DAYS: Final = 3650
_CERTIFICATE_DAYS: Final = 90
_RENEW_DAYS: Final = 14
_LOOPBACK: Final = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))
_BODY_MAX: Final = 1 << 20

_CONFIGURATION = """\
# Made by `edge run`, and made anew each time it starts without --config.
[server]
workers = "auto"

[[listener]]
bind = {bind}

[[certificate]]
names = ["localhost"]
chain = "localhost.pem"
key = "localhost.key"

[[upstream]]
name = "demo"
servers = ["unix:{socket}"]

[[route]]
match = {{}}
upstream = "demo"
"""


def prepare(port: int) -> tuple[Path, str]:
    """Makes what is missing and starts the origin. -> the configuration's path, and what to tell the user."""
    directory = state_directory()
    ca = make_certificates(directory)
    # A path of its own: a Unix socket's has room for 107 bytes, and two may run at a time on different ports.
    sock = Path(tempfile.mkdtemp(prefix="edge-demo-")) / "origin.sock"
    start_origin(sock)
    bind = [f"127.0.0.1:{port}"] + ([f"[::1]:{port}"] if _has_ipv6() else [])
    file = directory / f"edge-{port}.toml"
    file.write_text(_CONFIGURATION.format(bind=json.dumps(bind), socket=sock))
    return file, _welcome(file, ca, port)


def state_directory() -> Path:
    base = os.environ.get("XDG_STATE_HOME", "")
    directory = (Path(base) if base.startswith("/") else Path.home() / ".local/state") / "edge"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise EdgeError(
            f"{directory}: {e.strerror}; set XDG_STATE_HOME to a directory that can be written, or use --config"
        ) from None
    return directory


def _welcome(file: Path, ca: Path, port: int) -> str:
    url = f"https://localhost:{port}/"
    return f"""\
edge serves a demo; stop it with Ctrl-C.

  curl --cacert {ca} {url}

  Browser: {url}
  It will warn of the certificate until it trusts {ca}:
    Firefox: Settings, Certificates, View Certificates, Authorities, Import
    Chromium: chrome://certificate-manager, Local certificates, Installed by you, Import (Authorities)
    This CA can vouch for localhost only; its key stays in {ca.parent}.

  Configuration: {file}
"""


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::1", 0))
    except OSError:
        return False
    return True


# Certificates.


def make_certificates(directory: Path) -> Path:
    """Makes CA and certificate where they are missing or about to expire. -> the CA certificate's path."""
    ca_path, leaf_path = directory / "ca.pem", directory / "localhost.pem"
    ca_key_path, leaf_key_path = directory / "ca.key", directory / "localhost.key"
    if not (_lasts(ca_path) and ca_key_path.exists()):
        ca_key = ec.generate_private_key(ec.SECP256R1())
        _write_key(ca_key_path, ca_key)
        ca_path.write_bytes(_ca(ca_key).public_bytes(Encoding.PEM))
        leaf_path.unlink(missing_ok=True)
    if not (_lasts(leaf_path) and leaf_key_path.exists()):
        ca_cert = x509.load_pem_x509_certificate(ca_path.read_bytes())
        loaded = load_pem_private_key(ca_key_path.read_bytes(), None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise EdgeError(f"{ca_key_path} is not what edge wrote there; remove {directory}")
        leaf_key = ec.generate_private_key(ec.SECP256R1())
        _write_key(leaf_key_path, leaf_key)
        leaf_path.write_bytes(_leaf(leaf_key.public_key(), ca_cert, loaded).public_bytes(Encoding.PEM))
    return ca_path


def _lasts(path: Path) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc > _now() + datetime.timedelta(days=_RENEW_DAYS)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        f.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _ca(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edge development CA ({socket.gethostname()})")])
    own = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    loopback = [x509.IPAddress(ipaddress.ip_network(address)) for address in _LOOPBACK]
    return (
        _builder(name, name, key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.NameConstraints([x509.DNSName("localhost"), *loopback], None), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(own, critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    public: ec.EllipticCurvePublicKey, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = [x509.DNSName("localhost"), *(x509.IPAddress(address) for address in _LOOPBACK)]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return (
        _builder(name, ca.subject, public, _CERTIFICATE_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(issuer, critical=False)
        .sign(ca_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    start = _now() - datetime.timedelta(hours=1)  # for clocks that are a little behind
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


# The origin.


def start_origin(sock: Path) -> None:
    """Starts the origin and waits until it listens. It ends when the last edge process has gone."""
    alive, _held = os.pipe()
    # The other end is never written: it closes with the last process that inherits it by fork, master and workers.
    origin = subprocess.Popen(  # noqa: S603  # this interpreter and this module
        [sys.executable, "-m", "edge.demo", str(sock)], stdin=alive, stdout=subprocess.PIPE, close_fds=True
    )
    os.close(alive)
    with origin.stdout as ready:  # type: ignore[union-attr]  # a pipe was asked for
        if not ready.read(1):
            raise EdgeError(f"the demo's origin did not start (exit code {origin.wait()})")
    origin.returncode = 0  # the master reaps all children; Popen shall not try


class _Origin(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 512


class _Handler(BaseHTTPRequestHandler):
    """A page with several resources, what arrived of the request, and an echo."""

    protocol_version = "HTTP/1.1"
    server_version = "edge-demo"
    disable_nagle_algorithm = False
    timeout = 60

    def do_GET(self) -> None:
        self._pass_over_content()
        path = self.path.partition("?")[0]
        if path == "/request":
            self._answer(200, "application/json", json.dumps(self._received(), indent=2).encode())
        elif path in _RESOURCES:
            kind, body = _RESOURCES[path]
            self._answer(200, kind, body.encode())
        else:
            self._answer(404, "text/plain; charset=utf-8", b"There is no such page here.\n")

    do_HEAD = do_GET  # noqa: N815  # the name that BaseHTTPRequestHandler calls

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > _BODY_MAX:
            self.close_connection = True
            self._answer(413, "text/plain; charset=utf-8", b"A body of up to 1 MiB, with its length, please.\n")
            return
        self._answer(200, self.headers.get("Content-Type", "application/octet-stream"), self.rfile.read(int(length)))

    def _pass_over_content(self) -> None:
        """What came with a GET: unread, it would stand in front of the next request."""
        if "Transfer-Encoding" in self.headers:
            while size := int(self.rfile.readline(64), 16):
                self.rfile.read(size + 2)
            while self.rfile.readline(8192).strip():
                pass
        elif "Content-Length" in self.headers:
            self.close_connection = True

    def _received(self) -> dict[str, object]:
        return {"method": self.command, "path": self.path, "headers": dict(self.headers.items())}

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        """Nothing: edge keeps the log."""


_RESOURCES: Final = {
    "/": (
        "text/html; charset=utf-8",
        """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>edge</title>
<link rel="icon" href="/edge.svg">
<link rel="stylesheet" href="/style.css">
<script src="/page.js" defer></script>
</head>
<body>
<h1><img src="/edge.svg" alt="" width="48" height="48"> It works</h1>
<p>Your browser speaks TLS with <b>edge</b>, whose own record layer and handshake end it here.
What you read came over a Unix socket from the demo origin behind it.</p>
<h2>What the origin received</h2>
<pre id="request">…</pre>
<h2>An echo through the proxy</h2>
<p id="echo">…</p>
</body>
</html>
""",
    ),
    "/style.css": (
        "text/css; charset=utf-8",
        """body { font: 1rem/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { display: flex; align-items: center; gap: .75rem; }
pre { background: #f3f4f6; color: #111; padding: 1rem; overflow-x: auto; border-radius: .5rem; }
""",
    ),
    "/page.js": (
        "text/javascript; charset=utf-8",
        """const put = (id, text) => { document.getElementById(id).textContent = text; };

fetch("/request").then(r => r.text()).then(t => put("request", t), e => put("request", e));

const body = "x".repeat(65536);
const start = performance.now();
fetch("/echo", { method: "POST", body }).then(r => r.text()).then(
  t => put("echo", t === body ? `64 KiB there and back in ${(performance.now() - start).toFixed(1)} ms` : "differs"),
  e => put("echo", e));
""",
    ),
    "/edge.svg": (
        "image/svg+xml",
        """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 48 48">
<path d="M24 3 43 11v13c0 11-8 18-19 21C13 42 5 35 5 24V11z" fill="#0f766e"/>
<path d="M15 24h18M26 16l8 8-8 8" fill="none" stroke="#fff" stroke-width="4" stroke-linecap="round"/>
</svg>
""",
    ),
}


def serve_origin(sock: Path) -> None:
    """Serves until standard input ends."""
    # Ctrl-C, and a SIGTERM for the whole group, are for the master: workers that drain still need their origin.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with _Origin(str(sock), _Handler) as server:
        threading.Thread(target=_when_input_ends, args=(server.shutdown,), daemon=True).start()
        sys.stdout.write("R")
        sys.stdout.flush()
        server.serve_forever()
    shutil.rmtree(sock.parent, ignore_errors=True)  # made for this run


def _when_input_ends(act: Callable[[], None]) -> None:
    while sys.stdin.buffer.read(1):
        pass
    act()


if __name__ == "__main__":
    serve_origin(Path(sys.argv[1]))
