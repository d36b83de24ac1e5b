"""The commands of the admin socket: what the master does and tells (docs/admin.md)."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from edge import shown, state
from edge.control import Answer, Command
from edge.polling import Poll
from edge.reload import Outcome
from edge.settings import Settings
from edge.told import filters

if TYPE_CHECKING:
    from edge.master import Master

LIMIT: Final = 100
"""Connections that are shown when nothing else is said."""
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


def status(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    """The state (`edge.state`) and the figures."""
    answer.done(state=state.describe(master), figures={})


def show(master: "Master", arguments: Arguments, answer: Answer) -> None:
    """Things of one kind, a line for each."""
    what = arguments.get("what")
    if what not in SHOWN:
        raise ValueError(f"there is nothing to show of {what!r}; there are: {', '.join(sorted(SHOWN))}")
    SHOWN[what](master, arguments, answer)


def _of_settings(items: Callable[[Settings], Iterator[shown.Item]]) -> Command:
    return lambda master, _arguments, answer: answer.each(items(master.current.prepared.settings))


def _hooks(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    answer.each(shown.hooks(master.current.prepared))


def _certificates(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    answer.each(state.certificates(master))


def _tickets(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    """A line for each key; the last one has the rest."""
    rotation = master.current.prepared.rotation
    if rotation is None:
        answer.done(count=0, enabled=False)
        return
    told = rotation.describe(time.time())
    answer.each(told.pop("keys"), enabled=True, **told)


def _connections(master: "Master", arguments: Arguments, answer: Answer) -> None:
    """What workers say of their connections (`edge.polling`): those that `client`, `state` and `server_name` leave, at
    most `limit` of them."""
    limit = arguments.get("limit", LIMIT)
    if not isinstance(limit, int) or not 0 < limit <= LIMIT_MOST:
        raise ValueError(f"limit is a number between 1 and {LIMIT_MOST}")
    Poll(master, {"what": "connections", **filters(arguments)}, answer, limit)


def _pools(master: "Master", _arguments: Arguments, answer: Answer) -> None:
    """What workers say of what they have open to servers."""
    Poll(master, {"what": "upstreams"}, answer, LIMIT_MOST)


SHOWN: Final[dict[str, Command]] = {
    "config": _of_settings(shown.configuration),
    "listeners": _of_settings(shown.listeners),
    "routes": _of_settings(shown.routes),
    "upstreams": _of_settings(shown.upstreams),
    "handoffs": _of_settings(shown.handoffs),
    "hooks": _hooks,
    "certs": _certificates,
    "tickets": _tickets,
    "connections": _connections,
    "pools": _pools,
}
