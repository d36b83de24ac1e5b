"""`edge show`."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.console import RenderableType

from edge import toml
from edge.admin import told
from edge.commands import options, render
from edge.commands.client import Admin, Line

WORKERS_SECONDS: Final = 600.0
"""For what may be long."""

Items = list[Line]
Renderer = Callable[[Items, Line, float], RenderableType]
"""The items, the last line and the time -> what is shown."""


def _config(items: Items, _last: Line, _now: float) -> RenderableType:
    document: dict[str, Any] = {}
    for item in items:
        if item["array"]:
            document.setdefault(item["table"], []).append(item["values"])
        else:
            document[item["table"]] = item["values"]
    return "\n".join(toml.lines(document)).rstrip()


KINDS: Final[Mapping[str, tuple[Renderer, str]]] = {
    "config": (_config, "The configuration that holds, with all defaults, in TOML."),
    "listeners": (lambda items, _, __: render.listeners(items), "Where clients connect."),
    "routes": (lambda items, _, __: render.routes(items), "Which requests go where."),
    "certs": (lambda items, _, now: render.certificates(items, now), "Certificates, until when, and where keys are."),
    "tickets": (render.tickets, "The keys of session tickets: their ages and states."),
    "handoffs": (lambda items, _, __: render.handoffs(items), "Which connections other processes get."),
    "hooks": (lambda items, _, __: render.hooks(items), "Policies, and what they are asked."),
}


@click.group(short_help="Show what the running edge has: routes, certificates, connections, …")
def show() -> None:
    """Show what the running edge has.

    It is reached through its admin socket: see [server] admin. With --json, each thing is an object on a line of its
    own (docs/admin.md).

    \b
    exit code 0  it was shown
    exit code 1  the running edge refuses
    exit code 3  nobody was reached
    exit code 4  no answer in time
    """


def _command(what: str, renderer: Renderer, help_text: str) -> click.Command:
    @click.command(what, help=help_text)
    @options.admin
    @click.option("--json", "as_json", is_flag=True, help="JSON: an object on a line for each.")
    def command(*, file: Path | None, path: Path | None, as_json: bool) -> None:
        with Admin(options.admin_path(path, file)) as admin:
            *items, last = admin.ask("show", what=what)
        if as_json:
            for item in items:
                click.echo(json.dumps(item))
            return
        shown = renderer(items, last, time.time())
        # What can be read again is not wrapped: a line's end within a string would be a fault.
        render.console().print(shown, soft_wrap=isinstance(shown, str))

    return command


for _what, (_renderer, _help) in KINDS.items():
    show.add_command(_command(_what, _renderer, _help))


@show.command()
@options.admin
@click.option("--json", "as_json", is_flag=True, help="JSON: an object on a line for each.")
def upstreams(*, file: Path | None, path: Path | None, as_json: bool) -> None:
    """Upstreams and their servers: requests, connections, failures, and who is avoided after a failure."""
    with Admin(options.admin_path(path, file)) as admin:
        *items, _ = admin.ask("show", what="upstreams")
        pools = list(FromWorkers(admin.ask("show", what="pools")))
    if not as_json:
        render.console().print(render.running_upstreams(items, pools))
        return
    for item in items:
        of_item = [pool for pool in pools if pool["upstream"] == item["name"]]
        click.echo(json.dumps(item | {"pools": of_item}))


@show.command()
@options.admin
@click.option("--client", metavar="ADDRESS", help="Of this address or network alone: 192.0.2.7, 2001:db8::/32.")
@click.option("--state", type=click.Choice(told.STATES), help="In this state alone.")
@click.option("--sni", metavar="NAME", help="For this server name alone; *.example.com is every name below it.")
@click.option("--limit", type=click.IntRange(1, 10_000_000), default=100, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="JSON: an object on a line for each.")
def connections(
    *,
    file: Path | None,
    path: Path | None,
    client: str | None,
    state: str | None,
    sni: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """Clients' connections, and the requests that are under way on them.

    Of a path what stands before the query; bytes as the kernel counts them, TLS included.
    """
    try:
        told.filters({"client": client})
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="'--client'") from None
    with Admin(options.admin_path(path, file)) as admin:
        lines = admin.ask(
            "show", WORKERS_SECONDS, what="connections", client=client, state=state, server_name=sni, limit=limit
        )
        found = FromWorkers(lines)
        if as_json:
            for item in found:
                click.echo(json.dumps(item))
            return
        items = list(found)
        render.console().print(render.connections(items, found.last["more"]))


class FromWorkers:
    """The items that workers tell of, as they come; each with the `slot` and the `pid` of its worker. That one does not
    tell is said on standard error."""

    def __init__(self, lines: Iterator[Line]) -> None:
        self._lines = lines
        self.last: Line = {}

    def __iter__(self) -> Iterator[Line]:
        for line in self._lines:
            if "ok" in line:
                self.last = line
            elif "error" in line:
                click.echo(f"edge: worker {line['slot']} (process {line['pid']}): {line['error']}", err=True)
            else:
                worker = {"slot": line["slot"], "pid": line["pid"]}
                yield from (worker | json.loads(item) for item in line["said"].splitlines())
