"""The TLS engine in memory: the server's share of a full handshake, records, the key schedule.

    python -m pytest bench/micro/test_tls.py

Handshakes: one round is one handshake. Loops: 1000 operations, so a figure in ms is microseconds per operation.
test_server_handshake's extra_info (printed with -s) holds the server's share and the bare primitives' time, medians:
what is over the latter is the engine's own.
"""

import statistics
import time

import pytest
from cext.tls.config import ClientConfig
from cext.tls.connection import ESTABLISHED, Connection

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
    client, server = Connection(client_config(suite)), Connection(server_config())
    pump(client, server)
    return client, server


def server_handshake(config, offer):
    """Seconds the server took for one handshake, the client's turns left out."""
    client = Connection(offer)
    hello = client.take_output()
    start = time.perf_counter()
    server = Connection(config)
    server.receive_bytes(hello)
    flight = server.take_output()
    spent = time.perf_counter() - start
    client.receive_bytes(flight)
    finished = client.take_output()
    start = time.perf_counter()
    events = server.receive_bytes(finished)
    spent += time.perf_counter() - start
    assert events[-1] == (ESTABLISHED, b"")
    return spent


def primitives(group, key, scheme):
    """Seconds that the arithmetic of a server's handshake takes by itself: key pair, shared secret, signature."""
    start = time.perf_counter()
    failures = crypto_loops.generate(group, 1) + crypto_loops.derive(group, 1) + crypto_loops.sign(key, scheme, 1)
    spent = time.perf_counter() - start
    assert failures == 0
    start = time.perf_counter()
    crypto_loops.generate(group, 1)  # derive() makes two key pairs of its own before it begins
    crypto_loops.generate(group, 1)
    return spent - (time.perf_counter() - start)


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("group", [X25519, P256], ids=["x25519", "p256"])
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
    hello = Connection(client_config()).take_output()

    def flight():
        server = Connection(config)
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
