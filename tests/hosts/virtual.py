"""Machines with a kernel of their own: QEMU's, with Debian's kernel. Only for root.

What machines of systemd-nspawn cannot show is theirs to show: /sys, all of /proc/sys, network cards with queues and
interrupts, limits that are not this host's. Where this host's processor has no virtualization they are emulated: what
they compute takes ten to thirty times as long, and all else is as it is.
"""

import dataclasses
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.machine import Bootable
from tests.e2e.processes import wait_until

QEMU = "qemu-system-x86_64"
PROGRAMS = (QEMU, "mkfs.ext4", "unshare", "nsenter")
CPUS = 2
MEMORY_MIB = 2560
DISK = "16G"
"""At most: what is not written takes no room."""
EMULATED_PATIENCE = 10
# AVX is emulated number by number: without it libcrypto hashes in a quarter of the time.
_EMULATED = ["-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-avx,-avx2"]
# Without the first, each look at the clock is one at an emulated device: handshakes take four times as long.
_EMULATED_LINE = " tsc=reliable mitigations=off"

# $1 is its directory, $2 the tree. What has been written for it goes onto its disk, which is made the first time.
_DISK = """\
set -e
cd "$1"
if [ -e disk ]; then
    mount -o loop disk root
    cp -a upper/. root
    umount root
else
    mount -t overlay -o "lowerdir=$2,upperdir=upper,workdir=work" overlay root
    mkfs.ext4 -q -E root_owner=0:0 -d root disk.partial "$3"
    umount root
    mv disk.partial disk
fi
find upper -mindepth 1 -delete
"""

_CARD = """\
[Match]
MACAddress={mac}

[Network]
Address={ipv4}/24
Address={ipv6}/64
IPv6AcceptRA=no
{route}
"""


@dataclasses.dataclass(frozen=True)
class Card:
    """A network card, joined to a tap of this host's. `gateway`: "" when it is not the way to others."""

    tap: str
    queues: int
    ipv4: str
    ipv6: str
    gateway: str = ""

    @property
    def mac(self) -> str:
        """Of its address, so that no two of a run have the same."""
        return "52:54:00:" + ":".join(f"{int(part):02x}" for part in self.ipv4.split(".")[1:])

    def network(self) -> str:
        route = f"Gateway={self.gateway}" if self.gateway else ""
        return _CARD.format(mac=self.mac, ipv4=self.ipv4, ipv6=self.ipv6, route=route)

    def options(self) -> list[str]:
        device = f"virtio-net-pci,netdev={self.tap},mac={self.mac}"
        if self.queues > 1:
            device += f",mq=on,vectors={2 * self.queues + 2}"
        queues = f",queues={self.queues}" if self.queues > 1 else ""
        return ["-netdev", f"tap,id={self.tap},ifname={self.tap},script=no,downscript=no{queues}", "-device", device]


def accelerated() -> bool:
    """Whether this host's processor runs machines itself. (/dev/kvm alone does not say so: there are kinds of it that
    only kernels made for them boot on.)"""
    flags = re.search(r"^flags\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.M)
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and bool(flags and {"vmx", "svm"} & set(flags[1].split()))


def patience() -> int:
    """By which times are multiplied that a host would take for what it computes."""
    return 1 if accelerated() else EMULATED_PATIENCE


def lacking() -> str:
    """Why there can be none here; "" when there can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if missing:
        return f"there is no {', '.join(missing)} (./dev hosts installs what is needed)"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    available = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    if available and int(available[1]) // 1024 < MEMORY_MIB + 512:
        return f"a virtual machine wants {MEMORY_MIB} MiB of memory, and {int(available[1]) // 1024} are available"
    return ""


class Virtual(Bootable):
    """QEMU's, whose `disk` is made of its tree, with a kernel, when it boots first; what is written gets there when it
    boots next. `namespace`: of the network where the taps of its cards are."""

    def __init__(self, *args: Any, cgroup: Path, cards: Sequence[Card], **more: Any) -> None:
        super().__init__(*args, cgroup=cgroup, **more)
        self.cards = cards
        if not self._disk.exists():
            for number, card in enumerate(cards):
                self.write(f"etc/systemd/network/{number + 10}-card.network", card.network())

    @property
    def _disk(self) -> Path:
        return self.directory / "disk"

    @property
    def _console(self) -> Path:
        return self.directory / "console"

    def boot(self) -> None:
        """Begins to; `wait_booted` waits for the end of it."""
        disk = ["unshare", "--mount", "sh", "-c", _DISK, "sh", self.directory, self.tree, DISK]
        subprocess.run(disk, stdin=subprocess.DEVNULL, capture_output=True, timeout=300, check=True)
        join = 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"'
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        self.start(["sh", "-c", join, "sh", self.cgroup, *inside, *self._command()], "qemu.log")

    def _command(self) -> list[str]:
        kernel, initrd = (max((self.tree / "boot").glob(f"{name}-*")) for name in ("vmlinuz", "initrd.img"))
        line = "root=/dev/vda rw console=ttyS0 panic=-1 TERM=dumb systemd.show_status=yes"
        if not accelerated():
            line += _EMULATED_LINE
        accelerator = ["-accel", "kvm", "-cpu", "host"] if accelerated() else _EMULATED
        return [
            QEMU, "-name", self.name, "-machine", "q35", *accelerator, "-smp", str(CPUS), "-m", str(MEMORY_MIB),
            "-nodefaults", "-display", "none", "-no-user-config", "-serial", f"file:{self._console}",
            "-kernel", str(kernel), "-initrd", str(initrd), "-append", f"{line} systemd.wants=systemd-networkd.service",
            "-drive", f"file={self._disk},format=raw,if=virtio,cache=unsafe", "-device", "virtio-rng-pci",
            *(option for card in self.cards for option in card.options()),
        ]  # fmt: skip

    @property
    def leader(self) -> int:
        """Its QEMU; 0 when it is off."""
        try:
            return self.pid if self.pid and QEMU.encode() in Path(f"/proc/{self.pid}/cmdline").read_bytes() else 0
        except OSError:
            return 0

    def wait_booted(self, seconds: float = 60) -> None:
        wait_until(self._booted, seconds * patience(), f"{self.name} booted: {self._said()}")

    def _booted(self) -> bool:
        assert self.process.poll() is None, self._said()
        said = self._console.read_text(errors="replace") if self._console.exists() else ""
        return bool(re.search(rf"Reached target \S*{re.escape(self.target)}", said))

    def _said(self) -> str:
        files = [file for file in (self.directory / "qemu.log", self._console) if file.exists()]
        return "\n".join(file.read_text(errors="replace")[-1500:] for file in files)
