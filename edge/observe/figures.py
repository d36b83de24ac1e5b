"""What all workers have counted, as numbers with names: what the metrics, the status page and `edge status` show.

`read` looks at the table; `Figures.as_dict` is everything, to be written as JSON; `Figures.since` is what has come
since an earlier look, for rates.
"""

import dataclasses
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from cext.base.stats import GAUGES, StatsTable, Sums, Unreadable, bounds
from cext.proxy.context import STATE_NAMES
from cext.tls.alert import NAMES as ALERT_NAMES
from cext.tls.names import GROUP_NAMES, SUITE_NAMES
from cext.tls.psk import REFUSAL_NAMES

from edge.observe.labels import KINDS, ROUTE, SERVER, UPSTREAM, split_server

__all__ = ("BOUNDS", "Figures", "Histogram", "Series", "Unreadable", "read")

BOUNDS: Final[tuple[float, ...]] = tuple(bound / 1e6 for bound in bounds())
"""Upper bounds of histograms' buckets, in seconds, inclusive; behind them there is one more bucket."""
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
STATUS: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""What became of requests, by the first digit of their status; "none": the client got none."""
LONGEST_SECONDS: Final = 60
"""The time for which the longest turn is told."""


class Histogram:
    """How often something took how long: one of `sums`, as StatsTable has it."""

    __slots__ = ("_index", "_name", "_sums")

    def __init__(self, sums: Sums, name: str, index: int | None = None) -> None:
        self._sums = sums
        self._name = name
        self._index = index

    @property
    def counts(self) -> list[int]:
        """Of each bucket: see BOUNDS."""
        return self._sums.histogram(self._name, self._index)[0]  # type: ignore[no-any-return]

    @property
    def sum(self) -> float:
        """Seconds."""
        return self._sums.histogram(self._name, self._index)[1] / 1e6  # type: ignore[no-any-return]

    @property
    def count(self) -> int:
        return self.cumulative(())[1]

    def cumulative(self, places: Sequence[int]) -> tuple[list[int], int, float]:
        """How many were not above BOUNDS[place], for each place; how many there were; their sum in seconds."""
        below, count, microseconds = self._sums.cumulative(self._name, places, self._index)
        return below, count, microseconds / 1e6

    def quantiles(self, shares: Sequence[float] = tuple(PERCENTILES.values())) -> list[float | None]:
        """Seconds that this share (0 to 1) did not exceed: interpolated within a bucket, which is at most 25 % wide;
        None where nothing was counted."""
        return [None if us is None else us / 1e6 for us in self._sums.quantiles(self._name, shares, self._index)]

    def as_dict(self) -> dict[str, Any]:
        _, count, total = self.cumulative(())
        return {"count": count, "sum": total, **dict(zip(PERCENTILES, self.quantiles(), strict=True))}


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """What a route, an upstream or a server has counted."""

    kind: str
    label: str
    values: dict[str, Any]
    """As StatsTable has them: `status` is a list by the first digit. An upstream has the connections of its servers."""
    first_byte: Histogram
    total: Histogram

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.values,
            "status": dict(zip(STATUS, self.values["status"], strict=True)),
            "first_byte": self.first_byte.as_dict(),
            "total": self.total.as_dict(),
        }


class Figures:
    """`at`: when they were read (seconds since 1970); `seconds`: what they cover, None: since the master's start."""

    def __init__(self, sums: Sums, labels: list[tuple[str, str]], at: float, seconds: float | None = None) -> None:
        self._sums = sums
        self._labels = labels
        self.at = at
        self.seconds = seconds

    def since(self, earlier: "Figures") -> "Figures":
        """What has come since then. Gauges stay as they are."""
        return Figures(self._sums.minus(earlier._sums), self._labels, self.at, max(self.at - earlier.at, 0.0))

    def counters(self) -> dict[str, int]:
        """What only grows, by the names of cext/base/stats."""
        return {name: value for name, value in self._sums.counters().items() if name not in GAUGES}

    def gauges(self) -> dict[str, int]:
        """What there is now."""
        return {name: value for name, value in self._sums.counters().items() if name in GAUGES}

    def states(self) -> dict[str, int]:
        """Clients' connections by state, now."""
        return dict(zip(STATE_NAMES[:-1], self._sums.array("in_state"), strict=False))

    def entered(self) -> dict[str, int]:
        """How often connections have come to each state."""
        return dict(zip(STATE_NAMES, self._sums.array("entered"), strict=False))

    def handshakes(self) -> Iterator[tuple[str, str, str, bool, int]]:
        """(version, cipher suite, group, resumed, how many) of those that were completed. Suites of TLS 1.3 name no key
        exchange (RFC 9846, section B.4)."""
        for suite, group, resumed, count in self._sums.handshakes():
            name = SUITE_NAMES[suite]
            yield "1.2" if name.startswith("TLS_ECDHE_") else "1.3", name, GROUP_NAMES[group], resumed, count

    def alerts(self, direction: str) -> dict[str, int]:
        """Fatal alerts that were "sent" or "received", by their names."""
        counts = self._sums.array(f"alerts_{direction}")
        return {ALERT_NAMES.get(number, f"unknown({number})"): n for number, n in enumerate(counts) if n}

    def early_refused(self) -> dict[str, int]:
        """Connections whose early data was not taken, by cause."""
        counts = self._sums.array("early_refusals")
        return {name.replace(" ", "_"): n for name, n in zip(REFUSAL_NAMES, counts, strict=False) if name and n}

    def handshake(self, resumed: bool) -> Histogram:
        return Histogram(self._sums, "resumed_handshake" if resumed else "full_handshake")

    def register(self) -> Histogram:
        """How long answers of a fleet's register of early data took."""
        return Histogram(self._sums, "register_answer")

    def turn(self) -> Histogram:
        """How long turns of workers' loops kept everything else waiting."""
        return Histogram(self._sums, "turn")

    def late(self) -> Histogram:
        """How late the kernel woke a worker that had nothing to do until a certain moment."""
        return Histogram(self._sums, "late")

    def loop(self) -> tuple[int, float, float]:
        """(turns, seconds they took, seconds of the longest in the last LONGEST_SECONDS) of all workers' loops."""
        _, turns, busy = self.turn().cumulative(())
        return turns, busy, self._sums.longest(LONGEST_SECONDS) / 1e6

    def series(self, kinds: Collection[str] = KINDS) -> Iterator[Series]:
        """Those that have counted something."""
        connections = self._connections() if UPSTREAM in kinds else {}
        for index, kind, label in self._counted():
            if kind in kinds:
                values = self._sums.of(index)
                if kind == UPSTREAM:
                    values |= connections.get(label, {})
                first_byte, total = (Histogram(self._sums, name, index) for name in ("first_byte", "total"))
                yield Series(kind, label, values, first_byte, total)

    def requests(self) -> Series:
        """All requests, whatever their route, and those that had none."""
        sums = self._sums.together([index for index, kind, _ in self._counted() if kind == ROUTE])
        return Series("", "", sums.of(0), Histogram(sums, "first_byte", 0), Histogram(sums, "total", 0))

    def _counted(self) -> Iterator[tuple[int, str, str]]:
        for index in self._sums.indices():
            if index < len(self._labels):  # or its configuration is just being taken over
                yield index, *self._labels[index]

    def _connections(self) -> dict[str, dict[str, int]]:
        """What the servers of each upstream have counted of connections, together."""
        found: dict[str, dict[str, int]] = {}
        for index, kind, label in self._counted():
            if kind == SERVER:
                values, of = self._sums.of(index), found.setdefault(split_server(label)[0], {})
                for name in ("connects", "reuses", "open", "idle"):
                    of[name] = of.get(name, 0) + values[name]
        return found

    def as_dict(self, kinds: Collection[str] = KINDS) -> dict[str, Any]:
        """Everything; times are seconds.

        | key | |
        |---|---|
        | `at`, `seconds` | when it was read (since 1970); what it covers, null: since the master's start |
        | `counters`, `gauges` | by name: what only grows, what there is now |
        | `states`, `entered` | clients' connections by state: now, and how often |
        | `requests` | all requests, as one of `routes` |
        | `handshakes` | list of {version, cipher_suite, group, resumed, count} |
        | `alerts` | {sent, received}: {name: count} |
        | `early_refused` | {cause: count} |
        | `handshake` | {full, resumed}: a histogram's {count, sum, p50, p90, p99}; null where there is nothing |
        | `register` | likewise: answers of a fleet's register of early data |
        | `loop` | {turns, busy, longest, turn, late}: longest is the last minute's; the last two are histograms |
        | `routes`, `upstreams`, `servers` | {label: {requests, status {none, 1xx, ...}, bytes_in, bytes_out, retries, \
failures, connects, reuses, running, open, idle, first_byte, total}}, the last two histograms |
        """
        turns, busy, longest = self.loop()
        of_kind: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
        for series in self.series(kinds):
            of_kind[series.kind][series.label] = series.as_dict()
        return {
            "at": self.at,
            "seconds": self.seconds,
            "counters": self.counters(),
            "gauges": self.gauges(),
            "states": self.states(),
            "entered": self.entered(),
            "requests": self.requests().as_dict(),
            "handshakes": [
                {"version": version, "cipher_suite": suite, "group": group, "resumed": resumed, "count": count}
                for version, suite, group, resumed, count in self.handshakes()
            ],
            "alerts": {direction: self.alerts(direction) for direction in ("sent", "received")},
            "early_refused": self.early_refused(),
            "handshake": {"full": self.handshake(False).as_dict(), "resumed": self.handshake(True).as_dict()},
            "register": self.register().as_dict(),
            "loop": {
                "turns": turns,
                "busy": busy,
                "longest": longest,
                "turn": self.turn().as_dict(),
                "late": self.late().as_dict(),
            },
            **{f"{kind}s": found for kind, found in of_kind.items()},
        }


def read(table: StatsTable, labels: Iterable[tuple[str, str]], rows: Collection[int] | None = None) -> Figures:
    """The sums of all rows, of those that have gone as well; or of `rows` alone (a worker's). Raises Unreadable when
    the master has stopped in the middle of putting rows together."""
    return Figures(table.read(rows), list(labels), time.time())
