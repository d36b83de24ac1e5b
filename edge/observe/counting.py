"""The table in which all workers count what goes on, and which worker has which row of it."""

from collections.abc import Collection
from typing import Final

from cext.base.stats import StatsTable

from edge.observe.labels import ROOM, Labels

ROWS: Final = 256
"""Workers that may live at a time, those that drain among them, beside the row of the departed."""
ROOM_LEAST: Final = 64


class Counting:
    """Made by the master before its first worker; lives as long as it does, whatever is reloaded."""

    def __init__(self, rows: int = ROWS, room: int = ROOM) -> None:
        self.table = _table(rows, room)
        self.labels = Labels(self.table.series)
        self._holders: dict[int, object] = {}

    def assign(self, holder: object) -> int | None:
        """The row for a worker that is about to be forked; None when all are taken."""
        free = next((row for row in range(1, self.table.rows) if row not in self._holders), None)
        if free is not None:
            self._holders[free] = holder
            self.table.open(free)
        return free

    def keep(self, living: Collection[object]) -> None:
        """What any other worker has counted goes to the row of the departed, and stays counted."""
        for row, holder in list(self._holders.items()):
            if holder not in living:
                self.table.fold(row)
                del self._holders[row]

    def join(self, row: int | None) -> StatsTable:
        """In the worker: the table, ready to count in. One without a row counts for itself, and nobody sees it."""
        if row is None:
            return StatsTable(rows=1, series=self.table.series)
        self.table.join(row)
        return self.table


def _table(rows: int, room: int) -> StatsTable:
    """Memory that nobody uses costs nothing, but where the kernel does not overcommit it counts: less will do there."""
    while True:
        try:
            return StatsTable(rows=rows, series=room)
        except OSError:
            if room <= ROOM_LEAST:
                raise
            room //= 2
