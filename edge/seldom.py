"""What repeats is told now and then, with how often it came meanwhile."""

import time
from typing import Final

from edge.logs.logline import Log

SECONDS: Final = 10.0
REMEMBERED: Final = 256


class Seldom:
    """Passes messages on, each kind of them once in ten seconds at most."""

    def __init__(self, tell: Log) -> None:
        """`tell(level, message)` is the log's."""
        self._tell = tell
        self._told: dict[str, tuple[float, int]] = {}

    def __call__(self, level: str, message: str, kind: str = "") -> None:
        """`kind` is what counts as the same; by default, the message."""
        now = time.monotonic()
        when, untold = self._told.get(kind or message, (-SECONDS, 0))
        if now - when < SECONDS:
            self._told[kind or message] = (when, untold + 1)
            return
        if len(self._told) >= REMEMBERED:  # what a peer words differently each time must not stay for ever
            self._told.clear()
        self._told[kind or message] = (now, 0)
        self._tell(level, f"{message} ({untold} more times since it was told last)" if untold else message)
