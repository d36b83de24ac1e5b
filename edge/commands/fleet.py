"""`edge fleet`."""

import json
import time
from pathlib import Path
from typing import Any

import click

from edge.commands import options, render
from edge.commands.client import Admin, RefusedError
from edge.errors import EdgeError


class RefusedRotationError(EdgeError):
    """The ticket keys stay as they are."""


@click.group(short_help="What several hosts share: tell of it, rotate the ticket keys.")
def fleet() -> None:
    """What this host shares with others through Redis: see [fleet] and docs/fleet.md."""


@fleet.command(short_help="Have all hosts seal tickets with the next key.")
@options.admin
@click.option("--revoke", is_flag=True, help="All keys are new, at once; what was sealed before opens no more.")
@options.waiting(default="2m")
def rotate(*, file: Path | None, path: Path | None, revoke: bool, wait: bool, ms: int) -> None:
    """Have all hosts of the fleet seal tickets with the next key, [fleet] settle from now. Sessions go on.

    It is asked of one host, whose edge is reached through its admin socket ([server] admin); the others find it in
    Redis. With --wait it is done when this host seals with that key.

    --revoke is for keys that may have leaked: nothing that was sealed by them is opened any more, as soon as each host
    has the new ones (at once, or after [fleet] poll where Redis may not tell it), and clients make full handshakes.

    \b
    exit code 0  with --wait: this host seals with the new key; without: all hosts will
    exit code 1  refused, or Redis was not reached: nothing has changed
    exit code 3  nobody was reached, or what came of it is not known
    exit code 4  not done within --timeout; it may still be
    """
    with Admin(options.admin_path(path, file)) as admin:
        try:
            answer = admin.ask_one("rotate", ms / 1000, wait=wait, revoke=revoke)
        except RefusedError as e:
            raise RefusedRotationError(f"the ticket keys stay as they are: {e}") from None
    seconds = answer["seals"] - time.time()
    if wait or seconds <= 0:
        click.echo(f"ticket key {answer['key']} seals")
    else:
        click.echo(f"ticket key {answer['key']} seals in {seconds:.0f} s")


@fleet.command(short_help="Tell what is shared, and whether Redis is reached.")
@options.admin
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/admin.md): `fleet` and `tickets` of the state.")
def status(*, file: Path | None, path: Path | None, as_json: bool) -> None:
    """Tell what this host shares with others, whether Redis is reached, and the ticket keys.

    \b
    exit code 0  it was told
    exit code 1  the running edge is in no fleet
    exit code 3  nobody was reached
    exit code 4  no answer in time
    """
    with Admin(options.admin_path(path, file)) as admin:
        state: dict[str, Any] = admin.ask_one("status")["state"]
    if state.get("fleet") is None:
        raise EdgeError("it is in no fleet: there is no [fleet] in its configuration")
    if as_json:
        click.echo(json.dumps({"fleet": state["fleet"], "tickets": state["tickets"]}))
        return
    out = render.console()
    out.print(render.fleet(state["fleet"], state["now"]))
    if state["tickets"]:
        out.print(render.tickets(state["tickets"]["keys"], {"enabled": True, **state["tickets"]}, state["now"]))
