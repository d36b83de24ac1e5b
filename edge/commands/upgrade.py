"""`edge upgrade`."""

from pathlib import Path

import click

from edge.commands import options
from edge.commands.client import Admin, RefusedError
from edge.errors import EdgeError


class FailedError(EdgeError):
    """The version that ran goes on."""


@click.command(short_help="Have another version take the running one's place.")
@options.admin
@click.option("--python", type=click.Path(path_type=Path), metavar="PATH", help="The interpreter whose edge it is.")
@options.waiting(default="2m")
def upgrade(*, file: Path | None, path: Path | None, python: Path | None, wait: bool, ms: int) -> None:
    """Have another version take the running one's place, without a connection lost.

    The running edge, which is reached through its admin socket ([server] admin), executes the command that it was
    started by once more: a link to another virtual environment is followed anew. The new version reads the
    configuration and starts its workers; when they serve, the old ones drain. If it does not come up within [server]
    upgrade_timeout, it is ended, and the old version has never stopped. SIGUSR2 to the master does the same.

    --python, an absolute path, is for the user that edge runs as, and root.

    \b
    exit code 0  with --wait: the new version serves; without: it was started
    exit code 1  refused, or failed: the old version goes on
    exit code 3  nobody was reached, or what came of it is not known
    exit code 4  not decided within --timeout; it may still be
    """
    interpreter = {"python": str(python)} if python else {}
    with Admin(options.admin_path(path, file)) as admin:
        try:
            answer = admin.ask_one("upgrade", ms / 1000, wait=wait, **interpreter)
        except RefusedError as e:
            raise FailedError(f"the running version goes on: {e}") from None
    if wait:
        click.echo(f"edge {answer['version']}, process {answer['pid']}, serves after {answer['seconds']:.2f} s")
    else:
        click.echo(f"process {answer['pid']} starts")
