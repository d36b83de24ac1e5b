"""The network of a run: a namespace with a bridge (the hub), and one for each machine, joined to it.

Nothing of it is in this host's own network. Whoever is to reach machines runs in the hub (`inside`).
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.hosts import virtual

PREFIX = "10.78.0"
HUB = f"{PREFIX}.1"
ASIDE = "10.79"
"""Of networks between the hub and one machine alone."""
PROXY_PORT = 3128
CLONE_NEWNET = 0x40000000


def _ip(*words: str, of: str = "") -> None:
    """In a namespace by nsenter: ip's own -n changes mounts, which nobody can in a chroot."""
    command = [*(inside(of) if of else []), "ip", *words]
    subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=True)


def hub(run: str) -> str:
    return f"edge-{run}"


def namespace(run: str, name: str) -> str:
    return f"edge-{run}-{name}"


def address(number: int) -> str:
    return f"{PREFIX}.{number}"


def make_hub(run: str) -> None:
    name = hub(run)
    _ip("netns", "add", name)
    _ip("link", "set", "lo", "up", of=name)
    _ip("link", "add", "bridge", "type", "bridge", of=name)
    _ip("addr", "add", f"{HUB}/24", "dev", "bridge", of=name)
    _ip("addr", "add", "fd78::1/64", "dev", "bridge", "nodad", of=name)
    _ip("link", "set", "bridge", "up", of=name)
    # It routes, and has no route: who wants to go elsewhere is told at once.
    forward = [*inside(name), "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"]
    subprocess.run(forward, stdin=subprocess.DEVNULL, timeout=30, check=True)


def add(run: str, name: str, number: int) -> str:
    """A namespace with the address of that number (2 to 254) on `host0`."""
    own, middle = namespace(run, name), hub(run)
    _ip("netns", "add", own)
    _ip("link", "set", "lo", "up", of=own)
    _ip("link", "add", f"to{number}", "type", "veth", "peer", "name", "host0", "netns", own, of=middle)
    _ip("link", "set", f"to{number}", "master", "bridge", "up", of=middle)
    _ip("addr", "add", f"{address(number)}/24", "dev", "host0", of=own)
    _ip("addr", "add", f"fd78::{number}/64", "dev", "host0", "nodad", of=own)
    _ip("link", "set", "host0", "up", of=own)
    _ip("route", "add", "default", "via", HUB, of=own)
    return own


def cards(number: int, queues: int) -> tuple[virtual.Card, virtual.Card]:
    """Of a machine with a kernel of its own: one with the address of that number and so many queues, on the bridge; and
    one with a single queue, whose other end is the hub's own."""
    return (
        virtual.Card(f"tap{number}", queues, address(number), f"fd78::{number}", gateway=HUB),
        virtual.Card(f"aside{number}", 1, f"{ASIDE}.{number}.2", f"fd79:{number}::2"),
    )


def add_taps(run: str, number: int, queues: int) -> None:
    """What those cards are joined to, in the hub."""
    middle = hub(run)
    bridged, aside = cards(number, queues)
    for card in (bridged, aside):
        _ip("tuntap", "add", card.tap, "mode", "tap", *(["multi_queue"] if card.queues > 1 else []), of=middle)
    _ip("link", "set", bridged.tap, "master", "bridge", "up", of=middle)
    _ip("addr", "add", f"{ASIDE}.{number}.1/24", "dev", aside.tap, of=middle)
    _ip("link", "set", aside.tap, "up", of=middle)


def remove_all(run: str) -> None:
    for file in Path("/run/netns").glob(f"edge-{run}*"):
        if file.name == hub(run) or file.name.startswith(f"{hub(run)}-"):
            subprocess.run(["ip", "netns", "del", file.name], capture_output=True, timeout=30, check=False)


def inside(namespace: str) -> list[str]:
    """What a command begins with that is to run in the namespace."""
    return ["nsenter", f"--net=/run/netns/{namespace}"]


def listen(namespace: str, host: str, port: int) -> socket.socket:
    """A socket of that namespace, in this process."""
    with within(namespace):
        return socket.create_server((host, port), backlog=128)


@contextlib.contextmanager
def within(namespace: str) -> Iterator[None]:
    """What this thread opens meanwhile is in the namespace, and stays there."""
    with (
        open(f"/proc/self/task/{threading.get_native_id()}/ns/net", "rb") as home,
        open(f"/run/netns/{namespace}", "rb") as there,
    ):
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    """setns(2), which Python has from 3.12 on: of this thread alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")
