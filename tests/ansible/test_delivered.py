"""What the role has put into /etc/edge goes when the inventory no longer lists it, and nothing else does: its tasks as
they stand, on a directory here. Few runs of Ansible, for each costs seconds: one may have several plays."""

import sys

import pytest
import yaml

from tests.ansible.readmes import COLLECTION, defaults
from tests.ansible.test_collection import run

ROLE = COLLECTION / "roles/edge"
PARTS = ["unit", "files", "secrets", "tickets", "certificates", "configuration"]


class Host:
    def __init__(self, tmp_path):
        self.tmp_path = tmp_path
        self.etc = tmp_path / "etc"
        for name in ("secrets", "certificates/.pairs", "tickets"):
            (self.etc / name).mkdir(parents=True)
        self.program = tmp_path / "edge"
        self.program.write_text('#!/bin/sh\n[ -z "$NEEDED" ] || [ -e "$NEEDED" ]\n')
        self.program.chmod(0o755)

    def tasks(self, name):
        """For this directory and whoever runs the tests."""
        tasks = yaml.safe_load((ROLE / f"tasks/{name}.yml").read_text().replace("/etc/edge", str(self.etc)))
        for task in tasks:
            copy = task.get("ansible.builtin.copy", {})
            copy.pop("owner", None), copy.pop("group", None), task.pop("notify", None)
        return tasks

    def play(self, tasks, parts=PARTS, needed="", check=False, **variables):
        own = {"edge__program": str(self.program), "edge__as_master": [], "edge__parts": list(parts)}
        own |= {"ansible_python_interpreter": sys.executable, "role_path": str(ROLE)}
        of_role = yaml.safe_load((ROLE / "vars/main.yml").read_text())
        return {
            "hosts": "localhost",
            "connection": "local",
            "gather_facts": False,
            "check_mode": check,
            "environment": {"NEEDED": needed},
            "vars": defaults("edge") | of_role | own | variables,
            "tasks": tasks,
        }

    def run(self, *plays):
        (self.tmp_path / "plays.yml").write_text(yaml.safe_dump(list(plays)))
        return run(self.tmp_path, "ansible-playbook", self.tmp_path / "plays.yml", "--diff")

    def put(self, *names):
        for name in names:
            (self.etc / name).parent.mkdir(parents=True, exist_ok=True)
            (self.etc / name).write_text("se-cret")

    def there(self):
        """What is no directory."""
        return {str(path.relative_to(self.etc)) for path in self.etc.rglob("*") if path.is_file() or path.is_symlink()}

    @property
    def delivered(self):
        return (self.etc / ".delivered").read_text().splitlines()


@pytest.fixture
def host(tmp_path):
    """With what was delivered, and with what was not."""
    host = Host(tmp_path)
    host.put("secrets/a", "secrets/b c", "secrets/by-hand", "authorities/deep/own.pem", "certificates/certbot/key.pem")
    host.put("certificates/.pairs/old.test/0123/key.pem")
    (host.etc / "certificates/old.test").symlink_to(host.etc / "certificates/.pairs/old.test/0123")
    lines = ["certificates certificates/.pairs/old.test", "certificates certificates/old.test"]
    lines += ["files authorities/deep/own.pem", "secrets secrets/a", "secrets secrets/b c"]
    (host.etc / ".delivered").write_text("\n".join(lines) + "\n")
    return host


SECRETS = [{"name": "a", "content": "x"}]


def test_what_is_no_longer_listed_goes_and_nothing_else(host):
    forget = host.tasks("forget")
    kept = {"name": "Keep", "ansible.builtin.command": {"argv": ["cp", "-a", str(host.etc), f"{host.etc}.checked"]}}
    listed = {"edge_secrets": SECRETS}
    before = host.there()
    done = host.run(
        host.play(forget, check=True, **listed), host.play([kept]), host.play(forget, needed="/dev/null", **listed)
    )
    assert done.returncode == 0, done.stdout
    checked = {name for name in before if (host.tmp_path / "etc.checked" / name).is_symlink()}
    checked |= {name for name in before if (host.tmp_path / "etc.checked" / name).is_file()}
    assert checked == before
    assert before - host.there() == {
        "secrets/b c",
        "authorities/deep/own.pem",
        "certificates/old.test",
        "certificates/.pairs/old.test/0123/key.pem",
    }
    assert not (host.etc / "authorities").exists()
    assert not (host.etc / "certificates/.pairs/old.test").exists()
    assert (host.etc / "certificates/.pairs").is_dir()
    assert host.delivered == ["secrets secrets/a"]
    for name in ("secrets/b c", "authorities/deep/own.pem", "certificates/old.test", "certificates/.pairs/old.test"):
        assert done.stdout.count(f'"path": "{host.etc}/{name}"') == 2, name  # shown by the check, too
    assert "se-cret" not in done.stdout


def test_what_another_part_delivers_stays(host):
    """Whether that part has its turn or not; and what the configuration still needs is a fault."""
    forget = host.tasks("forget")
    moved = [{"path": "secrets/a", "content": "x"}]
    before = host.there()
    done = host.run(
        host.play(forget, parts=["files", "configuration"], edge_secrets=SECRETS),
        host.play(forget, parts=["secrets"], edge_files=moved),
        host.play(forget, edge_files=moved, needed=str(host.etc / "certificates/old.test")),
    )
    assert before - host.there() >= {"secrets/b c", "authorities/deep/own.pem"}
    assert "secrets/a" in host.there()
    assert done.stdout.count("fatal:") == 1 and done.stdout.count("PLAY [") == 3, done.stdout
    assert "See that edge could start without it" in done.stdout.partition("fatal:")[0].rpartition("TASK")[2]
    assert "certificates certificates/old.test" in host.delivered  # for the transaction puts it back


def test_it_is_noted_before_it_is_put_in_place(host, tmp_path):
    """A run may be cut off. Policies are called as `copy` calls them."""
    policies = tmp_path / "policies"
    for name in ("hooks.py", "package/__init__.py", "package/deep/more.py", "loose/one.py", "loose/deep/two.py"):
        (policies / name).parent.mkdir(parents=True, exist_ok=True)
        (policies / name).write_text("")
    (policies / "package/linked.py").symlink_to("../hooks.py")
    before, noted = host.there(), set(host.delivered)
    listed = {"edge_policies": [f"{policies}/hooks.py", f"{policies}/package", f"{policies}/loose/"]}
    listed["edge_secrets"] = [*SECRETS, {"name": "new", "content": "x"}]
    (copy,) = [task for task in host.tasks("files") if task["name"] == "Put the policies' modules in place"]
    done = host.run(host.play([*host.tasks("note"), copy], **listed))
    assert done.returncode == 0, done.stdout
    copied = host.there() - before
    assert len(copied) == 6
    assert set(host.delivered) - noted == {f"files {name}" for name in copied} | {"secrets secrets/new"}
    assert set(host.delivered) >= noted
    assert (host.etc / ".delivered").stat().st_mode & 0o777 == 0o600


def test_names_that_would_take_more_with_them_are_refused(host):
    """When they are gone from the inventory: all of a directory, or what is not below /etc/edge."""
    [refuse] = [task for task in host.tasks("preflight") if "lead elsewhere" in task["name"]]
    wrong = {
        "edge_secrets": ["", "..", "a/b"],
        "edge_certificates": ["", ".pairs"],
        "edge_files": ["", "a/", "../a", "/a", "a/../../b", "edge.toml", ".delivered"],
    }
    key = {"edge_files": "path"}
    plays = [
        host.play([refuse], **{variable: [{key.get(variable, "name"): name, "content": "x"}]})
        | {"ignore_errors": True}
        for variable, names in wrong.items()
        for name in names
    ]
    right = host.play([refuse], edge_secrets=SECRETS, edge_files=[{"path": "a/.b", "content": "x"}])
    done = host.run(*plays, right)
    assert done.stdout.count("...ignoring") == len(plays), done.stdout
    assert done.returncode == 0, done.stdout
