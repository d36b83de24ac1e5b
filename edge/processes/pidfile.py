"""The master's PID file. One that a master left who was killed is no hindrance, whoever has its number by now."""

import os
import tempfile
from pathlib import Path

from gunicorn.pidfile import Pidfile

TITLE = "edge: master"


class PidFile(Pidfile):  # type: ignore[misc]  # gunicorn has no types
    fname: str

    def validate(self) -> int | None:
        """The master that it names and that runs, or None."""
        pid: int | None = super().validate()
        return pid if pid is None or pid == os.getpid() or _is_master(pid) else None

    def take(self, pid: int) -> None:
        """Is this process's from now on, whoever had it before: at no moment it is missing. Raises OSError."""
        fd, beside = tempfile.mkstemp(dir=Path(self.fname).parent)
        try:
            os.write(fd, b"%d\n" % pid)
            os.fchmod(fd, 0o644)
            Path(beside).replace(self.fname)
        except OSError:
            Path(beside).unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        self.pid = pid


def moved(held: PidFile | None, wanted: Path | None, pid: int, *, succeeds: bool) -> PidFile | None:
    """The file of the master `pid` is where it is wanted, and nowhere else; one that `succeeds` another master takes it
    from that. Raises RuntimeError, when another master has it, or OSError; then there is none."""
    if held and wanted and held.fname == str(wanted):
        return held
    if held:
        held.unlink()
    if not wanted:
        return None
    made = PidFile(str(wanted))
    (made.take if succeeds else made.create)(pid)
    return made


def _is_master(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(TITLE.encode())
    except OSError:
        # Hidden (the mount option hidepid): of one's own user's processes those alone that keep their memory private.
        return _is_ours(pid)


def _is_ours(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
