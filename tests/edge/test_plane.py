"""That every setting reaches the data-plane object it is for."""

import dataclasses

import pytest
from cext.proxy.timeouts import DEFAULTS
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge import config, plane, upstreams
from edge.errors import ConfigError
from edge.settings import EarlyHints
from edge.tls import Refuse

TEXT = """
[[listener]]
bind = ["127.0.0.1:1", "[::1]:2"]
forwarded = "{forwarded}"
timeouts = {{ handshake = "1s", header = "2s", keepalive = "none" }}
tcp = {{ keepalive = {{ idle = "1m" }}, user_timeout = "9s" }}
records = {{ first = "100B", until = "2KiB", idle = "3s" }}
http2 = {{ max_streams = 7, stream_window = "2KiB", connection_window = "128KiB", connect_protocol = false }}
[listener.limits]
line = "1KiB"
head = "2KiB"
fields = 3
connections = 4
per_address = 5
requests_per_connection = 6
requests_per_address = 7
over_limit = "answer"
[[listener]]
bind = ["127.0.0.1:3"]
http2 = {{ enabled = false }}
[tls]
cipher_suites = ["TLS_AES_256_GCM_SHA384"]
min_version = "1.3"
groups = ["secp256r1"]
tickets = {{ rotate = "1h", keep = 2, lifetime = "3h", count = 1 }}
early_data = {{ max_bytes = "4KiB", window = "3s", rate = 100, unique_header = "Once", safe = {{ methods = ["GET"] }} }}
[[certificate]]
names = ["localhost"]
chain = "localhost.pem"
key = "localhost.key"
[[upstream]]
name = "a"
servers = ["127.0.0.1:9", "[::1]:9", "unix:/run/a.sock"]
pool = {{ max_idle = 4, idle = "5s" }}
[[upstream]]
name = "b"
servers = ["127.0.0.1:10"]
[[route]]
match = {{ host = ["x.de"], path = "/x/*", method = ["GET"] }}
upstream = "b"
push = true
early_data = "forward"
upgrade = ["RAW/1"]
limits = {{ head = "1KiB", body = "2KiB", requests = 3 }}
timeouts = {{ connect = "1s", first_byte = "2s", body_idle = "3s", write_idle = "4s", total = "5s" }}
[[route]]
upstream = "a"
"""
SECRET = bytes(range(32))


class Made:
    """Stands for a data-plane class: keeps what it was made of."""

    def __init__(self, *args, **named):
        self.args = args
        self.named = named


@pytest.fixture
def settings(certificates):
    def read(forwarded="x-forwarded"):
        return config.parse(TEXT.format(forwarded=forwarded), str(certificates / "edge.toml"))

    return read


def test_the_data_plane_takes_it(settings):
    prepared = plane.prepare(settings(), SECRET)
    assert [str(bind) for bind in prepared.listeners] == ["127.0.0.1:1", "[::1]:2", "127.0.0.1:3"]
    assert plane.warnings(prepared) == []


def test_keys_are_not_kept_as_text(settings, certificates):
    prepared = plane.prepare(settings(), SECRET)
    assert [identity.key_pem for identity in prepared.serving.identities] == [b""]


def with_tls(lines, certificates):
    text = TEXT.format(forwarded="none").replace('groups = ["secp256r1"]', lines)
    return config.parse(text, str(certificates / "edge.toml"))


def test_client_auth_arrives(certificates, monkeypatch):
    monkeypatch.setattr(plane, "ServerConfig", Made)
    monkeypatch.setattr(plane, "ListenerSettings", Made)
    prepared = plane.prepare(with_tls('client_auth = { mode = "request", ca = "ca.pem" }', certificates), SECRET)
    named = next(iter(prepared.listeners.values())).args[0].named
    (authority,) = x509.load_pem_x509_certificates((certificates / "ca.pem").read_bytes())
    assert named["client_auth"] == "request"
    assert list(named["client_authorities"]) == [authority.subject.public_bytes()]
    with pytest.raises(Refuse, match=r"unknown_ca|bad_certificate"):
        named["verify_client"]([authority.public_bytes(Encoding.DER)])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('client_auth = { ca = "localhost.pem" }', r"tls\.client_auth\.ca: .* is no authority's"),
        ('client_auth = { ca = "localhost.key" }', r"tls\.client_auth\.ca: .* holds no certificate"),
        ('client_auth = { ca = "none.pem" }', r"tls\.client_auth\.ca: .* no such file"),
    ],
)
def test_what_clients_are_not_asked_by(certificates, lines, message):
    with pytest.raises(ConfigError, match=message):
        plane.prepare(with_tls(lines, certificates), SECRET)


def test_key_log(certificates, tmp_path):
    log = tmp_path / "keys"
    settings = with_tls(f'key_log = {{ path = "{log}", clients = ["192.0.2.0/24"] }}', certificates)
    prepared = plane.prepare(settings, SECRET, key_log=print)
    assert "the secrets of connections from 192.0.2.0/24 go to" in plane.warnings(prepared)[-1]
    assert {listener.tls.key_log for listener in prepared.listeners.values()} == {print}
    assert all(listener.key_logged is not None for listener in prepared.listeners.values())


@pytest.mark.parametrize(("share", "warned"), [('["early-data"]', 1), ('["tickets", "early-data"]', 0)])
def test_a_redis_that_others_may_not_have(certificates, tmp_path, share, warned):
    (tmp_path / "secret").write_bytes(b"s" * 48)
    text = TEXT.format(forwarded="none")
    if warned:
        text = text.replace("tickets = { ", f'tickets = {{ secret_file = "{tmp_path}/secret", ')
    text += f'[fleet]\nsecret_files = ["{tmp_path}/secret"]\nredis = ["127.0.0.1:1"]\nshare = {share}\n'
    prepared = plane.prepare(config.parse(text, str(certificates / "edge.toml")), SECRET)
    assert len([w for w in plane.warnings(prepared) if "has to be the same Redis on all hosts" in w]) == warned


def test_every_setting_arrives(settings, monkeypatch):
    for name in ("ListenerSettings", "Router", "Route", "ServerConfig", "EarlyRules"):
        monkeypatch.setattr(plane, name, type(name, (Made,), {}))
    monkeypatch.setattr(upstreams, "UpstreamGroup", Made)
    prepared = plane.prepare(settings(), SECRET)
    first, second, third = prepared.listeners.values()
    assert first.args == second.args
    assert first.named == second.named, "even the quota"
    assert first.named.pop("quota") is not third.named["quota"]
    tls, router = first.args
    other_tls, other_router = third.args
    assert other_router is router
    assert other_tls.named.pop("alpn") == (b"http/1.1", b"http/1.0")
    assert other_tls.named == {k: v for k, v in tls.named.items() if k != "alpn"}
    assert other_tls.args == tls.args
    assert first.named == {
        "handshake_ms": 1000,
        "timeouts": DEFAULTS | {"header": 2000, "keepalive": 0},
        "tcp": {"keepalive_idle": 60, "keepalive_interval": 15, "keepalive_count": 4, "user_timeout": 9000},
        "line_limit": 1024,
        "head_limit": 2048,
        "field_limit": 3,
        "max_connections": 4,
        "per_address": 5,
        "max_requests": 6,
        "requests_per_address": 7,
        "answer_over": True,
        "h2_streams": 7,
        "h2_stream_window": 2048,
        "h2_connection_window": 131072,
        "h2_connect_protocol": False,
        "first_record": 100,
        "first_bytes": 2048,
        "record_idle_ms": 3000,
        "x_forwarded": True,
        "forwarded": False,
        "unique_header": b"Once",
        "gate": None,
        "key_logged": None,
    }
    assert third.named["timeouts"] == DEFAULTS
    assert third.named["max_connections"] == 65536
    assert third.named["h2_connect_protocol"] is True
    assert not any(third.named[name] for name in ("per_address", "requests_per_address", "answer_over", "max_requests"))
    register = tls.named.pop("replay")
    assert register.keeps == 6000
    assert 4 * 6 * 100 <= register.capacity <= 8 * 6 * 100
    assert tls.named == {
        "alpn": (b"h2", b"http/1.1", b"http/1.0"),
        "cipher_suites": (0x1302,),
        "min_version": 0x0304,
        "max_version": 0x0304,
        "groups": (0x17,),
        "cookie_secret": SECRET,
        "policy": False,
        "tickets": prepared.rotation.keys,
        "ticket_count": 1,
        "ticket_lifetime": 7200,
        "max_early_data": 4096,
        "early_window": 3000,
        "key_log": None,
    }
    assert tls.args[0][0].names == ("localhost",)
    to_b, to_a = router.args[0]
    early = to_b.named.pop("early_data")
    assert early.args == ("forward",)
    assert early.named == {"methods": ("GET",), "query": False, "content": False}
    assert to_a.named["early_data"] is None
    assert to_b.named == {
        "hosts": ("x.de",),
        "path": "/x/*",
        "methods": ("GET",),
        "timeouts": {"connect": 1000, "first_byte": 2000, "body_idle": 3000, "write_idle": 4000, "total": 5000},
        "series": 10,
        "push": True,
        "upgrade": ("raw/1",),
        "hints": None,
        "max_head": 1024,
        "max_body": 2048,
        "max_running": 3,
        "load": None,
    }
    assert not any(to_a.named[name] for name in ("max_head", "max_body", "max_running"))
    assert to_a.named["timeouts"] == {}
    assert to_a.named["upgrade"] == ("websocket",)
    (a,) = to_a.args
    assert a.args == ("a", (("tcp", "127.0.0.1", 9), ("tcp", "::1", 9), ("unix", "/run/a.sock")))
    probes = {"keepalive_idle": 120, "keepalive_interval": 15, "keepalive_count": 4, "user_timeout": 0}
    assert a.named == {
        "protocol": "http/1.1",
        "tls": [],
        "tcp": probes,
        "max_idle": 4,
        "idle_ms": 5000,
        "max_connections": 16,
        "series": 4,
        "server_series": [5, 6, 7],
    }
    assert to_b.args[0].args[0] == "b"


@pytest.mark.parametrize(
    ("written", "x_forwarded", "forwarded"),
    [("x-forwarded", True, False), ("forwarded", False, True), ("both", True, True), ("none", False, False)],
)
def test_forwarded(settings, monkeypatch, written, x_forwarded, forwarded):
    monkeypatch.setattr(plane, "ListenerSettings", Made)
    made = next(iter(plane.prepare(settings(written), SECRET).listeners.values()))
    assert (made.named["x_forwarded"], made.named["forwarded"]) == (x_forwarded, forwarded)


@pytest.mark.parametrize(
    ("links", "key", "problem"),
    [
        ([], "", "hints at nothing"),
        (["</a>; rel=preload", "</b>; rel=next"], ".links[1]", "is no hint"),
        (["</a>; rel=preload, </b>; rel=preload"], ".links[0]", "is no hint"),
        ([f"</{i}>; rel=preload" for i in range(33)], ".links", "at most 32"),
    ],
)
def test_early_hints(settings, links, key, problem):
    read = settings()
    wanted = dataclasses.replace(EarlyHints(), links=tuple(links))
    routes = (read.route[0], dataclasses.replace(read.route[1], early_hints=wanted))
    with pytest.raises(ConfigError, match=problem) as caught:
        plane.prepare(dataclasses.replace(read, route=routes), SECRET)
    assert caught.value.key == f"route[1].early_hints{key}"


def test_a_policy_is_loaded_when_the_configuration_is_read(settings):
    read = settings()
    assert plane.prepare(read, SECRET).policy is None
    server = dataclasses.replace(read.server, hooks="no_such_rules:Policy")
    with pytest.raises(ConfigError, match=r"server\.hooks: there is no module"):
        plane.prepare(dataclasses.replace(read, server=server), SECRET)


def test_what_the_engine_refuses_is_an_error_of_the_configuration(settings, monkeypatch):
    def refuse(*_, **_options):
        raise ValueError("no such thing")

    monkeypatch.setattr(plane, "Credential", refuse)
    with pytest.raises(ConfigError, match=r"certificate\[0\]: cannot be used: no such thing; write the names"):
        plane.prepare(settings(), SECRET)
