"""What `edge status` shows: a picture of the state and the figures, as wide and as high as there is room."""

import collections
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edge.commands import render
from edge.commands.render import BAD, FAINT, FAIR, GOOD, Item, duration, number, size, text

WIDE: Final = 118
"""Columns from which on two things stand side by side."""
ROUTES_MOST: Final = 40
"""The busiest, however much room there is."""
HISTORY: Final = 240
"""Looks that are remembered."""
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"
_NAMES: Final = 26
"""Columns of what may be long, where there is little room."""
_TRAFFIC: Final = 6
_LATENCY: Final = 5
_OVER: Final = 2
"""Lines: of these parts, and of a table beside its rows."""

Rates = dict[str, float]
"""Per second, or now, by the names of `_RATES`."""

_RATES: Final[dict[str, Callable[[Item], float]]] = {
    "requests": lambda recent: recent["counters"]["requests"] / recent["seconds"],
    "failed": lambda recent: _failed(recent) / recent["seconds"],
    "handshakes": lambda recent: recent["counters"]["handshakes"] / recent["seconds"],
    "connections": lambda recent: recent["gauges"]["connections_open"],
    "out": lambda recent: recent["requests"]["bytes_out"] / recent["seconds"],
}


@dataclasses.dataclass(slots=True)
class Look:
    """One answer to `status`, and what the ones before it were like."""

    state: Item
    figures: Item
    recent: Item | None
    """The figures of the last moments; None: there is no telling."""
    history: collections.deque[Rates | None] = dataclasses.field(
        default_factory=lambda: collections.deque(maxlen=HISTORY)
    )
    """The latest last; None: nobody answered."""

    @property
    def now(self) -> float:
        return float(self.state["now"])


def rates(recent: Item) -> Rates | None:
    if not recent["seconds"]:
        return None
    return {name: rate(recent) for name, rate in _RATES.items()}


def _failed(figures: Item) -> int:
    """Requests that ended badly: an answer of 5xx, a limit of time, a cut."""
    counters = figures["counters"]
    return int(counters["responses_5xx"] + counters["aborts"] + counters["handshake_failures"])


def sparkline(values: Sequence[float | None], width: int, style: str) -> Text:
    """The latest `width` of them, by the largest that shows; a gap where there is none."""
    shown = list(values)[-width:]
    top = max((value for value in shown if value is not None), default=0)
    line = Text(" " * (width - len(shown)))
    for there, values_there in itertools.groupby(shown, lambda value: value is not None and value > 0):
        blocks = (_block(value, top) for value in values_there)
        line.append("".join(blocks), style=style if there else FAINT)
    return line


def _block(value: float | None, top: float) -> str:
    if value is None:
        return "┄"
    return _BLOCKS[max(1, min(8, round(value / top * 8)))] if value > 0 else _BLOCKS[1]


def picture(look: Look, width: int, height: int | None = None, notice: Text | None = None) -> RenderableType:
    """All of it, or with a `height` what there is room for, the most important first. `notice`: a line on top."""
    top: list[RenderableType] = [head(look, width), *([notice] if notice else []), reloads(look), alarm(look)]
    room = None if height is None else height - len(top)
    if width >= WIDE:
        return Group(*top, _side_by_side(look, width, room))
    return Group(*top, *_one_column(look, width, room))


def _one_column(look: Look, width: int, room: int | None) -> list[RenderableType]:
    found: list[RenderableType] = [traffic(look, width), Text(""), latency(look)]
    left = None if room is None else room - _TRAFFIC - 1 - _LATENCY
    for build, rows in (
        (upstreams, len(look.figures["upstreams"])),
        (workers, len(look.state["workers"])),
        (certificates, len(look.state["certificates"])),
        (routes, min(len(look.figures["routes"]), ROUTES_MOST)),
        (tickets, 1),
    ):
        if not rows:
            continue
        most = rows if left is None else min(rows, left - _OVER)
        if most < 1:
            break
        found += [Text(""), build(look, most)]
        if left is not None:
            left -= most + _OVER
    return found


def _side_by_side(look: Look, width: int, room: int | None) -> RenderableType:
    half = (width - 4) // 2
    grid = Table.grid(padding=(0, 4, 0, 0))
    grid.add_column(width=half)
    grid.add_column(width=half)
    left_rows = None if room is None else room - _TRAFFIC
    right_rows = None if room is None else room - _LATENCY
    left: list[RenderableType] = [traffic(look, half)]
    right: list[RenderableType] = [latency(look)]
    for side, most_rows, builds in (
        (left, left_rows, ((workers, "workers"), (certificates, "certificates"))),
        (right, right_rows, ((upstreams, "upstreams"), (routes, "routes"), (tickets, "tickets"))),
    ):
        rows = most_rows
        for build, what in builds:
            count = 1 if what == "tickets" else len((look.state if what in look.state else look.figures)[what] or ())
            count = min(count, ROUTES_MOST) if what == "routes" else count
            most = count if rows is None else min(count, rows - _OVER)
            if most < 1:
                continue
            side += [Text(""), build(look, most)]
            rows = None if rows is None else rows - most - _OVER
    grid.add_row(Group(*left), Group(*right))
    return grid


# Its parts.


def head(look: Look, width: int) -> RenderableType:
    state = look.state
    serving = sum(worker["state"] == "serving" for worker in state["workers"])
    draining = state["drains"]["workers"]
    line = Table.grid(expand=True)
    line.width = width
    line.add_column(no_wrap=True, overflow="ellipsis")
    line.add_column(justify="right", no_wrap=True)
    style = GOOD if serving else BAD
    facts = [
        f"generation {state['generation']}",
        f"{serving} worker{'s' if serving != 1 else ''}" + (f", {draining} draining" if draining else ""),
        f"up {duration(state['now'] - state['started'])}",
    ]
    if width >= WIDE:
        facts += [f"process {state['pid']}", state["file"]]
    line.add_row(
        Text.assemble(("● ", style), (f"edge {state['version']}", "bold"), "  ", text(" · ".join(facts)).plain),
        Text(time.strftime("%H:%M:%S UTC", time.gmtime(look.now)), style=FAINT),
    )
    return line


def reloads(look: Look) -> Text:
    told = look.state["reloads"]
    last = told["last"]
    line = Text(no_wrap=True, overflow="ellipsis")
    if last is None:
        return line.append("not reloaded yet", style=FAINT)
    ago = f"{duration(max(look.now - last['at'], 0.0))} ago"
    if last["accepted"]:
        line.append(f"last reload accepted {ago}, in {duration(last['seconds'])}", style=FAINT)
    else:
        line.append(f"last reload rejected {ago}: ", style=BAD).append(text(last["reason"]).plain, style=FAIR)
    if told["rejected"] or told["accepted"] > 1:
        line.append(f"  ({told['accepted']} accepted, {told['rejected']} rejected)", style=FAINT)
    return line


def alarm(look: Look) -> Text:
    """What somebody should see to, or an empty line."""
    soon = [one for one in look.state["certificates"] if one["expires"] - look.now < render.LAST_DAYS * render.DAY]
    bare = [one for one in look.state["certificates"] if one["must_staple"] and one["ocsp"] in ("none", "missing")]
    words = []
    if crashing := sorted({worker["slot"] for worker in look.state["workers"] if worker.get("crash_loop")}):
        words.append(f"workers of slot {', '.join(map(str, crashing))} die again and again")
    if look.state.get("upgrade"):
        words.append("another version is about to take over")
    if soon:
        first = min(soon, key=lambda one: float(one["expires"]))
        words.append(
            f"{len(soon)} certificate{'s' if len(soon) > 1 else ''} with less than {render.LAST_DAYS} days, "
            f"the first: {text(first['names']).plain}"
        )
    if bare:
        words.append(f"{len(bare)} without the OCSP response that clients want")
    return Text("; ".join(words), style=BAD, no_wrap=True, overflow="ellipsis")


def traffic(look: Look, width: int) -> RenderableType:
    """_TRAFFIC lines."""
    total, recent = look.figures, look.recent
    now = rates(recent) if recent else None
    states = total["states"]
    shown = Table.grid(padding=(0, 2, 0, 0))
    shown.add_column(width=12, no_wrap=True)
    shown.add_column(width=8, justify="right", no_wrap=True)
    shown.add_column(no_wrap=True)
    shown.add_column(no_wrap=True, overflow="ellipsis", style=FAINT)
    after = 24
    line = max(8, min(60, width - 12 - 8 - 6 - after))
    resumed = total["handshake"]["resumed"]["count"]
    every = resumed + total["handshake"]["full"]["count"]
    rows = (
        ("requests/s", "requests", "green", number, f"{number(total['counters']['requests'])} in all"),
        ("failed/s", "failed", "red", number, f"{number(_failed(total))} in all"),
        (
            "handshakes/s",
            "handshakes",
            "cyan",
            number,
            f"{resumed / every:.0%} resumed" if every else f"{number(total['counters']['handshakes'])} in all",
        ),
        (
            "connections",
            "connections",
            "yellow",
            number,
            f"{number(states['active'])} active, {number(states['idle'])} idle",
        ),
        ("content/s", "out", "blue", size, f"{size(total['requests']['bytes_out'])} in all"),
    )
    shown.add_row(Text("Traffic", style="bold"), "", "", "")
    for title, name, style, words, beside in rows:
        value = now[name] if now else total["gauges"]["connections_open"] if name == "connections" else None
        bad = name == "failed" and bool(value)
        past = [None if rate is None else rate[name] for rate in look.history]
        spark = sparkline(past, line if len(past) > 1 else 0, style)
        shown.add_row(title, Text(words(value), style=BAD if bad else "bold"), spark, beside)
    return shown


def latency(look: Look) -> RenderableType:
    """_LATENCY lines: of the last moments, or, where nothing happened in them, since the start."""
    shown = Table.grid(padding=(0, 2, 0, 0))
    shown.add_column(width=18, no_wrap=True)
    for _ in range(3):
        shown.add_column(width=9, justify="right", no_wrap=True)
    shown.add_column(width=10, justify="right", no_wrap=True, style=FAINT)
    shown.add_row(
        Text("Latency", style="bold"), *(Text(name, style="bold cyan") for name in ("p50", "p90", "p99")), "times"
    )
    for title, of, what in (
        ("full handshake", "handshake", "full"),
        ("first byte", "requests", "first_byte"),
        ("whole request", "requests", "total"),
        ("turn of the loop", "loop", "turn"),
    ):
        recent = look.recent and look.recent[of][what]
        histogram = recent if recent and recent["count"] else look.figures[of][what]
        values = (duration(histogram[name]) for name in ("p50", "p90", "p99"))
        shown.add_row(title, *values, number(histogram["count"]))
    return shown


def _table(title: str, columns: Sequence[str], lines: Iterable[Sequence[object]]) -> RenderableType:
    """A line for each, below one with the title, which names the first column, and what the others are. One that begins
    with ">" is of numbers."""
    made = Table.grid(padding=(0, 2, 0, 0))
    for column in (title, *columns):
        made.add_column(justify="right" if column.startswith(">") else "left", no_wrap=True, overflow="ellipsis")
    made.add_row(Text(title, style="bold"), *(Text(column.removeprefix(">"), style="bold cyan") for column in columns))
    for line in lines:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in line))
    return made


def _short(name: str) -> str:
    return name if len(name) <= _NAMES else f"{name[: _NAMES - 1]}…"


def _rest(shown: int, all_of_them: int) -> str:
    return f" ({shown} of {all_of_them})" if shown < all_of_them else ""


def _busiest(series: Item, most: int) -> list[tuple[str, Item]]:
    return sorted(series.items(), key=lambda one: (-one[1]["requests"], one[0]))[:most]


def _series(title: str, series: Item, recent: Item | None, most: int) -> RenderableType:
    """Routes or upstreams, those that were asked most."""
    found = _busiest(series, most)
    return _table(
        title + _rest(len(found), len(series)),
        (">req/s", ">5xx", ">open", ">p50", ">p99"),
        ((_short(name), *_numbers(one, recent.get(name) if recent is not None else None)) for name, one in found),
    )


def _numbers(all_of_it: Item, recent: Item | None) -> Iterable[object]:
    of = recent if recent and recent["total"]["count"] else all_of_it
    share = all_of_it["status"]["5xx"] / all_of_it["requests"] if all_of_it["requests"] else 0.0
    yield Text(number(recent["per_second"]) if recent else "–", style="bold")
    words = "0" if not share else "<0.1%" if share < 0.001 else f"{share:.1%}"
    yield Text(words, style=BAD if share >= 0.01 else FAIR if share else FAINT)
    yield number(all_of_it["open"] or all_of_it["running"])
    yield duration(of["total"]["p50"])
    yield duration(of["total"]["p99"])


def _recent(look: Look, what: str) -> Item | None:
    if look.recent is None or not look.recent["seconds"]:
        return None
    seconds = look.recent["seconds"]
    return {name: one | {"per_second": one["requests"] / seconds} for name, one in look.recent[what].items()}


def upstreams(look: Look, most: int) -> RenderableType:
    return _series("Upstreams", look.figures["upstreams"], _recent(look, "upstreams"), most)


def routes(look: Look, most: int) -> RenderableType:
    return _series("Routes", look.figures["routes"], _recent(look, "routes"), most)


def workers(look: Look, most: int) -> RenderableType:
    found = look.state["workers"]
    styles = {"serving": GOOD, "booting": FAIR, "draining": FAIR}

    def line(worker: Item) -> Iterable[object]:
        yield str(worker["slot"])
        yield str(worker["pid"])
        yield Text(worker["state"], style=styles.get(worker["state"], ""))
        yield str(worker["generation"])
        yield duration(look.now - worker["started"])
        yield number(worker["connections"])
        yield number(worker["requests"])
        yield Text(str(worker["restarts"]), style=BAD if worker["restarts"] else FAINT)

    return _table(
        "Workers" + _rest(most, len(found)),
        (">pid", "state", ">gen", ">up", ">conns", ">requests", ">restarts"),
        (list(line(worker)) for worker in found[:most]),
    )


def certificates(look: Look, most: int) -> RenderableType:
    found: list[Item] = sorted(look.state["certificates"], key=lambda one: one["expires"])
    return _table(
        "Certificates" + _rest(most, len(found)),
        (">left", "kind", "stapling"),
        (
            (
                _short(", ".join(one["names"]) or "(default only)"),
                render.days_left(one["expires"], look.now),
                one["kind"],
                render.stapling(one, look.now),
            )
            for one in found[:most]
        ),
    )


def tickets(look: Look, _most: int) -> RenderableType:
    told = look.state["tickets"]
    if told is None:
        return Text.assemble(("Ticket keys", "bold"), (": none, tickets are off", FAINT))
    seals = next(key for key in told["keys"] if key["state"] == "seals")
    earlier = sum(key["state"] == "opens" for key in told["keys"])
    following = sorted(key["since"] for key in told["keys"] if key["state"] == "next")
    left = ""
    if following and told.get("source") != "directory":
        left = f" for {duration(max(following[0] - look.now, 0.0))} more"
    return Text.assemble(
        ("Ticket keys", "bold"),
        f"  {seals['id']} seals{left}; {earlier} earlier open",
        *_fleet(look),
    )


def _fleet(look: Look) -> list[str | Text]:
    """Whether its Redis is reached."""
    fleet = look.state.get("fleet")
    if not fleet or not fleet["tickets"]:
        return []
    return ["; ", render.contact(fleet["tickets"], look.now)]
