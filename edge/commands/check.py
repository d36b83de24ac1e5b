"""`edge check`."""

import itertools
import sys
import time
from pathlib import Path
from typing import Final

import click

from edge import config, plane
from edge.admin import shown
from edge.certificates import inventory
from edge.commands import options, render
from edge.garbage import young_alone

_CHECK_SECRET: Final = bytes(32)
SHOWN_MOST: Final = 200
"""Certificates, and routes: nobody reads more, and to lay them out takes longer than to check them."""


@click.command(short_help="Say whether a configuration would serve.")
@options.required_config
@click.option("--as", "place", type=options.FILE, metavar="FILE", help="Where it is to stand, if not where it is.")
def check(file: Path, place: Path | None) -> None:
    """Say whether a configuration would serve: exit code 0, or 1 and what is wrong where.

    The files it names are read, keys are held against their certificates and host names are resolved. No address is
    bound and nothing is changed. Of many certificates and routes the first are shown.

    --as is for a file that is checked before it is put in place: relative paths start, and policies' modules stand,
    where it will be. `--config -` is standard input.
    """
    with young_alone():
        prepared = plane.prepare(config.parse(_text(file), str(place or file)), _CHECK_SECRET)
    for warning in plane.warnings(prepared):
        click.echo(f"warning: {warning}", err=True)
    settings = prepared.settings
    cache = settings.server.cache_dir
    identities = prepared.serving.identities[:SHOWN_MOST]
    entries = inventory.entries(identities, cache and cache / "ocsp")
    certificates = shown.certificates(settings.certificate[:SHOWN_MOST], entries)
    routes = itertools.islice(shown.routes(settings), SHOWN_MOST)
    out = render.console()
    out.print(f"{settings.file}: ok, for {settings.server.workers} workers", soft_wrap=True)
    for what in (
        render.listeners(shown.listeners(settings)),
        render.certificates(certificates, time.time()),
        *_more(len(settings.certificate), "certificates"),
        render.upstreams(shown.upstreams(settings)),
        render.routes(routes),
        *_more(len(settings.route), "routes"),
        *([render.hooks(shown.hooks(prepared))] if settings.server.hooks or prepared.route_policies else []),
        *([render.handoffs(shown.handoffs(settings))] if settings.handoff else []),
    ):
        out.print()
        out.print(what)


def _text(file: Path) -> str:
    """Of standard input as it was given: it may be a file that this user could not open."""
    return sys.stdin.read() if str(file) == "-" else config.read_text(file)


def _more(number: int, what: str) -> list[str]:
    return [f"and {number - SHOWN_MOST} {what} more"] if number > SHOWN_MOST else []
