"""What commands show, as tables: of the items that `edge.admin.shown` and the admin socket tell of (docs/admin.md).

Whatever a configuration or a peer may have written is shown as text, never as markup or as what a terminal obeys.
"""

import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge.hostport import join
from edge.logs.errorlog import one_line

Item = Mapping[str, Any]

GOOD: Final = "green"
FAIR: Final = "yellow"
BAD: Final = "bold red"
FAINT: Final = "dim"

DAY: Final = 86400.0
SOON_DAYS: Final = 30
LAST_DAYS: Final = 7
"""A certificate that has fewer left needs somebody."""
_WIDE: Final = 240
"""Columns, where nobody looks at a terminal: nothing is cut there."""


def console() -> Console:
    """For standard output."""
    width = None if sys.stdout.isatty() else _WIDE
    return Console(highlight=False, markup=False, emoji=False, width=width)


def text(value: object, style: str = "") -> Text:
    """Anything, on one line; nothing is a dash."""
    if value is None or value in ("", [], ()):
        return Text("–", style=FAINT)
    if isinstance(value, bool):
        return Text("yes" if value else "no", style=style)
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    return Text(one_line(str(value)), style=style)


def table(*columns: str) -> Table:
    """Without rows. A column that begins with ">" is of numbers."""
    made = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold cyan",
        border_style=FAINT,
        pad_edge=False,
        show_edge=False,
    )
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.startswith(">") else "left"
        made.add_column(column.removeprefix(">"), justify=justify, overflow="fold")
    return made


def rows(title: str, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> RenderableType:
    """A table with its title, which alone is there when there is nothing else."""
    made = table(*columns)
    for line in lines:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in line))
    if not made.row_count:
        return Text.assemble((title, "bold"), (": none", FAINT))
    return Group(Text(title, style="bold"), made)


# Quantities.


def number(value: float | None) -> str:
    """A count, short: 950, 12.3k, 4.56M."""
    if value is None:
        return "–"
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g}{unit}" if scaled < 999.5 else f"{scaled:.0f}{unit}"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"


def size(value: float | None) -> str:
    """Bytes."""
    if value is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1000 or unit == "TiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"


def duration(seconds: float | None) -> str:
    """Two units at most: 350 µs, 1.20 s, 5m 3s, 2d 4h."""
    if seconds is None:
        return "–"
    if seconds < 0:
        return f"-{duration(-seconds)}"
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1, 1e3, "ms"), (60, 1, "s")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    for limit, large, small in ((3600, 60, 1), (DAY, 3600, 60), (float("inf"), int(DAY), 3600)):
        if seconds < limit:
            names = {1: "s", 60: "m", 3600: "h", int(DAY): "d"}
            whole, rest = divmod(int(seconds), large)
            return f"{whole}{names[large]} {rest // small}{names[small]}"
    raise AssertionError


def moment(at: float | None) -> str:
    """In UTC."""
    return "–" if at is None else time.strftime("%Y-%m-%d %H:%M", time.gmtime(at))


def days_left(expires: float, now: float) -> Text:
    days = (expires - now) / DAY
    if days < 0:
        return Text("expired", style=BAD)
    style = GOOD if days >= SOON_DAYS else FAIR if days >= LAST_DAYS else BAD
    return Text(f"{days:.0f} days" if days >= 3 else duration(expires - now), style=style)


# Things.


def listeners(items: Iterable[Item]) -> RenderableType:
    def kind(item: Item) -> str:
        if item["kind"] == "handoff":
            return "connections handed over, by " + ", ".join(["root and our own user", *item["users"]])
        proxied = ", behind a proxy (PROXY protocol)" if item["proxy_protocol"] else ""
        return f"TLS, {'HTTP/2 and ' if item['http2'] else ''}HTTP/1.1{proxied}"

    return rows("Listeners", ("address", "for"), ((item["bind"], kind(item)) for item in items))


def route_match(item: Item) -> str:
    """Such as "any * /*", "PUT a.de /upload/*"."""
    return f"{' '.join(item['methods'] or ('any',))} {', '.join(item['hosts'] or ('*',))} {item['path']}"


def routes(items: Iterable[Item]) -> RenderableType:
    """Those of a running edge have `figures`."""
    found = list(items)
    running = any("figures" in item for item in found)
    return rows(
        "Routes",
        (">#", "methods, hosts, path", "upstream", "early data", "hooks", *(COUNTED if running else ())),
        (
            (
                str(item["index"]),
                item["name"] + ": " + route_match(item) if item.get("name") else route_match(item),
                item["upstream"],
                item["early_data"],
                item["hooks"],
                *(_counted(item["figures"]) if running else ()),
            )
            for item in found
        ),
    )


COUNTED: Final = (">requests", ">5xx", ">running", ">p50", ">p99")


def _counted(figures: Item | None) -> tuple[object, ...]:
    """What a route, an upstream or a server has counted."""
    if figures is None:
        return ("0", *[None] * (len(COUNTED) - 1))
    failed = figures["status"]["5xx"]
    return (
        number(figures["requests"]),
        Text(number(failed), style=BAD if failed else FAINT),
        number(figures["running"]),
        duration(figures["total"]["p50"]),
        duration(figures["total"]["p99"]),
    )


def protocol(item: Item) -> str:
    """What is spoken with an upstream."""
    if item["tls"] is None:
        return str(item["protocol"])
    unverified = "" if item["tls"]["verify"] else ", unverified"
    return f"{item['protocol']} by TLS{unverified}"


def running_upstreams(items: Iterable[Item], pools: Iterable[Item]) -> RenderableType:
    """Those of a running edge: a line for each, and one for each of its servers. `pools`: what workers told."""
    avoided: dict[tuple[str, str], int] = {}
    for pool in pools:
        key = (pool["upstream"], pool["server"])
        avoided[key] = avoided.get(key, 0) + (pool["avoided"] > 0)
    columns = ("upstream, server", "protocol", *COUNTED, ">open", ">idle", ">failed", "")

    def line(name: Text, spoken: str, figures: Item | None, beside: str = "") -> tuple[object, ...]:
        failed = figures["failures"] if figures else 0
        connections = (number(figures["open"]), number(figures["idle"])) if figures else ("0", "0")
        failures = Text(number(failed), style=BAD if failed else FAINT)
        return (name, Text(spoken), *_counted(figures), *connections, failures, Text(beside, style=BAD))

    lines: list[tuple[object, ...]] = []
    for item in items:
        lines.append(line(text(item["name"], "bold"), protocol(item), item["figures"]))
        for address, figures in item["addresses"].items():
            by = avoided.get((item["name"], address), 0)
            beside = f"avoided by {by} worker{'s' if by > 1 else ''}" if by else ""
            lines.append(line(text(f"  {address}"), "", figures, beside))
    return rows("Upstreams", columns, lines)


def upstreams(items: Iterable[Item]) -> RenderableType:
    return rows(
        "Upstreams",
        ("name", "protocol", "servers", "addresses"),
        (
            (
                item["name"],
                protocol(item),
                item["servers"],
                [a for a in item["addresses"] if a not in item["servers"]],
            )
            for item in items
        ),
    )


def certificates(items: Iterable[Item], now: float) -> RenderableType:
    return rows(
        "Certificates",
        ("for", "kind", "until", "left", "stapling", "beside", "key"),
        (
            (
                item["names"] or "(default only)",
                item["kind"],
                moment(item["expires"]),
                days_left(item["expires"], now),
                stapling(item, now),
                _beside(item, now),
                item["key"],
            )
            for item in items
        ),
    )


def stapling(item: Item, now: float) -> Text:
    """Whether there is an OCSP response."""
    demanded = "must-staple: " if item["must_staple"] else ""
    match item["ocsp"]:
        case "none":
            return Text(f"{demanded}no OCSP response", style=BAD) if demanded else text(None)
        case "missing":
            return Text(f"{demanded}not there yet", style=BAD if demanded else FAIR)
    ends = item["ocsp_expires"]
    if ends is None:
        return Text(f"{demanded}{item['ocsp']}", style=GOOD)
    if ends < now:
        return Text(f"{demanded}{item['ocsp']}, expired", style=BAD if demanded else FAIR)
    return Text(f"{demanded}{item['ocsp']}, {duration(ends - now)} left", style=GOOD)


def _beside(item: Item, now: float) -> list[str]:
    found = []
    if item["timestamps"]:
        found.append(f"{item['timestamps']} SCT{'s' if item['timestamps'] > 1 else ''}")
    if item["delegated"]:
        left = item["delegated"] - now
        found.append(f"delegated credential, {duration(left) + ' left' if left > 0 else 'expired'}")
    return found


def handoffs(items: Iterable[Item]) -> RenderableType:
    def match(item: Item) -> str:
        conditions = (item.get("match") or {}).items()
        return "; ".join(f"{name} {', '.join(values)}" for name, values in conditions) or "a hook's choice"

    return rows(
        "Handed over",
        ("name", "connections with", "to", "otherwise"),
        ((item["name"], match(item), item["socket"], item["otherwise"]) for item in items),
    )


def hooks(items: Iterable[Item]) -> RenderableType:
    def asked(item: Item) -> str:
        if item["routes"] is None:
            return "all requests"
        return f"{item['routes']} route{'s' if item['routes'] != 1 else ''}"

    return rows(
        "Hooks",
        ("policy", "of", "hooks", "named by"),
        ((item["policy"], asked(item), item["hooks"], item["where"]) for item in items),
    )


def tickets(keys: Iterable[Item], rest: Item, now: float) -> RenderableType:
    if not rest.get("enabled"):
        return Text.assemble(("Ticket keys", "bold"), (": none, tickets are off", FAINT))
    of_files = rest.get("source") == "directory"
    period = "with each file" if of_files else f"every {duration(rest['rotate'])}"
    styles = {"seals": GOOD, "next": FAINT, "opens": ""}
    words = {"seals": "seals and opens", "next": "seals next", "opens": "opens"}
    return rows(
        f"Ticket keys: {ticket_source(rest)}; a new one {period}",
        ("key", "state", "written" if of_files else "seals from", ">forgotten in"),
        (
            (
                key["id"],
                Text(words[key["state"]], style=styles[key["state"]]),
                moment(key["since"]),
                duration(key["until"] - now) if key["until"] is not None else None,
            )
            for key in keys
        ),
    )


def ticket_source(told: Item) -> str:
    """Where the keys are from."""
    match told.get("source"):
        case "fleet":
            return "the fleet's" if told["shared"] else "random, until the fleet is reached"
        case "directory":
            return "of a directory"
    return "a secret that hosts share" if told["shared"] else "random, of this process alone"


def fleet(told: Item, now: float) -> RenderableType:
    """What hosts share, and whether they can."""
    lines: list[tuple[str, object]] = [
        ("fleet", told["name"]),
        ("redis", [*([] if told["mode"] == "server" else [told["mode"]]), *told["redis"]]),
        ("shared", told["share"]),
    ]
    if keys := told["tickets"]:
        polls = keys["polls"]
        lines += [
            ("ticket keys", contact(keys, now)),
            ("heard", f"{duration(now - keys['heard'])} ago" if keys["heard"] else "never"),
            ("asked", f"{number(polls['answered'])} times with, {number(polls['failed'])} times without an answer"),
            ("changes", "told at once" if keys["told_at_once"] else "found when it is asked: the error log says why"),
            ("document", f"version {keys['version']}" if keys["version"] else None),
            ("secret", _secret(keys["secret"])),
            ("clock", f"Redis's is {keys['clock_offset']:+.1f} s off" if keys["clock_offset"] else "as Redis's"),
        ]
    made = Table.grid(padding=(0, 2))
    for name, value in lines:
        made.add_row(Text(name, style=FAINT), value if isinstance(value, Text) else text(value))
    return made


def contact(keys: Item, now: float) -> Text:
    """Whether Redis is reached."""
    if keys["connected"]:
        return Text("shared with all hosts", style=GOOD)
    if keys["lost"] is None:
        return Text("Redis is being asked for the first time", style=FAIR)
    return Text(one_line(f"not reached for {duration(now - keys['lost'])}: {keys['error']}"), style=BAD)


def _secret(index: int | None) -> str | None:
    """Which of them ticket keys are under."""
    if index is None:
        return None
    return "the first of secret_files" if index == 0 else f"number {index + 1} of secret_files still"


_STATES: Final = {"handshake": FAIR, "active": GOOD, "hijacked": "cyan", "closing": FAINT, "idle": FAINT}


def connections(items: Iterable[Item], more: bool) -> RenderableType:
    made = table("client", "worker", "state", "protocol", ">age", ">in", ">out", "asks")
    count = 0
    for item in items:
        count += 1
        made.add_row(
            text(join(item["client"], item["port"])),
            text(item["slot"]),
            _state(item),
            text(" ".join(filter(None, (item.get("protocol"), item.get("tls"))))),
            text(duration(item["age"])),
            text(size(item.get("bytes_in"))),
            text(size(item.get("bytes_out"))),
            _asks(item),
        )
    title = f"Connections: {count}{', and there are more (--limit)' if more else ''}"
    if not count:
        return Text.assemble(("Connections", "bold"), (": none", FAINT))
    return Group(Text(title, style="bold"), made)


def _state(item: Item) -> Text:
    words = item["state"] + (", waits for a hook or a signature" if item.get("waits") else "")
    return Text(one_line(words), style=_STATES.get(item["state"], ""))


def _asks(item: Item) -> Text:
    """Its requests that are under way, or for whom it is."""
    running = item["running"]
    if not running:
        return text(item["server_name"], FAINT)
    lines = [_request(item, request) for request in running]
    if item.get("streams", 0) > len(running):
        lines.append(Text(f"and {item['streams'] - len(running)} more", style=FAINT))
    return Text("\n").join(lines)


def _request(item: Item, request: Item) -> Text:
    host = request["host"] or item["server_name"]
    after = f" {request['status']}" if request["status"] else ""
    to = request["server"] or request["upstream"]
    tunnel = f" ({request['tunnel']})" if request.get("tunnel") else ""
    return Text.assemble(
        one_line(f"{request['method']} {host}{request['path']}{tunnel}{after}"),
        (one_line(f" {duration(request['age'])}{f' at {to}' if to else ''}"), FAINT),
    )
