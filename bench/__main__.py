"""`python -m bench`: every measurement of the project."""

import click

from bench.compare import compare
from bench.early_command import early
from bench.generators_command import generators
from bench.hooks_command import hooks
from bench.load_command import load
from bench.peers import ROOT
from bench.profile_command import profile
from bench.scale_command import scale
from bench.traces_command import traces
from bench.tuning_command import tuning
from bench.waiting_command import waiting


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Measure edge: compare it with other proxies, load it, profile it, run the micro-benchmarks."""


main.add_command(compare)
main.add_command(load)
main.add_command(generators)
main.add_command(profile)
main.add_command(waiting)
main.add_command(hooks)
main.add_command(traces)
main.add_command(tuning)
main.add_command(scale)
main.add_command(early)


@main.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def micro(arguments: tuple[str, ...]) -> None:
    """Run the micro-benchmarks of bench/micro (pytest-benchmark; ARGUMENTS are pytest's).

    \b
    Examples:
      python -m bench micro
      python -m bench micro -k seal --benchmark-autosave
      python -m bench micro --benchmark-compare
    """
    import pytest

    columns = "--benchmark-columns=min,median,iqr,ops,rounds"
    group = "--benchmark-group-by=func"
    raise SystemExit(pytest.main([str(ROOT / "bench" / "micro"), "-q", columns, group, *arguments]))


if __name__ == "__main__":
    main(prog_name="python -m bench")
