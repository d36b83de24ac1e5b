"""A machine with a real systemd: this host's own system, copied on write, booted by systemd-nspawn.

It has a network of its own. What tests change in it is gone with it; nothing is installed or downloaded. Only for root.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, children, run, wait_until

_NEEDED = ("systemd-nspawn", "nsenter", "unshare", "/lib/systemd/systemd", "dbus-daemon")

_BOOT = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work overlay $1/root
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 exec systemd-nspawn --quiet --machine=edge --directory=$1/root \\
    --register=no --keep-unit --private-network --console=pipe --bind-ro=$2:/opt/packages \\
    --boot systemd.unit=edge-test.target
"""

# Of what this host has enabled, nothing is wanted but what others need.
_TARGET = """\
[Unit]
Requires=basic.target dbus.service systemd-journald.service
After=basic.target dbus.service
AllowIsolate=yes
"""


def skip_without() -> None:
    """Skips the test where there can be no such machine."""
    if not os.environ.get("EDGE_SLOW"):
        pytest.skip("boots a machine: EDGE_SLOW=1")
    if os.geteuid() != 0:
        pytest.skip("only root can boot a machine")
    missing = [name for name in _NEEDED if not shutil.which(name)]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}: apt install systemd-container dbus")


class Machine:
    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="edge-machine-", dir="/var/tmp"))
        self.nspawn: subprocess.Popen | None = None
        self.leader = 0
        """Its systemd."""

    def __enter__(self) -> "Machine":
        for name in ("upper", "work", "root"):
            (self.directory / name).mkdir()
        self.write("etc/machine-id", "")
        self.write("etc/fstab", "")
        self.write("etc/systemd/system/edge-test.target", _TARGET)
        packages = sysconfig.get_path("platlib")
        with open(self.directory / "console", "wb") as console:
            self.nspawn = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _BOOT, "sh", self.directory, packages],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._booted, 60, "a booted machine")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _booted(self) -> bool:
        assert self.nspawn.poll() is None, (self.directory / "console").read_text(errors="replace")
        for pid in children(self.nspawn.pid):
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                    self.leader = pid
        return bool(self.leader) and self.run("systemctl", "is-active", "edge-test.target").stdout == "active\n"

    def __exit__(self, *_: object) -> None:
        if self.leader:
            with contextlib.suppress(OSError):
                os.kill(self.leader, signal.SIGRTMIN + 4)  # systemd: power off
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.nspawn.wait(20)
        if self.nspawn.poll() is None:
            os.killpg(self.nspawn.pid, signal.SIGKILL)
            self.nspawn.wait()
        shutil.rmtree(self.directory)

    # What is in it.

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> Path:
        """A file of the machine's, before it is booted or while it runs."""
        place = f"/proc/{self.leader}/root" if self.leader else self.directory / "upper"
        file = Path(place) / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)
        return file

    def run(self, *command: str | Path, seconds: float = 60, check: bool = False) -> subprocess.CompletedProcess:
        """A command in it, as root."""
        enter = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        environment = ["env", "LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        done = run([*enter, "--wd=/", *environment, *command], seconds=seconds)
        assert not check or done.returncode == 0, f"{command}: {done.stdout}"
        return done

    def property(self, unit: str, name: str) -> str:
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def journal(self, unit: str) -> str:
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit).stdout

    def install(self, version: str, change=lambda _tree: None) -> None:
        """/opt/edge/VERSION, a virtual environment with this code, and `change(directory of the code)` made to it."""
        home = f"/opt/edge/{version}"
        self.run(sys._base_executable, "-m", "venv", "--without-pip", home, check=True)
        site = f"{home}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
        # Dependencies are those of the tests' environment; edge itself is copied, or an upgrade would change nothing.
        self.write(f"{site}/packages.pth", "/opt/packages\n")
        code = Path(f"/proc/{self.leader}/root{site}")
        sources = shutil.ignore_patterns("*.pyx", "*.c", "__pycache__")
        for package in ("edge", "cext"):
            shutil.copytree(ROOT / package, code / package, ignore=sources)
        change(code)
        script = f"#!{home}/bin/python\nfrom edge.__main__ import main\nmain()\n"
        self.write(f"{home}/bin/edge", script, 0o755)

    def link(self, version: str) -> None:
        self.run("ln", "-sfn", f"/opt/edge/{version}", "/opt/edge/current", check=True)
