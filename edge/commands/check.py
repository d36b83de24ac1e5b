"""`edge check`."""

import time
from pathlib import Path
from typing import Final

import click

from edge import config, plane
from edge.admin import shown
from edge.certificates import inventory
from edge.commands import options, render

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
    settings = prepared.settings
    cache = settings.server.cache_dir
    entries = inventory.entries(prepared.serving.identities, cache and cache / "ocsp")
    out = render.console()
    out.print(f"{settings.file}: ok, for {settings.server.workers} workers", soft_wrap=True)
    for what in (
        render.listeners(shown.listeners(settings)),
        render.certificates(shown.certificates(settings, entries), time.time()),
        render.upstreams(shown.upstreams(settings)),
        render.routes(shown.routes(settings)),
        *([render.hooks(shown.hooks(prepared))] if settings.server.hooks or prepared.route_policies else []),
        *([render.handoffs(shown.handoffs(settings))] if settings.handoff else []),
    ):
        out.print()
        out.print(what)
