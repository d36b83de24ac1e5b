"""What a reload has changed, in words, for the log and for who asked."""

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

from edge.schema import knobs
from edge.settings import Settings

NOTHING = "no settings changed"


def describe(old: Settings, new: Settings, certificates: int = 0, policies: bool = False) -> str:
    """Of two configurations: "2 routes added, 1 upstream changed, server.drain_timeout changed". `certificates`: how
    many are served that were not before, by what their files hold; `policies`: whether their code is another."""
    said = [
        *_tables("listener", _listeners(old), _listeners(new)),
        *_certificates(old, new, certificates),
        *_tables("upstream", _upstreams(old), _upstreams(new)),
        *_tables("route", {r.match: r for r in old.route}, {r.match: r for r in new.route}),
        *_tables("handoff", {h.name: h for h in old.handoff}, {h.name: h for h in new.handoff}),
        *_keys("server", old.server, new.server),
        *_keys("tls", old.tls, new.tls),
        *_table("fleet", old.fleet, new.fleet),
    ]
    if policies:
        said.append("policies changed")
    return ", ".join(said) or NOTHING


def _listeners(settings: Settings) -> dict[Hashable, object]:
    return {bind: dataclasses.replace(listener, bind=()) for listener in settings.listener for bind in listener.bind}


def _upstreams(settings: Settings) -> dict[Hashable, object]:
    found = zip(settings.upstream, settings.addresses, settings.server_names, strict=True)
    return {upstream.name: (upstream, addresses, names) for upstream, addresses, names in found}


def _certificates(old: Settings, new: Settings, certificates: int) -> list[str]:
    gone = len(set(old.certificate) - set(new.certificate))
    said = [f"{_count(certificates, 'certificate')} new"] if certificates else []
    return [*said, f"{_count(gone, 'certificate')} removed"] if gone and not certificates else said


def _tables(what: str, old: Mapping[Any, object], new: Mapping[Any, object]) -> list[str]:
    added, removed = len(new.keys() - old.keys()), len(old.keys() - new.keys())
    changed = sum(old[key] != new[key] for key in old.keys() & new.keys())
    return [
        f"{_count(number, what)} {done}"
        for number, done in ((added, "added"), (removed, "removed"), (changed, "changed"))
        if number
    ]


def _keys(name: str, old: Any, new: Any) -> list[str]:
    return [f"{name}.{key} changed" for key, _ in knobs(type(old)) if getattr(old, key) != getattr(new, key)]


def _table(name: str, old: Any, new: Any) -> list[str]:
    """Of one that may be missing."""
    if old is None or new is None:
        return [] if old is new else [f"{name} {'added' if old is None else 'removed'}"]
    return _keys(name, old, new)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
