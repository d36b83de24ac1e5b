"""`edge delegate`."""

import datetime
from pathlib import Path

import click

from edge.certificates import delegate as delegations
from edge.commands import options
from edge.commands.options import FILE, duration


@click.command(short_help="Make delegated credentials.")
@options.config
@click.option("--chain", type=FILE, metavar="FILE", help="Without --config: the certificate (PEM),")
@click.option("--key", type=FILE, metavar="FILE", help="its private key (PEM),")
@click.option("--credential", type=FILE, metavar="FILE", help="where the delegated credential goes,")
@click.option("--delegated-key", type=FILE, metavar="FILE", help="and where its key goes.")
@click.option("--lifetime", callback=duration("1m", "7d"), default="7d", show_default=True, help="At most 7d.")
@click.option("--every", callback=duration("1m", "7d"), help="Go on: make another one this often, such as 6d.")
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
