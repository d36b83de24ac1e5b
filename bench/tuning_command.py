"""`python -m bench tuning`: what kernel settings of ansible/roles/host_tuning change, each tried with another value and
with the role's in a network namespace of its own."""

import errno
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

HERE = "10.99.0.1"  # no loopback address: those have rules of their own
BURST = 3000
UPSTREAM_CONNECTIONS = 60_000


@click.command()
@click.option("--within", nargs=2, hidden=True, help="One trial, in the namespace of this process: NAME, SETTINGS.")
def tuning(within: tuple[str, str] | None) -> None:
    """Try kernel settings of ansible/roles/host_tuning with and without them. As root; nothing outside is changed."""
    if within:
        name, settings = within
        _prepare(settings)
        click.echo(TRIALS[name][0]())
        return
    if os.geteuid() != 0:
        raise click.UsageError("only root can make network namespaces")
    for name, (_, *variants) in TRIALS.items():
        for settings in variants:
            command = ["unshare", "--net", sys.executable, "-m", "bench", "tuning", "--within", name, settings]
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, timeout=300)
            click.echo(f"{settings:75} {done.stdout.strip() or 'failed'}")


def _prepare(settings: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{HERE}/32", "dev", "lo"], check=True)
    for setting in settings.split(", "):
        name, _, value = setting.partition("=")
        (Path("/proc/sys") / name.replace(".", "/")).write_text(value)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _listener(port: int = 0) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind((HERE, port))
    listener.listen(4096)
    return listener


def burst() -> str:
    """Clients that connect at once while the worker is busy for a moment."""
    listener = _listener()
    epoll = select.epoll()
    clients = {}
    begun = time.monotonic()
    for _ in range(BURST):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
        clients[client.fileno()] = client
        epoll.register(client, select.EPOLLOUT | select.EPOLLONESHOT)
    listener.setblocking(False)
    busy_until, accepted, times = begun + 0.3, [], []
    while len(times) < BURST and time.monotonic() < begun + 60:
        for fd, events in epoll.poll(0.01):
            del fd
            times.append(time.monotonic() - begun if not events & select.EPOLLERR else 60.0)
        if time.monotonic() > busy_until:
            try:
                while True:
                    accepted.append(listener.accept()[0])
            except BlockingIOError:
                pass
    late = sum(seconds > 0.9 for seconds in times)
    return f"{BURST} clients at once: {late} of them connect after a second or later, the last after {max(times):.1f} s"


def ports() -> str:
    """Connections to one upstream, one after the other, that the proxy closes first."""
    listener = _listener()
    address = listener.getsockname()
    begun = time.monotonic()
    for made in range(UPSTREAM_CONNECTIONS):
        client = socket.socket()
        try:
            client.connect(address)
        except OSError as e:
            said = errno.errorcode[e.errno]
            return f"{made} connections to one upstream within {time.monotonic() - begun:.0f} s, then {said}"
        served, _ = listener.accept()
        client.close()
        served.recv(1)
        served.close()
    return f"{UPSTREAM_CONNECTIONS} connections to one upstream within {time.monotonic() - begun:.0f} s, none refused"


def migration() -> str:
    """Two sockets of a group, and one is closed with clients in its queue."""
    first = _listener()
    second = _listener(first.getsockname()[1])
    clients = [socket.create_connection(first.getsockname()) for _ in range(200)]
    first.close()
    second.setblocking(False)
    reset = 0
    for client in clients:
        client.setblocking(False)
        try:
            reset += client.recv(1) == b""
        except BlockingIOError:
            pass
        except ConnectionResetError:
            reset += 1
    return f"200 clients in the queues of two sockets, one is closed: {reset} are reset"


def datagrams() -> str:
    """Spans that come while the observer is busy."""
    path = f"\0edge-bench-{os.getpid()}"
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(path)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.setblocking(False)
    sender.connect(path)
    sent = 0
    try:
        while sent < 100_000:
            sender.send(bytes(200))
            sent += 1
    except BlockingIOError:
        pass
    return f"{sent} messages wait for a busy reader, the next is dropped"


Trial = tuple[Callable[[], str], str, str] | tuple[Callable[[], str], str, str, str]
TRIALS: dict[str, Trial] = {
    "burst": (burst, "net.core.somaxconn=128", "net.core.somaxconn=4096"),
    "ports": (
        ports,
        "net.ipv4.ip_local_port_range=32768 60999, net.ipv4.tcp_tw_reuse=2",
        "net.ipv4.ip_local_port_range=15000 65000, net.ipv4.tcp_tw_reuse=2",
        "net.ipv4.ip_local_port_range=32768 60999, net.ipv4.tcp_tw_reuse=1",
    ),
    "migration": (migration, "net.ipv4.tcp_migrate_req=0", "net.ipv4.tcp_migrate_req=1"),
    "datagrams": (datagrams, "net.unix.max_dgram_qlen=10", "net.unix.max_dgram_qlen=512"),
}
