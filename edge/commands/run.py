"""`edge run`."""

from pathlib import Path

import click

from edge import demo
from edge.application import Application
from edge.commands import options


@click.command()
@options.config
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"The demo's port, {demo.PORT} by default. Not with --config."
)
def run(file: Path | None, port: int | None) -> None:
    """Serve, in the foreground, until SIGTERM or Ctrl-C.

    Without --config: a demo on https://localhost:8443 with a development certificate and a small origin, both made
    on the spot.

    \b
    SIGTERM          accept no more, finish running requests, end
    SIGINT, SIGQUIT  end at once
    SIGHUP           take a changed file over; with an error, change nothing
    SIGUSR1          reopen the log files
    SIGUSR2          have another version take over
    SIGTTIN, SIGTTOU one worker more, one less
    """
    welcome = ""
    if file is None:
        file, welcome = demo.prepare(port or demo.PORT)
    elif port is not None:
        raise click.UsageError("--port is for the demo; a configuration has [[listener]] bind")
    Application(file, welcome).run()
