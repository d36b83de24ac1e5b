"""How long to wait before another try at what has failed: twice as long each time, and not all at the same moment."""

import random
from typing import Final

DOUBLINGS_MOST: Final = 30


def spread(seconds: float, by: float = 0.5) -> float:
    """About as long, at random: many must not do the same at the same time. `by`: which share it may differ by."""
    return seconds * random.uniform(1 - by, 1 + by)  # noqa: S311 - no secret


class Backoff:
    """Waits of `first` seconds, then twice as long each time, up to `most`; `by` as in `spread`."""

    def __init__(self, first: float, most: float, by: float = 0.3) -> None:
        self._first, self._most, self._by = first, most, by
        self.failures = 0
        """In a row."""

    def failed(self) -> float:
        """-> seconds until the next try."""
        wait = min(self._first * 2 ** min(self.failures, DOUBLINGS_MOST), self._most)
        self.failures += 1
        return spread(wait, self._by)

    def succeeded(self) -> None:
        self.failures = 0
