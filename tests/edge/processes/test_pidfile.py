"""The master's PID file as it goes from one master to the next."""

import os
import threading

import pytest

from edge.processes.pidfile import PidFile, moved


def test_one_that_is_taken_over_is_never_missing(tmp_path):
    path = tmp_path / "pid"
    path.write_text("1\n")
    over, missed = threading.Event(), []

    def look():
        while not over.is_set():
            try:
                assert path.read_text().endswith("\n")
            except (OSError, AssertionError) as e:
                missed.append(e)

    thread = threading.Thread(target=look)
    thread.start()
    for pid in range(2, 500):
        PidFile(str(path)).take(pid)
    over.set()
    thread.join(20)
    assert missed == []
    assert path.read_text() == "499\n" and path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["pid"]


def test_who_has_taken_it_removes_it(tmp_path):
    path = tmp_path / "pid"
    path.write_text("1\n")
    held = moved(None, path, os.getpid(), succeeds=True)
    assert moved(held, path, os.getpid(), succeeds=False) is held
    assert moved(held, None, os.getpid(), succeeds=False) is None
    assert not path.exists()


def test_where_it_cannot_be(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        moved(None, tmp_path / "none" / "pid", os.getpid(), succeeds=True)
