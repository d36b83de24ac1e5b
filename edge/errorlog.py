"""The error log: gunicorn's logger with a format of our own, one event on one line."""

import logging
import time
from typing import Any, Final

from gunicorn.glogging import Logger

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


class _Formatter(logging.Formatter):
    """RFC 3339 times in UTC; lower-case levels."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self, *_: object) -> None:
        super().__init__("%(asctime)s %(levelname)s [%(process)d] %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = record.levelname.lower()
        return super().format(record)


class ErrorLog(Logger):  # type: ignore[misc]  # gunicorn has no types
    def info(self, msg: str, *args: Any, **kwargs: Any) -> None:
        self.error_log.log(logging.DEBUG if msg in _CHATTER else logging.INFO, msg, *args, **kwargs)

    def _set_handler(self, log: Any, output: Any, fmt: Any, stream: Any = None) -> None:
        super()._set_handler(log, output, _Formatter(), stream)


def one_line(message: str) -> str:
    """A message with what a peer may have put into it, unable to break or forge a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
