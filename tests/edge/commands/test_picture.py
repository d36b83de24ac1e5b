"""The picture of `edge status`: whole at every size, the important first, and nothing in it that a terminal obeys."""

import io

import pytest
from rich.console import Console
from rich.text import Text

from edge.commands import picture
from tests.edge.commands import looks


def drawn(look, width, height=None, notice=None, tall=1000):
    out = io.StringIO()
    console = Console(file=out, width=width, height=height or tall, color_system=None, highlight=False, markup=False)
    console.print(picture.picture(look, width, height, notice))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("notice", [None, Text("no answer")])
@pytest.mark.parametrize("height", [24, 30, 80])
@pytest.mark.parametrize("width", [80, 100, 117, 118, 250])
def test_it_fits(width, height, notice):
    lines = drawn(looks.look(workers=30), width, height, notice)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    shown = "\n".join(lines)
    for words in ("edge 0.1.0", "requests/s", "whole request", "135 ms", "last reload accepted 3m 20s ago"):
        assert words in shown


def test_the_smallest_terminal_has_the_most_important():
    shown = drawn(looks.look(), 80, 24)
    assert shown[0].startswith("● edge 0.1.0  generation 3 · 2 workers, 1 draining · up 2d 4h")
    assert shown[0].endswith("08:00:00 UTC")
    assert shown[2].startswith("2 certificates with less than 7 days, the first: gone.example.com; 1 without")
    assert "requests/s" in shown[4]
    assert shown[4].split()[1] == "1234"
    assert "1.23M in all" in shown[4]
    assert any(line.startswith("app ") and "18 ms" in line and "<0.1%" in line for line in shown)
    assert any(line.startswith("Upstreams") for line in shown)
    assert any(line.startswith("Workers (2 of 3)") for line in shown)


def test_without_a_terminal_its_head_is_as_wide_as_the_rest():
    out = io.StringIO()
    Console(file=out, width=240).print(picture.picture(looks.look(), 100))
    assert len(out.getvalue().splitlines()[0].rstrip()) == 100


def test_without_a_limit_all_of_it_is_shown():
    shown = "\n".join(drawn(looks.look(workers=7), 100))
    for words in ("www39.example.com/path/*", "old.example.com", "4719", "9a3dd3b0 seals for 6h 26m more"):
        assert words in shown


def test_an_edge_that_has_just_begun():
    look = looks.look(looks=0)
    look.recent = None
    look.state["reloads"] = {"accepted": 0, "rejected": 0, "last": None}
    look.state["tickets"] = None
    for width in (80, 160):
        shown = "\n".join(drawn(look, width))
        assert "not reloaded yet" in shown
        assert "none, tickets are off" in shown


def test_a_rejected_reload_is_seen():
    look = looks.look()
    reason = "edge.toml: server.wrokers: unknown key"
    look.state["reloads"]["last"] |= {"accepted": False, "reason": reason}
    assert drawn(look, 80, 24)[1].startswith("last reload rejected 3m 20s ago: edge.toml: server.wrokers: unknown key")


def test_a_crash_loop_and_an_upgrade_are_seen():
    look = looks.look(upgrade=True)
    look.state["workers"][1]["crash_loop"] = True
    assert drawn(look, 160, 40)[2].startswith(
        "workers of slot 1 die again and again; another version is about to take over; 2 certificates"
    )


def test_names_are_text():
    look = looks.look()
    hostile = "[red]\x1b[2J\x07"
    look.figures["upstreams"][hostile] = looks.series(9_999_999, 0.1)
    look.state["certificates"][3]["names"] = [hostile]
    look.state["file"] = hostile
    for width in (80, 160):
        shown = "\n".join(drawn(look, width))
        assert "\x1b" not in shown
        assert "\x07" not in shown
        assert "[red]\\x1b[2J" in shown


def test_sparklines():
    def line(values, width=8):
        return picture.sparkline(values, width, "green").plain

    assert line([]) == " " * 8
    assert line([1, 2, 4, 8]) == "    ▁▂▄█"
    assert line([0, 0, 0, 5]) == "    ▁▁▁█"
    assert line([8, None, 8]) == "     █┄█"
    assert line(range(100), 3) == "███"
    assert line([1000, 1, 1, 1], 3) == "███"  # by what shows
    assert line([0, 0]) == "      ▁▁"


def test_rates_need_time():
    recent = looks.some_figures(2.0)
    assert picture.rates(recent)["handshakes"] == recent["counters"]["handshakes"] / 2
    assert picture.rates(looks.some_figures(0.0)) is None
