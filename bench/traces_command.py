"""`python -m bench traces`: what traces cost each request, from end to end."""

import contextlib
import http.server
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from bench.hooks_command import measure, table
from bench.processes import BenchError, stopping_on_signals

SHARES: Final = {
    "no traces": None,
    "traces, none sampled": 0.0,
    "1 % sampled": 0.01,
    "10 % sampled": 0.1,
    "all sampled": 1.0,
}


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="Readings; the lowest is shown.")
@click.option("--seconds", type=click.FloatRange(0.5), default=2.0, show_default=True, help="Length of a reading.")
@click.option("--protocol", type=click.Choice(["h1", "h2"]), default="h1", show_default=True)
@click.option("--proxy-cpu", type=click.IntRange(0), default=0, show_default=True, help="CPU of the worker.")
@click.option("--load-cpu", type=click.IntRange(0), default=1, show_default=True, help="CPU of clients and backend.")
def traces(**options: Any) -> None:
    """Measure the CPU time per proxied request of 1 KiB, with shares of requests sampled.

    All are up at once and measured in turn, round after round. What the observer takes for its exports counts, too.
    Needs (Debian): nginx-light nghttp2-client; and OpenTelemetry (the extra `traces`).
    """
    os.sched_setaffinity(0, {options["load_cpu"]})
    directory = Path(tempfile.mkdtemp(prefix="edge-traces-"))
    try:
        with stopping_on_signals(), collector() as endpoint:
            ways = {way: setting(endpoint, share) for way, share in SHARES.items()}
            found = measure(directory, ways, **options)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BenchError as e:
        raise click.ClickException(str(e)) from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    click.echo("\n".join(table(found)))


def setting(endpoint: str, share: float | None) -> str:
    return "" if share is None else f'traces = {{ endpoint = "{endpoint}", sample = {share} }}\n'


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """Takes everything, and looks at nothing -> its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
    finally:
        server.shutdown()
