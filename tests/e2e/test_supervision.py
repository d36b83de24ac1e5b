"""Workers that hang, crash or lose their master, and what each process may do."""

import os
import signal
import threading

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import alive, wait_until
from tests.e2e.scripted import OK
from tests.e2e.server import Edge
from tests.e2e.test_lifecycle import Load
from tests.edge.processes.test_systemd import Manager

HANGING = """
import collections, itertools, os, signal, threading

def never_returns():
    collections.deque(itertools.repeat(None), maxlen=0)  # in C, where neither signals nor the hook's timeout are seen

class Policy:
    def __init__(self):
        threading.Thread(target=threading.Event().wait, name="idle", daemon=True).start()

    def director(self, request):
        if request.path == "/hang":
            never_returns()
        if request.path == "/crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if request.path == "/exit":
            os._exit(7)
"""


@pytest.fixture
def manager(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.socket.close()


@pytest.fixture
def hanging(tmp_path, pki, backend, manager):
    """Edge, whose policy hangs or crashes when asked to."""
    edge = Edge(
        tmp_path / "edge",
        pki,
        {"b": [backend.server]},
        server={"workers": 1, "worker_timeout": "2s", "hooks": "hanging:Policy"},
        env={"NOTIFY_SOCKET": str(tmp_path / "notify")},
    )
    (tmp_path / "edge" / "hanging.py").write_text(HANGING)
    yield edge.start()
    if edge.process.popen.poll() is None:
        edge.process.stop()
    edge.process.kill()


def ask(edge, path):
    """A request that is not waited for."""
    client = Client(edge)
    client.send(f"GET {path} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode())
    return client


def test_a_worker_that_hangs_is_killed_and_says_where(hanging):
    (worker,) = hanging.workers()
    client = ask(hanging, "/hang")
    hanging.wait_error(rf"worker 0 \(pid {worker}\) has shown no sign of life for \d+ s: SIGABRT", seconds=30)
    wait_until(lambda: hanging.workers() not in ([], [worker]), 30, "another worker")
    with Client(hanging) as other:
        assert other.get("/ok").status == 200
    said = [message for _, message in hanging.errors() if message.startswith(f"worker 0 (pid {worker}): ")]
    text = "\n".join(said)
    assert "Fatal Python error: Aborted" in text
    assert 'hanging.py", line 5 in never_returns' in text
    assert 'hanging.py", line 13 in director' in text
    assert "threading.py" in text  # the other thread
    client.close()


def test_a_worker_that_crashes_says_where(hanging):
    (worker,) = hanging.workers()
    client = ask(hanging, "/crash")
    hanging.wait_error(rf'worker 0 \(pid {worker}\):   File ".*hanging.py", line 15 in director', seconds=30)
    wait_until(lambda: hanging.workers() not in ([], [worker]), 30, "another worker")
    client.close()


def test_a_crash_loop_is_said_loudly_and_ends(hanging, manager):
    for count in range(1, 4):
        (worker,) = wait_until(hanging.workers, 30, "a worker")
        hanging.process.started(lambda: _serves(hanging), 30)
        client = ask(hanging, "/exit")
        wait_until(lambda gone=worker: gone not in hanging.workers(), 30, f"death number {count}")
        client.close()
    level, message = wait_until(
        lambda: [e for e in hanging.errors() if "crash loop" in e[1]], 30, "a word about the crash loop"
    )[0]
    assert level == "critical"
    wait_until(lambda: any("CRASH LOOP in slot 0" in m.get("STATUS", "") for m in manager.listen()), 30, "STATUS")
    assert "slot 0: 3 workers died in a row" in message
    wait_until(lambda: _serves(hanging), 30, "service again")


def _serves(edge):
    try:
        with Client(edge) as client:
            return client.get("/ok").status == 200
    except (OSError, AssertionError):
        return False


def test_a_killed_master_is_replaced_at_once(make_edge, backend, tmp_path):
    """As a service manager would: the next master starts while the workers of the dead one drain. Its PID file is
    left behind. Nobody is refused, and what had begun goes on."""
    released = threading.Event()

    def held(connection, request):
        released.wait(60)
        connection.send(OK)
        return True

    backend.on("/held", held)
    pid_file = tmp_path / "pid"
    edge = make_edge({"b": [backend.server]}, server={"workers": 2, "pid_file": pid_file, "drain_timeout": "30s"})
    orphans = edge.workers()
    waiting = ask(edge, "/held")
    backend.wait_seen("/held")
    first = edge.process
    with Load(edge) as load:
        mark = edge.mark()
        os.kill(edge.pid, signal.SIGKILL)
        first.popen.wait()
        edge.wait_error("the master is gone: this worker drains", mark)
        assert pid_file.read_text() == f"{first.pid}\n"
        edge.start()
        assert int(pid_file.read_text()) == edge.pid
        before = load.served
        wait_until(lambda: load.served > before + 100, 30, "load")
    assert load.faults == []
    assert any(map(alive, orphans))
    released.set()
    assert waiting.response().status == 200
    waiting.close()
    wait_until(lambda: not any(map(alive, orphans)), 30, "the end of the old workers")


@pytest.mark.skipif(not os.environ.get("EDGE_SLOW"), reason="takes 10 s: EDGE_SLOW=1")
def test_a_worker_that_hangs_without_its_master_is_ended_by_the_kernel(hanging):
    (worker,) = hanging.workers()
    client = ask(hanging, "/hang")
    os.kill(hanging.pid, signal.SIGKILL)
    hanging.process.popen.wait()
    wait_until(lambda: not alive(worker), 30, "its end")
    client.close()
