"""`edge reload`."""

import os
import signal
from pathlib import Path
from typing import Final

import click

from edge import config, plane
from edge.commands import options
from edge.commands.client import Admin, RefusedError, UnreachableError
from edge.errors import ConfigError, EdgeError

_CHECK_SECRET: Final = bytes(32)


class RejectedError(EdgeError):
    """The running edge does not take the configuration."""


@click.command(short_help="Have the running edge take a changed file over.")
@options.admin
@options.waiting(default="1m")
def reload(*, file: Path | None, path: Path | None, wait: bool, ms: int) -> None:
    """Have the running edge take a changed configuration over.

    It is reached through its admin socket ([server] admin). Where there is none, through the process id in [server]
    pid_file, which tells nothing back: then its error log says how the reload ended.

    Without --wait, the file that --config names is checked before.

    \b
    exit code 0  with --wait: accepted; without: the running edge was told
    exit code 1  rejected, or the file has an error: nothing has changed
    exit code 3  nobody was reached, or what came of it is not known
    exit code 4  not decided within --timeout; it may still be
    """
    if file is not None and not wait:
        plane.prepare(config.load(file), _CHECK_SECRET)
    if path is None and file is not None and _has_pid_file_alone(file):
        _signal(file, wait)
        return
    with Admin(options.admin_path(path, file)) as admin:
        try:
            answer = admin.ask_one("reload", ms / 1000, wait=wait)
        except RefusedError as e:
            raise RejectedError(f"rejected, nothing has changed: {e}") from None
    if not wait:
        click.echo(f"process {answer['pid']} reloads {answer['file']}")
        return
    click.echo(f"accepted in {answer['seconds']:.2f} s: generation {answer['generation']}")
    for line in filter(None, answer["changed"].splitlines()):
        click.echo(f"  {line}")


def _has_pid_file_alone(file: Path) -> bool:
    """Whether the edge that runs with this file can only be signalled: it has no admin socket, or had none when it
    read the file last."""
    path = options.admin_of(file)
    if path is None:
        return True
    try:
        Admin(path).close()
    except UnreachableError:
        return _read_pid_file(file) is not None
    return False


def _read_pid_file(file: Path) -> int | None:
    pid_file = config.load(file).server.pid_file
    try:
        return int(pid_file.read_text()) if pid_file else None
    except (OSError, ValueError):
        return None


def _signal(file: Path, wait: bool) -> None:
    pid_file = config.load(file).server.pid_file
    if pid_file is None:
        raise ConfigError(
            str(file),
            "server.admin",
            "is missing, and so is pid_file",
            "add one of them, or send SIGHUP to the master yourself",
        )
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError) as e:
        raise EdgeError(f"{pid_file}: no edge to signal there ({e}); is it running?") from None
    if wait:
        raise UnreachableError(
            f"process {pid} reloads {file}, but there is no admin socket to hear what comes of it: see its error log, "
            "and add admin under [server]"
        )
    click.echo(f"process {pid} reloads {file}")
