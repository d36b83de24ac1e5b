"""What a server decides by the ClientHello, and keys that are somewhere else."""

import asyncio
import dataclasses
import threading

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, padding, utils
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from edge import tls
from tests.edge.tls_peers import (
    Thread,
    certificate,
    chain_of,
    client_config,
    connected,
    issue,
    localhost,
    openssl_context,
    pair,
    server_config,
    sockets,
)


def refused(server, client=None):
    """(what the server's handshake raises, what the client's does)."""
    with pair(server=server, client=client) as (a, b):
        thread = Thread(b.handshake)
        with pytest.raises(tls.TlsError) as theirs:
            a.handshake()
        with pytest.raises(tls.TlsError) as ours:
            thread.finish()
    return ours.value, theirs.value


# --- get_certificate


def test_get_certificate_sees_the_hello_and_chooses():
    seen = []
    chosen = certificate("localhost")

    def get_certificate(hello):
        seen.append(hello)
        return chosen

    config = tls.Config(get_certificate=get_certificate)
    with connected(server=config, client=client_config(next_protos=["a", "b"])) as (client, server):
        assert client.connection_state().peer_certificates == tuple(chosen.chain)
        transport = server._sock
    (hello,) = seen
    assert hello.server_name == "localhost"
    assert hello.alpn_protocols == ("a", "b")
    assert hello.cipher_suites[:3] == (0x1301, 0x1302, 0x1303)
    assert hello.supported_versions == (0x0304, 0x0303)
    assert 0x001D in hello.supported_groups
    assert 0x0403 in hello.signature_schemes
    assert hello.raw[0] == 1
    assert hello.ja4.startswith("t13d09")
    assert hello.conn is transport


def test_none_leaves_it_to_the_certificates():
    with connected(server=server_config(get_certificate=lambda hello: None)) as (client, _):
        assert client.connection_state().peer_certificates == tuple(localhost().chain)


def test_none_at_all_is_an_alert():
    ours, theirs = refused(tls.Config(get_certificate=lambda hello: None))
    assert isinstance(ours, tls.AlertSent) and ours.alert == "handshake_failure"
    assert isinstance(theirs, tls.AlertReceived)


def test_a_hook_may_be_async():
    async def get_certificate(hello):
        await asyncio.sleep(0.01)
        return localhost()

    config = tls.Config(get_certificate=get_certificate)
    with connected(server=config):
        pass

    async def within_a_loop():
        """A loop that runs in this thread already must not be an obstacle."""
        with pair(server=config) as (client, server):
            thread = Thread(client.handshake)
            server.handshake()
            thread.finish()

    asyncio.run(within_a_loop())


def test_a_retry_asks_once():
    asked = []
    config = tls.Config(get_certificate=lambda hello: asked.append(hello) or localhost(), groups=["secp384r1"])
    client = client_config(groups=["x25519", "secp384r1"])
    with connected(server=config, client=client) as (_, server):
        assert server.connection_state().hello_retried
    assert len(asked) == 1


# --- get_config_for_client


def test_another_configuration_by_name():
    other = server_config(next_protos=["special"])
    config = server_config(
        next_protos=["usual"],
        get_config_for_client=lambda hello: other if "special" in hello.alpn_protocols else None,
    )
    for protocol in ("special", "usual"):
        with connected(server=config, client=client_config(next_protos=[protocol])) as (client, server):
            assert client.connection_state().alpn == server.connection_state().alpn == protocol


def test_the_chosen_configurations_hook_chooses_the_certificate():
    mine = certificate("localhost")
    inner = tls.Config(get_certificate=lambda hello: mine, get_config_for_client=lambda hello: pytest.fail("asked"))
    outer = server_config(
        get_config_for_client=lambda hello: inner, get_certificate=lambda hello: pytest.fail("not mine to ask")
    )
    with connected(server=outer) as (client, _):
        assert client.connection_state().peer_certificates == tuple(mine.chain)


@pytest.mark.parametrize("version", tls.VERSIONS)
def test_the_chosen_configurations_versions_hold(version):
    other = server_config(min_version=version, max_version=version)
    with connected(server=server_config(get_config_for_client=lambda hello: other)) as (client, server):
        assert client.connection_state().version == server.connection_state().version == f"TLSv{version}"


def test_a_configuration_can_be_derived():
    base = server_config(next_protos=["a"])
    derived = dataclasses.replace(base, next_protos=["b"])
    assert derived.server_config() is not base.server_config()
    assert base.server_config() is base.server_config()
    with connected(server=derived, client=client_config(next_protos=["b"])) as (client, _):
        assert client.connection_state().alpn == "b"


# --- hooks that fail


@pytest.mark.parametrize("name", ["get_certificate", "get_config_for_client"])
@pytest.mark.parametrize(
    ("hook", "alert", "cause"),
    [
        (lambda hello: 1 / 0, "internal_error", ZeroDivisionError),
        (lambda hello: "nonsense", "internal_error", TypeError),
    ],
)
def test_a_failing_hook_ends_the_handshake(name, hook, alert, cause):
    ours, theirs = refused(server_config(**{name: hook}))
    assert isinstance(ours, tls.AlertSent)
    assert ours.alert == theirs.alert == alert
    assert isinstance(ours.__cause__, cause)
    assert "ZeroDivision" not in str(theirs)


def test_a_hook_may_name_the_alert():
    def hook(hello):
        raise tls.Refuse("unrecognized_name", f"who is {hello.server_name}?")

    ours, theirs = refused(tls.Config(get_certificate=hook))
    assert (ours.alert, ours.description) == ("unrecognized_name", 112)
    assert "who is localhost?" in str(ours)
    assert theirs.alert == "unrecognized_name" and "localhost" not in str(theirs)
    with pytest.raises(ValueError, match="no alert"):
        tls.Refuse("out_to_lunch")


def test_an_async_hook_may_fail():
    async def hook(hello):
        raise KeyError("gone")

    ours, _ = refused(tls.Config(get_certificate=hook))
    assert isinstance(ours.__cause__, KeyError)


def test_no_hook_is_asked_about_a_malformed_hello():
    config = tls.Config(get_certificate=lambda hello: pytest.fail("asked"))
    with sockets() as (a, b):
        a.sendall(bytes.fromhex("160301000501000001ff"))
        with pytest.raises(tls.AlertSent) as error:
            tls.server(b, config).handshake()
        assert error.value.alert == "decode_error"


def test_what_only_the_hook_would_read_is_checked_too():
    from tests.cext.tls.peer import Share, client_hello, extension, record

    config = tls.Config(get_certificate=lambda hello: pytest.fail("asked"))
    hello = client_hello(share=Share(), extra=[extension(11, b"\x05\0")])  # ec_point_formats, cut short
    with sockets() as (a, b):
        a.sendall(record(22, hello))
        with pytest.raises(tls.AlertSent) as error:
            tls.server(b, config).handshake()
        assert error.value.alert == "decode_error"


def test_an_interrupted_hook_can_be_asked_again():
    answers = [KeyboardInterrupt, None]

    def hook(hello):
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return localhost()

    with pair(server=tls.Config(get_certificate=hook)) as (client, server):
        thread = Thread(client.handshake)
        with pytest.raises(KeyboardInterrupt):
            server.handshake()
        server.handshake()
        thread.finish()


def test_closing_while_a_hook_works():
    working, closed = threading.Event(), threading.Event()

    def hook(hello):
        working.set()
        closed.wait(10)
        return localhost()

    with pair(server=tls.Config(get_certificate=hook)) as (client, server):
        ours, theirs = Thread(server.handshake), Thread(client.handshake)
        working.wait(10)
        server.close()
        closed.set()
        with pytest.raises(tls.ClosedError):
            ours.finish()
        with pytest.raises((tls.TlsError, OSError)):
            theirs.finish()


# --- remote keys


class Digests:
    """A signer as a token or another host has it: it signs digests, by the `cryptography` package."""

    def __init__(self, pem):
        self.key = load_pem_private_key(pem, None)
        self.schemes = []

    def sign(self, message, scheme):
        self.schemes.append(scheme)
        hashed = utils.Prehashed({32: SHA256(), 48: SHA384(), 64: SHA512()}[len(tls.digest(message, scheme))])
        if isinstance(self.key, ec.EllipticCurvePrivateKey):
            return self.key.sign(tls.digest(message, scheme), ec.ECDSA(hashed))
        pss = padding.PSS(padding.MGF1(hashed._algorithm), hashed.digest_size)
        return self.key.sign(tls.digest(message, scheme), pss, hashed)


class Async(Digests):
    async def sign(self, message, scheme):
        await asyncio.sleep(0.01)
        return super().sign(message, scheme)


@pytest.mark.parametrize("version", tls.VERSIONS)
@pytest.mark.parametrize("signer", [Digests, Async])
@pytest.mark.parametrize("kind", list(trustme.KeyType))
def test_a_signer_signs(signer, kind, version):
    leaf = issue("localhost", kind=kind)
    remote = signer(leaf.private_key_pem.bytes())
    config = tls.Config(certificates=[tls.Certificate(chain=chain_of(leaf), private_key=remote)], max_version=version)
    with sockets() as (a, b):
        server = tls.server(b, config)
        thread = Thread(server.handshake)
        with openssl_context("client").wrap_socket(a, server_hostname="localhost") as client:
            thread.finish()
            server.write(b"signed")
            assert client.recv(10) == b"signed"
    assert remote.schemes == [{"RSA": 0x0804, "ECDSA": 0x0403}[kind.name]]


@pytest.mark.parametrize(
    ("sign", "cause"),
    [
        (lambda message, scheme: 1 / 0, ZeroDivisionError),
        (lambda message, scheme: "not bytes", TypeError),
        (lambda message, scheme: b"no signature", type(None)),
    ],
)
def test_a_signer_that_fails(sign, cause):
    class Broken:
        def sign(self, message, scheme):
            return sign(message, scheme)

    ours, theirs = refused(tls.Config(certificates=[certificate("localhost", signer=Broken())]))
    assert isinstance(ours, tls.AlertSent)
    assert ours.alert == theirs.alert == "internal_error"
    assert isinstance(ours.__cause__, cause)


def test_a_signer_may_refuse_by_name():
    class Refusing:
        def sign(self, message, scheme):
            raise tls.Refuse("access_denied")

    ours, _ = refused(tls.Config(get_certificate=lambda hello: certificate("localhost", signer=Refusing())))
    assert ours.alert == "access_denied"


def test_digests_are_of_the_schemes_hash():
    assert len(tls.digest(b"m", 0x0403)) == len(tls.digest(b"m", 0x0804)) == 32
    assert len(tls.digest(b"m", 0x0503)) == 48
    assert len(tls.digest(b"m", 0x0806)) == 64
    assert tls.digest(b"m", 0x0807) == b"m"
    with pytest.raises(ValueError, match="0x0201"):
        tls.digest(b"m", 0x0201)


def test_keys_of_the_cryptography_package_are_no_signers():
    leaf = issue("localhost")
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    ours = tls.Certificate(chain=chain_of(leaf), private_key=key)
    with connected(server=server_config(certificates=[ours])):
        pass
