"""The role host_tuning on a host with a kernel and network cards of its own: all that it claims holds, is there after a
boot, and does something. The cards are virtual: two queues with interrupts of their own, and one queue."""

import re
import socket
import time

import pytest
import yaml

from tests.e2e.processes import ROOT, wait_until
from tests.hosts import network, virtual
from tests.hosts.fleet import RECAP

pytestmark = pytest.mark.machines

ROLE = ROOT / "ansible/roles/host_tuning"
PLAYBOOK = "- hosts: all\n  become: true\n  gather_facts: false\n  roles:\n    - edge.server.host_tuning\n"
FLOWS = 32768
PACKETS, FROM_PORTS = 20_000, 50

# Lines of `name value`.
READ = r"""
for card in /sys/class/net/enp*; do
    for file in "$card"/queues/*/rps_cpus "$card"/queues/*/rps_flow_cnt "$card"/queues/*/xps_cpus; do
        value=$(cat "$file" 2>/dev/null) && echo "$(basename "$card")${file#"$card"/queues} $value"
    done
    for irq in "$card"/device/../msi_irqs/*; do
        irq=${irq##*/}
        name=$(sed 's/.*-//' "/sys/kernel/irq/$irq/actions")
        echo "$(basename "$card")/irq/$name $(cat "/proc/irq/$irq/smp_affinity_list")"
    done
done
echo "rps_sock_flow_entries $(cat /proc/sys/net/core/rps_sock_flow_entries)"
"""


class Tuned:
    def __init__(self, hosts, progress) -> None:
        self.hosts = hosts
        self.progress = progress
        self.playbook = hosts.directory / "tuning.yml"
        self.playbook.write_text(PLAYBOOK)

    def play(self, *options: str) -> int:
        """How many changes it made."""
        with self.progress.step(f"host_tuning {' '.join(options)}"):
            done = self.hosts.ansible("ansible-playbook", self.playbook, *options, seconds=60 * virtual.patience())
        (recap,) = RECAP.findall(done.stdout)
        _, _, changed, unreachable, failed = recap
        assert (done.returncode, unreachable, failed) == (0, "0", "0"), done.stdout
        return int(changed)

    def ssh(self, command: str) -> str:
        done = self.hosts.ssh("v", command)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def spread(self) -> dict[str, str]:
        """What the kernel has now, of cards `two` and `one`, which are named by their queues."""
        values = dict(line.split() for line in self.ssh(READ).splitlines())
        two, one = (self.card(queues) for queues in (2, 1))
        return {name.replace(two, "two").replace(one, "one"): value for name, value in values.items()}

    def card(self, queues: int) -> str:
        """The one with so many queues."""
        files = self.ssh("cd /sys/class/net; echo enp*/queues/rx-*").split()
        cards = [file.partition("/")[0] for file in files]
        (card,) = {name for name in cards if cards.count(name) == queues}
        return card


@pytest.fixture(scope="module")
def tuned(virtual_host, progress) -> Tuned:
    tuned = Tuned(virtual_host, progress)
    assert tuned.play("--check", "--diff") > 0
    assert "edge" not in tuned.ssh("ls /etc/sysctl.d /etc/security/limits.d; ls /etc/systemd/system")
    changes = tuned.play("-e", "host_tuning_strict=true")
    assert changes > 0
    progress.note("host_tuning", f"{changes} changes on a host with a kernel of its own, none left", 0)
    return tuned


def settings() -> dict[str, str]:
    table = yaml.safe_load((ROLE / "vars/main.yml").read_text())["host_tuning__settings"]
    return {setting["name"]: str(setting["value"]) for setting in table}


SPREAD = {
    # Fewer receive queues than CPUs: all CPUs are handed packets.
    "one/rx-0/rps_cpus": "3",
    "one/rx-0/rps_flow_cnt": str(FLOWS),
    "rps_sock_flow_entries": str(FLOWS),
    # As many: each has its CPU, for what comes and what goes.
    "two/rx-0/rps_cpus": "0",
    "two/rx-1/rps_cpus": "0",
    "two/tx-0/xps_cpus": "1",
    "two/tx-1/xps_cpus": "2",
    "two/irq/input.0": "0",
    "two/irq/output.0": "0",
    "two/irq/input.1": "1",
    "two/irq/output.1": "1",
}


def expect_all(tuned: Tuned) -> None:
    wanted = settings()
    said = tuned.ssh(f"sysctl {' '.join(wanted)}")
    assert {name: " ".join(value.split()) for name, value in re.findall(r"(\S+) = (.*)", said)} == wanted
    found = tuned.spread()
    assert {name: found[name] for name in SPREAD} == SPREAD
    assert tuned.ssh("systemctl is-active edge-spread; systemctl is-enabled edge-spread") == "active\nenabled\n"
    alone = ["ssh", "-F", tuned.hosts.ssh_config, "-o", "ControlPath=none"]
    for user in ("root", "admin"):
        limit = tuned.hosts.command(*alone, f"{user}@v", "ulimit -Sn; ulimit -Hn").stdout.split()
        assert limit == ["1048576"] * 2, user


def test_all_of_it_holds(tuned):
    expect_all(tuned)


def test_a_second_run_and_a_check_change_nothing(tuned):
    assert tuned.play() == 0
    assert tuned.play("--check") == 0


def test_it_holds_after_a_boot(tuned):
    with tuned.progress.step("a boot"):
        tuned.hosts.reboot("v")
    expect_all(tuned)


def test_interrupts_of_a_queue_are_its_cpus(tuned):
    """A driver that leaves all of them to one CPU is corrected."""
    card = tuned.card(2)
    irqs = f"/sys/class/net/{card}/device/../msi_irqs/*"
    tuned.ssh(f"for irq in {irqs}; do echo 0 >/proc/irq/${{irq##*/}}/smp_affinity_list; done")
    assert tuned.spread()["two/irq/input.1"] == "0"
    before = interrupts(tuned, card)
    send(tuned.hosts, tuned.hosts.hosts["v"].address)
    alone = difference(interrupts(tuned, card), before)
    tuned.ssh("systemctl restart edge-spread")
    before = interrupts(tuned, card)
    send(tuned.hosts, tuned.hosts.hosts["v"].address)
    spread = difference(interrupts(tuned, card), before)
    tuned.progress.note("interrupts of 2 queues", f"by CPU {alone}; with their affinity {spread}", 0)
    assert alone[0] > 0
    assert alone[1] == 0
    assert min(spread) > sum(spread) / 10


def test_one_queue_is_worked_off_by_all_cpus(tuned):
    card = tuned.card(1)
    address = f"{network.ASIDE}.{tuned.hosts.hosts['v'].number}.2"
    tuned.ssh(f"echo 0 >/sys/class/net/{card}/queues/rx-0/rps_cpus")
    before = processed(tuned)
    send(tuned.hosts, address)
    alone = difference(processed(tuned), before)
    tuned.ssh("systemctl restart edge-spread")
    before = processed(tuned)
    send(tuned.hosts, address)
    spread = difference(processed(tuned), before)
    tuned.progress.note("packets of one queue", f"by CPU {alone}; with RPS {spread}", 0)
    assert min(alone) < sum(alone) / 10
    assert min(spread) > sum(spread) / 4


def test_a_card_that_comes_later_is_seen_to(tuned):
    card = tuned.card(1)
    device = tuned.ssh(f"basename $(realpath /sys/class/net/{card}/device/..)").strip()
    tuned.ssh(f"echo 1 >/sys/bus/pci/devices/{device}/remove && test ! -e /sys/class/net/{card}")
    tuned.ssh("echo 1 >/sys/bus/pci/rescan")
    file = f"/sys/class/net/{card}/queues/rx-0/rps_cpus"
    wait_until(lambda: tuned.hosts.ssh("v", f"cat {file}").stdout == "3\n", 60, "packets spread again")


def interrupts(tuned: Tuned, card: str) -> list[int]:
    """Of the card's receive queues, on each CPU, since its boot."""
    device = tuned.ssh(f"basename $(realpath /sys/class/net/{card}/device)").strip()
    lines = [line.split() for line in tuned.ssh(f"grep '{device}-input' /proc/interrupts").splitlines()]
    return [sum(int(line[1 + cpu]) for line in lines) for cpu in range(virtual.CPUS)]


def processed(tuned: Tuned) -> list[int]:
    """Packets that each CPU has worked off, since its boot."""
    return [int(line.split()[0], 16) for line in tuned.ssh("cat /proc/net/softnet_stat").splitlines()]


def difference(now: list[int], before: list[int]) -> list[int]:
    return [a - b for a, b in zip(now, before, strict=True)]


def send(hosts, address: str) -> None:
    """Packets of many flows, from the hub, not faster than an emulated card takes them."""
    with network.within(network.hub(hosts.run)):
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(FROM_PORTS)]
    for _ in range(PACKETS // FROM_PORTS):
        for sock in sockets:
            sock.sendto(b"x" * 100, (address, 9))
        time.sleep(0.005)
    for sock in sockets:
        sock.close()
