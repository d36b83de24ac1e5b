"""`edge status`: once, as JSON, or as a screen that lives."""

import contextlib
import json
import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from edge.commands import options, render
from edge.commands.client import Admin, Line
from edge.commands.picture import Look, picture, rates
from edge.commands.render import BAD
from edge.errors import EdgeError

SIZE_SECONDS: Final = 0.25
"""How soon a terminal's new size is seen."""
MOMENT_SECONDS: Final = 0.5
"""Between the two looks that tell of rates, where there is no more than one picture."""
PIPED_COLUMNS: Final = 100
ANSWER_SECONDS: Final = 5.0


@click.command(short_help="Tell how the running edge does; --watch keeps telling.")
@options.admin
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/admin.md); with --watch, a line each time.")
@click.option("--watch", is_flag=True, help="A screen that lives, until q or Ctrl-C.")
@click.option(
    "--interval",
    "ms",
    metavar="DURATION",
    callback=options.duration("100ms", "1h"),
    default="1s",
    show_default=True,
    help="Between two looks.",
)
def status(*, file: Path | None, path: Path | None, as_json: bool, watch: bool, ms: int) -> None:
    """Tell how the running edge does: workers, traffic, latency, upstreams, certificates, reloads, ticket keys.

    It is reached through its admin socket: see [server] admin. Rates are those of the last moments, totals since the
    start of edge.

    \b
    exit code 0  it was told
    exit code 1  the running edge refuses
    exit code 3  nobody was reached; --watch goes on and tries again
    exit code 4  no answer in time
    """
    where = options.admin_path(path, file)
    if watch and as_json:
        _tell_again_and_again(where, ms / 1000)
    elif watch:
        _watch(where, ms / 1000)
    elif as_json:
        with Admin(where) as admin:
            answer = admin.ask_one("status")
        click.echo(json.dumps({"state": answer["state"], "figures": answer["figures"]}))
    else:
        with Admin(where) as admin:
            admin.ask_one("status", recent=True)
            time.sleep(MOMENT_SECONDS)
            answer = admin.ask_one("status", recent=True)
        out = render.console()
        out.print(picture(_look(answer), out.width if out.is_terminal else PIPED_COLUMNS))


def _look(answer: Line) -> Look:
    look = Look(answer["state"], answer["figures"], answer["recent"])
    if answer["recent"]:
        look.history.append(rates(answer["recent"]))
    return look


class Watching:
    """Look after look, over whatever becomes of the edge that is looked at."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._admin: Admin | None = None
        self.look: Look | None = None
        """The last."""
        self.trouble = ""
        """Why there is no newer one."""

    def again(self) -> None:
        try:
            answer = self._ask()
        except EdgeError as e:
            self.close()
            self.trouble = str(e)
            if self.look:
                self.look.history.append(None)
            return
        self.trouble = ""
        look = _look(answer)
        if self.look:
            self.look.history.extend(look.history)
            look.history = self.look.history
        self.look = look

    def _ask(self) -> Line:
        if self._admin is None:
            self._admin = Admin(self._path)
            self._admin.ask_one("status", ANSWER_SECONDS, recent=True)  # from here on it is told what is recent
            time.sleep(0.1)
        return self._admin.ask_one("status", ANSWER_SECONDS, recent=True)

    def close(self) -> None:
        if self._admin is not None:
            self._admin.close()
            self._admin = None


def _tell_again_and_again(path: Path, seconds: float) -> None:
    watching = Watching(path)
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            watching.again()
            if watching.trouble:
                click.echo(f"edge: {watching.trouble}", err=True)
            elif watching.look:
                look = watching.look
                told: dict[str, Any] = {"state": look.state, "figures": look.figures, "recent": look.recent}
                click.echo(json.dumps(told))
            time.sleep(seconds)


def _watch(path: Path, seconds: float) -> None:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        raise click.UsageError("--watch needs a terminal; --json --watch does not")
    watching = Watching(path)
    with (
        contextlib.suppress(KeyboardInterrupt),
        _ended_by_sigterm(),
        _keys() as keyboard,
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live,
    ):
        while True:
            until = time.monotonic() + seconds
            watching.again()
            drawn = None
            while (left := until - time.monotonic()) > 0 or drawn is None:
                if drawn != console.size:
                    drawn = console.size
                    live.update(screen(watching, console), refresh=True)
                if _ends(keyboard, min(left, SIZE_SECONDS)):
                    return


def screen(watching: Watching, console: Console) -> Any:
    """What fills a terminal."""
    width, height = console.size
    if watching.look is None:
        return Text(f"edge does not answer: {watching.trouble}\n\nTrying again; q ends.")
    notice = None
    if watching.trouble:
        notice = Text(f"no answer, trying again: {render.text(watching.trouble)}", style=BAD, no_wrap=True)
    return picture(watching.look, width, height, notice)


def _ends(keyboard: int | None, seconds: float) -> bool:
    """Waits for so long, or until a key is pressed: whether it was q."""
    ready, _, _ = select.select([keyboard] if keyboard is not None else [], [], [], max(seconds, 0.0))
    if not ready:
        return False
    pressed = os.read(ready[0], 64)
    return not pressed or any(key in b"qQ" for key in pressed)  # nothing: the terminal has gone


@contextlib.contextmanager
def _keys() -> Iterator[int | None]:
    """Keys as they are pressed; None without a keyboard."""
    if not sys.stdin.isatty():
        yield None
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A terminal is left as it was found."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
