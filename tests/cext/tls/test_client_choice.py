"""Which of its certificates a client shows: by signature algorithms, authorities and types, or as its owner says."""

import pytest
from cext.crypto.x509 import issuer_name
from cext.tls.config import ClientConfig, ServerConfig
from cext.tls.credential import Credential
from cext.tls.engine import ESTABLISHED, FAILED, WAIT_CERTIFICATE, WAIT_POLICY, Engine
from cext.tls.session import TicketKeys

from tests.cext.tls.peer import RawClient, credential, extension, message, pump, server_config, u16s, vector
from tests.cext.tls.test_client12 import RawServer12
from tests.cext.tls.test_delegated import delegated

VERSIONS = pytest.mark.parametrize("version", [0x0303, 0x0304])
KINDS = ("ecdsa-p256", "rsa", "ed25519")
ECDSA, RSA, ED25519 = (0x0403,), (0x0804,), (0x0807,)


def own(kind, name=None, **options):
    """A client's credential, self-signed, of the name's own authority."""
    known = credential(kind, name or f"{kind}.client.example")
    return Credential(known.chain, known.key, (), **options)


def authority(kind, name=None):
    return issuer_name(own(kind, name).chain[0])


def connect(version, credentials, **server):
    client = Engine(ClientConfig(server_name="example.com", max_version=version, credentials=credentials))
    server = Engine(server_config("ecdsa-p256", **{"client_auth": "request", **server}))
    pump(client, server)
    assert server.established, server.failure or client.failure
    assert server.version == version
    return server.peer_certificates


@VERSIONS
@pytest.mark.parametrize(("schemes", "kind"), [
    (ECDSA, "ecdsa-p256"), (RSA, "rsa"), (ED25519, "ed25519"), (RSA + ED25519, "rsa"), ((0x0806,), "rsa")])
def test_the_first_that_can_sign_as_the_server_wants(version, schemes, kind):
    everything = [own(kind) for kind in KINDS]
    assert connect(version, everything, client_schemes=schemes) == own(kind).chain


@VERSIONS
def test_none_that_can_shows_none(version):
    assert connect(version, [own("rsa"), own("ed25519")], client_schemes=ECDSA) == ()
    assert connect(version, []) == ()


@VERSIONS
def test_issuer_is_heeded_where_it_must_match(version):
    rsa, ecdsa = authority("rsa"), authority("ecdsa-p256")
    both = [own("rsa", match_issuer=True), own("ecdsa-p256", match_issuer=True)]
    assert connect(version, both, client_authorities=[ecdsa]) == both[1].chain
    assert connect(version, both, client_authorities=[ecdsa, rsa]) == both[0].chain
    assert connect(version, both, client_authorities=[authority("ed25519")]) == ()
    assert connect(version, both) == ()
    assert connect(version, [*both, own("ed25519")], client_authorities=[b"0\0"]) == own("ed25519").chain


@pytest.mark.parametrize("names", [[b"0\0"], [authority("rsa")[:-1]], [authority("rsa") + b"\0"]])
def test_almost_the_issuer(names):
    assert connect(0x0304, [own("rsa", match_issuer=True)], client_authorities=names) == ()


def test_a_server_heeds_the_issuers_that_a_client_names():
    def shown(kind, name="example.com"):
        known = credential(kind, name)
        return Credential(known.chain, known.key, ["example.com"], match_issuer=kind != "ecdsa-p256")

    named = [shown(kind) for kind in ("rsa", "ed25519", "ecdsa-p256")]      # self-signed, by one name
    other = shown("rsa", "other.example")

    def scheme(credentials, *names):
        extra = (extension(47, vector(2, b"".join(vector(2, name) for name in names))),) if names else ()
        client = RawClient(ServerConfig(credentials))
        client.hello(extra=extra)
        client.finish()
        assert client.server.established
        return client.server.signature_scheme

    ours = issuer_name(named[0].chain[0])
    assert scheme(named) == 0x0403
    assert scheme(named, ours) == 0x0804
    assert scheme([other, *named[1:]], b"0\0", ours) == 0x0807
    assert scheme(named, b"0\0") == 0x0403


def test_a_server_without_the_issuer():
    alone = Credential(credential("rsa").chain, credential("rsa").key, ["example.com"], match_issuer=True)
    client = RawClient(ServerConfig([alone]))
    events = client.hello().events
    assert events[-1][0] == FAILED
    assert client.server.failure.name == "handshake_failure"
    assert "issuer" in client.server.failure.reason


# --- as the owner says


def waiting(version, credentials=(), **server):
    client = Engine(ClientConfig(server_name="example.com", max_version=version, credentials=credentials, policy=True))
    server = Engine(server_config("ecdsa-p256", **{"client_auth": "request", **server}))
    events = pump(client, server)
    assert ("a", WAIT_CERTIFICATE, b"") in events
    return client, server


@VERSIONS
def test_the_owner_chooses(version):
    client, server = waiting(version, [own("ecdsa-p256")], client_authorities=[authority("rsa")])
    asked, request = client.certificate_request
    assert (asked, request[0]) == (version, 13)
    assert authority("rsa") in request
    assert client.take_output() == b""
    client.show(own("rsa"))
    assert client.certificate_request is None
    events = pump(client, server)
    assert ("b", ESTABLISHED, b"") in events
    assert server.peer_certificates == own("rsa").chain


@VERSIONS
def test_the_owner_leaves_it_to_the_configuration(version):
    for credentials, chain in (([own("ed25519")], own("ed25519").chain), ([], ())):
        client, server = waiting(version, credentials)
        client.show()
        pump(client, server)
        assert server.established
        assert server.peer_certificates == chain


@VERSIONS
def test_the_owner_gives_up(version):
    client, server = waiting(version)
    assert client.give_up(80, "no certificate by policy") == FAILED
    pump(client, server)
    assert (server.failure.name, server.failure.sent) == ("internal_error", False)


@VERSIONS
def test_what_does_not_fit_is_the_owners_fault(version):
    client, _ = waiting(version, client_schemes=ECDSA)
    assert client.show(own("rsa")) == FAILED
    assert client.failure.name == "internal_error"
    assert "cannot sign" in client.failure.reason


def test_a_delegated_credential_is_no_clients():
    """RFC 9345 has them of servers alone: by the owner's choice, as by configuration."""
    client, _ = waiting(0x0304)
    assert client.show(delegated()) == FAILED
    assert (client.failure.name, client.take_output()[:1]) == ("internal_error", b"\x17")


def test_bytes_behind_the_message_that_waits():
    """HelloRequests are passed over, but the stop must not be lost over one."""
    request = message(13, vector(1, b"\x40\1") + vector(2, u16s(0x0403)) + vector(2, b""))
    server = RawServer12(ClientConfig(server_name="example.com", max_version=0x0303, policy=True),
                         done=lambda done: [request, done + message(0)])
    server.hello()
    server.flight()
    assert server.events[-1] == (FAILED, b"")
    assert server.alert() == "unexpected_message"


def test_no_question_no_stop():
    client = Engine(ClientConfig(server_name="example.com", policy=True))
    server = Engine(server_config("ecdsa-p256"))
    events = pump(client, server)
    assert not any(event in (WAIT_CERTIFICATE, WAIT_POLICY) for _, event, _ in events)
    assert client.established
    with pytest.raises(ValueError, match="no certificate is waited for"):
        client.show()


# --- trust in a session's server


@VERSIONS
@pytest.mark.parametrize("again", [False, True])
def test_verified_again_when_it_is_resumed(version, again):
    asked, trusted = [], True

    def verify(chain, name):
        asked.append((chain, name))
        if not trusted:
            raise ValueError("no longer")

    keys = TicketKeys([(b"n" * 16, b"k" * 32)])
    config = ClientConfig(server_name="example.com", max_version=version, verify=verify, verify_resumed=again)
    first, server = Engine(config), Engine(server_config("ecdsa-p256", tickets=keys))
    pump(first, server)
    assert first.session is not None
    for trusted in (True, False):
        client, server = Engine(config, first.session), Engine(server_config("ecdsa-p256", tickets=keys))
        pump(client, server)
        if again and not trusted:
            assert client.failure.name == "bad_certificate"
            assert "no longer" in client.failure.reason
            assert not server.established
        else:
            assert client.established and client.resumed
    assert asked == [(list(credential().chain), b"example.com")] * (3 if again else 1)
