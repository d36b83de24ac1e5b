"""`edge check`."""

from pathlib import Path
from typing import Final

import click

from edge import config, inventory, plane
from edge.commands import options
from edge.settings import Match, Settings, Upstream

_CHECK_SECRET: Final = bytes(32)


@click.command(short_help="Say whether a configuration would serve.")
@options.required_config
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
