"""For how long a reload holds up a worker's loop."""

import os
import threading

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import wait_until
from tests.e2e.reloading import renew

PAUSE_SECONDS = 0.020
ATTEMPTS = 4

METER = """
import asyncio, os, time

longest = 0.0
running = None


def clock(schedstat):
    # Less what passed while the loop's thread could have run and others did. Each call that gives the interpreter away
    # would make the meter what it measures: this has one.
    return time.monotonic() - int(os.pread(schedstat, 100, 0).split()[1]) / 1e9


async def meter():
    global longest
    schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    last = clock(schedstat)
    while True:
        await asyncio.sleep(0.001)
        now = clock(schedstat)
        longest = max(longest, now - last)
        last = now


class Policy:
    async def director(self, request):
        global longest, running
        if running is None:
            running = asyncio.create_task(meter())
        if request.path == "/longest":
            request.respond(200, body=str(longest))
            longest = 0.0
"""


def longest(edge) -> float:
    with Client(edge, seconds=60) as client:
        return float(client.get("/longest").body)


@pytest.mark.parametrize(
    ("certificates", "routes"), [(60, 500), pytest.param(1000, 5000, marks=pytest.mark.slow)]
)
def test_the_loop_goes_on(make_edge, pki, backend, tmp_path, certificates, routes):  # noqa: PLR0917
    """While all certificates and all routes are exchanged, under traffic. What counts is the longest time between two
    turns in which a task of a policy's runs, without what the machine gave to other processes meanwhile; of some
    attempts the one that others have disturbed least; on a machine that is busier still, twice what it is otherwise."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "loop_meter.py").write_text(METER)  # installed, so to say: it is not imported afresh
    sets = [
        [pki.ca.issue(f"{which}-{i}", "p256", f"h{i}.many.test") for i in range(certificates)] for which in "ab"
    ]
    edge = make_edge(
        {"b": [backend.server]},
        server={"hooks": "loop_meter:Policy", "error_log": {"path": tmp_path / "error.log", "level": "info"}},
        env={"PYTHONPATH": os.pathsep.join((str(tmp_path / "lib"), os.environ.get("PYTHONPATH", "")))},
    )

    def exchange(n: int) -> str:
        edge.tables["certificate"] = [c.table() for c in (pki.default, *sets[n % 2])]
        edge.tables["route"][1:] = [
            {"match": {"host": [f"h{i % certificates}.many.test"], "path": f"/{n}/{i}/*"}, "upstream": "b"}
            for i in range(routes)
        ]
        return renew(edge, 240)

    done = threading.Event()
    faults, asked = [], [0]

    def ask() -> None:
        try:
            while not done.is_set():
                with Client(edge, seconds=60) as client:
                    for _ in range(20):
                        assert client.get("/ok").status == 200
                        asked[0] += 1
        except (OSError, AssertionError) as e:
            faults.append(e)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    exchange(0)
    worker = edge.workers()
    for thread in threads:
        thread.start()
    pauses = []
    longest(edge)
    wait_until(lambda: asked[0] > 300 or faults, 60, "traffic")
    quiet = longest(edge)
    try:
        while len(pauses) < ATTEMPTS and min(pauses, default=1.0) >= max(PAUSE_SECONDS, 2 * quiet):
            longest(edge)
            before = asked[0]
            said = exchange(len(pauses) + 1)
            assert f"{certificates} certificates new, {routes} routes added, {routes} routes removed" in said
            assert asked[0] > before
            with Client(edge) as client:  # what is freed is freed in the next turns
                for _ in range(20):
                    client.get("/ok")
            pauses.append(longest(edge))
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    assert faults == []
    assert min(pauses) < max(PAUSE_SECONDS, 2 * quiet), (pauses, quiet)
    assert edge.workers() == worker
    print(f"{certificates} certificates, {routes} routes: longest pauses {pauses}, without {quiet}")
