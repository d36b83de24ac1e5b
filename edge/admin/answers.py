"""The commands of the admin socket: what the master does and tells (docs/admin.md)."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from edge.admin import shown, state
from edge.admin.control import Answer, Command, Lines
from edge.admin.polling import Poll
from edge.admin.told import filters
from edge.change.reload import Outcome
from edge.change.upgrade import Outcome as UpgradeOutcome
from edge.change.upgrade import usable_python
from edge.observe import figures
from edge.observe.figures import Figures
from edge.observe.labels import KINDS, ROUTE, SERVER, UPSTREAM, route_label, server_label
from edge.settings import Settings
from edge.tickets.supply import Outcome as Rotated

if TYPE_CHECKING:
    from edge.master import Master

LIMIT: Final = 100
"""Connections that are shown when nothing else is said."""
SERIES_MOST: Final = 1000
"""With more than these in use, the status leaves routes out."""
LIMIT_MOST: Final = 10_000_000

Arguments = Mapping[str, Any]


def reload(master: "Master", arguments: Arguments, answer: Answer) -> None:
    """Takes the configuration file over. With `wait`, the answer is how that ended."""
    master.log.info("a reload is asked for by %s", answer.asked_by)
    if not arguments.get("wait"):
        master.reload()
        answer.done(pid=master.pid, file=master.current.prepared.settings.file)
        return

    def told(outcome: Outcome) -> None:
        facts = {"seconds": round(outcome.seconds, 3), "generation": outcome.generation}
        if outcome.accepted:
            answer.done(changed=outcome.changed, **facts)
        else:
            answer.fail(outcome.reason, rejected=True, **facts)

    master.reload(told)


def upgrade(master: "Master", arguments: Arguments, answer: Answer) -> None:
    """Has another version take over. With `wait`, the answer is how that ended."""
    python = arguments.get("python")
    if python is not None and answer.uid not in (0, os.geteuid()):
        raise ValueError("python is for the user that edge runs as, and root: it is executed with all that edge may do")
    master.log.info("an upgrade is asked for by %s", answer.asked_by)

    def told(outcome: UpgradeOutcome) -> None:
        facts = {"version": outcome.version, "pid": outcome.pid, "seconds": round(outcome.seconds, 3)}
        if outcome.succeeded:
            answer.done(**facts)
        else:
            answer.fail(outcome.reason, failed=True, **facts)

    wait = bool(arguments.get("wait"))
    pid = master.upgrade.begin(usable_python(python) if python is not None else None, told if wait else None)
    if not wait:
        answer.done(pid=pid)


def rotate(master: "Master", arguments: Arguments, answer: Answer) -> None:
    """Has the fleet's next ticket key seal soon; with `revoke` all keys are new. With `wait`, the answer comes when the
    key seals here."""
    revoke = bool(arguments.get("revoke"))
    what = "a revocation of all ticket keys" if revoke else "a rotation of the ticket keys"
    master.log.info("%s is asked for by %s", what, answer.asked_by)

    def told(outcome: Rotated) -> None:
        if outcome.reason:
            answer.fail(outcome.reason, failed=True)
        else:
            answer.done(key=outcome.key, seals=outcome.seals)

    master.supply.rotate(told, revoke=revoke, wait=bool(arguments.get("wait")))


def status(master: "Master", arguments: Arguments, answer: Answer) -> None:
    """The state (`edge.admin.state`) and the figures: those since the master's start, and with `recent` those since the
    client has asked for that last."""
    now = _figures(master)
    before = answer.notes.get("figures")
    if arguments.get("recent"):
        answer.notes["figures"] = now
    told = state.describe(master)
    for worker in told["workers"]:
        worker.update(_of_worker(master, worker["row"]))
    kinds = KINDS if len(master.app.generations.counting.labels) <= SERIES_MOST else (UPSTREAM, SERVER)
    answer.done(
        state=told,
        figures=now.as_dict(kinds),
        recent=before and now.since(before).as_dict(kinds),
    )


def _figures(master: "Master", rows: Collection[int] | None = None) -> Figures:
    counting = master.app.generations.counting
    return figures.read(counting.table, counting.labels, rows)


def _of_worker(master: "Master", row: int | None) -> dict[str, int | None]:
    if row is None:
        return {"connections": None, "requests": None}
    own = _figures(master, [row])
    return {"connections": own.gauges()["connections_open"], "requests": own.counters()["requests"]}


def show(master: "Master", arguments: Arguments, answer: Answer) -> None:
    """Things of one kind, a line for each."""
    what = arguments.get("what")
    if not isinstance(what, str) or what not in SHOWN:
        raise ValueError(f"there is nothing to show of {what!r}; there are: {', '.join(sorted(SHOWN))}")
    SHOWN[what](master, arguments, answer)


def _of_settings(items: Callable[[Settings], Iterator[shown.Item]]) -> Command:
    return lambda master, _arguments, answer: answer.each(items(master.current.prepared.settings))


def _routes(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    """Each with its label among the figures, and in `figures` what it has counted; null: nothing."""
    settings = master.current.prepared.settings
    now = _figures(master)

    def lines() -> Lines:
        counted: dict[str, Any] = {}
        yield from _collect(now, ROUTE, counted)
        for item, route in zip(shown.routes(settings), settings.route, strict=True):
            label = route_label(route)
            yield item | {"label": label, "figures": counted.get(label)}

    answer.each(lines())


def _upstreams(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    """Each with what it has counted (`figures`), and in `addresses` what each of them has; null: nothing."""
    settings = master.current.prepared.settings
    now = _figures(master)

    def lines() -> Lines:
        upstreams: dict[str, Any] = {}
        servers: dict[str, Any] = {}
        yield from _collect(now, UPSTREAM, upstreams)
        yield from _collect(now, SERVER, servers)
        for item in shown.upstreams(settings):
            name = item["name"]
            of_servers = {address: servers.get(server_label(name, address)) for address in item["addresses"]}
            yield item | {"figures": upstreams.get(name), "addresses": of_servers}

    answer.each(lines())


def _collect(now: Figures, kind: str, found: dict[str, Any]) -> Lines:
    """Fills `found` with the figures of a kind, by label, some at a time."""
    for series in now.series((kind,)):
        found[series.label] = series.as_dict()
        yield None


def _hooks(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    answer.each(shown.hooks(master.current.prepared))


def _certificates(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    answer.each(iter(state.certificates(master)))


def _tickets(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    """A line for each key; the last one has the rest."""
    rotation = master.current.prepared.rotation
    if rotation is None:
        answer.done(count=0, enabled=False)
        return
    told = rotation.describe(time.time())
    answer.each(iter(told.pop("keys")), enabled=True, **told)


def _connections(master: "Master", arguments: Arguments, answer: Answer) -> None:
    """What workers say of their connections (`edge.admin.polling`): those that `client`, `state` and `server_name`
    leave, at most `limit` of them."""
    limit = arguments.get("limit", LIMIT)
    if not isinstance(limit, int) or isinstance(limit, bool) or not 0 < limit <= LIMIT_MOST:
        raise ValueError(f"limit is a number between 1 and {LIMIT_MOST}")
    Poll(master, {"what": "connections", **filters(arguments)}, answer, limit)


def _pools(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    """What workers say of what they have open to servers."""
    Poll(master, {"what": "upstreams"}, answer, LIMIT_MOST)


SHOWN: Final[dict[str, Command]] = {
    "config": _of_settings(shown.configuration),
    "listeners": _of_settings(shown.listeners),
    "routes": _routes,
    "upstreams": _upstreams,
    "handoffs": _of_settings(shown.handoffs),
    "hooks": _hooks,
    "certs": _certificates,
    "tickets": _tickets,
    "connections": _connections,
    "pools": _pools,
}
