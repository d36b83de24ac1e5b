"""The key log: secrets of connections, for tools that read what was recorded of them. Off unless configured."""

import os
from pathlib import Path

from edge.schema import Place


class KeyLog:
    """Appends lines to a file that only its owner may read. Opened in the master, for all workers."""

    def __init__(self, path: Path, at: Place) -> None:
        """Raises ConfigError when the file cannot be written."""
        try:
            # O_NONBLOCK: a named pipe that nobody reads is an error, not a wait without end.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
            self._fd = os.open(path, flags, 0o600)
        except OSError as e:
            raise at.error(f"{path}: {e.strerror}", "name a file that can be written") from None

    def write(self, line: str) -> None:
        """One write per line: with O_APPEND, lines of several workers do not mix. Raises OSError."""
        os.write(self._fd, f"{line}\n".encode("ascii"))

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)
