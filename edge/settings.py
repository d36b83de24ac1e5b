"""The settings: every key of the configuration and every default stands here.

Frozen tables, made of a TOML file by `edge.config`. Names match the TOML keys, durations are milliseconds (0 for
"none"), sizes are bytes.
"""

import dataclasses
import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Final

from edge.admin.settings import Admin
from edge.certificates.ocsp import Source
from edge.early_data.settings import MODE, EarlyData
from edge.fleet.settings import Fleet
from edge.handovers import Handoff, HandoffSocket, socket_path
from edge.hostport import dns_name, host_and_port, join, peer_name, split_port
from edge.limits import Limits, RouteLimits
from edge.logs.settings import AccessLog, ErrorLog, KeyLog, KeyLogTable
from edge.observe.settings import BindSection, Metrics, StatusPage
from edge.observe.traces import Traces
from edge.proxy_protocol import ProxyProtocol
from edge.schema import (
    Boolean,
    Choice,
    Duration,
    File,
    Integer,
    Kind,
    ListOf,
    Milliseconds,
    Named,
    Parsed,
    Place,
    Section,
    Sections,
    Size,
    Text,
    knob,
    show,
    table,
)
from edge.signers import KEY, KeylessKey, Pkcs11Key
from edge.tcp import Tcp
from edge.timeouts import ListenerTimeouts, RouteTimeouts

# RFC 9846, sections B.4 and 4.2.7; RFC 5289 and 7905 for those of TLS 1.2.
CIPHER_SUITES: Final = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": 0xC02B,
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": 0xC02F,
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": 0xC02C,
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": 0xC030,
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA9,
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA8,
}
VERSIONS: Final = {"1.2": 0x0303, "1.3": 0x0304}
GROUPS: Final = {
    "x25519mlkem768": 0x11EC,
    "secp256r1mlkem768": 0x11EB,
    "x25519": 0x001D,
    "secp256r1": 0x0017,
    "secp384r1": 0x0018,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Bind:
    """An IP address and port to listen on, or the path of a Unix socket."""

    address: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return join(self.address, self.port)

    @property
    def family(self) -> socket.AddressFamily:
        if self.path:
            return socket.AF_UNIX
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """One server of an upstream: a host (literal address or name) and port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return join(self.host, self.port)


Address = tuple[str, str] | tuple[str, str, int]
"""What the data plane connects to: ("unix", path) or ("tcp", literal address, port)."""


def _bind(text: str) -> Bind:
    if text.startswith("unix:"):
        return Bind(path=socket_path(text.removeprefix("unix:")))
    host, port = split_port(text)
    return Bind(str(ipaddress.ip_address(host)), port)


def _server(text: str) -> Server:
    if text.startswith("unix:"):
        return Server(path=socket_path(text.removeprefix("unix:")))
    if "://" in text:
        raise ValueError("is a URL; what is spoken is said by `protocol` and `tls`")
    host, port = host_and_port(text)
    return Server(host=host, port=port)


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        return f"[{ipaddress.IPv6Address(text[1:-1])}]"
    return dns_name(text)


def _protocol(text: str) -> str:
    name = text.lower()
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+(/[!#$%&'*+.^_`|~0-9a-z-]+)?", name):
        raise ValueError("is no protocol of Upgrade")
    if name.split("/")[0] in ("h2c", "http", "tls"):
        raise ValueError("would carry requests that no route has seen")
    return name


def _path(text: str) -> str:
    if not re.fullmatch(r"/[!-~]*", text) or "?" in text or "#" in text:
        raise ValueError("is no path")
    return text


def _link(text: str) -> str:
    if not re.fullmatch(r"<[!-=?-~]+>[ -~]*", text):
        raise ValueError("is no link: a target in angle brackets, then parameters, in ASCII")
    return text


class Workers(Kind[int]):
    """A number of processes, or "auto": as many as there are CPUs for this process."""

    text = 'integer or "auto"'

    def read(self, value: object, at: Place) -> int:
        if value == "auto":
            return len(os.sched_getaffinity(0))
        if isinstance(value, str):
            raise at.error(f"{show(value)} is not a number of workers", 'write a number without quotes, or "auto"')
        return Integer(1, 1024).read(value, at)


_POLICY: Final = Text("policy", r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", 'write "module:Class"')


@table
class ServerTable:
    workers: int = knob(
        Workers(), 'Worker processes. `"auto"`: one for each CPU that this process may use.', default="auto"
    )
    user: str | None = knob(Text("user name"), "The user that workers run as. Needs a start as root.", default=None)
    group: str | None = knob(
        Text("group name"), "The group that workers run as; without it, the primary group of `user`.", default=None
    )
    drain_timeout: Milliseconds = knob(
        Duration("100ms", "1d"),
        "How long a worker that is stopped or replaced may go on with its running requests.",
        default="30s",
    )
    worker_timeout: Milliseconds = knob(
        Duration("2s", "1h"), "A worker that shows no sign of life for this long is killed and replaced.", default="30s"
    )
    core_dumps: bool = knob(
        Boolean(),
        "Whether a crash may leave a core dump, with the keys and data of clients in it, and processes of the same "
        "user may look into the memory of these; for looking for a fault. Holds for processes that start later.",
        default=False,
    )
    upgrade_timeout: Milliseconds = knob(
        Duration("1s", "1h"),
        "How long a new version may take to start its workers ([operations.md](operations.md#upgrade)); then it is "
        "ended, and the old one goes on.",
        default="1m",
    )
    memory_limit: int = knob(
        Size("16MiB", "1024GiB", none=True),
        "A worker that has more memory than this of its own closes idle connections, those that have been idle longest "
        "first, until it has less.",
        default="none",
    )
    certificate_check: Milliseconds = knob(
        Duration("1s", "1d", none=True),
        "How often the files of the certificates are looked at. What has changed and is in order is used for new "
        'connections, without a reload; what is not is logged, and the old one goes on. `"none"`: a reload alone reads '
        "them.",
        default="5s",
    )
    cache_dir: Path | None = knob(
        File(),
        "A directory for what is worth keeping over a restart: OCSP responses that were fetched. Without it they are "
        "fetched anew after each start.",
        default=None,
    )
    pid_file: Path | None = knob(
        File(), "The file that holds the master's process id; `edge reload` finds it there.", default=None
    )
    admin: Admin | None = knob(
        Section(Admin, short="path"),
        "The admin socket, through which `edge reload`, `edge status` and `edge show` reach the running edge "
        "([admin.md](admin.md)). Without it there is none.",
        default=None,
    )
    access_log: AccessLog | None = knob(
        Section(AccessLog), "The access log. Without this table there is none.", default=None
    )
    error_log: ErrorLog = knob(Section(ErrorLog), "The error log.", default={})
    metrics: Metrics | None = knob(
        BindSection(Metrics),
        "Metrics for Prometheus ([metrics.md](metrics.md)). Without this table there are none.",
        default=None,
    )
    status_page: StatusPage | None = knob(
        BindSection(StatusPage),
        "A page with live charts for the browser ([status-page.md](status-page.md)). Without this table there is none.",
        default=None,
    )
    traces: Traces | None = knob(
        Section(Traces),
        "OpenTelemetry traces ([traces.md](traces.md)). Without this table there are none, and `traceparent` passes as "
        "any field does.",
        default=None,
    )
    hooks: str | None = knob(
        _POLICY,
        'A policy in Python, `"module:Class"`: the module stands beside the configuration file, or is installed '
        "([hooks.md](hooks.md)).",
        default=None,
    )
    hook_timeout: Milliseconds = knob(
        Duration("10ms", "1h"),
        "How long a hook may take, with what it waits for; then it is interrupted, and counts as one that raised.",
        default="5s",
    )


@table
class Records:
    first: int = knob(
        Size("64B", "16KiB"),
        "Data in each of the first TLS records of a connection: one packet's worth.",
        default="1369B",
    )
    until: int = knob(
        Size("0B", "1GiB"), "How much is sent in such records, before full ones of 16 KiB.", default="64KiB"
    )
    idle: Milliseconds = knob(
        Duration("10ms", "1h"), "After a pause this long records are small again, as TCP's window is.", default="1s"
    )


@table
class Http2:
    enabled: bool = knob(
        Boolean(),
        "Whether HTTP/2 is offered (ALPN `h2`), before HTTP/1.1. Limits of a head and timeouts hold for both.",
        default=True,
    )
    max_streams: int = knob(
        Integer(1, 65535), "Requests that a connection may have open at the same time.", default=256
    )
    stream_window: int = knob(
        Size("1KiB", "16MiB"), "Content of a request that may come before its upstream takes it.", default="64KiB"
    )
    connection_window: int = knob(
        Size("64KiB", "1GiB"),
        "The same for all requests of a connection; it opens again as content comes, while no more than this waits.",
        default="1MiB",
    )
    connect_protocol: bool = knob(
        Boolean(),
        "Whether clients may open WebSockets within HTTP/2 (extended CONNECT, RFC 8441), each in a stream of its own. "
        "The upstream gets them in HTTP/1.1.",
        default=True,
    )


@table
class Listener:
    bind: tuple[Bind, ...] = knob(
        ListOf(Parsed("IP address and port", _bind, 'write "192.0.2.1:443", "0.0.0.0:443" or "[::]:443"')),
        'Where to listen: `"0.0.0.0:443"` is every IPv4 address, `"[::]:443"` every IPv6 address (and no IPv4 one). '
        'With `kind = "handoff"`, `"unix:/run/edge/handoff.sock"`.',
    )
    kind: str = knob(
        Choice("tls", "handoff"),
        "`tls`: clients connect here. `handoff`: other processes hand clients' connections over, through Unix sockets "
        "([handoff.md](handoff.md)); all else holds for them as if they had been accepted.",
        default="tls",
    )
    handoff: HandoffSocket = knob(
        Section(HandoffSocket), 'With `kind = "handoff"`: who may hand connections over.', default={}
    )
    proxy_protocol: ProxyProtocol | None = knob(
        Section(ProxyProtocol),
        "The PROXY protocol: proxies in front of this listener say who the client is.",
        default=None,
    )
    backlog: int = knob(
        Integer(1, 65535),
        "Connections that may wait to be accepted, for each worker; the kernel caps it at `net.core.somaxconn`.",
        default=4096,
    )
    forwarded: str = knob(
        Choice("x-forwarded", "forwarded", "both", "none"),
        "Which fields tell the upstream of the client: `X-Forwarded-For`, `-Proto` and `-Host`, "
        "`Forwarded` (RFC 7239), both or none.",
        default="x-forwarded",
    )
    timeouts: ListenerTimeouts = knob(
        Section(ListenerTimeouts),
        "Time limits. All but `handshake` hold for every request that no route says anything else for.",
        default={},
    )
    tcp: Tcp = knob(Section(Tcp), "TCP towards clients.", default={})
    limits: Limits = knob(
        Section(Limits), "What a request's head may be, and how much a client may have at a time.", default={}
    )
    http2: Http2 = knob(Section(Http2), "HTTP/2.", default={})
    records: Records = knob(
        Section(Records),
        "The size of TLS records: a client waits for all packets of a record before it can read any of it.",
        default={},
    )


@table
class Tickets:
    enabled: bool = knob(Boolean(), "Whether clients get tickets, and sessions are resumed by them.", default=True)
    rotate: Milliseconds = knob(Duration("1m", "7d"), "How long a key seals tickets.", default="12h")
    keep: int = knob(Integer(1, 14), "How many earlier keys still open tickets.", default=3)
    lifetime: Milliseconds = knob(
        Duration("1s", "7d"), "How long a ticket is good; at most `rotate` times `keep`.", default="1d"
    )
    count: int = knob(
        Integer(0, 4),
        "Tickets that a client of TLS 1.3 gets after a full handshake; one after a resumed one.",
        default=2,
    )
    secret_file: Path | None = knob(
        File(),
        "A file of at least 32 random bytes that several hosts share, to open each other's tickets; whoever reads it "
        "can read them all. Without it the keys are random and never leave the memory.",
        default=None,
    )
    directory: Path | None = knob(
        File(),
        "A directory of keys that several hosts are given, instead: each file, of at least 48 random bytes, is one. "
        "Sorted by name, the last is the next to seal, the one before it seals, and those before that open "
        "([fleet.md](fleet.md#keys-from-a-directory)). `rotate` and `keep` then only bound `lifetime`.",
        default=None,
    )


@table
class ClientAuth:
    mode: str = knob(
        Choice("request", "require"),
        "`require` refuses clients without a certificate; `request` serves them too. One that is shown must be trusted "
        "in either case, and stand for its client when a session is resumed.",
        default="require",
    )
    ca: Path = knob(
        File(),
        "PEM file: the authorities whose certificates clients may show, roots or intermediates. Clients are sent their "
        "names to choose by.",
    )


@table
class Tls:
    min_version: int = knob(
        Named("TLS version", VERSIONS),
        'Lowest version of TLS: "1.2" or "1.3". Of 1.2 only what is still sound is spoken: ECDHE, AEAD suites, no '
        "renegotiation; nothing older is.",
        default="1.2",
    )
    max_version: int = knob(Named("TLS version", VERSIONS), "Highest version of TLS.", default="1.3")
    cipher_suites: tuple[int, ...] = knob(
        ListOf(Named("cipher suite", CIPHER_SUITES)),
        "Cipher suites, those of each version most preferred first; a version without any is not spoken. In TLS 1.2 "
        "ECDSA suites go with ECDSA and Ed25519 certificates, RSA suites with RSA. A client that prefers "
        "ChaCha20-Poly1305 gets it.",
        default=list(CIPHER_SUITES),
    )
    groups: tuple[int, ...] = knob(
        ListOf(Named("group", GROUPS, any_case=True)),
        "Groups of the key exchange, most preferred first; but one that the client has sent a share of goes before one "
        "that it would have to be asked for. Those with ML-KEM (X25519MLKEM768, SecP256r1MLKEM768) are safe from "
        "quantum computers to come and of TLS 1.3 alone; where neither libcrypto nor the cryptography package has "
        "ML-KEM-768 they are left out.",
        default=list(GROUPS),
    )
    tickets: Tickets = knob(Section(Tickets), "Session tickets.", default={})
    early_data: EarlyData | None = knob(
        Section(EarlyData),
        "0-RTT data. Without this table none is taken; with it, a route's `early_data` says what becomes of requests.",
        default=None,
    )
    client_auth: ClientAuth | None = knob(
        Section(ClientAuth),
        "Asks clients for certificates, on every listener.",
        default=None,
    )
    key_log: KeyLog | None = knob(
        KeyLogTable(),
        "For debugging: the file that secrets of connections are appended to, in the format of NSS's SSLKEYLOGFILE. "
        "Whoever reads it can read what the connections carry.",
        default=None,
    )


@table
class Delegated:
    credential: Path = knob(File(), "The delegated credential, as `edge delegate` makes it.")
    key: Path = knob(File(), "PEM file: the private key that it delegates to.")


@table
class Certificate:
    names: tuple[str, ...] | None = knob(
        ListOf(
            Parsed("DNS name", dns_name, 'write "example.com" or "*.example.com" (internationalised names as xn--)')
        ),
        'Server names (SNI) that this certificate is for, `"*.example.com"` for any one label; without it, '
        "the DNS names of the certificate.",
        default=None,
    )
    chain: Path = knob(File(), "PEM file: the server's certificate, then each issuer's up to (not needed) the root.")
    key: Path | KeylessKey | Pkcs11Key = knob(
        KEY,
        "PEM file: the private key, not encrypted. ECDSA P-256 or P-384, RSA or Ed25519. Or a table that says where "
        "else it is ([keys.md](keys.md)).",
    )
    delegated: Delegated | None = knob(
        Section(Delegated),
        "A delegated credential (RFC 9345), for clients of TLS 1.3 that take such: they are answered with its key, for "
        "as long as it holds, all others with `key` ([keys.md](keys.md)).",
        default=None,
    )
    ocsp: Path | str = knob(
        Source(),
        "OCSP responses, which go to clients that ask for one. A path: a DER file, used while it holds, and read again "
        'when it is replaced. `"fetch"`: fetched from the responder that the certificate names, and kept fresh '
        '([certificates.md](certificates.md)). `"auto"`: fetched for a certificate that clients refuse without one '
        "(must-staple), else none.",
        default="auto",
    )
    scts: tuple[Path, ...] = knob(
        ListOf(File(), empty=True),
        "Files with a Signed Certificate Timestamp or a list of them (RFC 6962), for clients that ask. Not needed "
        "where the certificate has them within, as those of public authorities do.",
        default=[],
    )


@table
class Pool:
    max_idle: int = knob(
        Integer(0, 65535),
        "Idle connections of HTTP/1.1 that each worker keeps open to this upstream; more are kept for a quarter of a "
        "second, between bursts. 0 closes each after its response, and one of HTTP/2 once it has none to answer.",
        default=200,
    )
    idle: Milliseconds = knob(
        Duration(), "How long an idle connection is kept. Stay below the upstream's own keep-alive.", default="10s"
    )
    max_connections: int = knob(
        Integer(1, 65535),
        "Connections of HTTP/2 that each worker opens to one server: another one where those there are have as many "
        "requests as the server takes on each. Further requests wait, within `timeouts.connect`.",
        default=16,
    )


@table
class UpstreamTls:
    ca: Path | None = knob(
        File(),
        "PEM file: the authorities that may have issued a server's certificate. Without it, those of the system.",
        default=None,
    )
    name: str | None = knob(
        Parsed("host name or IP address", peer_name, 'write "app.internal" or "10.0.0.7", without a port'),
        "What the certificates of all servers are to be for, and what is asked for as SNI. Without it, the host that "
        "stands in `servers`.",
        default=None,
    )
    verify: bool = knob(
        Boolean(),
        "Whether a server must show who it is. Without that, anyone on the way may answer in its place.",
        default=True,
    )
    chain: Path | None = knob(
        File(),
        "PEM file: a certificate that is shown to servers which ask for one, then each issuer's.",
        default=None,
    )
    key: Path | None = knob(File(), "PEM file: its private key, not encrypted.", default=None)


@table
class Upstream:
    name: str = knob(
        Text("name", r"[A-Za-z0-9._-]{1,64}", "write up to 64 letters, digits, dots, hyphens or underscores"),
        "The name that routes and logs call it by.",
    )
    servers: tuple[Server, ...] = knob(
        ListOf(
            Parsed("server", _server, 'write "127.0.0.1:9000", "[::1]:9000", "host.name:80" or "unix:/run/app.sock"')
        ),
        'Its servers, used in turn: `"127.0.0.1:9000"`, `"[::1]:9000"`, `"unix:/run/app.sock"`, or '
        '`"host.name:80"`, which is resolved when the file is loaded.',
    )
    protocol: str = knob(
        Choice("http/1.1", "h2", "h2c"),
        "What is spoken with the servers. `h2`: HTTP/2 over TLS, which they must choose (ALPN). `h2c`: HTTP/2 over "
        "plain TCP, which they are known to speak. Many requests share a connection then.",
        default="http/1.1",
    )
    tls: UpstreamTls | None = knob(
        Section(UpstreamTls),
        "TLS (1.3 or 1.2) towards the servers; `{}` for all its defaults, which `h2` has anyway. Without this table it "
        "is plain TCP.",
        default=None,
    )
    pool: Pool = knob(Section(Pool), "Connections that are kept for further requests.", default={})
    tcp: Tcp = knob(Section(Tcp), "TCP towards the servers.", default={})


@table
class Match:
    host: tuple[str, ...] | None = knob(
        ListOf(Parsed("host", _host, 'write "example.com", "*.example.com" or an IP address, without a port')),
        'The request\'s host is one of these; `"*.example.com"` is any name below it. Every host without it.',
        default=None,
    )
    path: str = knob(
        Parsed("path pattern", _path, 'begin with "/"; "*" stands for any characters; no query'),
        'The path: exactly `"/login"`, a prefix `"/static/*"`, or with `*` anywhere.',
        default="/*",
    )
    method: tuple[str, ...] | None = knob(
        ListOf(Text("method", r"[A-Z][A-Z0-9-]*", 'write a method in capitals, such as "POST"')),
        "The method is one of these. Every method but TRACE without it: that one passes only where it is named.",
        default=None,
    )


@table
class EarlyHints:
    links: tuple[str, ...] = knob(
        ListOf(
            Parsed("link", _link, 'write one link, such as "</style.css>; rel=preload; as=style"'),
            empty=True,
        ),
        "What pages of this route need, as `Link` fields name it, with a relation of `preload`, `modulepreload` or "
        "`preconnect`.",
        default=[],
    )
    learn: bool = knob(
        Boolean(),
        "Whether the links with these relations that a page came with are hinted the next time it is asked for. They "
        "are learned from responses that are for everybody (no `Set-Cookie`, `private`, `no-store`, no `Vary` but by "
        "`Accept-Encoding` or `Origin`; where the request had `Cookie` or `Authorization`, only if `public`), to "
        "requests without a query or content.",
        default=False,
    )
    remember: Milliseconds = knob(
        Duration("1s", "7d"), "How long what was learned of a page holds without being seen again.", default="1h"
    )
    http1: bool = knob(
        Boolean(),
        "Whether clients of HTTP/1.1 get hints too: some take the first response of whatever kind for the last.",
        default=False,
    )


@table
class Route:
    name: str | None = knob(
        Text("name", r"[!-~]([ -~]{0,126}[!-~])?", "write up to 128 characters of ASCII"),
        "What metrics and the status page call it; routes of one name are counted together.",
        default=None,
        otherwise="its hosts, path and methods",
    )
    match: Match = knob(
        Section(Match),
        "Which requests. All conditions hold; the most specific route wins. `{}` matches everything.",
        default={},
    )
    upstream: str = knob(Text("name"), "The `name` of the upstream that gets them.")
    timeouts: RouteTimeouts = knob(
        Section(RouteTimeouts), "Time limits that this route sets otherwise than the listener.", default={}
    )
    limits: RouteLimits = knob(Section(RouteLimits), "Limits of what is for this route.", default={})
    early_data: str = knob(
        MODE,
        "What becomes of a request in 0-RTT data, which may be a replay until the client's handshake is over: it waits "
        'for that (`"confirm"`); it goes to the upstream at once if it is safe (`"forward"`: see `tls.early_data.safe` '
        'and [early-data.md](early-data.md)); or it is answered 425, and the client sends it again (`"reject"`).',
        default="confirm",
    )
    push: bool = knob(
        Boolean(),
        "Whether clients of HTTP/2 that want it get pushed what a response to GET names by "
        "`Link: </path>; rel=preload` without `nopush`. The promised request has the client's `Accept-Encoding`, "
        "`Accept-Language`, `Authorization`, `Cookie` and `User-Agent`, and is routed as any other.",
        default=False,
    )
    upgrade: tuple[str, ...] = knob(
        ListOf(
            Parsed("protocol", _protocol, 'write the name of a protocol as Upgrade has it, such as "websocket"'),
            empty=True,
        ),
        "Protocols that a request may switch to by `Upgrade`, or in HTTP/2 by extended CONNECT; `[]` for none. After "
        "the switch bytes pass as they are, for as long as `timeouts.websocket_idle` allows. An upgrade to any other "
        "protocol, or to a server of HTTP/2, goes on as an ordinary request.",
        default=["websocket"],
    )
    hooks: str | None = knob(
        _POLICY,
        "A policy for these requests alone, as `server.hooks`, with the hooks `director` and `response` "
        "([hooks.md](hooks.md)).",
        default=None,
    )
    early_hints: EarlyHints | None = knob(
        Section(EarlyHints),
        "Early Hints (103): a GET is answered at once with what its page will need, before the upstream is asked. Not "
        "if the browser says (`Sec-Fetch-Mode`) that it is for something else than a page. Those of an upstream are "
        "passed on with or without this table.",
        default=None,
    )


@table
class Settings:
    """A whole configuration file."""

    file: str
    addresses: tuple[tuple[Address, ...], ...]
    """For each upstream, the addresses of its servers, names resolved."""
    server_names: tuple[tuple[str, ...], ...] = ()
    """For each of them, whom its certificate is to be for."""
    warnings: tuple[str, ...]

    server: ServerTable = knob(Section(ServerTable), "The processes, and what they write.", default={})
    listener: tuple[Listener, ...] = knob(Sections(Listener), "Where clients connect. At least one.")
    tls: Tls = knob(
        Section(Tls),
        "TLS, for every listener. The protocols (ALPN) are `h2` (see `listener.http2`), `http/1.1` and `http/1.0`.",
        default={},
    )
    certificate: tuple[Certificate, ...] = knob(
        Sections(Certificate),
        "A certificate and its key. At least one; clients that name no known server get the first. Several for "
        "one name, with different kinds of keys, are chosen by what the client can verify.",
    )
    upstream: tuple[Upstream, ...] = knob(
        Sections(Upstream), "A group of servers that requests are sent to. At least one."
    )
    route: tuple[Route, ...] = knob(
        Sections(Route), "Which requests go to which upstream. At least one; a request without a route gets 404."
    )
    handoff: tuple[Handoff, ...] = knob(
        Sections(Handoff, empty=True),
        "Where connections go that other processes are to serve, with all that their clients have sent "
        "([handoff.md](handoff.md)). Holds for listeners of kind `tls`.",
        default=[],
    )
    fleet: Fleet | None = knob(
        Section(Fleet),
        "Several hosts that share ticket keys, and which 0-RTT data was taken, through Redis or Valkey "
        "([fleet.md](fleet.md)). Without this table a host is alone. Needs `pip install 'edge[fleet]'`.",
        default=None,
    )
