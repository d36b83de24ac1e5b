"""What all workers have counted, as numbers with names: what the metrics, the status page and `edge status` show.

`read` looks at the table; `Figures.as_dict` is everything, to be written as JSON; `Figures.since` is what has come
since an earlier look, for rates.
"""

import dataclasses
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

from cext.base.stats import GAUGES, StatsTable, Sums, Unreadable, bounds
from cext.proxy.context import STATE_NAMES
from cext.tls.alert import NAMES as ALERT_NAMES
from cext.tls.names import GROUP_NAMES, SUITE_NAMES
from cext.tls.psk import REFUSAL_NAMES

from edge.labels import KINDS

__all__ = ("BOUNDS", "Figures", "Histogram", "Series", "Unreadable", "read")

BOUNDS: Final[tuple[float, ...]] = tuple(bound / 1e6 for bound in bounds())
"""Upper bounds of histograms' buckets, in seconds, inclusive; behind them there is one more bucket."""
PERCENTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
STATUS: Final = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
"""What became of requests, by the first digit of their status; "none": the client got none."""
LONGEST_SECONDS: Final = 60
"""The time for which the longest turn is told."""


@dataclasses.dataclass(frozen=True, slots=True)
class Histogram:
    """How often something took how long. `counts`: of each bucket (BOUNDS), `sum`: seconds."""

    counts: list[int]
    sum: float
    quantiles: dict[str, float | None]
    """By PERCENTILES: seconds, interpolated within a bucket (at most 25 % wide); None where nothing was counted."""

    @property
    def count(self) -> int:
        return sum(self.counts)

    def as_dict(self) -> dict[str, Any]:
        return {"count": self.count, "sum": self.sum, **self.quantiles}


@dataclasses.dataclass(frozen=True, slots=True)
class Series:
    """What a route, an upstream or a server has counted."""

    kind: str
    label: str
    values: dict[str, Any]
    """As StatsTable has them: `status` is a list by the first digit."""
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
        return self._histogram("resumed_handshake" if resumed else "full_handshake")

    def turn(self) -> Histogram:
        """How long turns of workers' loops kept everything else waiting."""
        return self._histogram("turn")

    def late(self) -> Histogram:
        """How late the kernel woke a worker that had nothing to do until a certain moment."""
        return self._histogram("late")

    def longest(self) -> float:
        """Seconds of the longest turn of a worker's loop in the last LONGEST_SECONDS."""
        return self._sums.longest(LONGEST_SECONDS) / 1e6

    def series(self, kinds: Collection[str] = KINDS) -> Iterator[Series]:
        """Those that have counted something."""
        for index in self._sums.indices():
            kind, label = self._labels[index] if index < len(self._labels) else ("", "")
            if kind in kinds:
                first_byte, total = self._histogram("first_byte", index), self._histogram("total", index)
                yield Series(kind, label, self._sums.of(index), first_byte, total)

    def as_dict(self, kinds: Collection[str] = KINDS) -> dict[str, Any]:
        """Everything; times are seconds.

        | key | |
        |---|---|
        | `at`, `seconds` | when it was read (since 1970); what it covers, null: since the master's start |
        | `counters`, `gauges` | by name: what only grows, what there is now |
        | `states`, `entered` | clients' connections by state: now, and how often |
        | `handshakes` | list of {version, cipher_suite, group, resumed, count} |
        | `alerts` | {sent, received}: {name: count} |
        | `early_refused` | {cause: count} |
        | `handshake` | {full, resumed}: a histogram's {count, sum, p50, p90, p99}; null where there is nothing |
        | `loop` | {longest, turn, late}: the longest turn of the last minute; two histograms |
        | `routes`, `upstreams`, `servers` | {label: {requests, status {none, 1xx, ...}, bytes_in, bytes_out, retries, \
failures, connects, reuses, running, open, idle, first_byte, total}}, the last two histograms |
        """
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
            "handshakes": [
                {"version": version, "cipher_suite": suite, "group": group, "resumed": resumed, "count": count}
                for version, suite, group, resumed, count in self.handshakes()
            ],
            "alerts": {direction: self.alerts(direction) for direction in ("sent", "received")},
            "early_refused": self.early_refused(),
            "handshake": {"full": self.handshake(False).as_dict(), "resumed": self.handshake(True).as_dict()},
            "loop": {"longest": self.longest(), "turn": self.turn().as_dict(), "late": self.late().as_dict()},
            **{f"{kind}s": found for kind, found in of_kind.items()},
        }

    def _histogram(self, name: str, index: int | None = None) -> Histogram:
        counts, total = self._sums.histogram(name, index)
        quantiles = self._sums.quantiles(name, tuple(PERCENTILES.values()), index)
        seconds = [None if q is None else q / 1e6 for q in quantiles]
        return Histogram(counts, total / 1e6, dict(zip(PERCENTILES, seconds, strict=True)))


def read(table: StatsTable, labels: Iterable[tuple[str, str]], rows: Collection[int] | None = None) -> Figures:
    """The sums of all rows, of those that have gone as well; or of `rows` alone (a worker's). Raises Unreadable when
    the master has stopped in the middle of putting rows together."""
    return Figures(table.read(rows), list(labels), time.time())
