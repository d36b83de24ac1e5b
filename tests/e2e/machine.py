"""Machines with a real systemd. Only for root.

`Booted` is any that systemd-nspawn boots; tests/hosts has fresh Debian hosts of it. `Machine` is this host's own
system, with a network of its own: what tests change in it is gone with it, and nothing is installed or downloaded.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.processes import ROOT, children, run, wait_until

NEEDED = ("systemd-nspawn", "nsenter", "unshare")

# $1 is its directory, $2 the tree, $3 its network namespace, $4 its cgroup (both may be ""); nspawn's options follow.
_BOOT = """\
set -e
directory=$1 tree=$2 namespace=$3 cgroup=$4
shift 4
[ -z "$cgroup" ] || echo $$ >"$cgroup/cgroup.procs"
mount --make-rprivate /
if [ -n "$namespace" ]; then
    : >"$directory/network"
    mount --bind "/run/netns/$namespace" "$directory/network"
    set -- --network-namespace-path="$directory/network" "$@"
else
    set -- --private-network "$@"
fi
mount -t tmpfs tmpfs /run
mount -t overlay -o "lowerdir=$tree,upperdir=$directory/upper,workdir=$directory/work" overlay "$directory/root"
# /proc/sys/net alone can be written: what else is there is this host's.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 SYSTEMD_NSPAWN_API_VFS_WRITABLE=network
exec systemd-nspawn --quiet --directory="$directory/root" \\
    --register=no --keep-unit --link-journal=no --resolv-conf=off --timezone=off --console=pipe --boot "$@"
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
    missing = [name for name in (*NEEDED, "/lib/systemd/systemd", "dbus-daemon") if not shutil.which(name)]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}: apt install systemd-container dbus")


class Bootable:
    """A machine in `directory`, which may hold what an earlier one of the same name has left: `upper`, what
    differs from the tree.

    `tree`: its files. `target`: the unit that is active when it has booted. `namespace`, `cgroup`: of its process.
    """

    def __init__(
        self, name: str, directory: Path, tree: Path, *, target: str, namespace: str = "", cgroup: Path | None = None
    ) -> None:
        self.name = name
        self.directory = directory
        self.tree = tree
        self.target = target
        self.namespace = namespace
        self.cgroup = cgroup
        self.process: subprocess.Popen | None = None
        self.pid = 0
        """Of the process that it is."""
        for part in ("upper", "work", "root"):
            (directory / part).mkdir(parents=True, exist_ok=True)

    def start(self, command: Sequence[object], log: str) -> None:
        with open(self.directory / log, "wb") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self.process.pid

    def place(self, path: str) -> Path:
        """Where a file of the machine's is written."""
        return self.directory / "upper" / path.lstrip("/")

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> Path:
        file = self.place(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        file.chmod(mode)
        return file


class Booted(Bootable):
    """systemd-nspawn's, on a tree that is copied on write."""

    def __init__(self, *args: Any, options: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.options = options

    def boot(self) -> None:
        """Begins to; `wait_booted` waits for the end of it."""
        places = (self.directory, self.tree, self.namespace, self.cgroup or "")
        boot = ["unshare", "--mount", "sh", "-c", _BOOT, "sh", *places, f"--machine={self.name}", *self.options]
        self.start(boot, "console")

    @property
    def leader(self) -> int:
        """Its systemd; 0 when it is off."""
        for child in children(self.pid) if self.pid else []:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                    return child
        return 0

    def wait_booted(self, seconds: float = 60) -> None:
        wait_until(self._booted, seconds, f"{self.name} booted")

    def _booted(self) -> bool:
        assert self.process.poll() is None, (self.directory / "console").read_text(errors="replace")
        return bool(self.leader) and self.run("systemctl", "is-active", self.target).stdout == "active\n"

    def power_off(self, seconds: float = 20) -> None:
        leader = self.leader
        if leader:
            with contextlib.suppress(OSError):
                os.kill(leader, signal.SIGRTMIN + 4)  # systemd: power off
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    # What is in it.

    def place(self, path: str) -> Path:
        """Before it is booted, or while it runs."""
        leader = self.leader
        return Path(f"/proc/{leader}/root", path.lstrip("/")) if leader else super().place(path)

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


class Machine(Booted):
    def __init__(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="edge-machine-", dir="/var/tmp"))
        packages = sysconfig.get_path("platlib")
        super().__init__(
            "edge",
            directory,
            Path("/"),
            target="edge-test.target",
            options=[f"--bind-ro={packages}:/opt/packages", "systemd.unit=edge-test.target"],
        )
        self.write("etc/machine-id", "")
        self.write("etc/fstab", "")
        self.write("etc/systemd/system/edge-test.target", _TARGET)

    def __enter__(self) -> "Machine":
        self.boot()
        try:
            self.wait_booted()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.power_off()
        shutil.rmtree(self.directory)

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
