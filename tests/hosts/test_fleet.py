"""A fleet's life, by the playbooks, on hosts with a real systemd. Each test leaves it as it was, and can run alone."""

import copy
import re
import time
from itertools import pairwise, product

import pytest

from tests.e2e.processes import run, wait_until
from tests.hosts.fleet import NAME, SERVING, WHEELHOUSE, delivered, h2load, h2load_requests, pair, wrk, wrk_requests
from tests.hosts.versions import other_version

pytestmark = pytest.mark.machines

KEY = "PRIVATE KEY"


@pytest.fixture
def config(fleet):
    """The fleet's configuration, to be changed."""
    return copy.deepcopy(fleet.variables["edge_config"])


def workers(fleet, host: str) -> list[str]:
    return sorted(fleet.hosts.ssh(host, "pgrep --full '^edge: worker'").stdout.split())


def file_of(fleet, host: str) -> str:
    return fleet.hosts.ssh(host, "sha256sum /etc/edge/edge.toml").stdout


def release_of(fleet, host: str) -> tuple[int, str]:
    return fleet.main_pid(host), fleet.hosts.ssh(host, "readlink /opt/edge/current").stdout


# Deployment.


def test_wheels_are_built_once(fleet, wheels):
    assert fleet.play("build").fine().total_changed() == 0


def test_it_deploys_from_nothing(fleet, deployed):
    assert all(deployed.played.changed[host] > 10 for host in SERVING)
    for host in SERVING:
        said = fleet.hosts.ssh(host, "systemctl is-active edge; systemctl is-enabled edge; systemctl is-system-running")
        assert said.stdout.split() == ["active", "enabled", "running"]
        assert fleet.serves(host)
        compiler = fleet.hosts.ssh(host, "command -v gcc cc pip3")
        assert compiler.stdout == ""
    assert KEY not in deployed.played.output + deployed.checked.output


def test_a_check_foretells_the_first_run(fleet, deployed):
    assert all(deployed.checked.changed[host] > 5 for host in SERVING)


def test_a_second_run_changes_nothing(fleet, deployed):
    before = {host: (file_of(fleet, host), workers(fleet, host)) for host in SERVING}
    played = fleet.play("deploy").fine()
    assert played.total_changed() == 0, re.findall(r"(?m)^changed: .*", played.output)
    checked = fleet.play("deploy", "--check", "--diff").fine()
    assert checked.total_changed() == 0, checked.output[-4000:]
    assert {host: (file_of(fleet, host), workers(fleet, host)) for host in SERVING} == before
    fleet.progress.note("second run", "0 changes, with --check, too", played.seconds)


@pytest.mark.parametrize(
    "options",
    [("--http1.1",), ("--http2",), ("--tlsv1.3",), ("--tls-max", "1.2")],
    ids=" ".join,
)
def test_curl(fleet, deployed, options):
    for host in SERVING:
        done = fleet.curl(host, "/1k", *options)
        assert (done.returncode, done.stdout) == (0, "k" * 1024), (host, done.stdout)
    assert fleet.curl("a", "/who").stdout.strip().endswith("https")


def test_h2load_and_wrk(fleet, deployed):
    begin = time.monotonic()
    total = 0
    for host in SERVING:
        address = fleet.hosts.hosts[host].address
        total += h2load_requests(fleet.hosts.command(*h2load(address, 2000), seconds=120).stdout)
        total += wrk_requests(fleet.hosts.command(*wrk(address), seconds=120).stdout)
    fleet.progress.note("h2load and wrk", f"0 of {total:,} requests failed", time.monotonic() - begin)


def test_the_bench_playbook_loads_all_hosts(fleet, deployed, tmp_path):
    fleet.hosts.group(edge_bench=["build12"])
    results = tmp_path / "results.md"
    options = {"bench_url": f"https://{NAME}/1k", "bench_seconds": 1, "bench_results": str(results)}
    options["edge_address"] = "{{ host_address }}"  # by name they are reached through ssh alone
    played = fleet.play("bench", **options).fine()
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in results.read_text().splitlines()[2:]]
    assert {(row[0], row[1]) for row in rows} == set(product(SERVING, ("handshake", "resume", "h1", "h2")))
    assert all(int(row[2]) > 0 and row[5] == "0" for row in rows), rows
    fleet.progress.note("bench", f"{len(rows)} loads, 0 errors", played.seconds)


# Reload.


def test_a_reload_takes_a_changed_configuration_over(fleet, deployed, config):
    config["route"].append({"match": {"path": "/who"}, "upstream": "echo"})  # which asks for an upgrade: 426
    config["server"]["admin"] = "unix:/run/edge/other.sock"  # by which it is not reached before
    before = {host: (fleet.main_pid(host), workers(fleet, host)) for host in SERVING}
    checked = fleet.play("reload", "--check", "--diff", edge_config=config).fine()
    assert re.search(r'(?m)^\+.*"/who"', checked.output), checked.output[-4000:]
    assert "/who" not in fleet.hosts.ssh("a", "cat /etc/edge/edge.toml").stdout
    with fleet.crowd() as crowd:
        played = fleet.play("reload", edge_config=config).fine()
    assert all(played.changed[host] for host in SERVING)
    for host in SERVING:
        assert "426" in fleet.curl(host, "/who").stdout
    assert fleet.play("reload", edge_config=config).fine().total_changed() == 0
    fleet.play("reload").fine()
    assert fleet.curl("a", "/who").stdout.strip().endswith("https")
    assert {host: (fleet.main_pid(host), workers(fleet, host)) for host in SERVING} == before
    fleet.progress.note("reload", f"no process replaced; {crowd.expect_no_failure()}", played.seconds)


FAULTS = {
    "a key that there is not": (lambda c: c["server"].update(wrokers=2), r"server\.wrokers: unknown key"),
    "an upstream that there is not": (lambda c: c["route"][0].update(upstream="ap"), r'no upstream \\?"ap\\?"'),
    "an address that is taken": (lambda c: c["listener"].append({"bind": ["0.0.0.0:22"]}), r":22.*(in use|listens)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_reload_refuses_a_bad_configuration(fleet, deployed, config, fault):
    change, reason = FAULTS[fault]
    change(config)
    before = {host: (file_of(fleet, host), fleet.main_pid(host), workers(fleet, host)) for host in SERVING}
    with fleet.crowd() as crowd:
        played = fleet.play("reload", edge_config=config)
    assert played.code != 0
    assert all(played.failed[host] for host in SERVING)
    assert re.search(reason, played.output), played.output[-4000:]
    for host in SERVING:
        assert (file_of(fleet, host), fleet.main_pid(host), workers(fleet, host)) == before[host]
        assert fleet.serves(host)
    assert fleet.play("reload").fine().total_changed() == 0
    what = crowd.expect_no_failure()
    fleet.progress.note(f"reload with {fault}", f"refused, the old one serves; {what}", played.seconds)


# Restarts, and what is dropped from the inventory.


def times_away(fleet) -> list[tuple[int, int]]:
    """When each host's service ended last and when it served again, us; the machines have one clock."""
    properties = ["ActiveExitTimestampMonotonic", "ActiveEnterTimestampMonotonic"]
    ask = "systemctl show " + " ".join(f"--property={name}" for name in properties) + " edge"
    told = [fleet.hosts.ssh(host, ask).stdout for host in SERVING]
    return [tuple(int(re.search(rf"{name}=(\d+)", text)[1]) for name in properties) for text in told]


# A unit by which the process can be known.
MARKED = {"edge_service_overrides": {"Service": {"OOMScoreAdjust": 7}}, "edge_upgrade_watch": 2}


def marked(fleet, host: str) -> bool:
    return fleet.hosts.ssh(host, f"cat /proc/{fleet.main_pid(host)}/oom_score_adj").stdout == "7\n"


def test_a_restart_that_fails_is_taken_back_at_the_first_host(fleet, deployed):
    """A unit with which nothing starts. The others were not touched, and serve throughout."""
    unit = "cat /etc/systemd/system/edge.service.d/50-ansible.conf"
    before = {host: (workers(fleet, host), fleet.hosts.ssh(host, unit).stdout) for host in SERVING}
    first, *others = SERVING
    with fleet.crowd(*others) as crowd:
        played = fleet.play("deploy", edge_service_overrides={"Service": {"ExecStartPre": "/bin/false"}})
        crowd.wait(300)
    assert played.code != 0
    assert [host for host in SERVING if played.failed.get(host)] == [first]
    assert [host for host in SERVING if played.changed.get(host)] == [first]
    assert "The files of before are in place again, and edge serves with them: Restart edge" in played.output
    after = {host: (workers(fleet, host), fleet.hosts.ssh(host, unit).stdout) for host in SERVING}
    assert {host: after[host] for host in others} == {host: before[host] for host in others}
    assert after[first][1] == before[first][1]
    assert fleet.serves(first)
    assert fleet.play("deploy").fine().total_changed() == 0
    what = f"taken back at the first host; {crowd.expect_no_failure()}"
    fleet.progress.note("a unit that does not start", what, played.seconds)


def test_a_restart_after_which_a_host_is_not_healthy_is_taken_back(fleet, deployed):
    """It starts, and what is asked of it is not answered: the process has the unit of before again."""
    asked = [{**fleet.variables["edge_health_requests"][0], "url": f"https://{NAME}/nothing"}]
    played = fleet.play("deploy", edge_health_requests=asked, edge_health_seconds=3, **MARKED)
    assert played.code != 0
    assert [host for host in SERVING if played.failed.get(host)] == ["a"]
    assert not marked(fleet, "a")
    assert fleet.serves("a")


@pytest.fixture
def more(fleet, config, tmp_path):
    """What the fleet has otherwise, and more: a unit, a certificate, a secret, a file and policies."""
    other = fleet.authority.issue("dropped", "p256", "dropped.test")
    config["certificate"].append(pair("dropped.test"))
    (tmp_path / "policies/package").mkdir(parents=True)
    (tmp_path / "policies/package/__init__.py").write_text("")
    return {
        "edge_config": config,
        "edge_certificates": [*fleet.variables["edge_certificates"], delivered("dropped.test", other)],
        "edge_secrets": [{"name": "dropped.secret", "content": "not to be told"}],
        "edge_files": [*fleet.variables["edge_files"], {"path": "dropped/file.txt", "content": "x"}],
        "edge_policies": [str(tmp_path / "policies/package")],
        **MARKED,
    }


DROPPED = "certificates/dropped.test certificates/.pairs/dropped.test secrets/dropped.secret dropped package"
LIST = f"cd /etc/edge && ls -d {DROPPED} secrets/by-hand 2>/dev/null"


def test_hosts_are_restarted_in_turn_and_what_is_dropped_goes(fleet, deployed, more):
    begin = time.monotonic()
    fleet.play("deploy", **more).fine()
    for host in SERVING:
        assert marked(fleet, host)
        assert set(fleet.hosts.ssh(host, LIST).stdout.split()) == set(DROPPED.split())
        assert fleet.hosts.ssh(host, "touch /etc/edge/secrets/by-hand").returncode == 0
    away = sorted(times_away(fleet))
    assert all(back < next_away for (_, back), (next_away, _) in pairwise(away)), away
    # Dropped, but still needed: all is as it was.
    without = {"edge_certificates": fleet.variables["edge_certificates"]}
    refused = fleet.play("deploy", "--limit", "a", **more | without)
    assert refused.code != 0
    assert re.search(r"See that edge could start without it: .*dropped\.test", refused.output), refused.output[-3000:]
    assert "certificates/dropped.test" in fleet.hosts.ssh("a", LIST).stdout.split()
    played = fleet.play("deploy", "--diff").fine()
    assert '/etc/edge/secrets/dropped.secret"' in played.output
    assert "not to be told" not in played.output + refused.output
    for host in SERVING:
        assert not marked(fleet, host)
        assert fleet.hosts.ssh(host, LIST).stdout.split() == ["secrets/by-hand"]
        assert fleet.hosts.ssh(host, "rm /etc/edge/secrets/by-hand && ls -d /etc/edge.before").returncode != 0
    what = "another unit, one host after the other; what is no longer listed is gone"
    fleet.progress.note("restart", what, time.monotonic() - begin)


# Upgrade.


def running_versions(fleet) -> set[str]:
    return {fleet.hosts.ssh(host, "edge --version").stdout.split()[-1] for host in SERVING}


@pytest.fixture
def upgraded(fleet, deployed, tmp_path):
    """A wheelhouse with version 0.1.1 of the same sources; afterwards the fleet has its own again."""
    yield other_version(WHEELHOUSE, tmp_path / "next", "0.1.1")
    fleet.play("upgrade").fine()


def test_a_rolling_upgrade_loses_no_request(fleet, deployed, upgraded):
    before = {host: fleet.main_pid(host) for host in SERVING}
    with fleet.crowd() as crowd:
        played = fleet.play("upgrade", edge_wheelhouse=str(upgraded), **MARKED | {"edge_upgrade_watch": 15}).fine()
        crowd.wait(500)
    assert "not the one of this version: a, b, c." in " ".join(played.output.split())
    assert running_versions(fleet) == {"0.1.1"}
    for host in SERVING:
        assert fleet.main_pid(host) != before[host]
        assert fleet.hosts.ssh(host, "systemctl show --value --property NRestarts edge").stdout == "0\n"
    assert fleet.play("upgrade", edge_wheelhouse=str(upgraded)).fine().total_changed() == 0
    fleet.progress.note("rolling upgrade", crowd.expect_no_failure(), played.seconds)


def unreadable(files):
    files["edge/plane.py"] = b"import nothing_of_that_name\n"


def without_workers(files):
    files["edge/worker.py"] += b"""

def _init_process(self):
    raise RuntimeError("this version has no workers")

EdgeWorker.init_process = _init_process
"""


# What cannot be told before it has taken the place of the other one: its workers live for a second.
def short_lived(files):
    files["edge/worker.py"] += b"""

_whole = EdgeWorker.init_process

def _init_process(self):
    import threading
    threading.Timer(1, os._exit, (3,)).start()
    _whole(self)

EdgeWorker.init_process = _init_process
"""


@pytest.mark.parametrize("change", [unreadable, without_workers, short_lived])
def test_an_upgrade_to_a_broken_version_is_taken_back(fleet, deployed, tmp_path, change):
    """The play stops at the first host, which serves what it served; the others have seen nothing of it."""
    wheelhouse = other_version(WHEELHOUSE, tmp_path / "bad", "0.1.2", change)
    before = {host: release_of(fleet, host) for host in SERVING}
    last = list(SERVING)[1:]
    # Where its workers die in the midst of requests, their clients see that; those of the other hosts never.
    with fleet.crowd(*(last if change is short_lived else SERVING)) as crowd:
        played = fleet.play("upgrade", edge_wheelhouse=str(wheelhouse), edge_health_seconds=15)
        crowd.wait(300)
    assert played.code != 0
    assert [host for host in SERVING if played.failed.get(host)] == ["a"]
    after = {host: release_of(fleet, host) for host in SERVING}
    assert {host: after[host] for host in last} == {host: before[host] for host in last}
    assert after["a"][1] == before["a"][1]
    assert running_versions(fleet) == {"0.1.0"}
    if change is not short_lived:
        assert after["a"] == before["a"]
        assert ("nothing_of_that_name" if change is unreadable else "a worker did not start") in played.output
    assert fleet.serves("a")
    assert fleet.play("deploy").fine().total_changed() == 0
    what = f"taken back at the first host; {crowd.expect_no_failure()}"
    fleet.progress.note(f"upgrade to a version that is {change.__name__}", what, played.seconds)


# Certificates, ticket keys, tuning.


def serial(fleet, host: str) -> int:
    connect = ["openssl", "s_client", "-connect", f"{fleet.hosts.hosts[host].address}:443", "-servername", NAME]
    pem = fleet.hosts.command(*connect, input="").stdout
    said = run(["openssl", "x509", "-noout", "-serial"], input=pem[pem.index("-----BEGIN") :]).stdout
    return int(said.strip().removeprefix("serial="), 16)


def test_certificates_are_replaced(fleet, deployed):
    second = fleet.authority.issue("second", "p256", NAME)
    with fleet.crowd() as crowd:
        played = fleet.play("certificates", edge_certificates=[delivered("edge.test", second)]).fine()
        assert {serial(fleet, host) for host in SERVING} == {second.serial}
    assert KEY not in played.output
    fleet.progress.note("certificates", f"another one served; {crowd.expect_no_failure()}", played.seconds)
    # One whose key is another's is refused before anything is changed.
    bad = {**delivered("edge.test", second), "key": fleet.certificate.key.read_text()}
    refused = fleet.play("certificates", edge_certificates=[bad])
    assert refused.code != 0
    assert {serial(fleet, host) for host in SERVING} == {second.serial}
    fleet.play("certificates").fine()
    assert {serial(fleet, host) for host in SERVING} == {fleet.certificate.serial}


def test_the_kernel_is_tuned(fleet, deployed):
    """As far as a machine lets itself be told: see README.md here."""
    for host in SERVING:
        ask = "sysctl -n net.core.somaxconn net.ipv4.tcp_migrate_req; cat /etc/sysctl.d/60-edge.conf"
        told = fleet.hosts.ssh(host, ask)
        somaxconn, migrate, *_ = told.stdout.splitlines()
        assert (somaxconn, migrate) == ("4096", "1")
        assert "net.core.wmem_max = 8388608" in told.stdout


# A host fails.


def test_a_host_is_killed_and_comes_back(fleet, deployed):
    """The others serve meanwhile; it serves after its boot, and nobody has lent a hand."""
    with fleet.crowd("b", "c") as crowd:
        fleet.hosts.kill("a")
        assert not fleet.serves("a")
        crowd.wait(300)
        begin = time.monotonic()
        fleet.hosts.boot("a")
        wait_until(lambda: fleet.serves("a"), 60, "service after a boot")
        seconds = time.monotonic() - begin
        crowd.wait(100)
    assert fleet.hosts.ssh("a", "systemctl is-system-running --wait").stdout == "running\n"
    assert fleet.play("deploy", "--limit", "a").fine().total_changed() == 0
    what = crowd.expect_no_failure()
    fleet.progress.note("a host killed", f"serves {seconds:.1f} s after its boot; at the others {what}", seconds)
