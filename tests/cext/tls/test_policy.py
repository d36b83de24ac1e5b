"""A handshake that waits for its owner: to choose by the ClientHello, and for a key that is somewhere else."""

import os

import pytest
from cext.crypto.sign import PrivateKey
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.credential import Credential
from cext.tls.engine import (
    ESTABLISHED,
    FAILED,
    PROGRESS,
    WAIT_POLICY,
    WAIT_SIGN,
    Engine,
)
from cext.tls.session import TicketKeys
from cryptography.hazmat.primitives import serialization

from tests.cext.tls.peer import KEY_KINDS, P256, P384, certified, credential, pump, server_config

RSA_PSS = 0x0804


class Remote:
    """A key that the engine cannot use itself."""

    def __init__(self, kind):
        _, key = certified(kind, "example.com")
        self.key = PrivateKey.from_pem(key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))

    def sign(self, message, scheme):
        return self.key.sign_bytes(scheme, message)


def remote_credential(kind):
    return Credential(credential(kind).chain, Remote(kind), ["example.com"])


def connect(config, **client):
    """(client, server, the server's events) with the ClientHello delivered."""
    a, b = Engine(ClientConfig(server_name="example.com", **client)), Engine(config)
    return a, b, b.receive_bytes(a.take_output())


def test_without_credentials_a_configuration_must_have_a_policy():
    with pytest.raises(ValueError, match="at least one"):
        ServerConfig([])
    assert ServerConfig([], policy=True).policy


@pytest.mark.parametrize("retry", [False, True])
def test_the_owner_chooses_once_by_the_first_hello(retry):
    a, b, events = connect(ServerConfig([], policy=True, groups=(P384,) if retry else (P256,)),
                           groups=(P256, P384), key_share_groups=(P256,))
    assert events == [(WAIT_POLICY, b"")]
    assert b.client_hello[0] == 1
    assert len(b.client_hello) == 4 + int.from_bytes(b.client_hello[1:4], "big")
    assert b.take_output() == b""
    assert b.decide(None, credential("rsa")) == PROGRESS
    assert b.client_hello is None
    events = pump(a, b)
    assert ("a", ESTABLISHED, b"") in events and ("b", ESTABLISHED, b"") in events
    assert not any(event == WAIT_POLICY for _, event, _ in events)
    assert b.signature_scheme == RSA_PSS
    assert b.hello_retried is retry


def test_another_configuration_takes_over():
    a, b, events = connect(ServerConfig([], policy=True), alpn=(b"two",))
    assert events == [(WAIT_POLICY, b"")]
    assert b.decide(server_config("ed25519", alpn=(b"two",), policy=True)) == PROGRESS, "its policy is not asked again"
    pump(a, b)
    assert a.established and b.established
    assert a.alpn == b"two"


def test_no_choice_leaves_it_to_the_configuration():
    a, b, _ = connect(server_config("ecdsa-p256", policy=True))
    assert b.decide() == PROGRESS
    pump(a, b)
    assert b.established


def test_nothing_is_taken_while_a_choice_is_waited_for():
    a, b, _ = connect(server_config(policy=True))
    assert b.receive_bytes(b"\x14\x03\x03\x00\x01\x01") == []
    assert b.decide() == PROGRESS
    assert b.receive_bytes(b"") == [(PROGRESS, b"")], "what came meanwhile is taken now"
    pump(a, b)
    assert b.established


def test_a_chosen_credential_must_suit_the_client():
    _, b, _ = connect(ServerConfig([], policy=True))
    assert b.decide(None, None) == FAILED
    assert b.failure.name == "handshake_failure"


def test_the_owner_may_refuse():
    a, b, _ = connect(ServerConfig([], policy=True))
    assert b.give_up(49, "not at this hour") == FAILED
    assert (b.failure.name, b.failure.reason, b.failure.sent) == ("access_denied", "not at this hour", True)
    a.receive_bytes(b.take_output())
    assert a.failure.name == "access_denied"


def test_a_malformed_hello_is_refused_without_asking():
    b = Engine(ServerConfig([], policy=True))
    assert b.receive_bytes(bytes.fromhex("160301000501000001ff"))[-1] == (FAILED, b"")
    assert b.failure.name == "decode_error"


def test_bytes_behind_the_hello_are_refused():
    a = Engine(ClientConfig(server_name="example.com"))
    hello = a.take_output()[5:] + b"\x14"
    b = Engine(ServerConfig([], policy=True))
    assert b.receive_bytes(b"\x16\x03\x01" + len(hello).to_bytes(2, "big") + hello)[-1] == (FAILED, b"")
    assert b.failure.name == "unexpected_message"


def test_decisions_out_of_turn_are_refused():
    _, b, _ = connect(server_config())
    for call in (b.decide, lambda: b.give_signature(b"x"), lambda: b.give_up(40, "")):
        with pytest.raises(ValueError):
            call()
    assert b.signer is None and b.to_sign is None


@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_remote_key_signs(kind):
    a, b, events = connect(ServerConfig([remote_credential(kind)]))
    assert events == [(WAIT_SIGN, b"")]
    message, scheme = b.to_sign
    assert message.startswith(b" " * 64 + b"TLS 1.3, server CertificateVerify\0")
    sent = b.take_output()
    assert sent, "what comes before the signature need not wait for it"
    assert a.receive_bytes(sent)[-1][0] == PROGRESS
    assert b.give_signature(b.signer.sign(message, scheme)) == PROGRESS
    pump(a, b)
    assert a.established and b.established
    assert b.signer is None


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ed25519", "rsa"])
def test_after_right_signatures_only_those_of_rsa_are_all_verified(kind):
    credential = remote_credential(kind)
    told = []
    for i in range(40):
        a, b, _ = connect(ServerConfig([credential]))
        sent = b.take_output()
        message, scheme = b.to_sign
        wrong = i >= 17
        event = b.give_signature(b.signer.sign(message + b"!" * wrong, scheme))
        a.receive_bytes(sent)
        a.receive_bytes(b.take_output())
        if not wrong:
            assert event == PROGRESS
        told.append("ours" if event == FAILED else a.failure.name if a.failure else "")
    assert told[:17] == [""] * 17
    if kind == "rsa":
        assert set(told[17:]) == {"ours"}
    else:
        assert told[17:32] == ["decrypt_error"] * 15, "the client finds it"
        assert set(told[32:]) == {"ours"}, "a sample has told: all are verified again"


@pytest.mark.parametrize("signature", [b"", bytes(2000)])
def test_what_cannot_be_a_signature_never_leaves(signature):
    credential = remote_credential("ecdsa-p256")
    for _ in range(20):
        _, b, _ = connect(ServerConfig([credential]))
        assert b.give_signature(b.signer.sign(*b.to_sign)) == PROGRESS
    _, b, _ = connect(ServerConfig([credential]))
    assert b.give_signature(signature) == FAILED
    assert b.failure.reason == "the signer's signature does not verify"


@pytest.mark.parametrize("signature", [b"", b"no signature", bytes(2000)])
def test_a_wrong_signature_does_not_leave(signature):
    a, b, _ = connect(ServerConfig([remote_credential("ecdsa-p256")]))
    assert b.give_signature(signature) == FAILED
    assert (b.failure.name, b.failure.reason) == ("internal_error", "the signer's signature does not verify")
    a.receive_bytes(b.take_output())
    assert a.failure.name == "internal_error" and not a.failure.sent


def test_policy_then_remote_key_then_refusal():
    a, b, _ = connect(ServerConfig([], policy=True))
    assert b.decide(None, remote_credential("rsa")) == WAIT_SIGN
    assert b.give_up(80, "the signer is away") == FAILED
    a.receive_bytes(b.take_output())
    assert a.failure.name == "internal_error"


def test_a_key_must_be_able_to_sign():
    with pytest.raises(TypeError, match="sign"):
        Credential(credential().chain, object(), ())


# --- TLS 1.2

TLS12 = 0x0303


def test_a_choice_in_tls12():
    a, b, events = connect(ServerConfig([], policy=True), max_version=TLS12)
    assert events == [(WAIT_POLICY, b"")]
    assert b.take_output() == b""
    assert b.decide(None, credential("rsa")) == PROGRESS
    pump(a, b)
    assert a.established and b.established
    assert (b.version, b.signature_scheme) == (TLS12, RSA_PSS)


def test_another_configuration_may_lead_to_tls12():
    a, b, events = connect(server_config(policy=True), alpn=(b"two",))
    assert events == [(WAIT_POLICY, b"")]
    assert b.decide(server_config("ed25519", alpn=(b"two",), max_version=TLS12, policy=True)) == PROGRESS
    pump(a, b)
    # A server that could speak TLS 1.3 would say so; this one cannot (RFC 8446, section 4.1.3).
    assert a.established and b.established
    assert (a.version, a.alpn) == (TLS12, b"two")


def test_a_ticket_is_read_by_the_configuration_that_was_chosen():
    def keys():
        return TicketKeys([(os.urandom(16), os.urandom(32))])

    mine, other = server_config(tickets=keys(), policy=True), server_config(tickets=keys())
    a, b, _ = connect(mine, max_version=TLS12)
    b.decide()
    pump(a, b)
    for config, resumed in ((None, True), (other, False)):
        c, d, events = connect(mine, max_version=TLS12, session=a.session)
        assert events == [(WAIT_POLICY, b"")]
        d.decide(config)
        pump(c, d)
        assert d.established
        assert d.resumed is resumed


def test_refusals_in_tls12():
    a, b, _ = connect(ServerConfig([], policy=True), max_version=TLS12)
    assert b.give_up(49, "not at this hour") == FAILED
    a.receive_bytes(b.take_output())
    assert a.failure.name == "access_denied"
    _, b, _ = connect(ServerConfig([], policy=True), max_version=TLS12)
    assert b.decide(None, None) == FAILED
    assert b.failure.name == "handshake_failure"


@pytest.mark.parametrize("asks", ["none", "require"])
@pytest.mark.parametrize("kind", KEY_KINDS)
def test_a_remote_key_signs_in_tls12(kind, asks):
    a, b, events = connect(ServerConfig([remote_credential(kind)], client_auth=asks), max_version=TLS12,
                           credentials=[credential("rsa")])
    assert events == [(WAIT_SIGN, b"")]
    message, scheme = b.to_sign
    assert len(message) > 64 and message[64:65] == b"\3"          # both randoms, then a named curve
    assert a.receive_bytes(b.take_output())[-1][0] == PROGRESS
    assert b.give_signature(b.signer.key.sign12_bytes(scheme, message)) == PROGRESS
    pump(a, b)
    assert a.established and b.established
    assert bool(b.peer_certificates) == (asks == "require")


@pytest.mark.parametrize("signature", [b"", b"no signature", bytes(2000)])
def test_a_wrong_signature_does_not_leave_in_tls12(signature):
    a, b, _ = connect(ServerConfig([remote_credential("ecdsa-p256")]), max_version=TLS12)
    assert b.give_signature(signature) == FAILED
    assert (b.failure.name, b.failure.reason) == ("internal_error", "the signer's signature does not verify")
    a.receive_bytes(b.take_output())
    assert a.failure.name == "internal_error" and not a.failure.sent
