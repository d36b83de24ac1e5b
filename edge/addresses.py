"""The table in which all workers count what each client address has, and which worker has which column of it."""

from collections.abc import Collection

from cext.proxy.address_table import AddressTable


class Addresses:
    """Made by the master before its first worker; lives as long as it does, whatever is reloaded."""

    def __init__(self) -> None:
        self._table = AddressTable()
        self._holders: dict[int, object] = {}

    def assign(self, holder: object) -> int | None:
        """The column for a worker that is about to be forked; None when all are taken."""
        free = next((column for column in range(self._table.columns) if column not in self._holders), None)
        if free is not None:
            self._holders[free] = holder
        return free

    def keep(self, living: Collection[object]) -> None:
        """Takes back what any other worker held: it may have had no time to do so itself."""
        for column, holder in list(self._holders.items()):
            if holder not in living:
                self._table.clear(column)
                del self._holders[column]

    def join(self, column: int | None) -> AddressTable:
        """In the worker: the table, ready to count in. One without a column counts for itself."""
        if column is None:
            return AddressTable(columns=1)
        self._table.join(column)
        return self._table
