"""The command `edge`; `python -m edge` is the same. The commands are in `edge.commands`."""

import sys

import click

from edge import __version__
from edge.commands import Commands
from edge.errors import EdgeError


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edge")
def cli() -> None:
    """A TLS edge server: TLS 1.3 and 1.2 by its own stack, HTTP/1.1 and HTTP/2 to pooled backends."""


def main() -> None:
    """The entry point: every fault that the operator can mend is one line on standard error, and an exit code."""
    try:
        cli.main(prog_name="edge", standalone_mode=True)
    except EdgeError as e:
        click.echo(f"edge: {e}", err=True)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
