"""`python -m bench load`: the command around bench.load."""

import functools
import json
import signal
import socket
from typing import Any, TextIO
from urllib.parse import urlsplit

import click

from bench.processes import allow_files

SUITES = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
}
GROUPS = {"x25519": 0x001D, "secp256r1": 0x0017, "secp384r1": 0x0018}
IDLE_CONCURRENCY = 64
LINES = click.File("r", encoding="ascii")
HELD = "held"


@click.command()
@click.argument("url")
@click.option(
    "--mode",
    type=click.Choice(["handshake", "requests", "idle", "slow-write", "slow-read"]),
    default="handshake",
    show_default=True,
    help="handshake: a new connection with a full handshake for every request; requests: kept connections; "
    "idle: open --count connections, use each once, hold them for --seconds; slow-write: send a request byte by "
    "byte, one each --interval; slow-read: read 1 KiB of the response each --interval.",
)
@click.option(
    "-c", "--concurrency", type=click.IntRange(1), default=16, show_default=True, help="Connections at a time."
)
@click.option("-n", "--count", type=click.IntRange(0), default=0, help="End after so many operations.")
@click.option(
    "-t", "--seconds", type=click.FloatRange(0), default=0.0, help="End after this time (10 s without --count)."
)
@click.option(
    "--rate",
    type=click.FloatRange(0),
    default=0.0,
    help="With --mode requests or handshake: begin so many in a second, by the clock. A request that finds no free "
    "connection waits, and its latency counts from when it was due.",
)
@click.option("--timeout", type=click.FloatRange(0.01), default=10.0, show_default=True, help="For one operation, s.")
@click.option("--interval", type=click.FloatRange(0.02), default=1.0, show_default=True, help="Of a slow client, s.")
@click.option("--max-errors", type=click.IntRange(1), default=1000, show_default=True, help="Give up after so many.")
@click.option("--resume", is_flag=True, help="Resume the newest session instead of a full handshake.")
@click.option("--address", help="IP address to connect to, whatever the URL's host is.")
@click.option("--suite", type=click.Choice(list(SUITES)), default="TLS_AES_128_GCM_SHA256", show_default=True)
@click.option("--group", type=click.Choice(list(GROUPS)), default="x25519", show_default=True)
@click.option("--names", type=LINES, help="A file with server names, a line each: handshakes ask for them in turn.")
@click.option("--targets", type=LINES, help="A file with URLs, a line each: requests are for them in turn.")
@click.option("--bare", is_flag=True, help="With --mode idle: hold each connection's socket, and none of its state.")
@click.option("--h2", is_flag=True, help="With --bare: HTTP/2.")
@click.option("-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A field to add; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def load(**options: Any) -> None:
    """Load an HTTPS server with GETs of URL and report what it did.

    A closed loop, unless --rate is given: each of the connections begins its next operation when the last one has
    ended. Reported are operations per second, latency percentiles, the CPU time of this process for each operation,
    and errors by kind; the exit status is 1 when there were any. Certificates are not checked for trust, everything
    else that TLS 1.3 demands of a client is.

    \b
    Examples:
      python -m bench load https://localhost:8443/ --seconds 5
      python -m bench load https://localhost:8443/ --mode requests -c 64 -n 100000
      python -m bench load https://localhost:8443/ --mode requests -c 32 --rate 5000 -t 10
      python -m bench load https://localhost:8443/ --mode idle -n 5000 --seconds 30
    """
    from bench.load import Generator

    generator = Generator(**generator_arguments(**options))
    stop_on_signals(generator)
    limit = allow_files()
    if options["mode"] == "idle" and options["count"] > limit - 100:
        raise click.UsageError(f"--count {options['count']}: this process may have {limit} open files")
    result = generator.run()
    click.echo(json.dumps(result) if options["as_json"] else "\n".join(report(result, options["mode"])))
    raise SystemExit(1 if result["errors"] else 0)


def generator_arguments(
    *,
    url: str,
    mode: str,
    concurrency: int,
    count: int,
    seconds: float,
    rate: float,
    timeout: float,
    interval: float,
    max_errors: int,
    resume: bool,
    address: str | None,
    suite: str,
    group: str,
    names: TextIO | None,
    targets: TextIO | None,
    bare: bool,
    h2: bool,
    headers: tuple[str, ...],
    as_json: bool,
) -> dict[str, Any]:
    """What the options mean to a Generator."""
    from cext.tls.config import ClientConfig

    def client(name: str | None) -> ClientConfig:
        alpn = (b"h2",) if h2 else (b"http/1.1",)
        return ClientConfig(server_name=name, alpn=alpn, cipher_suites=(SUITES[suite],), groups=(GROUPS[group],))

    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise click.UsageError(f"{url!r} is no https URL")
    if mode == "idle":
        if not count:
            raise click.UsageError("--mode idle needs --count: how many connections to hold")
        concurrency = min(count, max(concurrency, IDLE_CONCURRENCY))
    if not seconds and (mode == "idle" or not count):
        seconds = 10.0
    if rate and mode not in ("requests", "handshake"):
        raise click.UsageError("--rate needs --mode requests or handshake")
    if (bare and mode != "idle") or (h2 and not bare):
        raise click.UsageError("--bare needs --mode idle, --h2 needs --bare")
    close = mode not in ("requests", "idle")
    return {
        "address": address or resolve(parts.hostname, parts.port or 443),
        "port": parts.port or 443,
        "config": client(parts.hostname),
        "request": build_h2_request(url) if h2 else build_request(url, headers, close=close),
        # Made when one is needed: a hundred thousand would take long, and half a gigabyte.
        "configs": names and [functools.partial(client, line) for line in names.read().split()],
        "requests": targets and [build_request(line, headers, close=close) for line in targets.read().split()],
        "bare": bare,
        "h2": h2,
        "mode": mode,
        "concurrency": concurrency,
        "count": count,
        "seconds": seconds,
        "rate": rate,
        "timeout": timeout,
        "interval": interval,
        "max_errors": max_errors,
        "resume": resume,
        "on_held": (lambda n: click.echo(json.dumps({HELD: n}) if as_json else f"{HELD} {n} connections")),
    }


def build_request(url: str, headers: tuple[str, ...] = (), *, close: bool = False) -> bytes:
    """A GET of the URL; `close` asks the server to end the connection after its response."""
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    fields = [f"Host: {host}", "User-Agent: edge-bench", "Accept: */*", *headers]
    if close:
        fields.append("Connection: close")
    for line in (target, *fields):
        if any(ord(each) < 0x20 or ord(each) > 0x7E for each in line) or " " in target:
            raise click.UsageError(f"{line!r} cannot stand in a request")
    return "".join(f"{line}\r\n" for line in (f"GET {target} HTTP/1.1", *fields, "")).encode("ascii")


H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4\0" + bytes(4)  # and empty SETTINGS
H2_SETTINGS_ACK = bytes(3) + b"\4\1" + bytes(4)


def build_h2_request(url: str) -> bytes:
    """A connection's beginning and a GET that ends stream 1 (RFC 9113); its fields are literal (RFC 7541)."""
    parts = urlsplit(url)
    path, host = (parts.path or "/").encode("ascii"), parts.netloc.encode("ascii")
    if max(len(path), len(host)) > 126:
        raise click.UsageError(f"{url!r} is too long for --h2")
    fields = b"\x82\x87\x04" + bytes([len(path)]) + path + b"\x01" + bytes([len(host)]) + host
    return H2_PREFACE + len(fields).to_bytes(3, "big") + b"\1\5\0\0\0\1" + fields + H2_SETTINGS_ACK


def resolve(host: str, port: int) -> str:
    try:
        return str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
    except OSError as e:
        raise click.ClickException(f"{host}: {e.strerror}") from None


def stop_on_signals(generator: Any) -> None:
    """The first SIGINT or SIGTERM lets what is under way finish, a second one ends at once."""

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        generator.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def report(result: dict[str, Any], mode: str) -> list[str]:
    """The result in words, a line each."""
    what = {"handshake": "handshakes with a request", "idle": "connections"}.get(mode, "requests")
    lines = [f"{result['done']:,} {what} in {result['seconds']:.2f} s: {result['per_second']:,.0f}/s"]
    if result["cpu_us"] is not None:
        lines.append(f"CPU of this client: {result['cpu_us']:.1f} µs each")
    for name, key in (
        ("latency", "latency_us"),
        ("to the handshake's end", "handshake_us"),
        ("failed after", "failed_us"),
    ):
        found = result[key]
        if found["count"]:
            times = ", ".join(f"{p} {found[q]:,}" for p, q in PERCENTILES)
            lines.append(f"{name}, µs: mean {found['mean']:,.0f}, {times}")
    lines.append(f"received {result['bytes_read']:,} bytes, {result['body_bytes']:,} of them bodies")
    if "negotiated" in result:
        lines.append("negotiated " + ", ".join(f"{k} {v}" for k, v in result["negotiated"].items()))
    if result["resumed"]:
        lines.append(f"resumed {result['resumed']:,} of {result['handshakes']:,} handshakes")
    if result["unclean_closes"]:
        lines.append(f"{result['unclean_closes']:,} connections were closed without close_notify")
    lines += [f"error: {kind}: {count:,}" for kind, count in sorted(result["errors"].items())]
    return lines


PERCENTILES = (("50%", "p50"), ("90%", "p90"), ("99%", "p99"), ("99.9%", "p99_9"), ("max", "max"))
