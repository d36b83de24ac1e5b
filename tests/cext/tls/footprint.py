"""What the engine keeps of a connection: `python -m tests.cext.tls.footprint [CONNECTIONS]` prints bytes of each.

The bytes are malloc's own account of what is handed out (mallinfo2: sizes rounded up, headers included), libcrypto's
contexts among it; Python's objects go through malloc, too, in this process. Two moments of a connection: with the
contexts of both directions, as after a request, and parked, as when it waits for the next. What all connections of a
configuration share is not counted, and of a client not the session that it may resume, which is the program's to keep.
"""

import ctypes
import gc
import json
import os
import sys

from cext.tls.config import ClientConfig
from cext.tls.engine import Engine
from cext.tls.session import TicketKeys

from tests.cext.tls.peer import pump, server_config

VERSIONS = {"1.2": 0x0303, "1.3": 0x0304}
SUITES = {
    "1.2": {"aes-128-gcm": 0xC02B, "chacha20-poly1305": 0xCCA9},
    "1.3": {"aes-128-gcm": 0x1301, "aes-256-gcm": 0x1302, "chacha20-poly1305": 0x1303},
}
CASES = [(role, version, suite) for role in ("server", "client") for version in SUITES for suite in SUITES[version]]


class Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    )  # fmt: skip


mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo


def in_use():
    gc.collect()
    info = mallinfo2()
    return info.uordblks + info.hblkhd


def measure(role, version, suite, count):
    """(bytes of a connection with its contexts, bytes of it parked)"""
    number, versions = SUITES[version][suite], {"min_version": VERSIONS[version], "max_version": VERSIONS[version]}
    tickets = TicketKeys([(b"n" * 16, b"k" * 32)]) if role == "server" else None
    server = server_config(tickets=tickets, alpn=[b"http/1.1"], **versions)
    client = ClientConfig(server_name="example.com", alpn=[b"http/1.1"], cipher_suites=[number], **versions)
    kept = [None] * count
    connect(server, client, role)  # what the first one alone costs
    before = in_use()
    for i in range(count):
        kept[i] = connect(server, client, role)
    active = (in_use() - before) / count
    for one in kept:
        one.park_now()
    parked = (in_use() - before) / count
    return round(active), round(parked)


def connect(server, client, role):
    """A connection after a request and its response, the other end of which is gone."""
    a, b = Engine(client), Engine(server)
    pump(a, b)
    for one, other in ((a, b), (b, a)):
        one.send(b"x" * 1000)
        assert other.receive_bytes(one.take_output())[-1][1] == b"x" * 1000
    assert a.established
    assert b.established
    return b if role == "server" else a


def main():
    if os.environ.get("PYTHONMALLOC") != "malloc":
        os.execve(sys.executable, [sys.executable, "-m", __spec__.name, *sys.argv[1:]],
                  {**os.environ, "PYTHONMALLOC": "malloc", "MALLOC_ARENA_MAX": "1"})  # fmt: skip
    count = int(sys.argv[1]) if sys.argv[1:] else 10_000
    found = {" ".join(case): measure(*case, count) for case in CASES}
    if sys.stdout.isatty():
        for name, (active, parked) in found.items():
            print(f"{name:32} {active:6} bytes, parked {parked:5}")
    else:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
