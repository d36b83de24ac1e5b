"""The handshake's hooks in the configuration's words: what get_config may answer, and what is made of it; sealing."""

import os

import pytest
from cext.tls.replay import SharedRegister
from cext.tls.session import AwaitedTickets, TicketKeys

from edge import config, handshake, plane, policy
from edge.errors import ConfigError
from edge.handshake import Certificate, ClientHello, Config, Drop, HandOver, Handshakes, Refuse
from tests.cext.tls.peer import P256, credential, server_config
from tests.edge.test_tls_hello import hello, vector

HTTP = (b"h2", b"http/1.1", b"http/1.0")
KEYS = TicketKeys([(b"n" * 16, os.urandom(32))])


def options(**changes):
    return {
        "alpn": HTTP,
        "policy": True,
        "tickets": KEYS,
        "max_early_data": 100,
        "early_window": 1000,
        "replay": SharedRegister(2000),
        "groups": (P256,),
        **changes,
    }


def variant(tmp_path, *, base=None, given=None, **changes):
    """What becomes of a listener's configuration by an answer of get_config."""
    made = options(**(given or {}))
    handshakes = Handshakes([made], directory=tmp_path)
    base = base or server_config(**made)
    return handshakes.read_config(base, Config(**changes))


def test_what_is_left_out_stays(tmp_path):
    made = variant(tmp_path)
    assert made.alpn == HTTP
    assert made.credentials == (credential("ecdsa-p256"),)
    assert (made.tickets, made.max_early_data) == (KEYS, 100)
    assert (made.min_version, made.max_version) == (0x0303, 0x0304)


def test_each_change(tmp_path):
    made = variant(
        tmp_path,
        alpn=["http/1.1"],
        min_version="1.3",
        groups=["X25519", "secp384r1"],
        cipher_suites=("TLS_AES_256_GCM_SHA384",),
        early_data=False,
    )
    assert made.alpn == (b"http/1.1",)
    assert made.min_version == 0x0304
    assert made.max_early_data == 0
    assert made.tickets is KEYS
    made = variant(tmp_path, max_version="1.2", tickets=False)
    assert (made.max_version, made.tickets, made.max_early_data) == (0x0303, None, 0)


def test_client_certificates(tmp_path, certificates):
    made = variant(certificates, client_auth="require", client_ca="ca.pem")
    assert made.client_auth == 2
    assert made.verify_client is not None
    trusting = {"client_auth": "require", "verify_client": print, "client_authorities": ()}
    assert variant(tmp_path, given=trusting).verify_client is print
    assert variant(tmp_path, given=trusting, client_auth="request").verify_client is print
    made = variant(tmp_path, given=trusting, client_auth="none")
    assert (made.client_auth, made.verify_client) == (0, None)


FAULTS = {
    "protocol": ({"alpn": ["h3"]}, r'alpn: "h3" is not known; write "h2" or'),
    "a string": ({"alpn": "h2"}, r"alpn: .* is not an array"),
    "none": ({"groups": []}, r"groups: is empty"),
    "group": ({"groups": ["x448"]}, r"groups: "),
    "suite": ({"cipher_suites": ["TLS_RSA"]}, r"cipher_suites: "),
    "version": ({"min_version": 1.3}, r"min_version: 1.3 is not a known TLS version"),
    "mode": ({"client_auth": "always"}, r"client_auth: "),
    "early data": ({"early_data": 1}, r"early_data: 1 is neither true nor false"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_no_configuration(fault):
    changes, message = FAULTS[fault]
    with pytest.raises(ValueError, match=message):
        Config(**changes)


COMBINED = {
    "versions": ({}, {"min_version": "1.3", "max_version": "1.2"}, "versions from"),
    "no early data": ({"max_early_data": 0}, {"early_data": True}, "early_data: none is taken by the configuration"),
    "no tickets": ({"tickets": None, "max_early_data": 0}, {"tickets": True}, "tickets: they are off"),
    "no authority": ({}, {"client_auth": "require"}, "client_auth: whose certificates are good"),
    "authority for nothing": ({}, {"client_ca": "ca.pem"}, "client_ca: needs client_auth"),
    "no such authority": ({}, {"client_auth": "require", "client_ca": "none.pem"}, "client_ca: .*no such file"),
}


@pytest.mark.parametrize("fault", COMBINED)
def test_what_cannot_be_made_of_it(fault, tmp_path):
    given, changes, message = COMBINED[fault]
    with pytest.raises(ValueError, match=message):
        variant(tmp_path, given=given, **changes)


def test_equal_answers_are_built_once(tmp_path):
    made = options()
    handshakes = Handshakes([made], directory=tmp_path)
    base = server_config(**made)
    first = handshakes.read_config(base, Config(alpn=["http/1.1"]))
    assert handshakes.read_config(base, Config(alpn=("http/1.1",))) is first
    assert handshakes.read_config(base, Config(alpn=["h2"])) is not first
    for count in range(handshake.CONFIGS_MAX):
        suites = [name for i, name in enumerate(handshake.CIPHER_SUITES) if count + 1 >> i & 1]
        handshakes.read_config(base, Config(cipher_suites=suites, min_version="1.2"))
    assert handshakes.read_config(base, Config(alpn=["http/1.1"])) is not first


def test_other_certificates_are_those_of_the_listener(tmp_path):
    made = options()
    handshakes = Handshakes([made], directory=tmp_path)
    assert handshakes.read_config(server_config(**made), Config()).credentials == (credential("ecdsa-p256"),)
    assert handshakes.read_config(server_config("rsa", **made), Config()).credentials == (credential("rsa"),)


def test_answers_of_another_type(tmp_path):
    handshakes = Handshakes([options()], directory=tmp_path)
    with pytest.raises(TypeError, match=r"neither None nor edge\.policy\.Config"):
        handshakes.read_config(server_config(**options()), {})
    with pytest.raises(TypeError, match=r"neither None nor edge\.policy\.Certificate"):
        handshake.read_certificate(credential())


def test_a_certificate():
    key = Certificate(chain=credential().chain, private_key=Signer(), names=())
    assert handshake.read_certificate(key) is key.credential


class Signer:
    def sign(self, message, scheme):
        return b""


def test_what_hooks_are_given():
    raw = hello([0x1301], [(0, vector(2, b"\0" + vector(2, b"example.com")))])
    seen = handshake.describe(raw, {"client": "192.0.2.1", "client_port": 2, "local": "::1", "local_port": 3})
    assert isinstance(seen, ClientHello)
    assert (seen.client, seen.client_port, seen.local, seen.local_port) == ("192.0.2.1", 2, "::1", 3)
    assert (seen.proxy, seen.server_name, seen.raw) == (None, "example.com", raw)


def test_which_policies_are_asked():
    class Director:
        def director(self, request): ...

    class Fingerprints(Director):
        fingerprints = True

    class Chooses:
        async def get_certificate(self, hello): ...

    class Wraps:
        def session_ticket_wrapper(self): ...

    assert [handshake.asks(cls) for cls in (Director, Fingerprints, Chooses, Wraps)] == [False, True, True, True]
    failed = []
    handshakes = Handshakes([options()], directory=".")
    assert handshakes.hooks(Director(), failed.append) is None
    assert handshakes.hooks(Fingerprints(), failed.append).fingerprints
    hooks = handshakes.hooks(Chooses(), failed.append).hooks
    assert [hook is not None for hook in hooks] == [False, False, True]


class Wrapper:
    def __init__(self):
        self.clones = []

    def wrap(self, state, content):
        return content

    def unwrap(self, hello, ticket):
        return ticket

    def clone(self):
        self.clones.append(Wrapper())
        return self.clones[-1]


class Wraps:
    def __init__(self, wrapper):
        self.wrapper = wrapper

    def session_ticket_wrapper(self):
        return self.wrapper


def test_each_configuration_has_a_clone_of_the_wrapper(tmp_path):
    made, wrapper = options(tickets=AwaitedTickets()), Wrapper()
    base = server_config(**made)
    handshakes = Handshakes([made], directory=tmp_path)
    handshakes.hooks(Wraps(wrapper), print)
    assert base.tickets.wrapper.wrapper is wrapper
    first = handshakes.read_config(base, Config(alpn=["h2"]))
    assert wrapper.clones == [first.tickets.wrapper.wrapper]
    assert handshakes.read_config(base, Config(alpn=["h2"])) is first
    assert handshakes.read_config(base, Config(tickets=False)).tickets is None
    assert len(wrapper.clones) == 1


@pytest.mark.parametrize("wrong", [None, object(), Certificate])
def test_what_is_no_wrapper(tmp_path, wrong):
    handshakes = Handshakes([options(tickets=AwaitedTickets())], directory=tmp_path)
    with pytest.raises(TypeError, match=r"session_ticket_wrapper gave \w+, which has no wrap\(\)"):
        handshakes.hooks(Wraps(wrong), print)


def test_a_wrapper_needs_tickets(certificates, tmp_path):
    text = f"""
[server]
hooks = "wraps:Policy"
[[listener]]
bind = ["127.0.0.1:1"]
[tls]
tickets = {{ enabled = false }}
[[certificate]]
chain = "{certificates}/localhost.pem"
key = "{certificates}/localhost.key"
[[upstream]]
name = "a"
servers = ["127.0.0.1:9"]
[[route]]
upstream = "a"
"""
    (tmp_path / "wraps.py").write_text("class Policy:\n    def session_ticket_wrapper(self): ...\n")
    settings = config.parse(text, str(tmp_path / "edge.toml"))
    with pytest.raises(ConfigError, match=r"Policy\.session_ticket_wrapper has nothing to do: tickets are off"):
        plane.prepare(settings, bytes(32))


# ---- sealing ----


@pytest.fixture
def sealing(monkeypatch):
    keys = TicketKeys([(b"a" * 16, os.urandom(32))])
    monkeypatch.setattr(handshake, "_keys", keys)
    return keys


@pytest.mark.parametrize("content", [b"", b"x", os.urandom(5000)])
def test_sealed_and_unsealed(sealing, content):
    sealed = policy.seal(content)
    assert content not in sealed or len(content) < 2
    assert policy.seal(content) != sealed
    assert policy.unseal(sealed) == content
    for i in range(0, len(sealed), 1 + len(sealed) // 50):
        assert policy.unseal(sealed[:i] + bytes([sealed[i] ^ 1]) + sealed[i + 1 :]) is None
        assert policy.unseal(sealed[:i]) is None
    assert policy.unseal(sealed + b"\0") is None


def test_what_is_sealed_is_no_ticket_nor_the_other_way(sealing):
    state = {"version": 0x0304, "cipher_suite": 0x1301, "secret": bytes(32), "created": 0, "authenticated": 0}
    ticket = sealing.seal({**sealing.open(sealing.seal(state)), **state})
    assert sealing.open(ticket) is not None
    assert policy.unseal(ticket) is None
    assert sealing.open(policy.seal(b"content")) is None
    with pytest.raises(RuntimeError):
        sealing.seal_other(b"content", b"")
    assert sealing.open_other(ticket, b"") is None


def test_keys_come_and_go(sealing):
    sealed = policy.seal(b"content")
    sealing.replace([(b"b" * 16, bytes(32)), (b"a" * 16, bytes(32))])
    assert policy.unseal(sealed) is None
    sealing.replace([(b"b" * 16, bytes(32))])
    assert policy.unseal(sealed) is None
    assert policy.unseal(policy.seal(b"content")) == b"content"


def test_nothing_is_sealed_elsewhere(monkeypatch):
    monkeypatch.setattr(handshake, "_keys", None)
    with pytest.raises(RuntimeError, match="this is no worker"):
        policy.seal(b"")
    with pytest.raises(RuntimeError, match="this is no worker"):
        policy.unseal(b"")


def test_verdicts():
    assert Refuse("unrecognized_name").description == 112
    assert HandOver("go").name == "go"
    assert issubclass(Drop, Exception)
