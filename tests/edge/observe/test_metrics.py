"""The exposition: every number that is counted is in it, under a name that is documented, in a form that parses."""

import asyncio
import json
import os
import re
import socket
import time
from pathlib import Path

import pytest
from cext.base.stats import StatsTable, Tally
from cext.tls.names import GROUP_NAMES, SUITE_NAMES
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from edge.observe import metric_names, metrics, observer
from edge.observe.counting import Counting
from edge.observe.labels import KINDS, ROUTE, SERVER, UPSTREAM
from edge.observe.metric_names import NAMES
from edge.observe.observer import Request, View
from edge.observe.settings import Endpoint, Metrics

ROOT = Path(__file__).resolve().parents[3]
STATE = {
    "version": "1.2.3",
    "pid": os.getpid(),
    "started": 1000.0,
    "now": 5000.0,
    "generation": 7,
    "logs": {"pid": 1, "dropped": {"access": 3, "error": 0, "keys": 0}},
    "reloads": {"accepted": 6, "rejected": 1, "last": {"at": 4000.0, "accepted": False}},
    "workers": [
        {"slot": 0, "pid": os.getpid(), "state": "serving", "restarts": 2},
        {"slot": 1, "pid": 1 << 30, "state": "draining", "restarts": 0},
    ],
    "companions": [{"title": "edge: observer", "pid": os.getpid()}, {"title": "edge: ocsp", "pid": None}],
    "certificates": [
        {"path": "certificate[0]", "kind": "ecdsa", "expires": 9000.0, "ocsp_expires": None},
        {"path": "certificate[1]", "kind": "rsa", "expires": 8000.0, "ocsp_expires": 6000.0},
    ],
    "tickets": {
        "keys": [
            {"state": "seals", "since": 4400.0},
            {"state": "next", "since": 5600.0},
            {"state": "opens", "since": 3200.0},
            {"state": "opens", "since": 2000.0},
        ]
    },
    "fleet": {
        "tickets": {
            "connected": False,
            "heard": 4990.0,
            "polls": {"answered": 100, "failed": 7},
            "clock_offset": -0.5,
        }
    },
}


@pytest.fixture
def counting():
    return Counting(rows=2, room=64)


@pytest.fixture
def view(counting):
    ours, _ = socket.socketpair()
    with ours:
        yield View(counting.table, counting.labels, ours)


def test_certificates_are_told_of_when_they_change(view):
    view.hear(observer.STATE, json.dumps(STATE).encode())
    view.hear(observer.STATE, json.dumps({**STATE, "now": 6000.0, "certificates": None}).encode())
    assert view.state == {**STATE, "now": 6000.0}
    view.hear(observer.STATE, json.dumps({**STATE, "certificates": []}).encode())
    assert view.state["certificates"] == []


def full(counting, view):
    """Something of everything."""
    tally = Tally(counting.table)
    counting.join(counting.assign("a"))
    tally.connection(entered=5, left=2)
    tally.handshake(SUITE_NAMES.index("TLS_AES_128_GCM_SHA256"), GROUP_NAMES.index("x25519"), False, 1500)
    tally.handshake(SUITE_NAMES.index("TLS_AES_128_GCM_SHA256"), GROUP_NAMES.index("x25519"), True, 150)
    tally.alert(48, sent=False)
    tally.early_refused(8)
    tally.turn(int(time.monotonic()), 2000)
    for kind, label in ((ROUTE, 'a"b\\c/*'), (UPSTREAM, "app"), (SERVER, "app/unix:/run/a.sock")):
        index = counting.labels.index(kind, label)
        tally.request(index, 200, 3000)
        tally.request(index, 503, 30_000_000)
    view._labels = list(counting.labels)
    view.state = STATE


def exposed(view, accept="", **wanted):
    """The content, as /metrics answers it."""
    exposition = metrics.Exposition(view, Metrics(bind=Endpoint("127.0.0.1", 1), **{"routes": True, **wanted}))
    request = Request("/metrics", "", {"accept": accept})
    status, headers, content = asyncio.run(exposition.answer(request))
    assert status == 200
    return dict(headers)["Content-Type"], content.decode()


def samples(text, parse=plain):
    found = [sample for family in parse(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.items())): sample.value for sample in found}


@pytest.mark.parametrize(
    ("accept", "type_", "parse"),
    [
        ("", "text/plain", plain),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text", openmetrics),
    ],
)
def test_both_forms_say_the_same(counting, view, accept, type_, parse):
    full(counting, view)
    content_type, text = exposed(view, accept)
    assert content_type.startswith(type_)
    found = samples(text, parse)
    assert found["edge_connections_accepted_total",] == 5
    assert found["edge_connections", ("state", "new")] == 3
    common = (("cipher_suite", "TLS_AES_128_GCM_SHA256"), ("group", "x25519"))
    assert found["edge_handshakes_total", *common, ("resumed", "false"), ("version", "1.3")] == 1
    assert found["edge_handshake_seconds_count", ("resumed", "true")] == 1
    assert found["edge_alerts_total", ("alert", "unknown_ca"), ("direction", "received")] == 1
    assert found["edge_early_data_total", ("outcome", "replayed")] == 1
    assert found["edge_route_requests_total", ("route", 'a"b\\c/*'), ("status", "5xx")] == 1
    assert found["edge_upstream_seconds_sum", ("upstream", "app")] == pytest.approx(30.003)
    server = (("server", "unix:/run/a.sock"), ("upstream", "app"))
    assert found["edge_server_connections", server[0], ("state", "used"), server[1]] == 0
    assert found["edge_requests_total", ("status", "2xx")] == 1
    assert found["edge_reloads_total", ("outcome", "rejected")] == 1
    assert found["edge_log_lines_lost_total", ("log", "access")] == 3
    assert found["edge_last_reload_accepted",] == 0
    assert found["edge_workers", ("state", "draining")] == 1
    assert found["edge_worker_restarts_total", ("slot", "0")] == 2
    assert found["edge_ticket_key_age_seconds", ("state", "seals")] == 600
    assert found["edge_ticket_key_age_seconds", ("state", "opens")] == 3000
    assert [found["edge_ticket_keys", ("state", s)] for s in ("seals", "next", "opens")] == [1, 1, 2]
    assert found["edge_fleet_connected",] == 0
    assert found["edge_fleet_contact_age_seconds",] == 10
    assert found["edge_fleet_polls_total", ("outcome", "failed")] == 7
    assert found["edge_ocsp_expiry_time_seconds", ("kind", "rsa"), ("path", "certificate[1]")] == 6000
    assert found["edge_process_resident_bytes", ("process", "worker")] > 1 << 20
    assert found["edge_process_proportional_bytes", ("process", "master")] > 1 << 20
    assert found["edge_loop_longest_turn_seconds",] == 0.002


def test_buckets_are_cumulative_and_of_bounds_that_stay(counting, view):
    full(counting, view)
    found = samples(exposed(view)[1])
    buckets = {labels: n for labels, n in found.items() if labels[0] == "edge_request_seconds_bucket"}
    ordered = sorted(buckets, key=lambda labels: float(labels[1][1]))
    counts = [buckets[labels] for labels in ordered]
    assert counts == sorted(counts)
    assert counts[-1] == found["edge_request_seconds_count",] == 2
    by_bound = {float(labels[1][1]): n for labels, n in buckets.items()}
    assert by_bound[0.002048] == 0
    assert by_bound[0.004096] == 1
    assert by_bound[16.777216] == 1
    assert by_bound[33.554432] == 2
    of_route = [float(labels[1][1]) for labels in found if labels[0] == "edge_route_seconds_bucket"]
    assert len(of_route) == 11


def test_every_metric_is_documented_and_every_documented_one_is_there(counting, view):
    full(counting, view)
    families = {family.name for family in plain(exposed(view)[1])}
    assert families == {name.name for name in NAMES.values()}
    documented = (ROOT / "docs" / "metrics.md").read_text()
    tables = "\n".join(metric_names.reference())
    assert tables in documented, "python -m edge.observe.metric_names > the tables of the page"
    for name in re.findall(r"\bedge_[a-z0-9_]+\b", documented):
        assert any(name in (n.name, *n.samples) for n in NAMES.values()), name


def test_everything_that_is_counted_is_told():
    told = {*metrics.PLAIN, *metrics.LABELLED, *metrics.TOLD}
    assert set(StatsTable(rows=1, series=1).read().counters()) == told
    assert len(told) == len(metrics.PLAIN) + len(metrics.LABELLED) + len(metrics.TOLD)


def test_labels_are_those_that_are_documented(counting, view):
    full(counting, view)
    for family in plain(exposed(view)[1]):
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(NAMES[family.name].labels), sample
            assert sample.name in NAMES[family.name].samples


def test_without_routes(counting, view):
    full(counting, view)
    names = {name for name, *_ in samples(exposed(view, routes=False)[1])}
    assert not [name for name in names if name.startswith("edge_route_")]
    assert "edge_upstream_requests_total" in names
    assert "edge_request_seconds_count" in names


def test_before_the_master_has_said_anything(view):
    found = samples(exposed(view)[1])
    assert found["edge_connections_accepted_total",] == 0
    assert not [name for name, *_ in found if name == "edge_info"]


def test_who_asks_while_an_answer_is_written_gets_the_same(counting, view):
    exposition = metrics.Exposition(view, Metrics(bind=Endpoint("127.0.0.1", 1), routes=True))
    request = Request("/metrics", "", {})
    answers = [exposition.answer(request) for _ in range(20)]

    async def all_of_them():
        return await asyncio.gather(*answers)

    contents = {content for _, _, content in asyncio.run(all_of_them())}
    assert len(contents) == 1


def metrics_in(text):
    """The names of metrics in PromQL."""
    return set(re.findall(r"\bedge_[a-z0-9_]+\b", text))


SAMPLES = {sample for name in NAMES.values() for sample in name.samples}


def test_kinds_of_series_are_known():
    assert set(metrics.OF_SERIES) == set(KINDS)
    assert metrics_in("rate(edge_x_total[5m]) / edge_y") == {"edge_x_total", "edge_y"}
    assert "edge_request_seconds_bucket" in SAMPLES


def test_the_dashboard_asks_for_metrics_that_exist():
    dashboard = json.loads((ROOT / "ansible" / "grafana" / "edge.json").read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    asked = set()
    for panel in panels:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            balanced(target["expr"])
            assert metrics_in(target["expr"]) <= SAMPLES, (panel["title"], target["expr"])
            asked |= metrics_in(target["expr"])
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), (panel["title"], label)
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    covered = [(at["x"] + x, at["y"] + y) for at in places for x in range(at["w"]) for y in range(at["h"])]
    assert len(set(covered)) == len(covered), "none lies on another"
    assert max(x for x, _ in covered) < 24
    for listed in [*dashboard["annotations"]["list"], *dashboard["templating"]["list"]]:
        text = json.dumps(listed)
        assert metrics_in(text) <= SAMPLES
    shown = {name.name for name in NAMES.values() if set(name.samples) & asked}
    rare = {"edge_handoffs", "edge_proxy_headers_refused", "edge_handshakes_waiting", "edge_ocsp_expiry_time_seconds"}
    assert len(shown) > len(NAMES) // 2
    assert not shown & rare
    assert shown >= {name.name for name in NAMES.values() if name.name.startswith(("edge_fleet", "edge_register"))}


def test_alerts_ask_for_metrics_that_exist():
    text = (ROOT / "ansible" / "prometheus" / "edge.rules.yml").read_text()
    alerts = re.split(r"^      - alert: ", text, flags=re.MULTILINE)[1:]
    assert len(alerts) > 10
    for alert in alerts:
        name = alert.split("\n")[0]
        assert re.search(r"^        expr: .", alert, re.MULTILINE), name
        assert "summary:" in alert, name
        assert "remedy:" in alert, name
        expression = re.search(r"expr: (>-)?(.*?)\n        (for|labels):", alert, re.DOTALL)[2]
        balanced(expression)
        assert "up{" in expression or metrics_in(expression), name
        assert metrics_in(expression) <= SAMPLES, name
        for label in re.findall(r"\$labels\.(\w+)", alert):
            known = {"instance", *(label for name in NAMES.values() for label in name.labels)}
            assert label in known, (name, label)


def balanced(expression):
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing), expression
