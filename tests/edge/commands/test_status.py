"""`edge status` of a running edge: once, as JSON, and as a screen in a terminal that edge is restarted under."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from tests.e2e.processes import ROOT
from tests.edge.test_main import run

ENTER_SCREEN, LEAVE_SCREEN, SHOW_CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.fixture
def administered(edge, origin):
    edge.configure(origin, server='workers = 1\nadmin = "admin.sock"')
    edge.start()
    return edge


class Terminal:
    """A command in a terminal of its own; what it has written is `seen`."""

    def __init__(self, *arguments, columns=80, rows=24):
        self.master, slave = pty.openpty()
        self.resize(columns, rows)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen(
            [sys.executable, "-m", "edge", *map(str, arguments)],
            cwd=ROOT,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  # no thread runs
        )
        self.seen = b""

    def resize(self, columns, rows):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def until(self, pattern, seconds=30):
        """Waits for something that is written from now on."""
        self.seen = b""
        end = time.monotonic() + seconds
        while not re.search(pattern, self.seen):
            assert time.monotonic() < end, f"{pattern} in {self.seen[-3000:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 1 << 16)

    def press(self, keys):
        os.write(self.master, keys)

    def end(self, seconds=20):
        """-> the exit code, with everything that was written until then in `seen`."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                self.seen += os.read(self.master, 1 << 16)
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 1 << 16)
        return self.process.wait(1)

    def settings(self):
        return termios.tcgetattr(self.slave)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextlib.contextmanager
def terminal(*arguments, **size):
    made = Terminal(*arguments, **size)
    try:
        yield made
    finally:
        made.close()


def test_once(administered):
    for _ in range(5):
        administered.get()
    done = run("status", "--config", administered.file)
    assert (done.returncode, done.stderr) == (0, "")
    (pid,) = administered.workers()
    assert re.search(rf"^0 +{pid} +serving +1 ", done.stdout, re.MULTILINE)
    assert re.search(r"^requests/s .* 5 in all", done.stdout, re.MULTILINE)
    assert "localhost" in done.stdout
    assert "\x1b" not in done.stdout


def test_json(administered):
    administered.get()
    done = run("status", "--json", "--admin", administered.directory / "admin.sock")
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert set(told) == {"state", "figures"}
    assert told["figures"]["counters"]["requests"] == 1
    assert told["state"]["pid"] == administered.process.pid
    assert [worker["state"] for worker in told["state"]["workers"]] == ["serving"]


def test_nobody_is_there(tmp_path):
    done = run("status", "--admin", tmp_path / "none")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no edge listens there" in done.stderr


def test_watching_needs_a_terminal(administered):
    done = run("status", "--watch", "--config", administered.file)
    assert done.returncode == 2
    assert "--watch needs a terminal" in done.stderr


def test_json_again_and_again(administered):
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", "status", "--json", "--watch", "--interval", "100ms", "-c", administered.file],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        looks = [json.loads(process.stdout.readline()) for _ in range(2)]
        administered.get()
        while not looks[-1]["recent"]["counters"]["requests"]:
            looks.append(json.loads(process.stdout.readline()))
        assert looks[-1]["recent"]["seconds"] > 0.05
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


@pytest.mark.parametrize("how", ["q", "Ctrl-C", "SIGTERM"])
def test_a_screen_is_left_as_it_was_found(administered, how):
    with terminal("status", "--watch", "--interval", "100ms", "-c", administered.file) as screen:
        screen.until(rb"requests/s")
        assert ENTER_SCREEN in screen.seen
        assert screen.settings() != screen.before
        if how == "SIGTERM":
            screen.process.terminate()
        else:
            screen.press(b"q" if how == "q" else b"\x03")
        assert screen.end() == 0
        assert LEAVE_SCREEN in screen.seen
        assert SHOW_CURSOR in screen.seen.rpartition(LEAVE_SCREEN)[0] + screen.seen.rpartition(LEAVE_SCREEN)[2]
        assert screen.settings() == screen.before
        assert b"Traceback" not in screen.seen


def test_a_screen_outlives_the_edge_that_it_shows(administered, origin):
    with terminal("status", "--watch", "--interval", "100ms", "-c", administered.file) as screen:
        screen.until(rb"generation 1 ")
        assert run("reload", "--wait", "-c", administered.file).returncode == 0
        screen.until(rb"generation 2 ")
        screen.until(rb"last reload accepted")
        assert administered.stop() == 0
        screen.until(rb"no answer, trying again: /")
        administered.start()
        screen.until(rb"generation 1 ")
        screen.until(rb"not reloaded yet")
        assert b"no answer" not in screen.seen.rpartition(b"generation 1")[2]
        screen.press(b"q")
        assert screen.end() == 0
    assert administered.stop() == 0


def test_a_screen_waits_for_an_edge(administered):
    assert administered.stop() == 0
    with terminal("status", "--watch", "--interval", "100ms", "-c", administered.file) as screen:
        screen.until(rb"edge does not answer: ")
        administered.start()
        screen.until(rb"requests/s")
        screen.press(b"q")
        assert screen.end() == 0
    assert administered.stop() == 0


def test_a_screen_takes_another_size(administered):
    with terminal("status", "--watch", "--interval", "5s", "-c", administered.file) as screen:
        screen.until(rb"requests/s")
        screen.resize(160, 40)
        screen.until(rb"process \d+")  # what is shown where there is room, before the next look is due
        screen.press(b"q")
        assert screen.end() == 0
