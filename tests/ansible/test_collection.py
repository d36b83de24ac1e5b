"""ansible/: what can be said of it without a host. tests/hosts deploys with it."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.ansible import readmes
from tests.ansible.readmes import COLLECTION, ROLES, ROOT

PLAYBOOKS = sorted((COLLECTION / "playbooks").glob("*.yml"))
PROGRAMS = Path(sys.executable).parent


def run(tmp_path, *command):
    environment = {**os.environ, "ANSIBLE_HOME": str(tmp_path), "ANSIBLE_LOCALHOST_WARNING": "no", "NO_COLOR": "1"}
    environment["ANSIBLE_PIPELINING"] = "true"
    environment["PATH"] = f"{PROGRAMS}:{environment['PATH']}"
    environment.pop("ANSIBLE_CONFIG", None)
    return subprocess.run(
        command,
        cwd=COLLECTION,
        env=environment,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )


def test_playbooks_are_those_that_are_promised():
    names = [path.stem for path in PLAYBOOKS]
    assert names == ["bench", "build", "certificates", "deploy", "reload", "rotate_tickets", "upgrade"]
    text = (COLLECTION / "README.md").read_text()
    for name in names:
        assert f"(playbooks/{name}.yml)" in text


def test_playbooks_are_in_order(tmp_path):
    done = run(tmp_path, "ansible-playbook", "--syntax-check", *PLAYBOOKS)
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout, done.stdout


def test_plays_find_the_roles_by_their_full_names_from_anywhere(tmp_path):
    (tmp_path / "p.yml").write_text("- hosts: all\n  gather_facts: false\n  roles: [edge.server.bench]\n")
    (tmp_path / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {COLLECTION}/playbooks/collections\n")
    done = subprocess.run(
        [PROGRAMS / "ansible-playbook", "--syntax-check", "-i", "a,", "p.yml"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_specs(role):
    said = {}
    for point in readmes.specs(role).values():
        for name, option in point["options"].items():
            assert option.get("required", False) is ("default" not in option), name
            if "default" in option:
                assert said.setdefault(name, option["default"]) == option["default"], name
    had = readmes.defaults(role)
    options = [option for point in readmes.specs(role).values() for option in point["options"].items()]
    needed = {name for name, option in options if option.get("required")}
    assert {name: value for name, value in had.items() if name not in needed} == said
    assert all(not had[name] for name in needed & set(had))  # there for other entry points: what is empty is refused


@pytest.mark.parametrize("role", ROLES)
def test_entry_points_are_files(role):
    for point in readmes.specs(role):
        assert (COLLECTION / "roles" / role / "tasks" / f"{point}.yml").exists()


@pytest.mark.parametrize("role", ROLES)
def test_every_variable_is_used(role):
    own = COLLECTION / "roles" / role
    text = "".join(p.read_text() for name in ("tasks", "templates", "handlers", "vars") for p in own.glob(f"{name}/*"))
    for point in readmes.specs(role).values():
        for name in point["options"]:
            assert name in text, name


@pytest.mark.parametrize("role", ROLES)
def test_readmes_have_the_variables_of_the_specs(role):
    readme = COLLECTION / "roles" / role / "README.md"
    assert readme.read_text() == readmes.filled(role), "python -m tests.ansible.readmes writes it"


def test_the_example_has_variables_that_there_are():
    known = {name for role in ROLES for point in readmes.specs(role).values() for name in point["options"]}
    files = list((COLLECTION / "inventory/example").rglob("group_vars/**/*.yml"))
    assert files
    for file in files:
        for name in yaml.safe_load(file.read_text()):
            assert name in known or name.startswith("vault_"), f"{file}: {name}"


def test_builders_of_the_example_build_what_its_hosts_need(tmp_path):
    """They are no hosts of edge, and have no variables of that group."""
    inventory = COLLECTION / "inventory/example"
    told = run(tmp_path, "ansible-inventory", "-i", inventory / "hosts.yml", "--host", "build12.example.net")
    assert json.loads(told.stdout)["edge_extras"] == ["fleet"], told.stdout


def test_what_is_secret_is_never_told():
    """Tasks that have a key or a secret in their hands say neither what they did it with nor what changed."""
    for name in ("secrets", "tickets", "certificates"):
        for task in yaml.safe_load((COLLECTION / f"roles/edge/tasks/{name}.yml").read_text()):
            body = str(task)
            if ".content" in body or ".key }" in body or "item.item" in body or "fileglob" in body:
                assert task.get("no_log") is True, task["name"]
                assert task.get("diff") is False, task["name"]


def tasks_in(tasks):
    for task in tasks:
        yield task
        for inner in ("block", "rescue", "always"):
            yield from tasks_in(task.get(inner, []))


def test_nobody_becomes_root_on_the_controller():
    """`become: false` would not say so: an inventory's ansible_become, which is meant for its hosts, goes before it."""
    delegated = [
        task
        for file in (COLLECTION / "roles").glob("*/tasks/*.yml")
        for task in tasks_in(yaml.safe_load(file.read_text()))
        if task.get("delegate_to") == "localhost"
    ]
    assert len(delegated) > 5
    for task in delegated:
        assert task["vars"]["ansible_become"] is False, task["name"]


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_ticket_key_is_made_and_written_encrypted(tmp_path, encrypted):
    """The task that makes it, run as it stands."""
    tasks = yaml.safe_load((COLLECTION / "roles/edge/tasks/rotate_tickets.yml").read_text())
    (task,) = [task for task in tasks if task["name"] == "Make a key"]
    variables = {
        "edge_ticket_keys": str(tmp_path),
        "edge_ticket_keys_encrypted": encrypted,
        "edge__tickets_by_redis": False,
        "ansible_python_interpreter": sys.executable,
    }
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "vars": variables, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    (tmp_path / "password").write_text("a password")
    password = ["--vault-password-file", tmp_path / "password"]
    done = run(tmp_path, "ansible-playbook", *password, tmp_path / "play.yml", "--diff", "-vvv")
    assert done.returncode == 0, done.stdout
    (key,) = tmp_path.glob("*.key")
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_bytes().startswith(b"$ANSIBLE_VAULT;1.1;AES256\n") is encrypted
    content = run(tmp_path, "ansible-vault", "view", *password, key).stdout if encrypted else key.read_text()
    assert len(content.strip()) == 96
    assert content.strip() not in done.stdout


def test_the_unit_is_where_the_documentation_says():
    assert "ansible/roles/edge/files/edge.service" in (ROOT / "docs/operations.md").read_text()


def task_of(file, name):
    tasks = yaml.safe_load((COLLECTION / "roles/edge/tasks" / file).read_text())
    return next(task for task in tasks if task["name"] == name)


def run_task(tmp_path, task, variables):
    """A task of the role as it stands, on this host."""
    of_role = yaml.safe_load((COLLECTION / "roles/edge/vars/main.yml").read_text())
    own = {"ansible_python_interpreter": sys.executable, "edge__of_playbooks": of_role["edge__of_playbooks"]}
    task = {**task, "vars": {**task.get("vars", {}), "role_path": str(COLLECTION / "roles/edge")}}
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{**play, "vars": {**own, **variables}}]))
    return run(tmp_path, "ansible-playbook", tmp_path / "play.yml")


def test_a_misspelt_variable_is_named(tmp_path):
    task = task_of("preflight.yml", "Refuse variables that there are not")
    known = {"edge_config": {}, "edge_health_requests": [], "edge_serial": 1, "edge_tickets_revoke": True}
    done = run_task(tmp_path, task, known)
    assert done.returncode == 0, done.stdout
    done = run_task(tmp_path, task, {**known, "edge_health_request": [], "my_own": 1})
    assert done.returncode != 0
    assert "misspelt: edge_health_request." in done.stdout and "my_own" not in done.stdout


def test_secrets_that_were_not_filled_in_are_named(tmp_path):
    task = task_of("main.yml", "Refuse secrets that are empty")
    full = {
        "edge_secrets": [{"name": "a", "content": "se-cret"}],
        "edge_certificates": [{"name": "b", "key": "se-cret"}],
    }
    assert run_task(tmp_path, task, full).returncode == 0
    empty = {
        "edge_secrets": [*full["edge_secrets"], {"name": "fleet.secret", "content": ""}],
        "edge_certificates": [{"name": "example.com", "key": ""}],
    }
    done = run_task(tmp_path, task, empty)
    assert done.returncode != 0 and "se-cret" not in done.stdout
    assert "There is nothing in fleet.secret, the key of example.com" in done.stdout


def test_what_is_false_by_option_is_false():
    """By -e NAME=false it is a string, and one that is not empty counts as true, or is refused as a condition."""
    options = [point["options"] for role in ROLES for point in readmes.specs(role).values()]
    names = {name for of_point in options for name, what in of_point.items() if what.get("type") == "bool"}
    names.add("host_tuning_enabled")
    uses = re.compile(rf"\b({'|'.join(names)})\b(?!( \| default\(\w+\))? \| bool\b)")
    folders = [*(COLLECTION / "roles").glob("*/tasks"), *(COLLECTION / "roles").glob("*/vars")]
    folders += [*(COLLECTION / "roles").glob("*/templates"), COLLECTION / "playbooks"]
    for file in (file for folder in folders for file in folder.glob("*.*")):
        for line in file.read_text().splitlines():
            if not line.lstrip().startswith("#"):
                assert not uses.search(line), f"{file}: {line}"


@pytest.mark.parametrize(
    "task, said",
    [
        ({"command": {"argv": ["sh", "-c", "echo wrong >&2; exit 1"]}}, "why: wrong ."),
        (
            {"command": {"argv": ["sh", "-c", "echo {{ item.url }}; test {{ item.url }} = c"]}, "loop": "{{ asked }}"},
            "why: a: a; b: b .",
        ),
        (
            {"command": {"argv": ["sh", "-c", "echo {{ item }}; false"]}, "loop": ["se-cret"], "no_log": True},
            "why: One or more items failed .",
        ),
    ],
)
def test_what_failed_is_told_of_each_item(tmp_path, task, said):
    """What a rescue says at the end of a play is what the task said."""
    of_role = yaml.safe_load((COLLECTION / "roles/edge/vars/main.yml").read_text())
    variables = {"edge__why": of_role["edge__why"], "asked": [{"url": "a"}, {"url": "b"}, {"url": "c"}]}
    block = {"block": [task], "rescue": [{"fail": {"msg": "why: {{ edge__why }} ."}}]}
    done = run_task(tmp_path, block, variables)
    assert done.returncode != 0 and said in done.stdout, done.stdout
    assert "se-cret" not in done.stdout
