"""Hosts as network namespaces on a bridge of their own: what one host says to another can be cut."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.hosts import network as namespaces


def unusable() -> str:
    """Why there can be no such network here; "" when there can."""
    if os.geteuid():
        return "network namespaces need root"
    if not shutil.which("ip"):
        return "network namespaces need ip(8), of the package iproute2"
    probe = f"edge-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True, check=False)
    return ""


def needed() -> None:
    """Skips where there can be none."""
    if reason := unusable():
        pytest.skip(reason)


class Network:
    """The hub has the bridge, and is where clients are; hosts are added by number. To be closed."""

    def __init__(self) -> None:
        self._run = f"fleet-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
        namespaces.make_hub(self._run)

    def host(self, number: int) -> "Host":
        """2 to 254."""
        return Host(namespaces.add(self._run, str(number), number), namespaces.address(number))

    def inside(self, namespace: str = "") -> contextlib.AbstractContextManager[None]:
        """What this thread opens meanwhile is in that namespace (the hub's), and stays there."""
        return namespaces.within(namespace or namespaces.hub(self._run))

    def connect(self, address: str, port: int, seconds: float = 20) -> socket.socket:
        """A client's connection, from the hub."""
        with self.inside():
            sock = socket.create_connection((address, port), timeout=seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def close(self) -> None:
        namespaces.remove_all(self._run)


class Host:
    def __init__(self, namespace: str, address: str) -> None:
        self.namespace = namespace
        self.address = address

    def program(self, *command: object) -> list[object]:
        """A command, to be run there."""
        return [*namespaces.inside(self.namespace), *command]

    def mute(self, other: "Host") -> None:
        """Nothing that it sends to the other arrives any more; nobody is told."""
        self._route("add", other)

    def unmute(self, other: "Host") -> None:
        self._route("delete", other)

    @contextlib.contextmanager
    def cut_off(self, other: "Host") -> Iterator[None]:
        """Nothing passes between the two."""
        self.mute(other)
        other.mute(self)
        try:
            yield
        finally:
            self.unmute(other)
            other.unmute(self)

    def _route(self, act: str, other: "Host") -> None:
        subprocess.run(
            self.program("ip", "route", act, "blackhole", f"{other.address}/32"),
            check=True,
            capture_output=True,
        )
