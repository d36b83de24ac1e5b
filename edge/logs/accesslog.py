"""The access log, as a worker writes it: from the data plane's lines to the process that writes them down."""

from collections.abc import Callable
from typing import Any, Protocol

from edge.logs import logline, logs
from edge.logs.logs import Sender
from edge.logs.settings import AccessLog, access_target

END_SECONDS = 0.2
"""How long a worker that ends waits for room for its last lines."""


class Plane(Protocol):
    """`cext.worker.DataPlane`, as far as it matters here."""

    def log_to(self, sink: Callable[[bytes], int] | None, **form: Any) -> None: ...


def follow(plane: Plane, log: AccessLog | None, sender: Sender) -> None:
    """From now on the worker's requests are logged as `log` says."""
    if log is None:
        plane.log_to(None)
        return
    journal = access_target(log) == "journald"
    letter = logline.ENTRIES if journal else logline.ACCESS
    plane.log_to(
        lambda lines: sender.lines(letter, lines),
        form=log.format,
        share=log.sample,
        always=log.always,
        fields=log.fields,
        prefix=logs.journal_prefix(log.syslog) if journal else None,
        lost=sender.dropped,
    )


def end(plane: Plane, sender: Sender) -> None:
    """The worker ends: its last lines go."""
    sender.wait(END_SECONDS)
    plane.log_to(None)
