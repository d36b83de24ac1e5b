"""Hosts for use by hand, which stay until `down`; one set of them for each clone of the repository. As root:

    python -m tests.hosts up a=bookworm b=trixie       more can be added later
    python -m tests.hosts up c=bookworm:virtual        one with a kernel of its own
    python -m tests.hosts list
    python -m tests.hosts ssh a [COMMAND]
    python -m tests.hosts run ansible-playbook playbooks/deploy.yml    in the hosts' network, in ansible/
    python -m tests.hosts run curl --insecure https://10.78.0.11/
    python -m tests.hosts group edge=a,b               groups of the inventory
    python -m tests.hosts source a                     this repository into /root/edge of a: `ssh a edge/dev bench`
    python -m tests.hosts kill a                       as if its power failed; `boot a` brings it back
    python -m tests.hosts down
"""

import argparse
import hashlib
import os
import sys

from tests.e2e.processes import ROOT
from tests.hosts import trees, virtual
from tests.hosts.machines import Hosts, lacking

RUN = f"hand-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]}"

VIRTUAL = ":virtual"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.hosts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["up", "list", "ssh", "run", "group", "source", "kill", "boot", "down"])
    parser.add_argument("words", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    reason = lacking()
    if reason:
        sys.exit(f"hosts: {reason}")
    if arguments.command == "up":
        up(arguments.words)
        return
    try:
        hosts = Hosts.found(RUN)
    except FileNotFoundError:
        sys.exit("hosts: there are none; begin with: python -m tests.hosts up NAME=RELEASE ...")
    act(hosts, arguments.command, arguments.words)


def up(words: list[str]) -> None:
    wanted = dict(word.partition("=")[::2] for word in words)
    known = [f"{release}{kind}" for kind in ("", VIRTUAL) for release in trees.RELEASES]
    if not wanted or not set(wanted.values()) <= set(known):
        sys.exit(f"hosts: up NAME=RELEASE ..., with {' or '.join(known)}")
    reason = any(release.endswith(VIRTUAL) for release in wanted.values()) and virtual.lacking()
    if reason:
        sys.exit(f"hosts: {reason}")
    try:
        hosts = Hosts(RUN, owned=False)
        hosts.begin()
    except FileExistsError:
        hosts = Hosts.found(RUN)
    for name, release in wanted.items():
        if name not in hosts.hosts:
            hosts.add(name, release.removesuffix(VIRTUAL), own_kernel=release.endswith(VIRTUAL))
    hosts.boot()
    show(hosts)


def show(hosts: Hosts) -> None:
    for host in hosts.hosts.values():
        groups = [name for name, members in hosts.groups.items() if host.name in members]
        state = "runs" if hosts.running(host.name) else "is off"
        kind = f"{host.release}{VIRTUAL if host.own_kernel else ''}"
        print(f"{host.name:12} {host.address:12} {kind:16} {state:7} {' '.join(groups)}")
    print(f"inventory: {hosts.inventory}\nssh:       ssh -F {hosts.ssh_config} NAME, in the network of `run`")


def act(hosts: Hosts, command: str, words: list[str]) -> None:
    if command == "list":
        show(hosts)
    elif command == "group":
        hosts.group(**{name: members.split(",") for name, _, members in (word.partition("=") for word in words)})
    elif command == "source":
        for name in words:
            hosts.send_source(name)
    elif command == "kill":
        for name in words:
            hosts.kill(name)
    elif command == "boot":
        hosts.boot(*words)
    elif command == "down":
        hosts.end()
    else:
        own = ["ssh", "-F", str(hosts.ssh_config)] if command == "ssh" else []
        os.chdir(ROOT / "ansible")
        line = hosts.inside([*own, *words])
        os.execvpe(line[0], line, hosts.environment())


if __name__ == "__main__":
    main()
