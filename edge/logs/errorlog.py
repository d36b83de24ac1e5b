"""The error log, as each process writes it: gunicorn's logger, whose events go to the process that writes them down."""

import logging
import traceback
from typing import Any, Final

from gunicorn.glogging import Logger

from edge.logs.logline import SEVERITIES
from edge.logs.logs import Sender

# What gunicorn says at level info about its own doings; of use only when looking for a fault in it.
_CHATTER: Final = frozenset(
    {
        "Starting gunicorn %s",
        "Listening at: %s (%s)",
        "Using worker: %s",
        "Booting worker with pid: %s",
        "Worker exiting (pid: %s)",
        "Handling signal: %s",
        "Shutting down: %s",
        "Hang up: %s",
    }
)


class _Handler(logging.Handler):
    """Hands events to the process that writes them down. It never waits."""

    _gunicorn = True  # what gunicorn replaces when it sets its logger up anew

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.exc_info and record.exc_info[0]:
                text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            self._sender.event(SEVERITIES.get(record.levelname.lower(), 3), text, record.created)
        except Exception:
            self.handleError(record)


class ErrorLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    """`cfg.sender` is the process's Sender."""

    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.log(logging.DEBUG if msg in _CHATTER else logging.INFO, msg, *args, **kwargs)

    def _set_handler(self, log: Any, output: Any, fmt: Any, stream: Any = None) -> None:
        log.addHandler(_Handler(self.cfg.sender))


def one_line(message: str) -> str:
    """A message with what a peer may have put into it, unable to break or forge a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
