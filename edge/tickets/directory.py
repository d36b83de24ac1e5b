"""Ticket keys that somebody delivers as files, the same to several hosts.

What the keys are for follows from the order of the files' names: the last is next, the one before it seals, those
before that open. So adding one file, on every host and in any order, is one rotation: the key that seals from then on
was the next one everywhere, and the new one seals nowhere before another has been added.
"""

import dataclasses
import hashlib
import hmac
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any, Final

from edge.tickets.document import OPENED_MOST
from edge.tickets.schedule import Key

KEY_MIN: Final = 48
FILES_MOST: Final = 1000
FILE_MOST: Final = 1 << 20


class DirectoryError(ValueError):
    """No keys can be had there. `remedy` is what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy


@dataclasses.dataclass(frozen=True, slots=True)
class FileKey:
    file: str
    """Its name,"""
    since: float
    """and when it was written."""
    name: bytes
    key: bytes = dataclasses.field(repr=False)


Stamp = tuple[tuple[object, ...], ...]
"""Tells whether anything has changed in a directory."""
State = tuple[int, tuple[FileKey, ...]]
"""Of Files: a number that grows, and the keys."""


class Files:
    """The keys of a directory, oldest first."""

    def __init__(self, path: Path, rotate: int, keep: int, state: State) -> None:
        self.name: Hashable = ("directory", str(path), rotate, keep)
        """The same for its copies in other processes."""
        self.path = path
        self._rotate = rotate
        self._keep = keep
        self._number, self._files = state

    def state(self) -> State:
        return self._number, self._files

    def take(self, state: State, _now: float) -> None:
        """What another process has, if it is newer."""
        if state[0] > self._number:
            self._number, self._files = state

    def stamp(self, now: float) -> object:
        return self._number

    def keys(self, now: float) -> list[Key]:
        """The key that seals, the next one, if there is one, those before, newest first."""
        return [(key.name, key.key) for _, key in self._roles()]

    def settings(self) -> dict[str, Any]:
        return {"source": "directory", "rotate": self._rotate / 1000, "keep": self._keep, "shared": True}

    def describe(self, now: float) -> list[dict[str, Any]]:
        """As that of Schedule. `since` is when the file was written: nobody knows when it is followed by another, and
        `until` is None."""
        return [
            {"id": key.name.hex()[:8], "state": state, "since": key.since, "until": None, "file": key.file}
            for state, key in self._roles()
        ]

    def _roles(self) -> list[tuple[str, FileKey]]:
        *before, sealing = self._files if len(self._files) == 1 else self._files[:-1]
        following = self._files[len(before) + 1 :]
        told = [("seals", sealing), *(("next", key) for key in following), *(("opens", k) for k in reversed(before))]
        return told[:OPENED_MOST]


def look(path: Path) -> Stamp:
    """Raises DirectoryError."""
    try:
        found = [(entry.name, entry.stat()) for entry in _entries(path)]
    except OSError as e:
        raise DirectoryError(f"{path}: {e.strerror}", "leave the files as they are for a moment") from None
    return tuple((name, status.st_ino, status.st_size, status.st_mtime_ns) for name, status in found)


def read(path: Path) -> tuple[FileKey, ...]:
    """The keys of a directory. Files whose names begin with a dot are passed over: they are on their way. Raises
    DirectoryError."""
    found = [_read_file(Path(entry.path)) for entry in _entries(path)]
    if not found:
        raise DirectoryError(f"{path} has no keys", f"put one there: openssl rand -out {path}/0001 48")
    known: dict[bytes, FileKey] = {}
    for key in found:
        if key.name in known:
            raise DirectoryError(
                f"{path / known[key.name].file} and {key.file} have the same content", "each file is a key: remove one"
            )
        known[key.name] = key
    return tuple(found[-OPENED_MOST:])


def _entries(path: Path) -> list["os.DirEntry[str]"]:
    """In the order of their names."""
    try:
        with os.scandir(path) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".") and entry.is_file()]
    except OSError as e:
        raise DirectoryError(
            f"{path}: {(e.strerror or 'cannot be read').lower()}", "name a directory that the user may read"
        ) from None
    if len(found) > FILES_MOST:
        raise DirectoryError(f"{path} has {len(found)} files", f"keep the last {OPENED_MOST}: no more are used")
    return sorted(found, key=lambda entry: os.fsencode(entry.name))


def _read_file(path: Path) -> FileKey:
    try:
        with open(path, "rb") as file:
            content, status = file.read(FILE_MOST), os.fstat(file.fileno())
    except OSError as e:
        reason = (e.strerror or "cannot be read").lower()
        raise DirectoryError(f"{path}: {reason}", "let the user who starts edge read it") from None
    if len(content) < KEY_MIN:
        raise DirectoryError(f"{path} is shorter than {KEY_MIN} bytes", "make it with: openssl rand -out FILE 48")
    secret = hashlib.sha256(content).digest()
    name, key = (hmac.digest(secret, b"edge ticket key file: " + label, "sha256") for label in (b"name", b"key"))
    return FileKey(path.name, status.st_mtime, name[:16], key)
