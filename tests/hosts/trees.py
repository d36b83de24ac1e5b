"""Trees of Debian releases as a fresh host has them: made once by debootstrap, kept, and copied on write by machines.

They hold systemd, sshd, sudo, Python and little else; nothing of edge. They are kept in /var/cache/edge-hosts, which
`./dev clean --all` removes. EDGE_HOSTS_MIRROR names another mirror than Debian's own.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

RELEASES = ("bookworm", "trixie")
CACHE = Path(os.environ.get("EDGE_HOSTS_CACHE", "/var/cache/edge-hosts"))
MIRROR = os.environ.get("EDGE_HOSTS_MIRROR", "http://deb.debian.org/debian")
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "sudo", "python3", "iproute2", "procps", "netbase",
    "ca-certificates",
)  # fmt: skip
OF_A_KERNEL = ("linux-image-cloud-amd64", "initramfs-tools", "udev", "kmod")
"""What a machine has besides that boots for itself."""
ADMIN, ADMIN_ID = "admin", 1000
"""Who may log in and become root, with no password asked: what Debian's images for machines have."""
LOCAL_CERTIFICATES = Path("/usr/local/share/ca-certificates")
"""Authorities that this host's administrator trusts: where a proxy looks into TLS, machines must trust it, too."""
# What would fetch packages or wait for hardware at a moment of its own.
MASKED = ("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "systemd-pstore.service", "getty.target")
_FORMAT = "2"


def tree(release: str, say=print, *, kernel: bool = False) -> Path:
    """The release's tree, to be read alone; with a kernel, if it is to boot for itself. The first time it takes a
    minute."""
    CACHE.mkdir(parents=True, exist_ok=True)
    name = f"{release}-kernel" if kernel else release
    packages = (*PACKAGES, *OF_A_KERNEL) if kernel else PACKAGES
    with open(CACHE / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = CACHE / f"{name}-{_digest(packages)}"
        if not done.exists():
            say(f"making a tree of {name} with debootstrap")
            made = CACHE / f"{name}.partial"
            shutil.rmtree(made, ignore_errors=True)
            _make(release, packages, made, CACHE / f"{name}.log")
            made.rename(done)
        return done


def _digest(packages: Sequence[str]) -> str:
    what = hashlib.sha256(repr((_FORMAT, packages, MASKED, MIRROR, _apt_settings())).encode())
    for file in sorted(LOCAL_CERTIFICATES.rglob("*.crt")):
        what.update(file.read_bytes())
    return what.hexdigest()[:12]


def _make(release: str, packages: Sequence[str], tree: Path, log: Path) -> None:
    with open(log, "wb") as out:
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", release, tree, MIRROR]
        made = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=900, check=False)
        if made.returncode:
            raise RuntimeError(f"debootstrap {release} failed: {log}:\n{log.read_text(errors='replace')[-1500:]}")
        if LOCAL_CERTIFICATES.is_dir():
            shutil.copytree(LOCAL_CERTIFICATES, tree / LOCAL_CERTIFICATES.relative_to("/"), dirs_exist_ok=True)
            subprocess.run(["chroot", tree, "update-ca-certificates"], stdout=out, stderr=out, timeout=120, check=True)
        useradd = ["useradd", "--create-home", "--shell=/bin/bash", f"--uid={ADMIN_ID}", ADMIN]
        subprocess.run(["chroot", tree, *useradd], stdout=out, stderr=out, timeout=60, check=True)
    (tree / "etc/sudoers.d/admin").write_text(f"{ADMIN} ALL=(ALL) NOPASSWD: ALL\n")
    # What a machine has for itself comes when it is made, or boots first.
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    (tree / "etc/machine-id").write_text("")
    for name in ("etc/hostname", "etc/resolv.conf"):
        (tree / name).unlink(missing_ok=True)
    for unit in MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    shutil.rmtree(tree / "var/cache/apt/archives")
    (tree / "var/cache/apt/archives/partial").mkdir(parents=True)
    security = MIRROR.rstrip("/").removesuffix("/debian") + "/debian-security"
    sources = (f"{MIRROR} {release}", f"{MIRROR} {release}-updates", f"{security} {release}-security")
    (tree / "etc/apt/sources.list").write_text("".join(f"deb {source} main\n" for source in sources))
    (tree / "etc/apt/apt.conf.d/50edge-hosts").write_text(_apt_settings())


def _apt_settings() -> str:
    """What this host's apt thinks of dates: an old mirror's are over, and so they are for a machine."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=30, check=False).stdout
    kept = [line for line in dump.splitlines() if line.startswith("Acquire::Check-")]
    return "\n".join(['Acquire::Languages "none";', "Acquire::http::Pipeline-Depth 0;", *kept, ""])
