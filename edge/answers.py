"""The commands of the admin socket: what the master does and tells (docs/admin.md)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge import state
from edge.control import Answer
from edge.reload import Outcome

if TYPE_CHECKING:
    from edge.master import Master

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
    raise ValueError(f"there is nothing to show of {what!r}")
