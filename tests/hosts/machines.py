"""Debian hosts with a real systemd and sshd, reached by ssh (as root) and Ansible (as one who becomes it) alone.

    with Hosts("example") as hosts:
        hosts.add("a", "bookworm")
        hosts.add("b", "trixie")
        hosts.add("c", "bookworm", own_kernel=True)
        hosts.boot()
        hosts.ssh("a", "systemctl is-system-running")
        hosts.ansible("ansible-playbook", "site.yml")

Each is a machine of tests/e2e/machine.py, or one with a kernel of its own (virtual.py), on a tree of its release
(trees.py), with an address in the run's own network
(network.py), which has no way out but a proxy that apt and pip know of (way_out.py). What a run makes is gone with it
(runs.py, keeper.py).
"""

import contextlib
import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

from tests.e2e.machine import NEEDED, Booted
from tests.e2e.processes import ROOT, wait_until
from tests.hosts import network, runs, trees, virtual
from tests.hosts.virtual import Virtual

TARGET = "multi-user.target"
END_SECONDS = 300
"""A host's disk may hold many files, and others may be at work on this one."""
PROGRAMS = (*NEEDED, "debootstrap", "ip", "ssh", "ssh-keygen", "curl")

_PROXY = f"http://{network.HUB}:{network.PROXY_PORT}"
_APT_PROXY = f'Acquire::http::Proxy "{_PROXY}";\nAcquire::https::Proxy "{_PROXY}";\n'
_PIP = f"[global]\nproxy = {_PROXY}\ncert = /etc/ssl/certs/ca-certificates.crt\ndisable-pip-version-check = true\n"

_SSH = """\
Host {name}
    HostName {address}
    User root
    IdentityFile {directory}/key
    IdentitiesOnly yes
    HostKeyAlias {name}
    UserKnownHostsFile {directory}/known_hosts
    StrictHostKeyChecking yes
    ControlMaster auto
    ControlPath {directory}/ssh-%C
    ControlPersist 300
    ConnectTimeout 30
    ServerAliveInterval 10
    LogLevel ERROR
"""


def lacking() -> str:
    """Why there can be no hosts here; "" when there can."""
    if os.geteuid() != 0:
        return "only root can boot machines"
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"there is no {', '.join(missing)} (./dev hosts installs what is needed)"
    if not (runs.group_root() / "cgroup.controllers").exists():
        return "there is no cgroup v2"
    return ""


@dataclasses.dataclass
class Host:
    name: str
    release: str
    number: int
    own_kernel: bool = False

    @property
    def address(self) -> str:
        return network.address(self.number)


class Hosts:
    """Those of one run. `owned`: they end with this process; otherwise when somebody calls `end`."""

    def __init__(self, run: str, *, owned: bool = True, say=print) -> None:
        self.run = run
        self.directory = runs.directory(run)
        self.owned = owned
        self.say = say
        self.hosts: dict[str, Host] = {}
        self.machines: dict[str, Booted | Virtual] = {}
        self.groups: dict[str, list[str]] = {}
        self._keeper: subprocess.Popen | None = None

    # The run.

    def begin(self) -> None:
        lock, removed = runs.begin(self.run)
        for name in removed:
            self.say(f"removed what an earlier run has left: {name}")
        # What a keeper that outlives us has to say must not go to a terminal, or a pipe, of ours.
        with lock, open("/dev/stderr" if self.owned else runs.RUNS / f"{self.run}.log", "ab") as log:
            self._keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.hosts.keeper", self.run],
                stdin=subprocess.PIPE if self.owned else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        if self._keeper.stdout.readline() != b"ready\n":
            raise RuntimeError(f"the run's keeper has ended at once, with exit code {self._keeper.wait(60)}")
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.run, "-f", self.directory / "key"], check=True
        )

    @classmethod
    def found(cls, run: str) -> "Hosts":
        """A run that is there already, begun with owned=False. FileNotFoundError: there is none."""
        hosts = cls(run, owned=False)
        state = json.loads((hosts.directory / "state.json").read_text())
        hosts.groups = state["groups"]
        for name, facts in state["hosts"].items():
            hosts.hosts[name] = Host(name, facts["release"], facts["number"], facts["own_kernel"])
            hosts.machines[name] = hosts._machine(hosts.hosts[name])
            hosts.machines[name].pid = facts["pid"]
        return hosts

    def end(self) -> None:
        """All of it is removed, by the keeper."""
        pid = int((self.directory / "keeper").read_text())
        if self._keeper:
            self._keeper.terminate()
            self._keeper.wait(END_SECONDS)
        else:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not self.directory.exists(), END_SECONDS, "the end of the run")
        if not self.owned:
            (runs.RUNS / f"{self.run}.log").unlink(missing_ok=True)
        for machine in self.machines.values():
            if machine.process:
                machine.process.wait(10)

    def __enter__(self) -> "Hosts":
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    # Its machines.

    def add(self, name: str, release: str, *, own_kernel: bool = False) -> Host:
        """A host from nothing: it is booted by `boot`."""
        tree = trees.tree(release, self.say, kernel=own_kernel)
        number = max((host.number for host in self.hosts.values()), default=10) + 1
        host = self.hosts[name] = Host(name, release, number, own_kernel)
        if own_kernel:
            network.add_taps(self.run, host.number, virtual.CPUS)
        else:
            network.add(self.run, name, number)
        machine = self.machines[name] = self._machine(host)
        machine.write("etc/hostname", f"{name}\n")
        machine.write("etc/apt/apt.conf.d/80proxy", _APT_PROXY)
        machine.write("etc/pip.conf", _PIP)
        self._let_in(machine, tree / "root", 0)
        self._let_in(machine, tree / "home" / trees.ADMIN, trees.ADMIN_ID)
        self._host_key(name, machine)
        self._write_down()
        return host

    def _machine(self, host: Host) -> Booted | Virtual:
        directory = self.directory / "machines" / host.name
        tree = trees.tree(host.release, self.say, kernel=host.own_kernel)
        group = runs.group(self.run, host.name)
        if host.own_kernel:
            cards = network.cards(host.number, virtual.CPUS)
            hub = network.hub(self.run)
            return Virtual(host.name, directory, tree, target=TARGET, namespace=hub, cgroup=group, cards=cards)
        namespace = network.namespace(self.run, host.name)
        return Booted(host.name, directory, tree, target=TARGET, namespace=namespace, cgroup=group)

    def _let_in(self, machine: Booted | Virtual, home: Path, owner: int) -> None:
        place = home.relative_to(machine.tree)
        file = machine.write(f"{place}/.ssh/authorized_keys", (self.directory / "key.pub").read_bytes(), 0o600)
        file.parent.chmod(0o700)
        for path in (file, file.parent, file.parent.parent):
            os.chown(path, owner, owner)
        shutil.copystat(home, file.parent.parent)

    def _host_key(self, name: str, machine: Booted | Virtual) -> None:
        file = machine.write("etc/ssh/ssh_host_ed25519_key", "")
        file.unlink()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", file], check=True)
        kind, key, _ = file.with_suffix(".pub").read_text().split()
        with open(self.directory / "known_hosts", "a") as f:
            f.write(f"{name} {kind} {key}\n")

    def boot(self, *names: str, seconds: float = 120) -> None:
        """Those, or all that are not running; waited for until ssh answers."""
        chosen = [self.machines[name] for name in names or self.machines if not self.running(name)]
        for machine in chosen:
            # What each knows of the others.
            lines = [f"{host.address} {host.name}\n" for host in self.hosts.values()]
            machine.write("etc/hosts", f"127.0.0.1 localhost\n::1 localhost\n{''.join(lines)}")
            runs.group(self.run, machine.name)
            machine.boot()
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda machine: self._wait(machine, seconds), chosen))
        self._write_down()

    def _wait(self, machine: Booted | Virtual, seconds: float) -> None:
        machine.wait_booted(seconds)
        wait_until(lambda: self.ssh(machine.name, "true").returncode == 0, seconds, f"ssh to {machine.name}")

    def running(self, name: str) -> bool:
        return bool(self.machines[name].leader)

    def kill(self, name: str) -> None:
        """As if its power failed. What it has on its disk is there when it is booted again."""
        machine = self.machines[name]
        runs.kill_group(machine.cgroup)
        if machine.process:
            machine.process.wait(10)

    def reboot(self, name: str, seconds: float = 120) -> None:
        """By itself, in order; one with a kernel of its own."""
        patience = seconds * virtual.patience()
        before = self._boot_id(name)
        assert before
        self.ssh(name, "systemctl reboot")
        self.command("ssh", "-F", self.ssh_config, "-O", "exit", name)
        wait_until(lambda: self._boot_id(name) not in ("", before), patience, f"{name} to be there again")
        self.ssh(name, "systemctl is-system-running --wait", patience)

    def _boot_id(self, name: str) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            asked = self.ssh(name, "cat /proc/sys/kernel/random/boot_id", stderr=subprocess.DEVNULL)
            return asked.stdout.strip() if asked.returncode == 0 else ""
        return ""

    # What is done with them.

    def group(self, **groups: Sequence[str]) -> None:
        """Names of the inventory's groups, each with its hosts; beside one for each release."""
        self.groups.update({name: list(hosts) for name, hosts in groups.items()})
        self._write_down()

    @property
    def inventory(self) -> Path:
        return self.directory / "inventory.json"

    @property
    def ssh_config(self) -> Path:
        return self.directory / "ssh_config"

    def _write_down(self) -> None:
        config = (_SSH.format(name=h.name, address=h.address, directory=self.directory) for h in self.hosts.values())
        self.ssh_config.write_text("\n".join(config))
        groups: dict[str, Sequence[str]] = dict(self.groups)
        for release in trees.RELEASES:
            groups[release] = [host.name for host in self.hosts.values() if host.release == release]
        inventory = {
            "all": {
                "hosts": {h.name: {"ansible_host": h.name, "host_address": h.address} for h in self.hosts.values()},
                "vars": {
                    "ansible_user": trees.ADMIN,
                    "ansible_ssh_common_args": f"-F {self.ssh_config}",
                    "ansible_python_interpreter": "/usr/bin/python3",
                },
                "children": {name: {"hosts": dict.fromkeys(hosts)} for name, hosts in groups.items() if hosts},
            }
        }
        self.inventory.write_text(json.dumps(inventory, indent=1))
        facts = {
            h.name: {
                "release": h.release,
                "number": h.number,
                "own_kernel": h.own_kernel,
                "pid": self.machines[h.name].pid,
            }
            for h in self.hosts.values()
        }
        (self.directory / "state.json").write_text(json.dumps({"hosts": facts, "groups": self.groups}))

    def inside(self, command: Sequence[str | Path]) -> list[str]:
        """A command as one that runs in the hosts' network, and ends with the run."""
        group = runs.group(self.run, "controller")
        join = f'echo $$ >{shlex.quote(str(group))}/cgroup.procs && exec "$@"'
        return ["sh", "-c", join, "sh", *network.inside(network.hub(self.run)), *map(str, command)]

    def command(self, *command: str | Path, seconds: float = 60, **options) -> subprocess.CompletedProcess:
        """A command in the hosts' network, to its end, with what it wrote as text."""
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.STDOUT)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            self.inside(command), timeout=seconds, text=True, errors="replace", check=False, **options
        )

    def ssh(self, name: str, command: str, seconds: float = 60, **options) -> subprocess.CompletedProcess:
        """A shell's command on a host, as root."""
        return self.command("ssh", "-F", self.ssh_config, name, command, seconds=seconds, **options)

    def send_source(self, name: str, place: str = "/root/edge") -> None:
        """This repository's files, as they are now, into a directory of the host."""
        files = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
        listed = subprocess.run(files, cwd=ROOT, capture_output=True, timeout=60, check=True).stdout.split(b"\0")
        there = b"\0".join(file for file in listed if file and (ROOT / os.fsdecode(file)).exists())
        pack = ["tar", "--create", "--no-recursion", "--null", "--files-from=-"]
        packed = subprocess.run(pack, input=there, cwd=ROOT, capture_output=True, timeout=60, check=True).stdout
        self._unpack(name, packed, place)

    def send_build(self, name: str, place: str = "/root/edge") -> None:
        """The server and its benchmarks as they are built here, into a directory of a host of this machine's release,
        and what they need of PyPI beside them: `cd DIRECTORY && PYTHONPATH=packages python3 -m edge`."""
        pack = ["tar", "--create", "--exclude=*.pyx", "--exclude=*.pxd", "--exclude=*.c", "--exclude=__pycache__"]
        packages = sorted(file for file in _files_of("edge", "trustme") if "edge" not in file)
        site = ["--transform=s,^[^/]*,packages/&,", "--directory", sysconfig.get_path("platlib"), *packages]
        for what in (["--directory", ROOT, "edge", "cext", "bench"], site):
            packed = subprocess.run([*pack, *what], capture_output=True, timeout=60, check=True).stdout
            self._unpack(name, packed, place)

    def _unpack(self, name: str, packed: bytes, place: str) -> None:
        unpack = f"mkdir -p {place} && tar --extract --no-same-owner --directory={place}"
        line = self.inside(["ssh", "-F", str(self.ssh_config), name, unpack])
        subprocess.run(line, input=packed, timeout=300, check=True)

    def environment(self) -> Mapping[str, str]:
        """For Ansible."""
        return {
            **os.environ,
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}",
            "ANSIBLE_INVENTORY": str(self.inventory),
            "ANSIBLE_HOME": str(self.directory / "ansible"),
            # Its name is made of the host's alone: two runs' hosts of one name must not share a connection.
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.directory / "ansible/cp"),
            "ANSIBLE_LOCAL_TEMP": str(self.directory / "ansible/tmp"),
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def ansible(self, *command: str | Path, seconds: float = 600, **options) -> subprocess.CompletedProcess:
        """ansible-playbook, or another of its programs."""
        options.setdefault("cwd", ROOT / "ansible")
        return self.command(*command, seconds=seconds, env=self.environment(), **options)



def _files_of(*projects: str) -> set[str]:
    """What these and all that they require have at the top of site-packages; of their extras, nothing."""
    files: set[str] = set()
    todo, done = list(projects), set(projects)
    while todo:
        name = todo.pop()
        try:
            own = metadata.files(name) or ()
        except metadata.PackageNotFoundError:  # not for this Python, or this system
            continue
        files |= {file.parts[0] for file in own if file.parts[0] not in ("..", "__pycache__")}
        required = [line for line in metadata.requires(name) or () if "extra ==" not in line]
        more = {re.match(r"[\w.-]+", line)[0].lower() for line in required} - done
        todo += more
        done |= more
    return files
