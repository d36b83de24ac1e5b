"""Processes that die: workers at random, the master, the one who writes the logs; and a master that may start none."""

import os
import random
import resource
import signal
import time

import pytest

from tests.e2e.processes import Process, children, free_port, open_files, session, title, wait_until
from tests.e2e.test_admin import Asker
from tests.faults.watching import MINUTES, SECONDS, Crowd, Watch, ends_whole, upstreams

DURATIONS = [
    pytest.param(3.0, 3, id="seconds"),
    pytest.param(60 * MINUTES, 1 << 30, id="minutes", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("seconds", "most"), DURATIONS)
def test_workers_killed_at_random(make_edge, nginx, seconds, most):
    """Who is connected to the one that dies sees that; nobody is refused, and its queue goes to the next one."""
    edge = make_edge(upstreams(nginx), server={"workers": 3})
    rng = random.Random(6)
    killed = 0
    with Watch(edge) as watch:
        with Crowd(edge, 8) as crowd:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                victims = edge.workers()
                if len(victims) == 3 and killed < most:
                    os.kill(rng.choice(victims), signal.SIGKILL)
                    killed += 1
                time.sleep(rng.uniform(0.2, 1.0))
            crowd.wait(200)
        wait_until(lambda: len(edge.workers()) == 3, SECONDS, "three workers")
    print(f"    {killed} workers killed")
    assert killed >= 3
    # At most every client was on the one that died.
    crowd.expect({"cut": 8 * killed, "reset": 8 * killed, "closed": 8 * killed}, least=50 * killed)
    watch.expect(r"was sent SIGKILL")
    ends_whole(edge)


def test_the_master_is_killed_and_started_again(make_edge, nginx):
    """Workers drain, the next master takes the port over at once, and lines of the last requests are in the log."""
    edge = make_edge(upstreams(nginx), server={"workers": 2, "drain_timeout": "3s"})
    old = edge.process
    with Crowd(edge, 8) as crowd:
        old.popen.kill()
        old.popen.wait(10)
        since = edge.mark()
        edge.process = Process(old.popen.args, edge.directory / "output.log", cwd=os.getcwd(), env=os.environ)
        edge.process.started(lambda: edge.in_error_log(r"generation 1 serves", since), 15)
        crowd.wait(300)
        wait_until(lambda: not session(old.pid), SECONDS, "the end of the first master's processes")
        crowd.wait(300)
    # Each of the two workers accepts what its queue holds; who came in between has seen a refusal at most.
    crowd.expect({"refused": 200, "closed": 16, "cut": 16, "reset": 16}, least=600)
    said = edge.wait_error("the master is gone: this worker drains", 0, SECONDS)
    print(f"    the log said: {said}")
    ends_whole(edge)
    logged = len(edge.requests(status=200))
    assert logged >= crowd.count(), (logged, crowd.seen)


def test_no_worker_can_be_started_for_a_while(make_edge, nginx):
    """The master's own limit of descriptors is reached when a worker has died: it says so, and tries again."""
    edge = make_edge(upstreams(nginx), server={"workers": 2})
    with Watch(edge) as watch, Crowd(edge, 4) as crowd:
        before = resource.prlimit(edge.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(edge.pid, resource.RLIMIT_NOFILE, (open_files(edge.pid) - 1, before[1]))
        os.kill(edge.workers()[0], signal.SIGKILL)
        watch.expect(r"a worker cannot be started: .*Too many open files")
        resource.prlimit(edge.pid, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: len(edge.workers()) == 2, SECONDS, "two workers")
        crowd.wait(200)
    crowd.expect({"cut": 4, "reset": 4, "closed": 4, "timeout of a connect": 4})
    ends_whole(edge)


def test_the_master_has_no_descriptors_left(make_edge, nginx, tmp_path):
    """Whatever dies meanwhile, and whatever is asked for: it goes on, and all of it is there again afterwards."""
    own = {"admin": tmp_path / "a.sock", "metrics": {"bind": f"127.0.0.1:{free_port()}"}}
    edge = make_edge(upstreams(nginx), server=own)
    observer = wait_until(lambda: _named(edge, "edge: observer"), SECONDS, "the observer")
    with Asker(tmp_path / "a.sock") as asker:
        asker.ask("status")
        before = resource.prlimit(edge.pid, resource.RLIMIT_NOFILE)
        files = open_files(edge.pid)
        mark = edge.mark()
        resource.prlimit(edge.pid, resource.RLIMIT_NOFILE, (3, before[1]))
        edge.signal(signal.SIGUSR2)
        edge.wait_error("upgrade refused: there are no descriptors", mark, SECONDS)
        edge.reload()
        edge.wait_error("reload refused.*too many open files", mark, SECONDS)
        os.kill(observer[0], signal.SIGKILL)
        os.kill(edge.workers()[0], signal.SIGKILL)
        edge.wait_error("a worker cannot be started: .*Too many open files", mark, SECONDS)
        edge.wait_error("the process that shows what goes on cannot be started: .*Too many open files", mark, SECONDS)
        (failed,) = asker.ask("upgrade", wait=True)
        assert "there are no descriptors" in failed["error"]
        os.kill(edge.titled("edge: logs")[0], signal.SIGKILL)
        with Asker(tmp_path / "a.sock") as late:
            late.send(command="status")
            wait_until(lambda: not edge.titled("edge: logs"), SECONDS, "the end of who writes the logs")
            time.sleep(0.5)
            assert asker.ask("status")[-1]["ok"]
            resource.prlimit(edge.pid, resource.RLIMIT_NOFILE, before)
            assert late.read()["ok"]
    for what in ("edge: logs", "edge: observer", "edge: worker"):
        wait_until(lambda what=what: _named(edge, what), SECONDS, what)
    with Crowd(edge, 4) as crowd:
        crowd.wait(100)
    crowd.expect()
    wait_until(lambda: open_files(edge.pid) <= files, SECONDS, "no more descriptors than before")
    ends_whole(edge)


def _named(edge, what: str) -> list[int]:
    return [pid for pid in children(edge.pid) if title(pid).startswith(what)]


def test_the_writing_process_is_killed_again_and_again(make_edge, nginx):
    edge = make_edge(upstreams(nginx))
    with Watch(edge) as watch, Crowd(edge, 4) as crowd:
        for _ in range(3):
            (writer,) = wait_until(lambda: edge.titled("edge: logs"), SECONDS, "who writes the logs")
            os.kill(writer, signal.SIGKILL)
            wait_until(lambda w=writer: edge.titled("edge: logs") not in ([], [w]), SECONDS, "the next one")
            crowd.wait(50)
    crowd.expect()
    watch.expect("the process that writes the logs has ended")
    ends_whole(edge)
