"""What the observer answers for the status page: its files, and what they show, as JSON.

The page is somebody's browser away from whatever that browser visits. So only addresses and configured names lead here
(a name of somebody else's could be made to, DNS rebinding), nothing from elsewhere runs in the page, no other page may
frame or read it, and nothing here changes anything.
"""

import asyncio
import functools
import gzip
import hashlib
import ipaddress
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.observe.figures import BOUNDS, STATUS
from edge.observe.labels import KINDS, ROUTE
from edge.observe.settings import StatusPage

if TYPE_CHECKING:
    from edge.observe.observer import Answer, Handler, Headers, Request, View

DIRECTORY: Final = Path(__file__).parent
FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/main.js": ("main.js", "text/javascript; charset=utf-8"),
    "/attention.js": ("attention.js", "text/javascript; charset=utf-8"),
    "/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
    "/format.js": ("format.js", "text/javascript; charset=utf-8"),
    "/history.js": ("history.js", "text/javascript; charset=utf-8"),
    "/tables.js": ("tables.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
GUARDS: Final = [
    ("Content-Security-Policy", POLICY),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
]
FRESH_SECONDS: Final = 0.5
"""An answer serves whoever asks within this time."""
SHOWN: Final = 100
"""Of routes, upstreams and servers, those with the most requests."""
CERTIFICATES_SHOWN: Final = 50
"""Those that expire first."""


class Page:
    def __init__(self, view: "View", settings: StatusPage) -> None:
        self._view = view
        self._names = frozenset(settings.hosts)
        self._content: tuple[float, bytes] = (0.0, b"")
        self._making = asyncio.Lock()

    def handlers(self) -> "dict[str, Handler]":
        """By path."""
        found: dict[str, Handler] = {"/status.json": self._status}
        for path, (name, kind) in FILES.items():
            found[path] = functools.partial(self._file, *_load(name), kind)
        return {path: self._guarded(handler) for path, handler in found.items()}

    def _guarded(self, handler: "Handler") -> "Handler":
        async def answer(request: "Request") -> "Answer":
            if not self._is_ours(request.headers.get("host", "")):
                text = "This name is not known here: add it to server.status_page.hosts, or use an address.\n"
                return 421, [("Content-Type", "text/plain; charset=utf-8"), *GUARDS], text.encode()
            status, headers, content = await handler(request)
            return status, [*headers, *GUARDS], content

        return answer

    def _is_ours(self, host: str) -> bool:
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+))(?::[0-9]{1,5})?", host)
        if not found:
            return False
        name = found[1] or found[2].lower().removesuffix(".")
        try:
            return ipaddress.ip_address(name).version == (6 if found[1] else 4)
        except ValueError:
            return not found[1] and (name == "localhost" or name in self._names)

    async def _file(self, content: bytes, packed: bytes, tag: str, kind: str, request: "Request") -> "Answer":
        headers = [("Content-Type", kind), ("ETag", tag), ("Cache-Control", "no-cache"), ("Vary", "Accept-Encoding")]
        if request.headers.get("if-none-match") == tag:
            return 304, headers, b""
        if _takes_gzip(request):
            return 200, [*headers, ("Content-Encoding", "gzip")], packed
        return 200, headers, content

    async def _status(self, request: "Request") -> "Answer":
        async with self._making:
            made_at, content = self._content
            if time.monotonic() > made_at + FRESH_SECONDS:
                content = await asyncio.to_thread(self._make)
                self._content = time.monotonic(), content
        headers: Headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        if len(content) > 4096 and _takes_gzip(request):
            return 200, [*headers, ("Content-Encoding", "gzip")], gzip.compress(content, 1)
        return 200, headers, content

    def _make(self) -> bytes:
        return json.dumps(status(self._view), ensure_ascii=True, separators=(",", ":")).encode()


def _load(name: str) -> tuple[bytes, bytes, str]:
    content = (DIRECTORY / name).read_bytes()
    return content, gzip.compress(content, 9, mtime=0), f'"{hashlib.sha256(content).hexdigest()[:24]}"'


def _takes_gzip(request: "Request") -> bool:
    return re.search(r"(^|[\s,])gzip\s*(,|$)", request.headers.get("accept-encoding", "")) is not None


def status(view: "View") -> dict[str, Any]:
    """Everything that the page shows:

    | key | |
    |---|---|
    | `state` | what the master knows (`edge.admin.state`); of its certificates those that expire first, and how many \
more |
    | `figures` | `Figures.as_dict`, with the busiest routes, upstreams and servers, and how many more |
    | `histograms` | {bounds, total, first_byte, turn, full_handshake, resumed_handshake, routes, upstreams, servers}: \
counts since the start as [first bucket, [count, ...]], the last three by label and of whole requests |
    | `requests` | of all routes together {status, bytes_in, bytes_out, running} |
| `traces` | spans {exported, failed, dropped (requests)}; null: there are none |
| `processes` | of workers: {pid: {memory (bytes, its own), requests, connections, busy, longest}} |
    """
    state = dict(view.state)
    figures = view.figures()
    series = list(figures.series())
    routes = [one for one in series if one.kind == ROUTE]
    found = figures.as_dict(kinds=())
    counts: dict[str, Any] = {}
    more: dict[str, int] = {}
    for kind in KINDS:
        of_kind = [one for one in series if one.kind == kind]
        shown = sorted(of_kind, key=lambda one: -one.values["requests"])[:SHOWN]
        found[f"{kind}s"] = {one.label: one.as_dict() for one in shown}
        counts[f"{kind}s"] = {one.label: _trimmed(one.total.counts) for one in shown}
        more[f"{kind}s"] = len(of_kind) - len(shown)
    certificates = sorted(state.get("certificates", ()), key=lambda certificate: certificate["expires"])
    state["certificates"] = certificates[:CERTIFICATES_SHOWN]
    more["certificates"] = len(certificates) - len(state["certificates"])
    return {
        "state": state,
        "figures": found,
        "more": more,
        "histograms": {
            "bounds": BOUNDS,
            "total": _trimmed(_added([one.total.counts for one in routes])),
            "first_byte": _trimmed(_added([one.first_byte.counts for one in routes])),
            "turn": _trimmed(figures.turn().counts),
            "full_handshake": _trimmed(figures.handshake(False).counts),
            "resumed_handshake": _trimmed(figures.handshake(True).counts),
            **counts,
        },
        "requests": {
            "status": dict(zip(STATUS, _added([one.values["status"] for one in routes]) or [0] * 6, strict=True)),
            **{name: sum(one.values[name] for one in routes) for name in ("bytes_in", "bytes_out", "running")},
        },
        "traces": view.exports() if view.exports else None,
        "processes": {str(worker["pid"]): _process(view, worker) for worker in state.get("workers", ())},
    }


def _added(lists: Iterable[Sequence[int]]) -> list[int]:
    return [sum(values) for values in zip(*lists, strict=True)]


def _trimmed(counts: Sequence[int]) -> list[Any]:
    """[index of the first that is not zero, [that one, ..., the last that is not]]"""
    some = [i for i, count in enumerate(counts) if count]
    return [some[0], list(counts[some[0] : some[-1] + 1])] if some else [0, []]


def _process(view: "View", worker: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"memory": _own_memory(worker["pid"])}
    if worker.get("row") is not None:
        own = view.figures([worker["row"]])
        _, found["busy"], found["longest"] = own.loop()
        found["requests"] = own.counters()["requests"]
        found["connections"] = own.gauges()["connections_open"]
    return found


def _own_memory(pid: int) -> int | None:
    """Bytes that are not shared with others; None: it has gone."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except OSError:
        return None
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
