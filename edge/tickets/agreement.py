"""How a host and its fleet come to the same ticket keys: what it makes of what is in Redis, and what should be there.

Nothing here asks anybody: `edge.tickets.keeper` does, and has what should be there written only if there is still what
was read.
"""

from edge.tickets.document import DeliveredKey, Document, first, merge


class Agreement:
    """A host's half. Durations in ms, moments in ms since 1970 of Redis's clock. `known`: what it knew before."""

    def __init__(self, rotate: int, keep: int, settle: int, known: Document | None = None) -> None:
        self._rotate = rotate
        self._keep = keep
        self._settle = settle
        self.known = known

    def hear(self, there: Document | None, now: int) -> None:
        """That is in Redis."""
        if there is not None:
            self._learn(there, now)

    def wanted(self, there: Document | None, now: int) -> Document | None:
        """What should be there instead, after `hear`; None: nothing else."""
        wanted = self._base(now).ready(now, self._rotate, self._settle)
        return None if there is not None and wanted.content == self._alive(there, now).content else wanted

    def rotated(self, now: int) -> tuple[Document, DeliveredKey]:
        """What should be there for the next key to seal soon, and that key."""
        return self._base(now).rotated(now, self._rotate, self._settle)

    def revoked(self, now: int) -> tuple[Document, DeliveredKey]:
        """What should be there for all keys to be new ones, and the one that seals."""
        return self._base(now).revoked(now, self._rotate)

    def written(self, document: Document, now: int) -> None:
        """That is in Redis now. What could not be written is never used: nobody else would have it."""
        self._learn(document, now)

    def _base(self, now: int) -> Document:
        return self.known or first(now, self._rotate)

    def _learn(self, document: Document, now: int) -> None:
        self.known = self._alive(merge(self.known, document) if self.known else document, now)

    def _alive(self, document: Document, now: int) -> Document:
        return document.alive(now, self._rotate, self._keep)
