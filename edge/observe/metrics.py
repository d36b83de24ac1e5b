"""Metrics for Prometheus, of what all workers have counted and the master knows. `edge.observe.metric_names` has them
by name, docs/metrics.md for those who use them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from edge.observe import memory
from edge.observe.figures import BOUNDS, STATUS, Figures, Histogram, Series
from edge.observe.labels import ROUTE, SERVER, UPSTREAM, split_server
from edge.observe.metric_names import GROUPS, NAMES, C, H
from edge.observe.settings import Metrics

if TYPE_CHECKING:
    from edge.observe.observer import Answer, Request, View

REST: Final = 4
"""An answer serves whoever asks within this many times as long as it took to write: however often somebody asks, or how
many, the process is never busy with this alone."""
# Of the buckets that are counted, those that are shown: an octave each, or four; the bounds are powers of two.
FINE: Final = range(8, len(BOUNDS), 4)
COARSE: Final = range(16, len(BOUNDS), 8)

State = Mapping[str, Any]
# Of Counters that are metrics as they are: counter -> metric.
PLAIN: Final = {
    "connections": "edge_connections_accepted",
    "connections_over_limit": "edge_connections_over_limit",
    "accept_pauses": "edge_accept_pauses",
    "proxy_refused": "edge_proxy_headers_refused",
    "tunnels": "edge_tunnels_opened",
    "tunnels_open": "edge_tunnels",
    "handshake_failures": "edge_handshake_failures",
    "handshakes_waiting": "edge_handshakes_waiting",
    "register_up": "edge_register_up",
    "register_asked": "edge_register_asked",
    "handshakes_dropped": "edge_handshakes_dropped",
    "signer_failures": "edge_signer_failures",
    "requests": "edge_requests_forwarded",
    "client_aborts": "edge_client_aborts",
    "timeouts": "edge_timeouts",
    "requests_over_limit": "edge_requests_over_limit",
    "aborts": "edge_requests_cut",
    "hook_failures": "edge_hook_failures",
    "upstream_failures": "edge_upstream_failures",
    "log_lines_dropped": "edge_log_lines_dropped",
    "descriptors": "edge_descriptors",
    "descriptors_limit": "edge_descriptors_limit",
}
# Of those that are one value of a label: counter -> metric, value.
LABELLED: Final = {
    "idle_closed": ("edge_idle_connections_closed", "client"),
    "upstream_idle_closed": ("edge_idle_connections_closed", "upstream"),
    "handed_over": ("edge_handoffs", "given"),
    "handoff_failures": ("edge_handoffs", "failed"),
    "handoffs_received": ("edge_handoffs", "received"),
    "handoffs_refused": ("edge_handoffs", "refused"),
    "early_accepted": ("edge_early_data", "accepted"),
    "early_forwarded": ("edge_early_requests", "forwarded"),
    "early_confirmed": ("edge_early_requests", "confirmed"),
    "early_answered_425": ("edge_early_requests", "answered_425"),
    "early_retried": ("edge_early_requests", "retried"),
    "register_taken": ("edge_register_answers", "taken"),
    "register_replayed": ("edge_register_answers", "replayed"),
    "register_late": ("edge_register_answers", "late"),
    "spans": ("edge_spans", "sent"),
    "spans_dropped": ("edge_spans", "dropped"),
}
# Of those that other metrics tell already: the sums of edge_connections, edge_handshakes, edge_early_data,
# edge_requests (5xx) and of what servers count.
TOLD: Final = {
    "connections_open",
    "handshakes",
    "early_offered",
    "responses_5xx",
    "upstream_connects",
    "upstream_reuses",
    "upstream_retries",
}
# What a series has as it is: by kind, its value -> metric.
OF_SERIES: Final = {
    ROUTE: {
        "bytes_in": "edge_route_received_bytes",
        "bytes_out": "edge_route_sent_bytes",
        "running": "edge_route_running",
        "failures": "edge_route_failures",
        "retries": "edge_route_retries",
    },
    UPSTREAM: {
        "running": "edge_upstream_running",
        "failures": "edge_upstream_request_failures",
        "retries": "edge_upstream_retries",
    },
    SERVER: {
        "failures": "edge_server_failures",
        "retries": "edge_server_retries",
        "connects": "edge_server_connects",
        "reuses": "edge_server_reuses",
    },
}


EXPIRIES: Final = {
    "edge_certificate_expiry_time_seconds": "expires",
    "edge_ocsp_expiry_time_seconds": "ocsp_expires",
}


class Exposition(Collector):
    """What is answered at /metrics."""

    def __init__(self, view: "View", wanted: Metrics) -> None:
        self._view = view
        self._kinds = (ROUTE, UPSTREAM, SERVER) if wanted.routes else (UPSTREAM, SERVER)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._answers: dict[str, tuple[float, bytes]] = {}
        self._rendering = asyncio.Lock()
        self._memory = memory.Look()
        self._seconds = 0.0

    async def answer(self, request: "Request") -> "Answer":
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        async with self._rendering:
            made_at, content = self._answers.get(content_type, (0.0, b""))
            if time.monotonic() > made_at + REST * self._seconds or not content:
                content = await asyncio.to_thread(self._render, encode)
                self._answers = {content_type: (time.monotonic(), content)}
        return 200, [("Content-Type", content_type)], content

    def _render(self, encode: Callable[[CollectorRegistry], bytes]) -> bytes:
        began = time.perf_counter()
        content = encode(self._registry)
        self._seconds = time.perf_counter() - began
        return content

    def describe(self) -> list[Metric]:
        """Nothing: names are unique as `edge.observe.metric_names` has them."""
        return []

    def collect(self) -> Iterator[Metric]:
        found = Families()
        figures, state = self._view.figures(), self._view.state
        _counters(found, figures)
        _tls(found, figures)
        found.histogram("edge_loop_turn_seconds", figures.turn(), FINE)
        found.histogram("edge_loop_late_seconds", figures.late(), FINE)
        found.add("edge_loop_longest_turn_seconds", figures.loop()[2])
        _requests(found, figures.requests())
        for series in figures.series(self._kinds):
            _series(found, series)
        if state:
            _state(found, state)
            for process, resident, proportional in self._memory.look(state):
                found.add("edge_process_resident_bytes", resident, process)
                if proportional is not None:
                    found.add("edge_process_proportional_bytes", proportional, process)
        found.add("edge_metrics_seconds", self._seconds)
        return found.in_order()


class Families:
    """The metrics as they are found, by name."""

    def __init__(self) -> None:
        self._found: dict[str, Any] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """A counter's or a gauge's value."""
        self._family(name).add_metric(labels, value)

    def histogram(self, name: str, of: Histogram, places: Iterable[int], *labels: str) -> None:
        places = list(places)
        below, count, total = of.cumulative(places)
        buckets = [(_LE[place], n) for place, n in zip(places, below, strict=True)]
        self._family(name).add_metric(labels, buckets=[*buckets, ("+Inf", count)], sum_value=total)

    def in_order(self) -> Iterator[Metric]:
        """As the reference has them."""
        return (self._found[name.name] for group in GROUPS.values() for name in group if name.name in self._found)

    def _family(self, name: str) -> Any:
        if name not in self._found:
            known = NAMES[name]
            family = {C: CounterMetricFamily, H: HistogramMetricFamily}.get(known.type, GaugeMetricFamily)
            self._found[name] = family(name, known.meaning.replace("`", ""), labels=known.labels)
        return self._found[name]


_LE: Final = [repr(bound) for bound in BOUNDS]


def _counters(found: Families, figures: Figures) -> None:
    for counter, value in (figures.counters() | figures.gauges()).items():
        if counter in PLAIN:
            found.add(PLAIN[counter], value)
        elif counter in LABELLED:
            name, label = LABELLED[counter]
            found.add(name, value, label)
    for state, value in figures.states().items():
        found.add("edge_connections", value, state)
    for state, value in figures.entered().items():
        found.add("edge_connection_states_entered", value, state)


def _tls(found: Families, figures: Figures) -> None:
    for version, suite, group, resumed, count in figures.handshakes():
        found.add("edge_handshakes", count, version, suite, group, _yes(resumed))
    for resumed in (False, True):
        found.histogram("edge_handshake_seconds", figures.handshake(resumed), FINE, _yes(resumed))
    for direction in ("sent", "received"):
        for alert, count in figures.alerts(direction).items():
            found.add("edge_alerts", count, direction, alert)
    found.histogram("edge_register_seconds", figures.register(), FINE)
    for cause, count in figures.early_refused().items():
        found.add("edge_early_data", count, cause)


def _yes(value: bool) -> str:
    return "true" if value else "false"


def _requests(found: Families, requests: Series) -> None:
    for status, count in zip(STATUS, requests.values["status"], strict=True):
        found.add("edge_requests", count, status)
    found.histogram("edge_request_seconds", requests.total, FINE)
    found.histogram("edge_request_first_byte_seconds", requests.first_byte, FINE)


def _series(found: Families, series: Series) -> None:
    labels = split_server(series.label) if series.kind == SERVER else (series.label,)
    for value, name in OF_SERIES[series.kind].items():
        found.add(name, series.values[value], *labels)
    for status, count in zip(STATUS, series.values["status"], strict=True):
        if count:
            found.add(f"edge_{series.kind}_requests", count, *labels, status)
    found.histogram(f"edge_{series.kind}_first_byte_seconds", series.first_byte, COARSE, *labels)
    if series.kind == SERVER:
        for state, count in (("idle", series.values["idle"]), ("used", series.values["open"] - series.values["idle"])):
            found.add("edge_server_connections", count, *labels, state)
    else:
        found.histogram(f"edge_{series.kind}_seconds", series.total, COARSE, *labels)


def _state(found: Families, state: State) -> None:
    """What the master knows."""
    found.add("edge_info", 1, state["version"])
    found.add("edge_start_time_seconds", state["started"])
    found.add("edge_generation", state["generation"])
    reloads = state["reloads"]
    for outcome in ("accepted", "rejected"):
        found.add("edge_reloads", reloads[outcome], outcome)
    if last := reloads["last"]:
        found.add("edge_last_reload_accepted", int(last["accepted"]))
        found.add("edge_last_reload_time_seconds", last["at"])
    for log, lines in state["logs"]["dropped"].items():
        found.add("edge_log_lines_lost", lines, log)
    states = [worker["state"] for worker in state["workers"]]
    for name in ("booting", "serving", "draining"):
        found.add("edge_workers", states.count(name), name)
    for slot, restarts in {worker["slot"]: worker["restarts"] for worker in state["workers"]}.items():
        found.add("edge_worker_restarts", restarts, str(slot))
    _tickets(found, state)
    expiries: dict[tuple[str, tuple[str, str]], float] = {}
    for certificate in state["certificates"]:
        labels = certificate["path"], certificate["kind"]
        for name, key in EXPIRIES.items():
            if certificate[key] is not None:
                expiries[name, labels] = min(certificate[key], expiries.get((name, labels), certificate[key]))
    for (name, labels), moment in expiries.items():
        found.add(name, moment, *labels)


def _tickets(found: Families, state: State) -> None:
    if tickets := state["tickets"]:
        # `since` is when a key begins to seal; one that was made before has not yet.
        states = [key["state"] for key in tickets["keys"]]
        for name in ("seals", "next", "opens"):
            found.add("edge_ticket_keys", states.count(name), name)
            since = [key["since"] for key in tickets["keys"] if key["state"] == name != "next"]
            if since:
                found.add("edge_ticket_key_age_seconds", max(state["now"] - min(since), 0), name)
    keys = (state["fleet"] or {}).get("tickets")
    if not keys:
        return
    found.add("edge_fleet_connected", int(keys["connected"]))
    found.add("edge_fleet_clock_offset_seconds", keys["clock_offset"])
    for outcome, polls in keys["polls"].items():
        found.add("edge_fleet_polls", polls, outcome)
    if keys["heard"] is not None:
        found.add("edge_fleet_contact_age_seconds", max(state["now"] - keys["heard"], 0))
