"""The figures of a comparison and their three forms, from readings made up here."""

import json
import re
from xml.etree import ElementTree

import pytest

from bench.probes import PROBES, Reading
from bench.report import Comparison, as_json, chart, machine_facts, markdown, remarks
from bench.svg import Bar, Panel, bar_chart, number

SVG = "{http://www.w3.org/2000/svg}"
FACTS = {"cpu": "A <fast> CPU", "openssl": "3.0.22"}


@pytest.fixture
def comparison():
    c = Comparison([PROBES["handshake"], PROBES["bulk"]], ["nginx", "edge", "caddy", "h2o"])
    for peer, values in {"nginx": (400, 900, 500), "edge": (200, 220, 210), "caddy": (600, 610)}.items():
        for value in values:
            c.add("handshake", peer, Reading(value, 1000))
    c.add("bulk", "nginx", Reading(0.8, 40))
    c.add("bulk", "edge", Reading(1.6, 80, foreign=0.42))
    c.add("bulk", "caddy", Reading(1.0, 80))
    c.fail("bulk", "caddy", "died under the load")
    c.left_out["h2o"] = "not installed"
    return c


def test_medians_and_ratios(comparison):
    assert comparison.median("handshake", "nginx") == 500
    assert comparison.median("handshake", "edge") == 210
    assert comparison.median("handshake", "caddy") == 605
    assert comparison.ratio("handshake", "edge") == pytest.approx(0.42)
    assert comparison.ratio("bulk", "edge") == pytest.approx(2.0)
    assert comparison.ratio("handshake", "nginx") == 1.0


def test_a_failure_takes_earlier_readings_away(comparison):
    assert comparison.median("bulk", "caddy") is None
    assert comparison.ratio("bulk", "caddy") is None


def test_no_ratio_without_the_baseline():
    c = Comparison([PROBES["h1"]], ["edge"])
    c.add("h1", "edge", Reading(20.0, 100))
    assert c.median("h1", "edge") == 20
    assert c.ratio("h1", "edge") is None
    assert "| **20.0** |" in markdown(c)


def test_markdown(comparison):
    head, rule, handshake, bulk = markdown(comparison).splitlines()
    assert head == "| | unit | nginx | edge | caddy |"
    assert rule.count("|") == head.count("|")
    assert handshake.endswith("| 500 | **210 (0.42)** | 605 (1.21) |")
    assert "less is better" in handshake
    assert bulk.endswith("| 0.80 | **1.60 (2.00)** | failed |")
    assert "more is better" in bulk


def test_remarks_name_who_is_missing_and_how_noisy_it_was(comparison):
    said = "\n".join(remarks(comparison))
    assert "h2o left out: not installed" in said
    assert "caddy failed bulk: died under the load" in said
    assert "42%" in said
    assert "bulk of edge" in said


def test_a_quiet_machine_is_not_mentioned():
    c = Comparison([PROBES["h1"]], ["nginx"])
    c.add("h1", "nginx", Reading(20.0, 100, foreign=0.05))
    assert remarks(c) == []


def test_json_round_trip(comparison):
    found = json.loads(json.dumps(as_json(comparison, FACTS, {"rounds": 3})))
    handshake = found["probes"]["handshake"]
    assert handshake["peers"]["edge"]["median"] == 210
    assert [r["value"] for r in handshake["peers"]["nginx"]["readings"]] == [400, 900, 500]
    assert found["probes"]["bulk"]["failed"] == {"caddy": "died under the load"}
    assert "caddy" not in found["probes"]["bulk"]["peers"]
    assert found["left_out"] == {"h2o": "not installed"}
    assert found["settings"] == {"rounds": 3}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["when"])


def bars_of(root):
    return [r for r in root.iter(f"{SVG}rect") if r.get("class") in ("bar", "ours")]


def test_chart_is_well_formed_and_to_scale(comparison):
    root = ElementTree.fromstring(chart(comparison, FACTS))
    bars = bars_of(root)
    assert len(bars) == 5
    handshake = [float(b.get("width")) for b in bars[:3]]
    assert handshake == sorted(handshake), "the best comes first"
    assert handshake[0] / handshake[1] == pytest.approx(210 / 500, rel=0.01)
    assert handshake[2] / handshake[1] == pytest.approx(605 / 500, rel=0.01)
    assert [b.get("class") for b in bars].count("ours") == 2
    words = " ".join(root.itertext())
    assert "A <fast> CPU" in words
    assert "failed" in words
    assert "0.42 × nginx" in words


def test_chart_stays_inside_its_frame(comparison):
    root = ElementTree.fromstring(chart(comparison, FACTS))
    width, height = (float(root.get(side)) for side in ("width", "height"))
    for bar in bars_of(root):
        assert float(bar.get("x")) + float(bar.get("width")) < width
        assert float(bar.get("y")) + float(bar.get("height")) < height
    for text in root.iter(f"{SVG}text"):
        assert 0 < float(text.get("y")) < height


def test_chart_of_nothing():
    empty = Comparison([PROBES["idle"]], ["edge"])
    words = " ".join(ElementTree.fromstring(chart(empty, FACTS)).itertext())
    assert "not measured" in words


def test_chart_has_a_light_and_a_dark_palette():
    assert "prefers-color-scheme:dark" in bar_chart("t", "s", [Panel("p", "u", [Bar("edge", 1.0)])])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.0123, "0.012"), (0.5, "0.50"), (1.236, "1.24"), (21.94, "21.9"), (131.4, "131"), (54321.0, "54321")],
)
def test_number(value, shown):
    assert number(value) == shown


def test_machine_facts_of_this_machine():
    facts = machine_facts({"nginx": "1.22.1"})
    assert facts["cpus"] >= 1
    assert facts["memory_mib"] > 100
    assert re.match(r"\d+\.\d+", facts["kernel"])
    assert facts["versions"] == {"nginx": "1.22.1"}
