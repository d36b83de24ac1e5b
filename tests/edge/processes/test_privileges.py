"""What each process may still do, as the kernel tells it."""

import os
import pwd
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import children, free_port, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")

NOBODY = pwd.getpwnam("nobody")


def status(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return dict(re.split(r":\s*", line, maxsplit=1) for line in lines if ":" in line)


def core_limit(pid):
    (line,) = [x for x in Path(f"/proc/{pid}/limits").read_text().splitlines() if x.startswith("Max core file size")]
    return line.split()[4:6]


def is_private(pid):
    """Whether its memory is nobody's to look at but root's: then its files in /proc are root's."""
    return os.stat(f"/proc/{pid}/environ").st_uid == 0


def opened(edge, path):
    """The user may pass through to the configuration's files, but for the key."""
    for directory in (path, *path.parents[:3]):
        directory.chmod(0o755)
    (path / "localhost.key").chmod(0o600)


@pytest.mark.parametrize("dumps", [False, True])
def test_processes_beside_the_master_can_do_nothing(edge, origin, tmp_path, dumps):
    opened(edge, tmp_path)
    port = free_port()
    edge.configure(
        origin,
        server=f'workers = 2\nuser = "nobody"\nmetrics = "127.0.0.1:{port}"\ncore_dumps = {str(dumps).lower()}',
    )
    edge.start()
    wait_until(lambda: len(children(edge.process.pid)) >= 3)
    found = children(edge.process.pid)
    for pid in found:
        wait_until(lambda pid=pid: status(pid)["NoNewPrivs"] == "1")
        facts = status(pid)
        assert facts["Uid"].split() == [str(NOBODY.pw_uid)] * 4
        assert facts["Gid"].split() == [str(NOBODY.pw_gid)] * 4
        assert set(facts["Groups"].split()) <= {str(g) for g in os.getgrouplist("nobody", NOBODY.pw_gid)}
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(facts[kind], 16) == 0, (pid, kind)
        if not dumps:
            assert is_private(pid)
            assert core_limit(pid) == ["0", "0"]
    assert [is_private(pid) for pid in edge.workers()] == [not dumps] * 2
    assert core_limit(edge.process.pid)[0] == ("0" if not dumps else core_limit(edge.process.pid)[1])
    assert edge.get().status == 200
    assert edge.stop() == 0


AS_NOBODY = f"""
import os, sys
sys.path.insert(0, os.getcwd())
os.setgroups([])
os.setresgid(*[{NOBODY.pw_gid}] * 3)
os.setresuid(*[{NOBODY.pw_uid}] * 3)
import runpy
sys.argv[0] = "edge"
runpy.run_module("edge", run_name="__main__", alter_sys=False)
"""


def test_a_master_without_privileges_keeps_its_memory_private(edge, origin, tmp_path):
    """Its user's other processes could read the keys. All that edge does goes on, though /proc/self is root's then."""
    opened(edge, tmp_path)
    os.chown(tmp_path, NOBODY.pw_uid, NOBODY.pw_gid)
    os.chown(tmp_path / "localhost.key", NOBODY.pw_uid, -1)
    edge.configure(
        origin,
        server='workers = 1\nadmin = "admin.sock"\npid_file = "pid"\naccess_log = { path = "a.log" }\n'
        f'metrics = "127.0.0.1:{free_port()}"',
    )
    edge.program = ["-c", AS_NOBODY]
    edge.start()
    for pid in (edge.process.pid, *children(edge.process.pid)):
        assert status(pid)["Uid"].split() == [str(NOBODY.pw_uid)] * 4
        assert is_private(pid)
    assert edge.get().status == 200
    edge.signal(signal.SIGHUP)
    edge.wait_generation(2)
    edge.signal(signal.SIGUSR1)
    assert edge.get().status == 200
    assert edge.stop() == 0
    assert "Traceback" not in edge.log()
    assert "denied" not in edge.log().lower()


def test_capabilities_that_were_given_to_a_user_are_dropped():
    """As systemd gives them, with AmbientCapabilities."""
    code = (
        "import os, sys; from edge.processes.privileges import drop_privileges\n"
        f"drop_privileges({NOBODY.pw_uid}, {NOBODY.pw_gid})\n"
        "print(open('/proc/self/status').read())"
    )
    ids = ["--reuid", str(NOBODY.pw_uid), "--regid", str(NOBODY.pw_gid), "--clear-groups"]
    given = ["--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service"]
    command = ["setpriv", *ids, *given, sys._base_executable, "-c", code]
    environment = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)
    if "ermission denied" in done.stderr:
        pytest.skip("another user cannot read this Python")
    assert done.returncode == 0, done.stderr
    facts = dict(re.split(r":\s*", line, maxsplit=1) for line in done.stdout.splitlines() if ":" in line)
    assert facts["NoNewPrivs"] == "1"
    for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(facts[kind], 16) == 0, kind
