"""The plan of a comparison, its options, its peers' configurations, and the processes it starts."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.compare import compare as compare_command
from bench.compare import plan
from bench.peers import PEERS, Site
from bench.probes import PROBES
from bench.processes import (
    BenchError,
    Process,
    busy_seconds,
    cpu_seconds,
    free_port,
    memory_kib,
    stopping_on_signals,
    tree,
    wait_listening,
    wait_until,
)

ROOT = Path(__file__).resolve().parents[2]
CPUS = sorted(os.sched_getaffinity(0))
CPU = CPUS[0]


def test_every_peer_is_measured_in_every_round_and_none_is_always_first():
    steps = list(plan([PROBES["h1"], PROBES["bulk"]], 3, ["a", "b", "c"]))
    assert len(steps) == 18
    assert [name for probe, at, name in steps if probe.name == "h1"] == list("abcbcacab")
    assert {at for _, at, _ in steps} == {1, 2, 3}


@pytest.mark.parametrize("option", [["--only", "nginx,apache"], ["--tests", "speed"], ["--rounds", "0"]])
def test_bad_options_are_usage_errors(option):
    result = CliRunner().invoke(compare_command, option)
    assert result.exit_code == 2
    assert option[0] in result.output


def test_one_cpu_for_proxy_and_load_is_refused():
    result = CliRunner().invoke(compare_command, ["--proxy-cpu", str(CPU), "--load-cpu", str(CPU)])
    assert result.exit_code == 2
    assert "must be two of" in result.output


@pytest.mark.parametrize("name", [name for name in PEERS if name != "go"])
def test_a_configuration_names_port_backend_and_certificate(name, tmp_path):
    site = Site(tmp_path, tmp_path / "chain.pem", tmp_path / "key.pem", 12345, 30000)
    launch = PEERS[name].configure(site, "/opt/program", 23456)
    assert launch.command[0] == "/opt/program"
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    for part in ("23456", "127.0.0.1:12345"):
        assert part in written
    assert "chain.pem" in written or "bundle.pem" in written


BUSY = "import time\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)"


def test_cpu_and_memory_of_a_tree(tmp_path):
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BUSY!r}])"
    with Process([sys.executable, "-c", parent], cpu=CPU, log=tmp_path / "log") as process:
        assert wait_until(lambda: cpu_seconds(process.pid) > 0.3, 20)
        assert len(tree(process.pid)) == 2
        assert memory_kib(process.pid) > 2000
        assert busy_seconds(CPU) > 0
        members = tree(process.pid)
    assert not any(Path(f"/proc/{pid}").exists() for pid in members)


def test_a_process_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.processes.STOP_SECONDS", 0.3)
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = Process([sys.executable, "-c", stubborn], cpu=CPU, log=tmp_path / "log")
    assert wait_until(lambda: "up" in process.output(), 10)
    process.stop()
    assert not process.running()


def test_a_process_that_does_not_start_says_why(tmp_path):
    command = ["sh", "-c", "echo no such option >&2; exit 3"]
    with Process(command, cpu=CPU, log=tmp_path / "log") as process, pytest.raises(BenchError, match="no such option"):
        wait_listening(process, free_port(), seconds=5)


def test_signals_become_one_interrupt():
    before = signal.getsignal(signal.SIGTERM)
    cleaned = False
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"), stopping_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)  # a second one does not cut the cleaning up short
            cleaned = True
    assert cleaned
    assert signal.getsignal(signal.SIGTERM) is before


needs_peers = pytest.mark.skipif(
    len(CPUS) < 2 or not shutil.which("h2load") or not shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin"),
    reason="needs two CPUs, nginx and h2load",
)


def start_compare(tmp_path, *options):
    """The command in a process of its own, whose temporary directory is below tmp_path."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    cpus = ["--proxy-cpu", str(CPUS[0]), "--load-cpu", str(CPUS[1])]
    return subprocess.Popen(
        [sys.executable, "-m", "bench", "compare", "--rounds", "1", "--seconds", "0.5", *cpus, *options],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(temporary), "EDGE": "/nonexistent/edge"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def processes_of(tmp_path):
    """Command lines that name the comparison's directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes())
    return [each for each in found if str(tmp_path / "tmp").encode() in each]


def nothing_is_left(tmp_path):
    return not processes_of(tmp_path) and not list(tmp_path.glob("tmp/*"))


@needs_peers
def test_a_small_comparison(tmp_path):
    files = ["--json", str(tmp_path / "c.json"), "--svg", str(tmp_path / "c.svg")]
    with start_compare(
        tmp_path, "--only", "nginx,edge", "--tests", "h1,idle", "--connections", "30", *files
    ) as process:
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "edge left out: did not start" in output
    found = json.loads((tmp_path / "c.json").read_text())
    for probe in ("h1", "idle"):
        assert found["probes"][probe]["peers"]["nginx"]["median"] > 0
        assert found["probes"][probe]["failed"] == {}
    assert found["settings"]["group"] == "X25519"
    assert (tmp_path / "c.svg").read_text().startswith("<svg")
    assert nothing_is_left(tmp_path)


@needs_peers
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything(tmp_path, number):
    with start_compare(tmp_path, "--only", "nginx", "--tests", "h1", "--seconds", "30") as process:
        assert wait_until(lambda: list(tmp_path.glob("tmp/*/client-*.log")), 60)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "everything that was started has ended" in " ".join(output.split())
    assert nothing_is_left(tmp_path)


@needs_peers
def test_even_sigkill_leaves_no_process(tmp_path):
    with start_compare(tmp_path, "--only", "nginx", "--tests", "h1", "--seconds", "30") as process:
        assert wait_until(lambda: list(tmp_path.glob("tmp/*/client-*.log")), 60)
        assert processes_of(tmp_path)
        process.kill()
    assert wait_until(lambda: not processes_of(tmp_path), 20)
