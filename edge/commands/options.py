"""Options that several commands have, and how an admin socket is found by them."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from edge.admin.settings import DEFAULT_PATH, Admin
from edge.config import read_text
from edge.errors import ConfigError
from edge.schema import Duration, Place, Section

ENVIRONMENT: Final = "EDGE_ADMIN"

FILE: Final = click.Path(path_type=Path, dir_okay=False)

config = click.option("--config", "-c", "file", type=FILE, metavar="FILE", help="The configuration (TOML).")
required_config = click.option(
    "--config", "-c", "file", type=FILE, metavar="FILE", required=True, help="The configuration (TOML)."
)


def admin(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options by which the admin socket is found: see `admin_path`."""
    by_file = click.option(
        "--config", "-c", "file", type=FILE, metavar="FILE", help="The configuration, whose [server] admin it is."
    )
    by_path = click.option(
        "--admin", "path", type=FILE, metavar="PATH", help=f"The admin socket; or by ${ENVIRONMENT}."
    )
    return by_file(by_path(command))


def duration(low: str, high: str) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """For `callback`: a duration as a configuration has it, in milliseconds."""

    def read(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
        try:
            return None if value is None else Duration(low, high).read(value, Place(""))
        except ConfigError as e:
            raise click.BadParameter(f"{e.problem}; {e.remedy}") from None

    return read


def waiting(default: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options --wait and --timeout, the latter as `ms`, of what takes its time to be decided."""
    wait = click.option("--wait", is_flag=True, help="Until it is decided, and say how.")
    timeout = click.option(
        "--timeout",
        "ms",
        metavar="DURATION",
        callback=duration("1s", "1h"),
        default=default,
        show_default=True,
        help="How long to wait for that.",
    )
    return lambda command: wait(timeout(command))


def admin_path(path: Path | None, file: Path | None) -> Path:
    """Where the admin socket is: what the command line says, then the environment, then the usual place."""
    if path is not None:
        return Path(str(path).removeprefix("unix:"))
    if file is not None:
        found = admin_of(file)
        if found is None:
            raise ConfigError(
                str(file),
                "server.admin",
                "is missing",
                f'add admin = "unix:{DEFAULT_PATH}" under [server], and restart or reload (SIGHUP to the master)',
            )
        return found
    if said := os.environ.get(ENVIRONMENT):
        return Path(said.removeprefix("unix:"))
    if DEFAULT_PATH.exists():
        return DEFAULT_PATH
    raise click.UsageError(
        f"which edge? Give --config FILE or --admin PATH, or set ${ENVIRONMENT}; {DEFAULT_PATH} is not there"
    )


def admin_of(file: Path) -> Path | None:
    """[server] admin of a file that need not be in order otherwise. Raises ConfigError."""
    top = Place(str(file))
    try:
        server = tomllib.loads(read_text(file)).get("server", {})
    except tomllib.TOMLDecodeError as e:
        raise top.error(f"is no TOML: {e}", "correct the file there, or name the socket by --admin") from None
    if not isinstance(server, dict) or "admin" not in server:
        return None
    return Section(Admin, short="path").read(server["admin"], top.key("server").key("admin")).path
