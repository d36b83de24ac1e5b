"""Hosts that have to be restarted or upgraded take turns, and none has its turn after one that has failed: the plays as
they stand, with other tasks for the hosts."""

import re
import sys

import pytest
import yaml

from tests.ansible.readmes import COLLECTION
from tests.ansible.test_collection import run


def plays_of(name):
    return yaml.safe_load((COLLECTION / f"playbooks/{name}.yml").read_text())


def tasks_of_a_turn(*, failing):
    """What each entry point does of it, around a change that one host's fails in."""
    before = yaml.safe_load((COLLECTION / "roles/edge/tasks/preflight.yml").read_text())[:2]
    assert before[1]["ansible.builtin.meta"] == "end_play"
    change = [
        {"name": "Begin", "ansible.builtin.set_fact": {"edge__turn": "begun"}},
        {"name": "Change", "ansible.builtin.fail": {"msg": "no"}, "when": f"inventory_hostname in {failing}"},
        {"name": "Go on", "ansible.builtin.debug": {"msg": "later than the fault"}},
    ]
    rescue = [{"name": "Put it back", "ansible.builtin.fail": {"msg": "put back"}}]
    end = {"name": "End", "ansible.builtin.set_fact": {"edge__turn": "ended"}}
    return [*before, {"block": change, "rescue": rescue}, end]


@pytest.fixture
def played(tmp_path):
    """What the plays say, with these tasks; of five hosts, of which the last cannot be reached."""
    hosts = {name: {} for name in "abcd"}
    hosts["e"] = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"vars": common, "children": {"edge": {"hosts": hosts}}}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(inventory))
    of_role = yaml.safe_load((COLLECTION / "roles/edge/vars/main.yml").read_text())
    variables = {"edge__failed_before": of_role["edge__failed_before"]}

    def play(plays, *options):
        for one in plays:
            one.update(become=False, vars=variables)
            one.pop("roles", None)
        (tmp_path / "plays.yml").write_text(yaml.safe_dump(plays))
        done = run(tmp_path, "ansible-playbook", "-i", tmp_path / "hosts.yml", tmp_path / "plays.yml", *options)
        return done.returncode, done.stdout

    return play


def changed_hosts(said, name):
    """Those that a task was run on, whatever came of it."""
    tasks = re.findall(rf"(?ms)^TASK \[{re.escape(name)}\].*?(?=^TASK|^PLAY|\Z)", said)
    return re.findall(r"(?m)^(?:ok|fatal|changed): \[(\w)\]", "".join(tasks))


def deploy(*, waiting, failing_first=(), failing=()):
    """`waiting`: in the order that they were ready in."""
    first, restart = plays_of("deploy")
    group = {"name": "Group", "ansible.builtin.add_host": {"name": "{{ item }}", "groups": "edge_to_restart"}}
    first["tasks"] = [
        {"name": "Reach it", "ansible.builtin.ping": {}},
        *tasks_of_a_turn(failing=list(failing_first)),
        {**group, "loop": list(waiting), "run_once": True},
    ]
    restart["tasks"] = tasks_of_a_turn(failing=list(failing))
    return [first, restart]


@pytest.mark.parametrize("waiting", ["acd", "dca"])
def test_a_restart_that_fails_leaves_those_after_it_alone(played, waiting):
    """After it in the inventory, whoever was ready first."""
    code, said = played(deploy(waiting=waiting, failing="a"))
    assert code != 0
    assert said.count("PLAY [Restart edge") == 1
    assert said.count("put back") == 2, said  # said by the play and by its task's source
    restarted = said.partition("PLAY [Restart edge")[2]
    assert changed_hosts(restarted, "Begin") == ["a"]
    assert changed_hosts(restarted, "Go on") == []


def test_others_of_the_same_turn_end_theirs(played):
    code, said = played(deploy(waiting="abcd", failing="a"), "-e", "edge_serial=2", "--limit", "!e")
    assert code != 0
    restarted = said.partition("PLAY [Restart edge")[2]
    assert sorted(changed_hosts(restarted, "Begin")) == ["a", "b"]
    assert changed_hosts(restarted, "End") == ["b"]
    assert "a failed: hosts that have not had their turn keep what they have." in restarted


def test_nobody_is_restarted_after_a_deployment_that_failed_somewhere(played):
    """One that is away is no fault of what is deployed."""
    code, said = played(deploy(waiting="ac", failing_first="b"))
    assert code != 0
    assert changed_hosts(said.partition("PLAY [Restart edge")[2], "Begin") == []
    code, said = played(deploy(waiting="ac"))
    assert code == 4  # for the host that is away
    assert changed_hosts(said.partition("PLAY [Restart edge")[2], "Begin") == ["a", "c"]


def test_where_nobody_has_to_be_restarted_nobody_is(played):
    _, said = played(deploy(waiting=""))
    assert "WARNING" not in said
    restarted = said.partition("PLAY [Restart edge")[2]
    assert "skipping: no hosts matched" in restarted and "TASK" not in restarted


def test_an_upgrade_that_fails_leaves_those_after_it_alone(played):
    stage, upgrade, say = plays_of("upgrade")
    stage["tasks"] = [{"name": "Reach it", "ansible.builtin.ping": {}}]
    group = {"name": "Group", "ansible.builtin.group_by": {"key": "edge_to_restart"}}
    upgrade["tasks"] = [{**group, "when": "inventory_hostname in ['a', 'b']"}, *tasks_of_a_turn(failing=["c"])]
    code, said = played([stage, upgrade, say])
    assert code != 0
    assert changed_hosts(said, "Begin") == ["a", "b", "c"]
    code, said = played([stage, upgrade, say], "--limit", "a,b,d")
    assert code == 0, said
    assert "not the one of this version: a, b." in " ".join(said.split())


def test_who_has_to_be_restarted(tmp_path):
    """Whose unit is another; or as it is to be, where a run was cut off before what runs was started by it."""
    (decide,) = [
        task
        for task in yaml.safe_load((COLLECTION / "roles/edge/tasks/unit_before.yml").read_text())
        if "ansible.builtin.set_fact" in task
    ]
    cases = {  # the unit, what overrides it, and both as a run that was cut off found them
        "as it is to be": (["u", "o", "", ""], False),
        "another unit": (["x", "o", "", ""], True),
        "overridden otherwise": (["u", "x", "", ""], True),
        "never overridden": (["u", "", "", ""], True),
        "cut off": (["u", "o", "u", "x"], True),
        "cut off elsewhere": (["u", "o", "u", "o"], False),
    }
    tasks = []
    for number, (name, (found, _)) in enumerate(cases.items()):
        stats = [{"stat": {"exists": True, "checksum": digest} if digest else {"exists": False}} for digest in found]
        for running in (True, False):
            variables = {**decide["vars"], "edge__units": {"results": stats}, "edge__running": running}
            tasks.append({**decide, "vars": variables})
            say = f"{number} {running} {{{{ edge__to_restart }}}}."
            tasks.append({"name": name, "ansible.builtin.debug": {"msg": say}})
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
    play["vars"] = {"edge__unit_digests": ["u", "o"]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    done = run(tmp_path, "ansible-playbook", tmp_path / "play.yml")
    assert done.returncode == 0, done.stdout
    said = re.findall(r"(\d) (True|False) (True|False)\.", done.stdout)
    assert len(said) == 2 * len(cases)
    for (name, (_, restarted)), when_running, when_not in zip(cases.items(), said[::2], said[1::2], strict=True):
        assert when_running[2] == str(restarted), name
        assert when_not[2] == "False", name
