"""`edge example`."""

import click

from edge import demo
from edge import example as examples
from edge.application import Application


@click.command(short_help="Serve one of the examples in docs/examples.")
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
