"""What the documents promise: the configuration is accepted, and every command, file and link in them exists."""

import os
import pwd
import re
import subprocess
from pathlib import Path

import pytest

from edge.config import parse

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_configuration_is_accepted(tmp_path):
    text = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL).group(1)
    assert len(text.splitlines()) <= 36
    # What a machine has to have before the file is right for it: the user, and the log's directory.
    here = text.replace('user = "edge"', f'user = "{pwd.getpwuid(os.getuid()).pw_name}"')
    settings = parse(here.replace("/var/log/edge", str(tmp_path)), "README.md")
    assert not settings.warnings
    assert {route.upstream for route in settings.route} == {"app", "uploads"}


RECIPES_PAGE = (ROOT / "docs/recipes.md").read_text()
RECIPES = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```toml\n(.*?)```", RECIPES_PAGE, re.DOTALL | re.MULTILINE)
CERTIFICATE = '[[certificate]]\nchain = "a.pem"\nkey = "a.key"\n'
LISTENER = '[[listener]]\nbind = ["127.0.0.1:8443"]\n'


@pytest.mark.parametrize("recipe", [text for _, text in RECIPES], ids=[title for title, _ in RECIPES])
def test_a_recipe_is_accepted(recipe):
    listener = "" if "[[listener]]" in recipe else LISTENER
    assert not parse(recipe + listener + CERTIFICATE, "docs/recipes.md").warnings


def test_every_recipe_is_tried():
    assert len(RECIPES) == RECIPES_PAGE.count("\n## ")


def test_dev_knows_the_commands():
    text = "".join(path.read_text() for path in DOCUMENTS)
    shown = subprocess.run([ROOT / "dev", "help"], check=True, capture_output=True, text=True, cwd="/").stdout
    commands = set(re.findall(r"\./dev (\w+)", text))
    assert commands >= {"run", "test"}
    assert commands <= set(re.findall(r"^\./dev (\w+)", shown, re.MULTILINE))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#\s]+)", document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def test_the_map_names_files_that_exist():
    way = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"^\| \d+ \| `([\w/]+)`", way, re.MULTILINE)
    assert len(named) == 18
    for name in named:
        assert (ROOT / "cext" / f"{name}.pyx").exists(), name
