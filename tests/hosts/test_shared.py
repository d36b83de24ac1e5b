"""The fleet shares ticket keys and the register of early data through a Redis with TLS, users and passwords, on a host
of its own."""

import copy
import json
import sys
import time

import pytest

from tests.e2e.processes import wait_until
from tests.hosts.fleet import NAME, SERVING

pytestmark = pytest.mark.machines

PASSWORD = "not known to others"
SECRET = "the same on all hosts, and longer than thirty-two bytes"

REDIS = """\
bind 0.0.0.0
port 0
tls-port 6380
tls-cert-file /etc/redis/redis.pem
tls-key-file /etc/redis/redis.key
tls-ca-cert-file /etc/redis/redis.pem
tls-auth-clients no
maxmemory-policy noeviction
save ""
dir /var/lib/redis
daemonize no
supervised systemd
user default off
user edge on >{password} ~edge:* &edge:* +@all -@admin -@dangerous +info +config|get
"""

# A session of the first address at each of the others: whether it is resumed there.
RESUME = f"""\
import json, socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.minimum_version = ssl.TLSVersion.TLSv1_3

def ask(address, session):
    raw = socket.create_connection((address, 443), 20)
    with context.wrap_socket(raw, server_hostname="{NAME}", session=session) as s:
        s.sendall(b"GET /1k HTTP/1.1\\r\\nHost: {NAME}\\r\\nConnection: close\\r\\n\\r\\n")
        while s.recv(65536):
            pass
        return s.session_reused, s.session

first, session = ask(sys.argv[2], None)
print(json.dumps([first, *(ask(address, session)[0] for address in sys.argv[3:])]))
"""


@pytest.fixture(scope="module")
def redis(fleet, deployed):
    hosts = fleet.hosts
    with fleet.progress.step("a host with Redis"):
        hosts.add("redis", "bookworm")
        hosts.boot("redis")
        install = "apt-get update -q && apt-get install -q -y --no-install-recommends redis-server"
        done = hosts.ssh("redis", install, seconds=300)
        assert done.returncode == 0, done.stdout
        certificate = fleet.authority.issue("redis", "p256", hosts.hosts["redis"].address)
        machine = hosts.machines["redis"]
        machine.write("/etc/redis/redis.conf", REDIS.format(password=json.dumps(PASSWORD)[1:-1].replace(" ", "-")))
        machine.write("/etc/redis/redis.pem", certificate.chain.read_bytes())
        machine.write("/etc/redis/redis.key", certificate.key.read_bytes())
        assert hosts.ssh("redis", "systemctl restart redis-server").returncode == 0
    return hosts.hosts["redis"]


@pytest.fixture(scope="module")
def shared(fleet, redis):
    config = copy.deepcopy(fleet.variables["edge_config"])
    config["fleet"] = {
        "secret_files": ["/etc/edge/secrets/fleet.secret"],
        "redis": [f"rediss://{redis.address}:6380"],
        "username": "edge",
        "password_file": "/etc/edge/secrets/redis.password",
        "ca": "/etc/edge/authorities/test.pem",
    }
    secrets = [
        {"name": "fleet.secret", "content": SECRET},
        {"name": "redis.password", "content": PASSWORD.replace(" ", "-")},
    ]
    variables = {"edge_config": config, "edge_secrets": secrets}
    played = fleet.play("deploy", **variables).fine()
    assert SECRET not in played.output
    yield variables
    fleet.play("deploy").fine()


def resumed(fleet) -> list[bool]:
    """At the first host, and then at each other one with its session."""
    done = fleet.hosts.command(sys.executable, "-c", RESUME, fleet.authority.file, *fleet.addresses)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout)


def keys(fleet, host: str) -> list[tuple[str, str]]:
    told = json.loads(fleet.edge(host, "status --json"))["state"]["tickets"]
    return [(key["id"], key["state"]) for key in told["keys"]]


def test_a_ticket_of_one_host_resumes_on_the_others(fleet, shared):
    begin = time.monotonic()
    wait_until(lambda: resumed(fleet) == [False, True, True], 60, "one host's ticket at the others")
    wait_until(lambda: len({tuple(keys(fleet, host)) for host in SERVING}) == 1, 60, "the same keys everywhere")
    fleet.progress.note("tickets shared", "a session of one host is resumed by all", time.monotonic() - begin)


def test_ticket_keys_are_rotated_everywhere(fleet, shared):
    wait_until(lambda: resumed(fleet) == [False, True, True], 60, "one host's ticket at the others")
    before = keys(fleet, "a")
    begin = time.monotonic()
    with fleet.crowd() as crowd:
        fleet.play("rotate_tickets", **shared).fine()
        wait_until(
            lambda: all(keys(fleet, host) != before for host in SERVING)
            and len({tuple(keys(fleet, host)) for host in SERVING}) == 1,
            90,
            "other keys, the same everywhere",
        )
        seconds = time.monotonic() - begin
        assert resumed(fleet) == [False, True, True]
    what = crowd.expect_no_failure()
    fleet.progress.note("ticket keys rotated", f"everywhere after {seconds:.0f} s; {what}", seconds)


def test_the_fleet_goes_on_without_redis(fleet, shared, redis):
    """Killed hard: the last keys are used on; it comes back, and nobody lends a hand."""
    wait_until(lambda: resumed(fleet) == [False, True, True], 60, "one host's ticket at the others")
    with fleet.crowd() as crowd:
        fleet.hosts.kill("redis")
        crowd.wait(300)
        assert resumed(fleet) == [False, True, True]
        fleet.hosts.boot("redis")
        active = "systemctl is-active redis-server"
        wait_until(lambda: fleet.hosts.ssh("redis", active).stdout == "active\n", 60, "Redis")
        crowd.wait(300)
        assert resumed(fleet) == [False, True, True]
    fleet.progress.note("Redis killed and back", crowd.expect_no_failure(), 0)


# Without Redis: files of a directory here, which the playbook makes and delivers.


@pytest.fixture(scope="module")
def files(fleet, deployed, tmp_path_factory):
    config = copy.deepcopy(fleet.variables["edge_config"])
    config["tls"] = {"tickets": {"directory": "/etc/edge/tickets"}}
    directory = tmp_path_factory.mktemp("ticket-keys")
    (directory / "20260101T000000Z.key").write_text("a first key of forty-eight characters and some more of them\n")
    password = fleet.directory / "vault-password"
    password.write_text("of the vault\n")
    vault = f"--vault-password-file={password}"
    variables = {"edge_config": config, "edge_ticket_keys": str(directory)}
    fleet.play("deploy", vault, **variables).fine()
    yield directory, vault, variables
    fleet.play("deploy").fine()


def test_ticket_keys_from_files_are_rotated_by_the_playbook(fleet, files):
    """Those that it makes are encrypted here, and opened on their way to the hosts."""
    directory, vault, variables = files
    assert resumed(fleet) == [False, True, True]
    with fleet.crowd() as crowd:
        for number in (2, 3):
            played = fleet.play("rotate_tickets", vault, **variables).fine()
            first, *made = sorted(directory.iterdir())
            assert len(made) == number - 1
            assert all(key.read_text().startswith("$ANSIBLE_VAULT;") for key in made)
            assert resumed(fleet) == [False, True, True]
    assert first.read_text().strip() not in played.output
    assert len({tuple(keys(fleet, host)) for host in SERVING}) == 1
    fleet.progress.note("ticket keys from files rotated", crowd.expect_no_failure(), played.seconds)
