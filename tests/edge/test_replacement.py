"""Master and workers as real processes, when certificates are replaced and one of them does not keep to its part."""

import contextlib
import os
import signal

import pytest

from edge import demo
from tests.e2e.processes import wait_until

PROGRAM = """
import os
from edge import worker
from edge.certificates import serving
master = os.getpid()
beat, prepare = worker.EdgeWorker._beat, serving.Serving.prepare
def _beat(self):
    if os.path.exists(os.environ["GARBLED"]) and self.slot.index == 0:
        self.channel.send(b"X", b"nonsense")
    beat(self)
def _prepare(self, changed):
    if os.path.exists(os.environ["BROKEN"]) and os.getpid() != master:
        raise RuntimeError("broken for a test")
    return prepare(self, changed)
worker.EdgeWorker._beat = _beat
serving.Serving.prepare = _prepare
from edge.__main__ import main
main()
"""


@pytest.fixture
def breakable(edge, origin, tmp_path):
    """An Edge that has its workers say nonsense while the file `garbled` exists, or fail while `broken` does."""
    edge.program = ["-c", PROGRAM]
    edge.garbled, edge.broken = tmp_path / "garbled", tmp_path / "broken"
    edge.environment = {"GARBLED": str(edge.garbled), "BROKEN": str(edge.broken)}
    edge.configure(origin, server='workers = 2\ncertificate_check = "1s"')
    edge.renewals = 0
    return edge.start()


def renew(edge, tmp_path):
    edge.renewals += 1
    renewed = tmp_path / f"renewed{edge.renewals}"
    renewed.mkdir()
    edge.context.load_verify_locations(demo.make_certificates(renewed))
    for name in ("localhost.pem", "localhost.key"):
        (tmp_path / name).write_bytes((renewed / name).read_bytes())


def serials(edge):
    """Of some connections, which come to every worker sooner or later."""
    found = set()
    for _ in range(12):
        connection = edge.connect()
        connection.connect()
        with contextlib.closing(connection):
            found.add(connection.sock.getpeercert()["serialNumber"])
    return found


def test_a_worker_that_cannot_prepare_keeps_all_at_the_old(breakable, tmp_path):
    edge = breakable
    before, workers = serials(edge), edge.workers()
    edge.broken.touch()
    renew(edge, tmp_path)
    edge.wait_log(r"the certificates before go on: worker \d cannot: RuntimeError: broken for a test", seconds=30)
    assert serials(edge) == before
    edge.broken.unlink()
    renew(edge, tmp_path)
    edge.wait_log(r"certificate\[0\]: ECDSA P-256 for localhost, serial", seconds=30)
    after = serials(edge)
    assert len(after) == 1 and after != before
    assert edge.workers() == workers
    assert edge.log().count("the certificates before go on") == 1
    assert edge.stop() == 0


def test_a_worker_that_says_nonsense_is_replaced(breakable, tmp_path):
    edge = breakable
    workers = set(edge.workers())
    edge.garbled.touch()
    edge.wait_log(r"worker 0 \(pid \d+\) is killed: it said a frame of kind b'X'", seconds=30)
    edge.garbled.unlink()
    wait_until(lambda: len(edge.workers()) == 2 and set(edge.workers()) != workers, 30)
    assert len(workers & set(edge.workers())) == 1
    renew(edge, tmp_path)
    edge.wait_log(r"certificate\[0\]: .* serial", seconds=30)
    assert len(serials(edge)) == 1
    assert edge.stop() == 0


def test_a_worker_that_dies_in_the_middle_is_not_waited_for(breakable, tmp_path):
    edge = breakable
    before = serials(edge)
    first, _ = sorted(edge.workers())
    os.kill(first, signal.SIGSTOP)  # it answers nothing, and the others wait for it
    renew(edge, tmp_path)
    edge.wait_log(r"certificate\[0\]: is new, and prepared by the workers", seconds=30)
    os.kill(first, signal.SIGKILL)
    edge.wait_log(r"certificate\[0\]: .* serial", seconds=30)
    wait_until(lambda: len(edge.workers()) == 2, 30)
    after = serials(edge)
    assert len(after) == 1 and after != before
    assert edge.stop() == 0


def test_a_reload_comes_between(breakable, tmp_path):
    """Both are asked for at once: either way all have the new one in the end."""
    edge = breakable
    for generation in (2, 3):
        before = serials(edge)
        renew(edge, tmp_path)
        edge.signal(signal.SIGHUP)
        edge.wait_generation(generation)
        wait_until(lambda before=before: serials(edge).isdisjoint(before), 30)
        assert len(serials(edge)) == 1
    assert edge.stop() == 0
