"""The commands of `edge`, a module each, which is loaded when its command is."""

import importlib
from collections.abc import Mapping
from typing import Final

import click

COMMANDS: Final[Mapping[str, str]] = {
    "run": "edge.commands.run:run",
    "check": "edge.commands.check:check",
    "reload": "edge.commands.reload:reload",
    "status": "edge.commands.status:status",
    "show": "edge.commands.show:show",
    "upgrade": "edge.commands.upgrade:upgrade",
    "fleet": "edge.commands.fleet:fleet",
    "example": "edge.commands.example:example",
    "delegate": "edge.commands.delegate:delegate",
    "keyserver": "edge.keyserver:keyserver",
}
"""Where each one is, in the order of the help."""


class Commands(click.Group):
    """A group whose commands are those of a table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command
