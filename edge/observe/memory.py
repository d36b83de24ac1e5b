"""How much memory each process has, as another one may see it."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

LOOK_SECONDS: Final = 5.0
"""Between two looks: the kernel goes through a process's pages for one."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Look:
    """Keeps what it saw last."""

    def __init__(self) -> None:
        self._at = -LOOK_SECONDS
        self._seen: list[tuple[str, int, int | None]] = []

    def look(self, state: Mapping[str, Any]) -> list[tuple[str, int, int | None]]:
        """(process, resident, proportional) in bytes: of the master, of all workers and of each companion of the
        `state`. Proportional is None where the kernel does not tell it: that takes the same user, and a process that
        may be dumped."""
        if time.monotonic() >= self._at + LOOK_SECONDS:
            self._at = time.monotonic()
            self._seen = list(_look(state))
        return self._seen


def _look(state: Mapping[str, Any]) -> Iterator[tuple[str, int, int | None]]:
    groups = {"master": [state["pid"]], "worker": [worker["pid"] for worker in state["workers"]]}
    groups |= {c["title"].rpartition(": ")[2]: [c["pid"]] for c in state["companions"] if c["pid"]}
    for process, pids in groups.items():
        resident = [size for pid in pids if (size := _resident(pid)) is not None]
        proportional = [size for pid in pids if (size := _proportional(pid)) is not None]
        if resident:
            yield process, sum(resident), sum(proportional) if len(proportional) == len(resident) else None


def _resident(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    return None


def _proportional(pid: int) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return None
