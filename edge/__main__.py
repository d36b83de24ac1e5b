"""The command `edge`; `python -m edge` is the same."""

import datetime
import os
import signal
import sys
from pathlib import Path

import click

from edge import __version__, config, demo, inventory, plane
from edge import delegate as delegations
from edge import example as examples
from edge.errors import ConfigError, EdgeError
from edge.keyserver import keyserver
from edge.master import Application
from edge.schema import Duration, Place
from edge.settings import Match, Settings, Upstream

_CHECK_SECRET = bytes(32)

_FILE = click.Path(path_type=Path, dir_okay=False)


def _milliseconds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """A duration as a configuration has it."""
    try:
        return None if value is None else Duration("1m", "7d").read(value, Place(""))
    except ConfigError as e:
        raise click.BadParameter(f"{e.problem}; {e.remedy}") from None


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge")
def cli() -> None:
    """A TLS edge server: TLS 1.3 and 1.2 by its own stack, HTTP/1.1 to pooled backends."""


@cli.command()
@click.option("--config", "-c", "file", type=_FILE, metavar="FILE", help="The configuration (TOML).")
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
    SIGTTIN, SIGTTOU one worker more, one less
    """
    welcome = ""
    if file is None:
        file, welcome = demo.prepare(port or demo.PORT)
    elif port is not None:
        raise click.UsageError("--port is for the demo; a configuration has [[listener]] bind")
    Application(file, welcome).run()


@cli.command()
@click.argument("name", required=False)
@click.option("--port", type=click.IntRange(1, 65535), default=demo.PORT, show_default=True, help="Where to listen.")
def example(name: str | None, port: int) -> None:
    """Serve one of the examples in docs/examples; without NAME, list them.

    A copy of its directory is served, with a development certificate, a small origin and whatever else it needs, and
    says what to try.
    """
    if name is None:
        for known in examples.names():
            click.echo(f"{known:24} {examples.title(known)}")
        return
    Application(*examples.prepare(name, port)).run()


@cli.command()
@click.option("--config", "-c", "file", type=_FILE, metavar="FILE", required=True, help="The configuration (TOML).")
def check(file: Path) -> None:
    """Say whether a configuration would serve: exit code 0, or 1 and what is wrong where.

    The files it names are read, keys are held against their certificates and host names are resolved. No address is
    bound and nothing is changed.
    """
    prepared = plane.prepare(config.load(file), _CHECK_SECRET)
    for warning in plane.warnings(prepared):
        click.echo(f"warning: {warning}", err=True)
    cache = prepared.settings.server.cache_dir
    for line in _summary(prepared.settings, inventory.entries(prepared.serving.identities, cache and cache / "ocsp")):
        click.echo(line)


@cli.command()
@click.option("--config", "-c", "file", type=_FILE, metavar="FILE", required=True, help="The configuration (TOML).")
def reload(file: Path) -> None:
    """Have the running edge take a changed configuration over.

    The file is checked first; with an error in it the command ends with exit code 1, and nothing is changed. The
    running edge is found through the file's [server] pid_file, and says in its error log how the reload ended.
    """
    settings = plane.prepare(config.load(file), _CHECK_SECRET).settings
    pid_file = settings.server.pid_file
    if pid_file is None:
        raise ConfigError(str(file), "server.pid_file", "is missing", "add it, or send SIGHUP to the master yourself")
    try:
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGHUP)
    except (OSError, ValueError) as e:
        raise EdgeError(f"{pid_file}: no edge to signal there ({e}); is it running?") from None
    click.echo(f"process {pid} reloads {file}")


@cli.command()
@click.option("--config", "-c", "file", type=_FILE, metavar="FILE", help="The configuration (TOML).")
@click.option("--chain", type=_FILE, metavar="FILE", help="Without --config: the certificate (PEM),")
@click.option("--key", type=_FILE, metavar="FILE", help="its private key (PEM),")
@click.option("--credential", type=_FILE, metavar="FILE", help="where the delegated credential goes,")
@click.option("--delegated-key", type=_FILE, metavar="FILE", help="and where its key goes.")
@click.option("--lifetime", callback=_milliseconds, default="7d", show_default=True, help="At most 7d.")
@click.option("--every", callback=_milliseconds, help="Go on: make another one this often, such as 6d.")
@click.option("--once", is_flag=True, help="Make one and end: so it is without --every.")
def delegate(
    *,
    file: Path | None,
    chain: Path | None,
    key: Path | None,
    credential: Path | None,
    delegated_key: Path | None,
    lifetime: int,
    every: int | None,
    once: bool,
) -> None:
    """Make delegated credentials: new keys for a few days, signed by a certificate's key.

    With --config, for each [[certificate]] that has `delegated`, whose files are written; its key may be somewhere else
    (docs/keys.md) and is asked for one signature. Otherwise for a certificate and key in files. The running edge takes
    new files by itself.
    """
    given = {"--chain": chain, "--key": key, "--credential": credential, "--delegated-key": delegated_key}
    if file is not None and any(given.values()):
        raise click.UsageError("either --config, or the files themselves")
    if file is None and (missing := [name for name, path in given.items() if path is None]):
        raise click.UsageError(f"--config is missing, or else {', '.join(missing)}")
    if every is not None and (once or every >= lifetime):
        raise click.UsageError("--every goes with a longer --lifetime, and not with --once")
    wanted = delegations.orders(file) if file else [delegations.order(*map(Path, filter(None, given.values())))]
    holds = datetime.timedelta(milliseconds=lifetime)
    if every is not None:
        delegations.Keeper(wanted, holds, every / 1000, _say).run()
        return
    for what in wanted:
        click.echo(f"{what.credential}: delegated until {delegations.make(what, holds):%Y-%m-%d %H:%M} UTC")


def _say(message: str) -> None:
    click.echo(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ} {message}", err=True)


def _summary(settings: Settings, certificates: list[inventory.Entry]) -> list[str]:
    return [
        f"{settings.file}: ok",
        f"  workers      {settings.server.workers}",
        f"  listeners    {', '.join(str(bind) for listener in settings.listener for bind in listener.bind)}",
        *(
            f"  certificate  {', '.join(c.names) or '(default only)'}: {c.kind}, until {c.expires:%Y-%m-%d}"
            f"{c.beside() and f'; {c.beside()}'}"
            for c in certificates
        ),
        *(
            f"  upstream     {u.name}: {_show_protocol(u)} to {', '.join(map(str, u.servers))}"
            for u in settings.upstream
        ),
        *(f"  route        {_show_match(r.match)} to {r.upstream}" for r in settings.route),
    ]


def _show_protocol(upstream: Upstream) -> str:
    return f"{upstream.protocol}{' by TLS' if config.tls_of(upstream) else ''}"


def _show_match(match: Match) -> str:
    return f"{' '.join(match.method or ('any',))} {', '.join(match.host or ('*',))} {match.path}"


cli.add_command(keyserver)


def main() -> None:
    """The entry point: every fault that the operator can mend is one line on standard error, and exit code 1."""
    try:
        cli.main(prog_name="edge", standalone_mode=True)
    except EdgeError as e:
        click.echo(f"edge: {e}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
