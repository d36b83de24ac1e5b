"""A policy that a measured edge has for one host: how long its worker's loop makes others wait.

`/start` begins, `/longest` ends and tells: the longest time, in seconds, between two turns of the loop in which a task
that wants each millisecond had its turn. What passed while the loop's thread could have run and the machine ran others
does not count. A reload imports this module afresh, so that what is kept stands elsewhere.
"""

import asyncio
import os
import sys
import time
import types

HOST = "meter.invalid"
EVERY = 0.001  # seconds


class Kept(types.ModuleType):
    longest = 0.0
    task: "asyncio.Task[None] | None" = None


kept = sys.modules.setdefault("bench_scale_meter_kept", Kept("bench_scale_meter_kept"))


def clock(schedstat: int) -> float:
    return time.monotonic() - int(os.pread(schedstat, 100, 0).split()[1]) / 1e9


async def meter() -> None:
    schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    try:
        last = clock(schedstat)
        while True:
            await asyncio.sleep(EVERY)
            now = clock(schedstat)
            kept.longest = max(kept.longest, now - last - EVERY)
            last = now
    finally:
        os.close(schedstat)


class Policy:
    async def director(self, request):
        if kept.task is not None:
            kept.task.cancel()
            kept.task = None
        if request.path == "/start":
            kept.longest = 0.0
            kept.task = asyncio.get_running_loop().create_task(meter())
        request.respond(200, body=str(kept.longest))
