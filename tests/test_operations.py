"""docs/operations.md: what it has an operator type, write or look for exists."""

import configparser
import re
from pathlib import Path

import click
import pytest

from edge.commands import COMMANDS, Commands
from edge.config import parse

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/operations.md").read_text()
UNIT = ROOT / "ansible/roles/edge/files/edge.service"


def blocks(kind):
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)


def test_the_configuration_is_accepted(tmp_path):
    (text,) = blocks("toml")
    for directory in ("/run/edge", "/var/log/edge", "/var/lib/edge"):
        text = text.replace(directory, str(tmp_path))
    assert not parse(text, "docs/operations.md").warnings


def commands():
    typed = [line for block in blocks("sh") for line in block.splitlines()]
    typed += re.findall(r"`(edge [^`]*)`", PAGE)
    typed += re.findall(r"^Exec\w+=(\S+/edge .*)", UNIT.read_text(), re.MULTILINE)
    found = [re.sub(r"^\S*/bin/edge ", "edge ", line) for line in typed]
    return sorted({line for line in found if re.match(r"edge [a-z]", line)})


@pytest.mark.parametrize("line", commands())
def test_a_command_exists(line):
    name, *options = line.removeprefix("edge ").split()
    assert name in COMMANDS
    command = Commands().get_command(click.Context(click.Command("edge")), name)
    known = {option for parameter in command.params for option in parameter.opts}
    if isinstance(command, click.Group):
        return
    for option in options:
        assert not option.startswith("-") or option in known, line


def test_there_are_commands_to_check():
    assert {"edge upgrade --wait", "edge check --config /etc/edge/edge.toml"} <= set(commands())


def test_kernel_settings_have_these_names():
    (text,) = [block for block in blocks("ini") if "sysctl.d" in block]
    names = re.findall(r"^([\w.]+) = ", text, re.MULTILINE)
    assert len(names) == 6
    for name in names:
        file = Path("/proc/sys") / name.replace(".", "/")
        if file.parent.exists():
            assert file.exists(), name


def test_what_it_says_of_the_unit_stands_in_it():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(UNIT)
    service = unit["Service"]
    assert (service["Type"], service["KillMode"], service["User"]) == ("notify", "process", "edge")
    assert service["AmbientCapabilities"] == service["CapabilityBoundingSet"] == "CAP_NET_BIND_SERVICE"
    for name in ("NoNewPrivileges", "MemoryDenyWriteExecute", "PrivateDevices"):
        assert service[name] == "yes"
    assert service["ProtectSystem"] == "strict"


def test_what_it_has_one_look_for_is_said():
    """Messages of edge's own, in backquotes: each stands in the code."""
    code = "".join(path.read_text() for path in (ROOT / "edge").rglob("*.py"))
    for said in ("has shown no sign of life", "the master is gone: this worker drains", "a crash loop", "CRASH LOOP"):
        assert said in PAGE
        assert said in code
    assert "is ended early" in PAGE
    assert "is ended early" in code
