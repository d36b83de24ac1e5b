"""The proxies that are compared: how each is configured to do the same job.

The job: terminate TLS 1.3 with one worker and one P-256 certificate, and forward every request over kept
connections to the backend. A new peer is a function that writes its configuration and returns its command,
and a row in PEERS.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import BenchError, Process, free_port, wait_listening

ROOT = Path(__file__).resolve().parent.parent
POOL = 200  # idle connections to the backend that a peer may keep
KEEP_ALIVE = 300  # seconds an idle client connection lives: longer than any test
BODIES = {"1k": 1 << 10, "100k": 100 << 10, "10m": 10 << 20}


@dataclass(frozen=True)
class Site:
    """What all peers share: a directory, the certificate, the backend."""

    directory: Path
    chain: Path
    key: Path
    backend: int  # its port
    files: int  # open files that a process may have

    @property
    def connections(self) -> int:
        return self.files // 3


@dataclass(frozen=True)
class Launch:
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    name: str
    program: Callable[[], str | None]  # where it is; None: not installed
    version: Sequence[str]  # arguments that make it print its version
    configure: Callable[[Site, str, int], Launch]


def make_site(directory: Path, files: int) -> Site:
    """A self-signed P-256 certificate for localhost and the name of a port for the backend."""
    chain, key = directory / "chain.pem", directory / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "7", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    made = subprocess.run([*command, "-keyout", key, "-out", chain], capture_output=True, text=True, check=False)
    if made.returncode:
        raise BenchError(f"openssl could not make a certificate: {made.stderr.strip()[-300:]}")
    (directory / "bundle.pem").write_text(chain.read_text() + key.read_text())
    return Site(directory, chain, key, free_port(), files)


def start_backend(site: Site, cpu: int) -> Process:
    """nginx with files of the sizes in BODIES, over plain HTTP."""
    program = on_path("nginx")()
    if program is None:
        raise BenchError("nginx is needed as the backend: apt install nginx-light")
    root = site.directory / "www"
    root.mkdir()
    for name, size in BODIES.items():
        (root / name).write_bytes(os.urandom(size))
    # Temporary files are never used here, but nginx makes their directories at start
    temporary = "".join(f"{kind}_temp_path {site.directory}/b-{kind};" for kind in NGINX_TEMPORARY)
    server = f"server {{ listen 127.0.0.1:{site.backend} backlog=4096; root {root}; }}"
    configuration = site.directory / "backend.conf"
    configuration.write_text(f"""
        {nginx_globals(site, "backend")}
        http {{
            access_log off; sendfile on; tcp_nopush on; open_file_cache max=100;
            keepalive_requests 1000000000; keepalive_timeout {KEEP_ALIVE}s; {temporary}
            {server}
        }}""")
    command = [program, "-c", str(configuration), "-p", str(site.directory)]
    process = Process(command, cpu=cpu, log=site.directory / "backend.log")
    try:
        wait_listening(process, site.backend)
    except BenchError:
        process.stop()
        raise
    return process


NGINX_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def nginx_globals(site: Site, name: str) -> str:
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
        {user} daemon off; worker_processes 1; worker_rlimit_nofile {site.files};
        pid {site.directory}/{name}.pid; error_log {site.directory}/{name}.errors crit;
        events {{ worker_connections {site.files - 100}; }}"""


def nginx(site: Site, program: str, port: int) -> Launch:
    configuration = site.directory / "nginx.conf"
    temporary = "".join(f"{kind}_temp_path {site.directory}/n-{kind};" for kind in NGINX_TEMPORARY)
    configuration.write_text(f"""
        {nginx_globals(site, "nginx")}
        http {{
            access_log off; {temporary}
            keepalive_requests 1000000000; keepalive_timeout {KEEP_ALIVE}s;
            upstream backend {{
                server 127.0.0.1:{site.backend};
                keepalive {POOL}; keepalive_requests 1000000000;
            }}
            server {{
                listen 127.0.0.1:{port} ssl http2 reuseport backlog=4096;
                ssl_certificate {site.chain}; ssl_certificate_key {site.key};
                ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519;
                ssl_session_cache shared:sessions:10m; ssl_session_tickets on;
                location / {{
                    proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_max_temp_file_size 0;
                }}
            }}
        }}""")
    return Launch([program, "-c", str(configuration), "-p", str(site.directory)])


def haproxy(site: Site, program: str, port: int) -> Launch:
    configuration = site.directory / "haproxy.cfg"
    times = "".join(f"    timeout {side} {KEEP_ALIVE}s\n" for side in ("client", "server", "http-keep-alive"))
    configuration.write_text(f"""global
    nbthread 1
    maxconn {site.connections}
    ssl-default-bind-curves X25519
defaults
    mode http
    http-reuse always
    timeout connect 5s
{times}
frontend tls
    bind 127.0.0.1:{port} ssl crt {site.directory}/bundle.pem alpn h2,http/1.1 ssl-min-ver TLSv1.2
    default_backend files
backend files
    server one 127.0.0.1:{site.backend} pool-max-conn {POOL}
""")
    return Launch([program, "-db", "-f", str(configuration)])


def h2o(site: Site, program: str, port: int) -> Launch:
    configuration = site.directory / "h2o.yaml"
    configuration.write_text(f"""
num-threads: 1
max-connections: {site.connections}
http1-request-timeout: {KEEP_ALIVE}
http2-idle-timeout: {KEEP_ALIVE}
hosts:
  default:
    listen:
      host: 127.0.0.1
      port: {port}
      ssl:
        certificate-file: {site.chain}
        key-file: {site.key}
    paths:
      "/":
        proxy.reverse.url: "http://127.0.0.1:{site.backend}/"
        proxy.timeout.keepalive: 60000
""")
    return Launch([program, "-c", str(configuration)])


def caddy(site: Site, program: str, port: int) -> Launch:
    configuration = site.directory / "Caddyfile"
    configuration.write_text(f"""{{
    admin off
    auto_https off
    default_sni localhost
}}
https://:{port} {{
    bind 127.0.0.1
    tls {site.chain} {site.key} {{
        curves x25519
    }}
    reverse_proxy 127.0.0.1:{site.backend} {{
        transport http {{
            keepalive_idle_conns_per_host {POOL}
        }}
    }}
}}
""")
    command = [program, "run", "--adapter", "caddyfile", "--config", str(configuration)]
    home = str(site.directory)
    return Launch(command, {"GOMAXPROCS": "1", "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home})


GO_PROXY = """// A reverse proxy from Go's standard library: serve <address> <backend> <chain> <key>
package main

import (
	"crypto/tls"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"time"
)

func main() {
	backend, err := url.Parse(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(backend)
	proxy.Transport = &http.Transport{MaxIdleConns: %(pool)d, MaxIdleConnsPerHost: %(pool)d}
	server := &http.Server{
		Addr:        os.Args[1],
		Handler:     proxy,
		IdleTimeout: %(keep_alive)d * time.Second,
		TLSConfig:   &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}},
	}
	log.Fatal(server.ListenAndServeTLS(os.Args[3], os.Args[4]))
}
"""


def go(site: Site, program: str, port: int) -> Launch:
    directory = site.directory / "go"
    binary = directory / "proxy"
    if not binary.exists():
        directory.mkdir(exist_ok=True)
        (directory / "main.go").write_text(GO_PROXY % {"pool": POOL, "keep_alive": KEEP_ALIVE})
        environment = {**os.environ, "GO111MODULE": "off"}
        command = [program, "build", "-o", str(binary), str(directory / "main.go")]
        built = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if built.returncode:
            raise BenchError(f"the Go proxy does not build: {built.stderr.strip()[-300:]}")
    addresses = [f"127.0.0.1:{port}", f"http://127.0.0.1:{site.backend}"]
    return Launch([str(binary), *addresses, str(site.chain), str(site.key)], {"GOMAXPROCS": "1"})


def edge(site: Site, program: str, port: int) -> Launch:
    configuration = site.directory / "edge.toml"
    configuration.write_text(f"""[server]
workers = 1

[[listener]]
bind = ["127.0.0.1:{port}"]
timeouts = {{ keepalive = "{KEEP_ALIVE}s" }}

[[certificate]]
names = ["localhost"]
chain = "{site.chain}"
key = "{site.key}"

[[upstream]]
name = "files"
servers = ["127.0.0.1:{site.backend}"]

[[route]]
match = {{}}
upstream = "files"
""")
    return Launch([*program.split(), "run", "--config", str(configuration)])


def on_path(name: str) -> Callable[[], str | None]:
    places = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/usr/local/go/bin"
    return lambda: shutil.which(name, path=places)


def edge_command() -> str:
    """This tree's edge; EDGE in the environment names another one (words split at spaces)."""
    return os.environ.get("EDGE") or f"{sys.executable} -m edge"


PEERS = {
    peer.name: peer
    for peer in (
        Peer("nginx", on_path("nginx"), ["-v"], nginx),
        Peer("haproxy", on_path("haproxy"), ["-v"], haproxy),
        Peer("h2o", on_path("h2o"), ["-v"], h2o),
        Peer("caddy", on_path("caddy"), ["version"], caddy),
        Peer("go", on_path("go"), ["version"], go),
        Peer("edge", edge_command, ["--version"], edge),
    )
}


def peer_version(peer: Peer) -> str:
    """The first version number that the peer prints, or "unknown"."""
    program = peer.program()
    if program is None:
        return "not installed"
    command = [*program.split(), *peer.version]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd=ROOT)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"\d+(?:\.\d+)+[\w.+~-]*", ran.stdout + ran.stderr)
    return found[0] if found else "unknown"


class Server:
    """A peer that is up (or can be started again) on its port and CPU."""

    def __init__(self, peer: Peer, site: Site, cpu: int) -> None:
        self.peer = peer
        self.site = site
        self.cpu = cpu
        self.port = free_port()
        self.prefix: list[str] = []  # of the command: a tool that it runs under
        self.patience = 15.0  # seconds that it may take to start
        self.process: Process | None = None

    @property
    def pid(self) -> int:
        if self.process is None:
            raise BenchError("is not running")
        return self.process.pid

    def start(self) -> None:
        program = self.peer.program()
        if program is None:
            raise BenchError("not installed")
        launch = self.peer.configure(self.site, program, self.port)
        self.process = Process(
            [*self.prefix, *launch.command],
            cpu=self.cpu,
            log=self.site.directory / f"{self.peer.name}.log",
            environment=launch.environment,
            directory=ROOT,
        )
        try:
            wait_listening(self.process, self.port, self.patience)
        except BenchError:
            self.stop()
            raise

    def stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.stop()

    def restart(self) -> None:
        self.stop()
        self.start()
