"""What a run leaves on this host, and its removal: by the run itself, by its keeper when it was killed, or, when both
were, by the next one.

A run is a name. All that it makes is found by it: a directory, network namespaces, a cgroup with all of its processes.
"""

import contextlib
import fcntl
import os
import shutil
import time
from pathlib import Path
from typing import IO

from tests.hosts import network

RUNS = Path("/var/tmp/edge-hosts")
GROUP = "edge-hosts"
MEMORY_MAX = 3 << 30
"""Bytes for each machine: a builder compiles in it."""


def directory(run: str) -> Path:
    return RUNS / run


def group_root() -> Path:
    """The root of cgroup v2."""
    mixed = Path("/sys/fs/cgroup/unified")
    return mixed if mixed.is_dir() else Path("/sys/fs/cgroup")


def group(run: str, name: str = "") -> Path:
    """The cgroup of a run, or of one of its machines; made when it is not there."""
    path = group_root() / GROUP / run / name
    path.mkdir(parents=True, exist_ok=True)
    if name:
        with contextlib.suppress(OSError):  # the controller may be one of cgroup v1, or not given to us
            (path / "memory.max").write_text(str(MEMORY_MAX))
    return path


def kill_group(path: Path, seconds: float = 20) -> None:
    """All processes of a cgroup, at once (cgroup.kill, Linux 5.14), waited for, and the cgroup itself."""
    if not path.exists():
        return
    (path / "cgroup.kill").write_text("1")
    end = time.monotonic() + seconds
    while "populated 1" in (path / "cgroup.events").read_text():
        if time.monotonic() > end:
            raise TimeoutError(f"{path}: processes that do not end")
        time.sleep(0.01)
    for below, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(below)


def remove(run: str) -> None:
    """All of it; what is not there any more is no fault."""
    kill_group(group_root() / GROUP / run)
    with contextlib.suppress(OSError):
        (group_root() / GROUP).rmdir()  # of the last run
    network.remove_all(run)
    shutil.rmtree(directory(run), ignore_errors=True)


def begin(run: str) -> tuple[IO[str], list[str]]:
    """The directory of a new run, and its lock, which says that it lives as long as anybody has it open; with the names
    of earlier runs that nobody keeps any more, which are removed. FileExistsError: this one lives."""
    RUNS.mkdir(mode=0o700, exist_ok=True)
    with open(RUNS / ".lock", "w") as all_runs:
        fcntl.flock(all_runs, fcntl.LOCK_EX)
        removed = [path.name for path in sorted(RUNS.iterdir()) if path.is_dir() and _removed_if_dead(path.name)]
        directory(run).mkdir()
        lock = open(directory(run) / "lock", "w")  # noqa: SIM115 - it stays open
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock, removed


def _removed_if_dead(run: str) -> bool:
    with open(directory(run) / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        remove(run)
        return True
