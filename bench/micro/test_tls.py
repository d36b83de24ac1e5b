"""The TLS engine in memory: the server's share of a full handshake, records, the key schedule.

    python -m pytest bench/micro/test_tls.py

Handshakes: one round is one handshake. Loops: 1000 operations, so a figure in ms is microseconds per operation.
test_server_handshake's extra_info (printed with -s) holds the server's share and the bare primitives' time, medians:
what is over the latter is the engine's own.
"""

import statistics
import time

import pytest
from cext.crypto.kx import X25519MLKEM768
from cext.tls.config import ClientConfig
from cext.tls.engine import ACCEPTED, ESTABLISHED, Engine
from cext.tls.replay import SharedRegister
from cext.tls.session import TicketKeys

from bench.micro import crypto_loops, tls_loops
from tests.cext.tls.peer import AES_128, AES_256, CHACHA20, P256, X25519, credential, pump, server_config

TIMES = 1000
SUITES = {"aes-128-gcm": AES_128, "aes-256-gcm": AES_256, "chacha20-poly1305": CHACHA20}
SCHEMES = {"ecdsa-p256": 0x0403, "rsa": 0x0804, "ed25519": 0x0807}

every_suite = pytest.mark.parametrize("suite", SUITES)
record_sizes = pytest.mark.parametrize("n", [50, 1024, 16384])


def client_config(suite=AES_128, group=X25519):
    return ClientConfig(server_name="example.com", alpn=(b"http/1.1",), cipher_suites=(suite,), groups=(group,))


def connected(suite):
    client, server = Engine(client_config(suite)), Engine(server_config())
    pump(client, server)
    return client, server


def server_handshake(config, offer, early=b""):
    """Seconds the server took for one handshake, the client's turns left out."""
    client = Engine(offer)
    if early:
        client.send(early)
    hello = client.take_output()
    start = time.perf_counter()
    server = Engine(config)
    server.receive_bytes(hello)
    flight = server.take_output()
    spent = time.perf_counter() - start
    client.receive_bytes(flight)
    finished = client.take_output()
    start = time.perf_counter()
    events = server.receive_bytes(finished)
    spent += time.perf_counter() - start
    assert events[-1] == (ESTABLISHED, b"")
    assert server.resumed == (offer.session is not None) and (server.early_data_state == ACCEPTED) == bool(early)
    return spent


def primitives(group, key, scheme):
    """Seconds that the arithmetic of a server's handshake takes by itself: share, shared secret, signature."""
    start = time.perf_counter()
    failures = crypto_loops.respond(group, 1) + crypto_loops.sign(key, scheme, 1)
    spent = time.perf_counter() - start
    assert failures == 0
    start = time.perf_counter()
    crypto_loops.generate(group, 1)  # respond() makes a client's share before it begins
    return spent - (time.perf_counter() - start)


@pytest.mark.parametrize("early", [b"", b"x" * 300], ids=["resumed", "0-rtt"])
def test_resumed_handshake(benchmark, early):
    """The server's share of it, and with 300 bytes of early data."""
    config = server_config(tickets=TicketKeys([(bytes(16), bytes(32))]), max_early_data=1000)
    client, server = Engine(client_config()), Engine(config)
    pump(client, server)
    session = client.session
    offer = ClientConfig(server_name="example.com", alpn=(b"http/1.1",), early_data=bool(early), session=session)
    taken = []

    def handshake():
        taken.append(server_handshake(config, offer, early))

    benchmark.pedantic(handshake, rounds=500, warmup_rounds=20)
    benchmark.extra_info["server_us"] = round(statistics.median(taken) * 1e6, 1)


def test_seal_ticket(benchmark):
    keys = TicketKeys([(bytes(16), bytes(32))])
    assert benchmark(tls_loops.seal_tickets, keys, 0, TIMES) == 0


def test_open_ticket(benchmark):
    keys = TicketKeys([(bytes(16), bytes(32))])
    assert benchmark(tls_loops.open_tickets, keys, TIMES) == 0


def test_replay_register(benchmark):
    register = SharedRegister()
    benchmark.pedantic(tls_loops.enter_register, (register, TIMES), rounds=100)


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("group", [X25519, P256, X25519MLKEM768], ids=["x25519", "p256", "x25519mlkem768"])
def test_server_handshake(benchmark, group, kind):
    config, offer = server_config(kind), client_config(group=group)
    key = credential(kind).key
    taken, bare = [], []

    def handshake():
        taken.append(server_handshake(config, offer))
        bare.append(primitives(group, key, SCHEMES[kind]))  # in turn: a busy machine slows both alike

    benchmark.pedantic(handshake, rounds=500, warmup_rounds=20)
    ours, theirs = statistics.median(taken), statistics.median(bare)
    benchmark.extra_info.update(
        server_us=round(ours * 1e6, 1),
        primitives_us=round(theirs * 1e6, 1),
        ratio=round(ours / theirs, 3),
        server_min_us=round(min(taken) * 1e6, 1),
    )
    print(f"\n{kind}: {benchmark.extra_info}")


def test_first_flight(benchmark):
    """ClientHello in, the server's flight out."""
    config = server_config()
    hello = Engine(client_config()).take_output()

    def flight():
        server = Engine(config)
        server.receive_bytes(hello)
        return server.take_output()

    assert len(benchmark(flight)) > 500


@every_suite
@record_sizes
def test_seal(benchmark, suite, n):
    _, server = connected(SUITES[suite])
    assert benchmark.pedantic(tls_loops.seal, (server, n, TIMES), rounds=30) == 0


@every_suite
@record_sizes
def test_seal_and_receive(benchmark, suite, n):
    client, server = connected(SUITES[suite])
    assert benchmark.pedantic(tls_loops.seal_and_receive, (client, server, n, TIMES), rounds=30) == 0


@every_suite
def test_park_and_seal(benchmark, suite):
    _, server = connected(SUITES[suite])
    assert benchmark.pedantic(tls_loops.park_and_seal, (server, 1024, TIMES), rounds=30) == 0


@pytest.mark.parametrize(("hash_id", "aead"), [(1, 1), (2, 2), (1, 3)])
def test_key_schedule(benchmark, hash_id, aead):
    assert benchmark(tls_loops.key_schedule, hash_id, aead, TIMES) == 0
