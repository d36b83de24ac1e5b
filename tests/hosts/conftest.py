"""`./dev hosts` runs what is marked `machines`; the suite does without: it takes minutes, and the first time fetches
Debian."""

import dataclasses
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts import trees, virtual
from tests.hosts.fleet import BUILDERS, SERVING, WHEELHOUSE, Fleet, Played
from tests.hosts.machines import Hosts, lacking
from tests.hosts.progress import Progress

PROGRESS = pytest.StashKey[Progress]()


def pytest_configure(config):
    config.addinivalue_line("markers", "machines: boots machines; run by ./dev hosts")


def pytest_collection_modifyitems(items):
    reason = lacking() if os.environ.get("EDGE_HOSTS") else "boots machines: ./dev hosts runs it"
    if not reason:
        return
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("machines"):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def progress(request) -> Progress:
    """Told as it goes on; its table stands at the end of the run."""
    request.config.stash[PROGRESS] = Progress()
    return request.config.stash[PROGRESS]


def pytest_terminal_summary(terminalreporter, config):
    progress = config.stash.get(PROGRESS, None)
    if progress and progress.rows:
        terminalreporter.section("hosts")
        progress.console.print(progress.table())


@pytest.fixture(scope="session")
def fleet(progress):
    """The machines of all tests, from nothing, and what stands behind them."""
    with Hosts(f"fleet-{os.getpid()}", say=progress.say) as hosts:
        with progress.step("machines") as step:
            for name, release in {**SERVING, **BUILDERS}.items():
                hosts.add(name, release)
            hosts.group(edge=list(SERVING), edge_builders=list(BUILDERS))
            hosts.boot()
        progress.note("machines", f"{len(hosts.hosts)} booted, from nothing", step.seconds)
        fleet = Fleet(hosts, progress)
        fleet.start_backends()
        yield fleet
        fleet.stop()


@pytest.fixture(scope="session")
def virtual_host(progress) -> Iterator[Hosts]:
    """A run of its own with one host, `v`, that has its own kernel and this machine's release of Debian."""
    reason = virtual.lacking()
    if reason:
        pytest.skip(reason)
    with Hosts(f"virtual-{os.getpid()}", say=progress.say) as hosts:
        with progress.step("a virtual machine") as step:
            hosts.add("v", this_release(), own_kernel=True)
            hosts.boot()
        kind = "by this processor" if virtual.accelerated() else "emulated"
        progress.note("virtual machine", f"Linux {hosts.ssh('v', 'uname -r').stdout.strip()}, {kind}", step.seconds)
        yield hosts


def this_release() -> str:
    """This machine's, so that what is built here runs there; the oldest when it is another."""
    name = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    return name if name in trees.RELEASES else trees.RELEASES[0]


@pytest.fixture(scope="session")
def wheels(fleet):
    """Wheels for both releases of Debian; those of these sources are kept from run to run."""
    kept = [house.name for house in WHEELHOUSE.glob("*/release")]
    played = fleet.play("build", seconds=1800).fine()
    built = played.total_changed()
    how = "built" if built else "kept from a run before"
    fleet.progress.note("wheels", f"{', '.join(trees.RELEASES)}: {how}", played.seconds)
    assert built or kept
    return played


@dataclasses.dataclass
class Deployment:
    checked: Played
    played: Played


@pytest.fixture(scope="session")
def deployed(fleet, wheels) -> Deployment:
    """The fleet serves: first a check, then the playbook, on hosts that had nothing of it."""
    checked = fleet.play("deploy", "--check", "--diff").fine()
    for host in SERVING:
        there = fleet.hosts.ssh(host, "ls -d /opt/edge /etc/edge /etc/systemd/system/edge.service; getent passwd edge")
        assert "cannot access" in there.stdout
        assert "edge:" not in there.stdout
    played = fleet.play("deploy").fine()
    hosts = ", ".join(f"{name} ({release})" for name, release in SERVING.items())
    fleet.progress.note("deploy", f"{hosts}: {played.total_changed()} changes", played.seconds)
    return Deployment(checked, played)
