"""Where the fuzzer begins: each handshake as it should be, each kind of fault once, and what real peers sent."""

import hashlib

from tests import tls_corrupt
from tests.fuzz import http2
from tests.fuzz.peers import issuers
from tests.fuzz.script import KINDS, SLOTS, encode
from tests.fuzz.targets import ENTROPY, MESSAGES, MESSAGES12, Watched, client_config, resumption, server_config
from tests.vectors import cases, client_hellos, http1_chunks, http1_requests, http1_responses

# Settings that between them turn every bit, for either role.
HANDSHAKES = (
    0, 1, 2, 3, 1 << 2, 1 << 3, 1 << 2 | 1 << 3, 1 << 4, 1 << 4 | 1 << 13, 1 << 4 | 1 << 8, 1 << 4 | 2,
    1 << 4 | 1 << 9,
    1 << 5 | 1 << 9, 1 << 5 | 1 << 6, 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10,
    1 << 5 | 1 << 6 | 1 << 3, 1 << 5 | 1 << 11, 1 << 8,
    1 << 9 | 1 << 12, 1 << 10, 1 << 14, 1 << 15, 1 << 4 | 1 << 14 | 1 << 15,
    1 << 4 | 1 << 12, 1 << 4 | 1 << 12 | 1 << 8 | 1 << 10, 1 << 4 | 1 << 9 | 1 << 14,
    1 << 2 | 1 << 12, 1 << 2 | 1 << 12 | 1 << 3,
    1 << 4 | 1 << 5, 1 << 4 | 1 << 5 | 1 << 10, 1 << 4 | 1 << 9 | 1 << 10, 1 << 4 | 1 << 5 | 1 << 14,
    1 << 11, 1 << 11 | 1 << 8 | 2, 1 << 11 | 1 << 13, 1 << 11 | 1 << 13 | 3, 1 << 4 | 1 << 11,
    1 << 4 | 1 << 9 | 1 << 11 | 1 << 14,
    1 << 9 | 1 << 11 | 1 << 14, 1 << 9 | 1 << 15, 1 << 4 | 1 << 9 | 1 << 15, 1 << 4 | 1 << 5 | 1 << 11,
    1 << 13, 1 << 13 | 1 << 9 | 1 << 14, 1 << 9 | 1 << 14 | 1 << 15, 0xE0 | 1 << 12 | 1 << 10,
)  # fmt: skip
# Settings and the slots of messages that are there, or hold more, when a peer asks.
BESIDE = (
    (1 << 11, "certificate"), (1 << 11 | 1 << 13, "certificate"), (1 << 11 | 1 << 13 | 3, "certificate"),
    (1 << 11 | 1 << 13, "client_certificate"), (1 << 4 | 1 << 11, "retry"), (1 << 9 | 1 << 11 | 1 << 14, "request"),
)  # fmt: skip
EXTENSIONS = (0, 5, 10, 13, 16, 18, 23, 27, 28, 34, 35, 41, 42, 43, 44, 45, 47, 49, 50, 51, 0xFF01)
# Of clients that take delegated credentials (RFC 9345), and that name an issuer.
DELEGATED = ("add_extension", "client_hello", 0, bytes.fromhex("0022 0004 0002 0807"))
BY_ISSUER = ("add_extension", "client_hello", 0, b"\0\x2f" + issuers())


def scripts():
    for settings in HANDSHAKES:
        yield encode(settings)
        yield encode(settings, *[("act", "after", turn | 32, b"data") for turn in range(10)])
    for kind in KINDS:
        yield encode(1 << 4 | 1 << 10, (kind, "ticket", 3, b"\x17\0\2\0\0"))
        yield encode(1 << 4 | 1 << 5 | 1 << 10, (kind, "server_hello", 36, b"\x17\0\2\0\0"))
        yield encode(1 << 4 | 1 << 5, (kind, "client_hello", 0, b"\x17\0\2\0\0"), (kind, "client_finished", 3, b"x"))
        for settings, slot in BESIDE:
            yield encode(settings, (kind, slot, 3, b"\x17\0\2\0\0"))
    for settings in (0, 1 << 15, 1 << 11, 1 << 4):
        yield from (encode(settings, one) for one in (DELEGATED, BY_ISSUER))
    yield from (encode(0, (*DELEGATED[:3], DELEGATED[3][:n])) for n in range(2, 8))
    for slot in SLOTS:
        settings = 1 << 3 | 1 << 9 if slot in ("second_hello", "retry", "request") else 0
        settings = 0x4E0 if slot == "early_data" else 1 << 4 if slot == "client_key" else settings
        if slot in ("client_certificate", "client_verify"):
            yield from (encode(1 << 4 | 1 << 12, (kind, slot, 3, b"\x17\0\2\0\0")) for kind in KINDS)
        settings = 1 << 13 if slot in ("client_certificate", "client_verify") else settings
        for kind in KINDS:
            yield encode(settings, (kind, slot, 3, b"\x17\0\2\0\0"))
        yield encode(settings, *[("add_extension", slot, 0, type.to_bytes(2, "big"))
                                 for type in EXTENSIONS])  # fmt: skip


def hellos():
    yield from client_hellos.HELLOS.values()
    yield tls_corrupt.ClientHello(random=bytes(32)).record()
    for _, body, _ in tls_corrupt.faults():
        yield tls_corrupt.record(tls_corrupt.handshake(1, body))


def recorded():
    """(the client's bytes, the server's) of a whole handshake under the same randomness, with data and closing."""
    sent = []
    with ENTROPY.installed():
        for played in ("client", "server"):
            # The side that will be fuzzed comes first, and so draws what it will draw again.
            ENTROPY.restart()
            if played == "server":
                client = Watched(client_config(0))
                server = Watched(server_config(1 << 9 | 1 << 10))
            else:
                server = Watched(server_config(1 << 9 | 1 << 10))
                hold = ENTROPY.at
                ENTROPY.at = 1 << 12
                client = Watched(client_config(0))
                ENTROPY.at = hold
            said = {"client": b"", "server": b""}
            for turn in range(4):
                output = client.take_output()
                said["client"] += output
                server.receive_bytes(output)
                output = server.take_output()
                said["server"] += output
                client.receive_bytes(output)
                if turn == 1:
                    client.send(b"ping")
                    server.send(b"pong")
                if turn == 2:
                    client.send_close_notify()
                    server.send_close_notify()
            sent.append(said[played])
    return sent


def bodies():
    """Handshake messages without their headers, each with the byte that chooses its parser."""
    for hello in hellos():
        yield bytes((0, 1)) + hello[9:]
    client, server = recorded()
    del client
    yield bytes((MESSAGES.index("server_hello"), 1)) + server[9 : 5 + int.from_bytes(server[3:5], "big")]
    examples = {
        "encrypted_extensions": "0010001000050003026832000a00040002001d",
        "certificate_request": "000008000d000400020403",
        "certificate": "00000009000004aabbccdd0000",
        "certificate_verify": "04030004aabbccdd",
        "finished": "00" * 32,
        "new_session_ticket": "00000e10010203040100000474636b740008002a000400000400",
        "key_update": "01",
        "compressed_certificate": "0001000009000004aabbccdd",
    }
    for kind, body in examples.items():
        yield bytes((MESSAGES.index(kind), 1)) + bytes.fromhex(body)
    examples12 = {
        "server_hello": "0303" + "00" * 32 + "00c02b000017ff0100010000170000000500000012000600040002aabb",
        "certificate": "000007000004aabbccdd",
        "certificate_request": "014000020403000600040002aabb",
        "server_key_exchange": "03001d0401020304040300021122",
        "client_key_exchange": "0401020304",
        "server_hello_done": "",
        "new_session_ticket": "00000e1000047469636b",
    }
    for kind, body in examples12.items():
        yield bytes((len(MESSAGES) + MESSAGES12.index(kind), 1)) + bytes.fromhex(body)


def values(module):
    """Every bytes object that a module of vectors holds, however deep."""

    def walk(value):
        if isinstance(value, bytes):
            yield value
        elif isinstance(value, dict):
            for one in value.values():
                yield from walk(one)
        elif isinstance(value, list | tuple | set | frozenset):
            for one in value:
                yield from walk(one)

    for name, value in sorted(vars(module).items()):
        if not name.startswith("_"):
            yield from walk(value)


# A trace's context, with the identifiers of the recommendation's example (section 3.2).
TRACED = (
    b"GET / HTTP/1.1\r\nHost: a.example\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n"
    b"tracestate: rojo=00f067aa0ba902b7, congo=t61rcWkgMzE\r\ntracestate: a_-*/@=x y\r\n\r\n"
)

SEEDS = {
    "server_script": scripts,
    "client_script": scripts,
    "server_records": lambda: [bytes((3,)) + data for data in (*hellos(), recorded()[0])],
    "client_records": lambda: [bytes((3,)) + recorded()[1]],
    "handshake_messages": bodies,
    "session_state": lambda: [
        resumption().session.to_bytes(), resumption().session.to_bytes()[8 + len(resumption().ticket) :]],
    "http1_heads": lambda: [
        b"\0" + TRACED, *(b"\0" + data for data in values(http1_requests)),
        *(b"\1" + data for data in values(http1_responses)),
        *(b"\0" + case.client for case in cases.load("requests", "valid") + cases.load("requests", "invalid")),
        *(b"\1" + case.upstream for case in cases.load("responses", "valid") + cases.load("responses", "invalid"))],
    "http1_bodies": lambda: [bytes((framing, 5)) + data for data in values(http1_chunks) for framing in (2, 1)],
    "http2_server": http2.server_seeds,
    "http2_requester": http2.requester_seeds,
}  # fmt: skip


def write_seeds(name, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for data in SEEDS[name]():
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
