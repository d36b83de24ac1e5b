"""TLS 1.2 in memory: the server's share of a full and of a resumed handshake, and records.

    python -m pytest bench/micro/test_tls12.py

One round is one handshake; loops are 1000 operations, so a figure in ms is microseconds per operation. extra_info
(printed with -s) has the server's share of handshakes, and what of it the bare primitives take.
"""

import statistics
import time

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import Engine
from cext.tls.session import TicketKeys

from bench.micro import tls_loops
from bench.micro.test_tls import SCHEMES, TIMES, primitives, record_sizes
from tests.cext.tls.peer import P256, X25519, credential, pump, server_config

TLS12 = 0x0303
SUITES = {"aes-128-gcm": 0xC02B, "aes-256-gcm": 0xC02C, "chacha20-poly1305": 0xCCA9}
ROUNDS = 300


def server_handshake(config, offer, session=None):
    """Seconds the server took for one handshake, the client's turns left out."""
    client, server, spent = Engine(offer, session), None, 0.0
    while server is None or not (server.established and client.established):
        said = client.take_output()
        start = time.perf_counter()
        server = server or Engine(config)
        server.receive_bytes(said)
        answer = server.take_output()
        spent += time.perf_counter() - start
        client.receive_bytes(answer)
    assert (server.version, server.resumed) == (TLS12, session is not None)
    return spent


@pytest.mark.parametrize(("kind", "group"), [("ecdsa-p256", X25519), ("ecdsa-p256", P256), ("rsa", X25519)])
def test_server_handshake(benchmark, kind, group):
    config = server_config(kind, groups=(group,) if group == P256 else (X25519, P256))
    groups = (group, P256) if group != P256 else (P256,)        # the certificate's curve must be among them
    offer = ClientConfig(server_name="example.com", max_version=TLS12, groups=groups)
    shares = []
    benchmark.pedantic(lambda: shares.append(server_handshake(config, offer)), rounds=ROUNDS, warmup_rounds=20)
    share = statistics.median(shares) * 1e6
    bare = statistics.median(primitives(group, credential(kind).key, SCHEMES[kind]) for _ in range(100)) * 1e6
    benchmark.extra_info.update(server_us=round(share, 1), primitives_us=round(bare, 1))
    print(f"\n{kind}: server {share:.1f} us, primitives {bare:.1f} us, over them {share - bare:.1f} us")


def test_resumed_server_handshake(benchmark):
    config = server_config(tickets=TicketKeys([(bytes(16), bytes(32))]))
    offer = ClientConfig(server_name="example.com", max_version=TLS12)
    client = Engine(offer)
    pump(client, Engine(config))
    shares = []
    benchmark.pedantic(
        lambda: shares.append(server_handshake(config, offer, client.session)), rounds=ROUNDS, warmup_rounds=20)
    share = statistics.median(shares) * 1e6
    benchmark.extra_info.update(server_us=round(share, 1))
    print(f"\nresumed: server {share:.1f} us")


@record_sizes
@pytest.mark.parametrize("suite", SUITES)
def test_records(benchmark, suite, n):
    """Sealed by one end and opened by the other."""
    client = Engine(ClientConfig(server_name="example.com", max_version=TLS12, cipher_suites=(SUITES[suite],)))
    server = Engine(server_config())
    pump(client, server)
    failures = benchmark.pedantic(tls_loops.seal_and_receive, (server, client, n, TIMES), rounds=10, warmup_rounds=1)
    assert failures == 0
