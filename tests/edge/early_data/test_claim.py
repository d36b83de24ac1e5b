"""The name of a register that outlives its process: one process at a time has it, and no other host ever."""

import os
import signal
import subprocess
import sys

import pytest

from edge.early_data.claim import Claim
from tests.e2e.processes import wait_until

SECRET = bytes(range(48))


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    return file


@pytest.fixture
def host(tmp_path):
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    return (tmp_path / "machine-id", tmp_path / "no-such-file")


def test_it_lasts(file, host):
    before = Claim(file, host).identity(SECRET, 1, 2)
    assert len(before) == 8
    assert Claim(file, host).identity(SECRET, 1, 2) == before


def test_what_makes_another_name(file, host, tmp_path):
    claim = Claim(file, host)
    names = [claim.identity(SECRET, 1, 2), claim.identity(SECRET, 1, 3), claim.identity(SECRET[::-1], 1, 2)]
    host[0].write_text("another\n")
    del claim
    names.append(Claim(file, host).identity(SECRET, 1, 2))
    copy = tmp_path / "copy"
    copy.write_bytes(SECRET)
    names.append(Claim(copy, host).identity(SECRET, 1, 2))
    assert len(set(names)) == 5


def test_a_host_without_a_name(file, tmp_path):
    assert Claim(file, (tmp_path / "none",)).identity(SECRET, 1) is None


def test_a_file_that_is_gone(tmp_path, host):
    assert Claim(tmp_path / "none", host).identity(SECRET, 1) is None


def test_one_at_a_time(file, host):
    first = Claim(file, host)
    name = first.identity(SECRET, 1)
    assert name is not None
    assert Claim(file, host).identity(SECRET, 1) is None
    del first
    assert Claim(file, host).identity(SECRET, 1) == name


def test_the_children_of_a_dead_process_have_it_still(file, host):
    """A master that is killed, while its workers go on: they use the register."""
    program = (
        "import os, sys, time; from pathlib import Path; from edge.early_data.claim import Claim\n"
        f"claim = Claim(Path({str(file)!r}), (Path({str(host[0])!r}),))\n"
        "child = os.fork()\n"
        "if child == 0: time.sleep(60)\n"
        "print(child, flush=True); time.sleep(60)\n"
    )
    master = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = int(master.stdout.readline())
    try:
        assert Claim(file, host).identity(SECRET, 1) is None
        master.kill()
        master.wait(10)
        assert Claim(file, host).identity(SECRET, 1) is None
    finally:
        os.kill(child, signal.SIGKILL)
        master.stdout.close()
    wait_until(lambda: Claim(file, host).identity(SECRET, 1), 10, "the lock's end")
