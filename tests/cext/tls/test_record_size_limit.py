"""The record size limit, both roles (RFC 8449)."""

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import DATA, FAILED, Engine
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.tls.peer import APPLICATION_DATA, SUITES, RawClient, extension, pump, records, server_config, u16s
from tests.cext.tls.peer12 import EMS, RENEGOTIATION, TLS12, RawClient12
from tests.cext.tls.test_client12 import RawServer12
from tests.cext.tls.test_client13 import RawServer

MAX = (1 << 14) + 1
TAG = 16


def inner_lengths(stream):
    """Of each protected record: what the limit is of, content with type and padding."""
    return [len(whole) - 5 - TAG for kind, whole in records(stream) if kind == APPLICATION_DATA]


def limit(value):
    return extension(28, u16s(value))


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("value", [64, 65, 1000, 16384, MAX])
def test_a_server_keeps_within_a_clients_limit(value, suite):
    client = Engine(ClientConfig(server_name="example.com", record_size_limit=value, cipher_suites=(suite,)))
    server = Engine(server_config("rsa", client_auth="request"))
    server.receive_bytes(client.take_output())
    flight = server.take_output()
    lengths = inner_lengths(flight)
    assert max(lengths) <= value
    assert value > 1000 or max(lengths) == value
    client.receive_bytes(flight)
    pump(client, server)
    assert client.established, client.failure
    assert server.established, server.failure
    assert server.plaintext_max == min(value - 1, 16384)
    server.send(bytes(40000))
    stream = server.take_output()
    lengths = inner_lengths(stream)
    assert max(lengths) == min(value, MAX)
    assert len(lengths) == -(-40000 // min(value - 1, 16384))
    assert b"".join(content for event, content in client.receive_bytes(stream) if event == DATA) == bytes(40000)
    client.send(bytes(20000))                       # the server has said that it takes all
    assert max(inner_lengths(client.take_output())) == MAX


@pytest.mark.parametrize("value", [64, 500])
def test_a_client_keeps_within_a_servers_limit(value):
    client = Engine(ClientConfig(server_name="example.com", record_size_limit=MAX))
    server = Engine(server_config(record_size_limit=value))
    pump(client, server)
    assert client.plaintext_max == value - 1
    client.send(bytes(3000))
    stream = client.take_output()
    assert max(inner_lengths(stream)) == value
    assert b"".join(content for _, content in server.receive_bytes(stream)) == bytes(3000)


def test_not_negotiated_when_not_offered():
    client = RawClient(server_config(record_size_limit=64)).connect()
    encrypted_extensions = next(whole for kind, whole in client.flight if kind == 8)
    assert limit(64) not in encrypted_extensions
    assert client.send(client.seal(bytes(16384))) == [(DATA, bytes(16384))]


def test_a_limit_over_what_is_possible_is_a_clients_right():
    client = RawClient(extra=[limit(0xFFFF)]).connect()
    assert client.server.plaintext_max == 16384
    assert limit(MAX) in next(whole for kind, whole in client.flight if kind == 8)


@pytest.mark.parametrize(("body", "alert"), [
    (u16s(63), "illegal_parameter"), (u16s(0), "illegal_parameter"), (b"\1", "decode_error"), (b"", "decode_error"),
    (u16s(64) + b"\0", "decode_error"),
])
def test_faults_of_a_client(body, alert):
    client = RawClient(extra=[extension(28, body)]).hello()
    assert client.server.failure.name == alert


@pytest.mark.parametrize(("value", "alert"), [(63, "illegal_parameter"), (MAX + 1, "illegal_parameter"), (64, None)])
def test_limits_of_a_server(value, alert):
    def offering(whole):
        body = whole[6:] + limit(value)
        return whole[:1] + (len(body) + 2).to_bytes(3, "big") + u16s(len(body)) + body

    config = ClientConfig(server_name="example.com", alpn=(b"http/1.1",), record_size_limit=200)
    server = RawServer(config, alter={"encrypted_extensions": offering}).serve(100)
    if alert:
        assert server.client.failure.name == alert
    else:
        assert server.client.established, server.client.failure
        assert server.client.plaintext_max == 63


def test_a_server_may_not_bring_it_up():
    def offering(whole):
        body = whole[6:] + limit(64)
        return whole[:1] + (len(body) + 2).to_bytes(3, "big") + u16s(len(body)) + body

    server = RawServer(alter={"encrypted_extensions": offering}).serve()
    assert server.client.failure.name == "unsupported_extension"


@pytest.mark.parametrize(("content", "padding", "name"), [
    (99, 0, None), (0, 99, None), (50, 49, None), (100, 0, "record_overflow"), (1, 99, "record_overflow"),
])
def test_our_own_limit_is_enforced(content, padding, name):
    client = RawClient(server_config(record_size_limit=100), extra=[limit(MAX)]).connect()
    event = client.send(client.seal(b"x" * content, padding=padding))[-1][0]
    assert (event == FAILED) == (name is not None)
    assert name is None or client.server.failure.name == name


def test_a_flight_over_our_limit():
    client = RawClient(server_config(record_size_limit=64), extra=[limit(MAX)]).hello()
    finished = client.finished()
    events = client.send(client.write.protect(finished, 22, 64))
    assert events[-1][0] == FAILED
    assert client.server.failure.name == "record_overflow"


@pytest.mark.parametrize("value", [63, 0, MAX + 1])
def test_limits_that_cannot_be(value):
    with pytest.raises(ValueError, match="record_size_limit"):
        server_config(record_size_limit=value)
    with pytest.raises(ValueError, match="record_size_limit"):
        ClientConfig(record_size_limit=value)


@settings(max_examples=25, deadline=None)
@given(st.integers(64, MAX), st.integers(64, MAX), st.lists(st.binary(max_size=3000), max_size=5))
def test_data_arrives_whatever_the_limits(ours, theirs, pieces):
    client = Engine(ClientConfig(server_name="example.com", record_size_limit=theirs))
    server = Engine(server_config(record_size_limit=ours))
    pump(client, server)
    for a, b in ((client, server), (server, client)):
        for piece in pieces:
            a.send(piece)
        got = b"".join(content for event, content in b.receive_bytes(a.take_output()) if event == DATA)
        assert got == b"".join(pieces)


# --- TLS 1.2: what is protected has no type to count, AES-GCM a nonce beside it

OVERHEADS = {0xC02B: 8 + TAG, 0xCCA9: TAG}


def lengths12(stream, suite):
    return [len(whole) - 5 - OVERHEADS[suite] for kind, whole in records(stream) if kind == APPLICATION_DATA]


@pytest.mark.parametrize("suite", OVERHEADS)
@pytest.mark.parametrize("value", [64, 1000, 16384, MAX])
@pytest.mark.parametrize("max_version", [TLS12, 0x0304])
def test_both_limits_in_tls12(value, suite, max_version):
    client = Engine(ClientConfig(server_name="example.com", record_size_limit=value, cipher_suites=(0x1301, suite),
                                 max_version=max_version))
    server = Engine(server_config(max_version=TLS12, record_size_limit=500))
    pump(client, server)
    assert client.established, client.failure
    most = min(value, 16384)
    assert (server.plaintext_max, client.plaintext_max) == (most, 500)
    for end, other, wanted in ((server, client, most), (client, server, 500)):
        end.send(bytes(40000))
        stream = end.take_output()
        assert max(lengths12(stream, suite)) == wanted
        assert b"".join(content for _, content in other.receive_bytes(stream)) == bytes(40000)


@pytest.mark.parametrize("suite", OVERHEADS)
@pytest.mark.parametrize(("n", "refused"), [(100, False), (101, True)])
def test_our_own_limit_is_enforced_in_tls12(suite, n, refused):
    client = RawClient12(server_config(record_size_limit=100), suite=suite)
    client.hello(extra=(limit(200),))
    assert client.server_hello()[2][28] == u16s(100)
    client.key_exchange()
    client.ccs()
    client.finish()
    client.take_flight()
    assert (client.send(client.write.protect(bytes(n), APPLICATION_DATA))[-1][0] == FAILED) == refused
    if refused:
        assert client.server.failure.name == "record_overflow"


def test_not_answered_when_not_offered_in_tls12():
    assert 28 not in RawClient12().hello().server_hello()[2]


@pytest.mark.parametrize(("value", "alert"), [(63, "illegal_parameter"), (MAX + 1, "illegal_parameter"), (64, None)])
def test_limits_of_a_server_in_tls12(value, alert):
    server = RawServer12(ClientConfig(server_name="example.com", record_size_limit=200))
    server.hello(extension(EMS) + extension(RENEGOTIATION, b"\0") + limit(value))
    assert (server.client.failure and server.client.failure.name) == alert


def test_a_server_may_not_bring_it_up_in_tls12():
    server = RawServer12().hello(extension(EMS) + limit(64))
    assert server.client.failure.name == "unsupported_extension"
