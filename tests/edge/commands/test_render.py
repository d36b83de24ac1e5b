"""What commands show: quantities in words, and nothing that a terminal would obey."""

import io

import pytest
from rich.console import Console

from edge.commands import render

NOW = 1_800_000_000.0


def shown(what, width=200):
    out = io.StringIO()
    Console(file=out, width=width, color_system=None, highlight=False, markup=False).print(what)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def certificate(**more):
    return {
        "names": ["a.de"],
        "kind": "ECDSA P-256",
        "expires": NOW + 90 * render.DAY,
        "must_staple": False,
        "ocsp": "none",
        "ocsp_expires": None,
        "timestamps": 0,
        "delegated": None,
        "key": "file a.key",
        **more,
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0, "0"),
        (7, "7"),
        (0.25, "0.25"),
        (99.5, "99.5"),
        (950, "950"),
        (9999, "9999"),
        (10_000, "10k"),
        (12_345, "12.3k"),
        (999_499, "999k"),
        (1_000_000, "1M"),
        (4_560_000, "4.56M"),
        (7.2e10, "72G"),
    ],
)
def test_numbers(value, words):
    assert render.number(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (1536, "1.5 KiB"),
        (250 * 1024, "250 KiB"),
        (5 << 40, "5 TiB"),
    ],
)
def test_sizes(value, words):
    assert render.size(value) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (0, "0 µs"),
        (0.00035, "350 µs"),
        (0.012, "12 ms"),
        (1.2, "1.2 s"),
        (59.9, "59.9 s"),
        (60, "1m 0s"),
        (303, "5m 3s"),
        (7260, "2h 1m"),
        (2 * 86400 + 4 * 3600, "2d 4h"),
        (-90, "-1m 30s"),
    ],
)
def test_durations(seconds, words):
    assert render.duration(seconds) == words


@pytest.mark.parametrize(
    ("days", "words", "style"),
    [
        (90, "90 days", render.GOOD),
        (30, "30 days", render.GOOD),
        (29, "29 days", render.FAIR),
        (6.9, "7 days", render.BAD),
        (1.5, "1d 12h", render.BAD),
        (-1, "expired", render.BAD),
    ],
)
def test_days_left(days, words, style):
    found = render.days_left(NOW + days * render.DAY, NOW)
    assert (found.plain, found.style) == (words, style)


@pytest.mark.parametrize(
    ("facts", "words", "style"),
    [
        ({}, "–", render.FAINT),
        ({"must_staple": True}, "must-staple: no OCSP response", render.BAD),
        ({"ocsp": "missing"}, "not there yet", render.FAIR),
        ({"ocsp": "missing", "must_staple": True}, "must-staple: not there yet", render.BAD),
        ({"ocsp": "fetched"}, "fetched", render.GOOD),
        ({"ocsp": "file", "ocsp_expires": NOW + 7200}, "file, 2h 0m left", render.GOOD),
        ({"ocsp": "file", "ocsp_expires": NOW - 1}, "file, expired", render.FAIR),
        ({"ocsp": "file", "ocsp_expires": NOW - 1, "must_staple": True}, "must-staple: file, expired", render.BAD),
    ],
)
def test_stapling(facts, words, style):
    found = render.stapling(certificate(**facts), NOW)
    assert (found.plain, found.style) == (words, style)


def test_what_is_beside_a_certificate():
    text = shown(render.certificates([certificate(timestamps=2, delegated=NOW + 3600)], NOW))
    assert "2 SCTs, delegated credential, 1h 0m left" in text


def test_nothing_is_a_line():
    assert shown(render.handoffs([])) == "Handed over: none"
    assert shown(render.tickets([], {"enabled": False}, NOW)) == "Ticket keys: none, tickets are off"


def test_nothing_is_markup_or_moves_the_cursor():
    """Names come from configurations; others from peers."""
    route = {
        "index": 0,
        "name": None,
        "hosts": [],
        "path": "/[bold red]x[/]\x1b[2J\x07\r\n",
        "methods": [],
        "upstream": ":smile:",
        "early_data": "confirm",
        "hooks": None,
    }
    text = shown(render.routes([route]))
    assert "/[bold red]x[/]\\x1b[2J\\x07\\r\\n" in text
    assert ":smile:" in text
    assert "\x1b" not in text


def test_nothing_is_cut_in_a_narrow_terminal():
    name = "a-very-long-name.example.com"
    text = shown(render.certificates([certificate(names=[name])], NOW), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert name in "".join(line.split()[0] for line in text.splitlines()[3:])


def test_hooks_and_handoffs():
    text = shown(
        render.hooks(
            [
                {"where": "server.hooks", "policy": "p:P", "hooks": ["director"], "routes": None},
                {"where": "route[1].hooks", "policy": "r:R", "hooks": ["response"], "routes": 1},
            ]
        )
    )
    assert "p:P      all requests   director   server.hooks" in text
    assert "r:R      1 route" in text
    text = shown(
        render.handoffs(
            [
                {"name": "o", "socket": "unix:/o", "match": {"sni": ["*.o"], "version": ["1.0"]}, "otherwise": "close"},
                {"name": "hook", "socket": "unix:/h", "otherwise": "serve"},
            ]
        )
    )
    assert "sni *.o; version 1.0" in text
    assert "a hook's choice" in text
