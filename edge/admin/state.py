"""What the master knows, as JSON has it: for `edge status`, the metrics and the status page. Never a key.

Times are seconds since 1970, durations seconds. docs/admin.md has all keys; some are added over time, none changes its
meaning.
"""

import os
import platform
import sys
import time
from typing import TYPE_CHECKING, Any

from cext.crypto.kx import arithmetic

from edge import __version__
from edge.admin import shown
from edge.certificates.inventory import Entry
from edge.change.reload import Reloads
from edge.settings import Certificate

if TYPE_CHECKING:
    from edge.master import Master
    from edge.worker import EdgeWorker

State = dict[str, Any]


def describe(master: "Master") -> State:
    """All of it. Cheap: to be called as often as once a second."""
    generation = master.current
    prepared = generation.prepared
    now = time.time()
    return {
        "version": __version__,
        "pid": master.pid,
        "prefix": sys.prefix,
        "libraries": {"python": platform.python_version(), **arithmetic()},
        "started": master.administration.started,
        "now": now,
        "file": os.path.abspath(prepared.settings.file),
        "generation": generation.number,
        "reloads": describe_reloads(master.reloads),
        "workers": [_worker(worker) for worker in sorted(master.WORKERS.values(), key=_rank)],
        "drains": _drains(master),
        "upgrade": master.upgrade.under_way,
        "listeners": list(shown.listeners(prepared.settings)),
        "certificates": certificates(master),
        "tickets": prepared.rotation.describe(now) if prepared.rotation else None,
        "fleet": master.supply.describe(generation),
        "companions": [{"title": companion.title, "pid": companion.pid} for companion in master.companions],
        "logs": master.app.generations.logs.describe(),
    }


def changes(master: "Master") -> object:
    """Equal as long as nothing has happened that those who look on should know at once."""
    reloads, workers = master.reloads, master.WORKERS.values()
    processes = tuple((worker.pid, worker.serving, worker.kill_at) for worker in workers)
    return master.current.number, reloads.accepted, reloads.rejected, processes


def describe_reloads(reloads: Reloads) -> State:
    last = reloads.last
    return {
        "accepted": reloads.accepted,
        "rejected": reloads.rejected,
        "last": last
        and {
            "at": last.at,
            "accepted": last.accepted,
            "reason": last.reason,
            "seconds": round(last.seconds, 3),
            "changed": last.changed,
        },
    }


class Listed:
    """Certificates as `edge.admin.shown` has them, which may be very many: the same list as long as nothing is new."""

    def __init__(self) -> None:
        self._of: tuple[object, object] = (None, None)
        self._items: list[State] = []

    def of(self, certificates: tuple[Certificate, ...], entries: list[Entry]) -> list[State]:
        if self._of[0] is not certificates or self._of[1] is not entries:
            self._of = certificates, entries
            self._items = list(shown.certificates(certificates, entries))
        return self._items


def certificates(master: "Master") -> list[State]:
    generation = master.current
    prepared = generation.prepared
    entries = master.administration.inventory.entries(prepared.serving.identities, generation.staples)
    return master.administration.listed.of(prepared.settings.certificate, entries)


def _rank(worker: "EdgeWorker") -> tuple[int, int]:
    return worker.slot.index, worker.generation.number


def _worker(worker: "EdgeWorker") -> State:
    return {
        "slot": worker.slot.index,
        "pid": worker.pid,
        "generation": worker.generation.number,
        "state": "draining" if worker.kill_at is not None else "serving" if worker.serving else "booting",
        "started": worker.born,
        "row": worker.row,
        "restarts": worker.slot.restarts,
        "crash_loop": worker.slot.crashing,
    }


def _drains(master: "Master") -> State:
    ends = [worker.kill_at for worker in master.WORKERS.values() if worker.kill_at is not None]
    until = max(ends, default=None)
    finite = until is not None and until != float("inf")
    return {"workers": len(ends), "until": time.time() + until - time.monotonic() if finite and until else None}
