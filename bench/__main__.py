"""`python -m bench`: every measurement of the project."""

import click

from bench.compare import compare
from bench.load_command import load


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Measure edge: compare it with other proxies, load it, profile it, run the micro-benchmarks."""


main.add_command(compare)
main.add_command(load)

if __name__ == "__main__":
    main(prog_name="python -m bench")
