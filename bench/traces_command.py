"""`python -m bench traces`: what traces cost each request, from end to end."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from typing import Any, Final

import click

from bench import ways

SHARES: Final = {
    "no traces": None,
    "traces, none sampled": 0.0,
    "1 % sampled": 0.01,
    "10 % sampled": 0.1,
    "all sampled": 1.0,
}


@click.command()
@ways.options
def traces(**chosen: Any) -> None:
    """Measure the CPU time per proxied request of 1 KiB, with shares of requests sampled.

    All are up at once and measured in turn, round after round. What the observer takes for its exports counts, too.
    Needs (Debian): nginx-light nghttp2-client; and OpenTelemetry (the extra `traces`).
    """
    ways.show("traces", exporting(), **chosen)


@contextlib.contextmanager
def exporting() -> Iterator[dict[str, str]]:
    with collector() as endpoint:
        yield {way: setting(endpoint, share) for way, share in SHARES.items()}


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
