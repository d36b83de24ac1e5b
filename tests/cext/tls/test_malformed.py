"""Damaged ClientHellos against a whole server: each ends in an alert that was sent or in a wait for more, and costs
nothing that lasts."""

import random
import tracemalloc

from cext.tls.engine import FAILED, Engine
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import tls_corrupt as wire
from tests.cext.tls.peer import records, server_config

# What a ClientHello can bring on a server; internal_error is never the client's doing.
ALERTS = {
    "decode_error", "illegal_parameter", "missing_extension", "handshake_failure", "protocol_version",
    "unexpected_message", "record_overflow", "no_application_protocol", "decrypt_error",
}  # fmt: skip
CONFIG = server_config("ecdsa-p256", "rsa")


def offer(data):
    """A new server's answer: the name of its alert, or None."""
    server = Engine(CONFIG)
    events = server.receive_bytes(data)
    output = server.take_output()
    if not events or events[-1][0] != FAILED:
        return None
    failure = server.failure
    if not failure.sent:  # the damaged record was an alert
        return f"peer: {failure.name}"
    assert failure.reason and failure.name in ALERTS, failure
    type, last = records(output)[-1]
    if type == 23:  # the ClientHello still was one, and what came after it was not: the alert is encrypted
        assert len(last) == 5 + 2 + 1 + 16
    else:
        assert type == 21 and last[5:] == bytes((2, failure.description))
    return failure.name


def test_known_faults():
    for what, body, alert in wire.faults():
        assert offer(wire.record(wire.handshake(1, body))) == alert, what


def test_known_faults_in_small_records():
    for what, body, alert in wire.faults():
        assert offer(wire.records(wire.handshake(1, body), 50)) == alert, what


@settings(max_examples=600, deadline=None)
@given(seed=st.integers(0, 2**64), whole_record=st.booleans())
def test_random_damage(seed, whole_record):
    rng = random.Random(seed)
    right = wire.ClientHello(random=rng.randbytes(32)).message()
    offer(wire.mutate(wire.record(right), rng) if whole_record else wire.record(wire.mutate(right, rng)))


def test_most_damage_is_refused():
    refused = [offer(data) for data in wire.malformed_records(1000, seed=3)]
    assert sum(name is not None for name in refused) > 600


def test_damage_costs_no_memory():
    for data in wire.malformed_records(200, seed=1):
        offer(data)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for data in wire.malformed_records(1000, seed=2):
            offer(data)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 64 * 1024
