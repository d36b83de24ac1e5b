"""The hybrid groups in TLS 1.3: who chooses them when, and the alert for every share that is none."""

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import Engine
from cext.tls.names import describe
from cext.tls.session import TicketKeys

from cext.crypto import kx, mlkem
from tests.cext.tls.peer import (
    AES_128,
    APPLICATION_DATA,
    HANDSHAKE,
    P256,
    P384,
    SERVER_HELLO,
    X25519,
    RawClient,
    assert_refused,
    client_hello,
    extension,
    message,
    pump,
    record,
    server_config,
    u16s,
    vector,
)
from tests.cext.tls.test_client13 import VERSION, RawServer

X_MLKEM, P_MLKEM = kx.X25519MLKEM768, kx.SECP256R1MLKEM768
CURVES = (X25519, P256, P384)
ALL = (X_MLKEM, P_MLKEM, *CURVES)
every_hybrid = pytest.mark.parametrize("group", [X_MLKEM, P_MLKEM], ids=hex)
pytestmark = pytest.mark.skipif(not mlkem.available(), reason="nothing here does ML-KEM-768")


@pytest.fixture
def provided():
    before = mlkem.provided_by()
    yield mlkem.provided_by
    mlkem.provided_by(before)


def connected(server, client, session=None):
    a, b = Engine(client, session), Engine(server)
    pump(a, b)
    assert (a.failure, b.failure) == (None, None)
    assert (a.group, a.version, a.hello_retried) == (b.group, b.version, b.hello_retried)
    return a, b


def hello_of(config):
    return RawServer(config).hello


def assert_share_refused(group, share, alert="illegal_parameter"):
    """A server does, sent in a ClientHello as the only one."""
    client = RawClient(server_config())
    hello = client_hello(entries=[u16s(group) + vector(2, share)], groups=(group,))
    assert_refused(client, client.send(record(HANDSHAKE, hello, 0x0301)), alert)


@every_hybrid
@pytest.mark.parametrize("provider", ["libcrypto", "package"])
def test_handshake(provided, provider, group):
    if provider not in mlkem.providers():
        pytest.skip(f"no ML-KEM-768 by {provider} here")
    provided(provider)
    client, server = connected(server_config(), ClientConfig(groups=(group,)))
    assert (server.group, server.version, server.hello_retried) == (group, 0x0304, False)
    name = describe(server.version, server.cipher_suite, server.group, server.signature_scheme).split()[2]
    assert name == {X_MLKEM: "x25519mlkem768", P_MLKEM: "secp256r1mlkem768"}[group]
    assert client.exporter("label", b"", 32) == server.exporter("label", b"", 32)


@every_hybrid
def test_handshake_over_small_pieces(group):
    client, server = Engine(ClientConfig(groups=(group,))), Engine(server_config())
    for a, b in ((client, server), (server, client), (client, server)):
        sent = a.take_output()
        for at in range(0, len(sent), 100):
            b.receive_bytes(sent[at : at + 100])
    assert client.established and server.established and server.group == group


@every_hybrid
def test_retry(group):
    client = ClientConfig(groups=(X25519, group), key_share_groups=(X25519,))
    _, server = connected(server_config(groups=(group,)), client)
    assert (server.group, server.hello_retried) == (group, True)


@every_hybrid
def test_resumption(group):
    config, client = server_config(tickets=TicketKeys([(b"n" * 16, b"k" * 32)])), ClientConfig(groups=(group,))
    first, _ = connected(config, client)
    _, second = connected(config, client, first.session)
    assert second.resumed and second.group == group


def test_server_asks_nobody_for_a_better_share():
    for shares, group in (((X25519,), X25519), ((X25519, X_MLKEM), X_MLKEM), ((P256, P_MLKEM), P_MLKEM)):
        _, server = connected(server_config(), ClientConfig(key_share_groups=shares))
        assert (server.group, server.hello_retried) == (group, False)
    _, server = connected(server_config(), ClientConfig(key_share_groups=()))
    assert (server.group, server.hello_retried) == (X_MLKEM, True)


def test_what_a_client_offers(provided):
    hello = hello_of(ClientConfig())
    assert tuple(hello["supported_groups"]) == ALL
    quick = mlkem.quick()
    assert [group for group, _ in hello["key_shares"]] == ([X_MLKEM, X25519] if quick else [X25519])
    for provider in mlkem.providers():
        provided(provider)
        for groups, shares in (
            ((P256, P_MLKEM, X_MLKEM), [P256, P_MLKEM] if mlkem.quick() else [P256]),
            ((P_MLKEM, X_MLKEM), [P_MLKEM]),
            (CURVES, [X25519]),
        ):
            hello = hello_of(ClientConfig(groups=groups))
            assert [group for group, _ in hello["key_shares"]] == shares
            assert tuple(hello["supported_groups"]) == groups


def test_where_nobody_does_ml_kem(provided):
    provided("nobody")
    assert tuple(hello_of(ClientConfig())["supported_groups"]) == CURVES
    _, server = connected(server_config(), ClientConfig())
    assert server.group == X25519
    assert_share_refused(X_MLKEM, bytes(1216), "handshake_failure")
    for config in (ClientConfig, server_config):
        with pytest.raises(ValueError, match="ML-KEM"):
            config(groups=(X_MLKEM, P_MLKEM))


# --- TLS 1.2


def test_tls12_has_none():
    assert tuple(hello_of(ClientConfig(groups=ALL, min_version=0x0304))["supported_groups"]) == ALL
    client = ClientConfig(groups=ALL, max_version=0x0303)
    _, server = connected(server_config(groups=ALL), client)
    assert (server.version, server.group) == (0x0303, X25519)
    _, server = connected(server_config(groups=ALL, max_version=0x0303), ClientConfig())
    assert (server.version, server.group) == (0x0303, X25519)


@every_hybrid
def test_with_hybrids_alone_tls12_is_not_spoken(group):
    hello = hello_of(ClientConfig(groups=(group,)))
    assert tuple(hello["supported_versions"]) == (0x0304,)
    client, server = Engine(ClientConfig(max_version=0x0303)), Engine(server_config(groups=(group,)))
    pump(client, server)
    assert server.failure.name == "protocol_version"
    for config in (ClientConfig, server_config):
        with pytest.raises(ValueError, match="version"):
            config(groups=(group,), max_version=0x0303)


# --- a client's faults


@every_hybrid
@pytest.mark.parametrize("n", [1, 32, 65, 1088, 1184, 1215, 1217, 1248, 1250])
def test_client_share_of_wrong_length(group, n):
    assert_share_refused(group, (kx.KeyExchange().start(group) * 2)[:n])


@every_hybrid
def test_client_share_that_is_not_reduced(group):
    share = bytearray(kx.KeyExchange().start(group))
    at = 0 if group == X_MLKEM else 65
    share[at : at + 3] = b"\x01\x0d\x00"  # 3329, the modulus, in the first coefficient's 12 bits
    assert_share_refused(group, bytes(share))


@every_hybrid
def test_client_share_of_no_point(group):
    share = bytearray(kx.KeyExchange().start(group))
    if group == X_MLKEM:
        share[-32:] = bytes(32)
    else:
        share[64] ^= 1
    assert_share_refused(group, bytes(share))


# --- a server's faults


class HybridServer(RawServer):
    """`damage` is done to the share in its ServerHello."""

    def __init__(self, group, damage):
        super().__init__(ClientConfig(server_name="example.com", groups=(group,)), group=group)
        share, _ = kx.KeyExchange().answer(group, dict(self.hello["key_shares"])[group])
        entry = u16s(group) + vector(2, damage(share))
        body = (
            b"\3\3" + bytes(32) + vector(1, self.hello["legacy_session_id"]) + u16s(AES_128) + b"\0"
            + vector(2, VERSION + extension(51, entry))
        )  # fmt: skip
        self.send(record(HANDSHAKE, message(SERVER_HELLO, body)))


@every_hybrid
def test_server_share_of_wrong_length(group):
    for damage in (
        lambda share: share[:-1], lambda share: share + b"\0", lambda share: share[:32], lambda share: share[:1088]
    ):  # fmt: skip
        assert HybridServer(group, damage).alert() == "illegal_parameter"


@every_hybrid
def test_server_share_of_no_point(group):
    def damage(share):
        if group == X_MLKEM:
            return share[:-32] + bytes(32)
        return share[:64] + bytes([share[64] ^ 1]) + share[65:]

    assert HybridServer(group, damage).alert() == "illegal_parameter"


@every_hybrid
def test_server_ciphertext_of_another(group):
    """No fault to be seen (implicit rejection): the secrets differ, and the server's next record does not open."""
    at = 0 if group == X_MLKEM else 65
    server = HybridServer(group, lambda share: share[:at] + bytes([share[at] ^ 1]) + share[at + 1 :])
    assert not server.failed
    server.send(record(APPLICATION_DATA, bytes(64)))
    assert server.client.failure.name == "bad_record_mac"


def test_both_hybrids_differ_in_order():
    """A share of the one group under the other's name is refused for its length alone."""
    assert_share_refused(X_MLKEM, kx.KeyExchange().start(P_MLKEM))
