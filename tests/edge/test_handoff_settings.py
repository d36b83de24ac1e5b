"""Settings of handing over and of the PROXY protocol: what they mean, and what they may not be."""

import pytest

from edge import config
from edge.errors import ConfigError

TEXT = """
[[listener]]
{listener}
[[certificate]]
chain = "a.pem"
key = "a.key"
[[upstream]]
name = "app"
servers = ["127.0.0.1:9000"]
[[route]]
upstream = "app"
{handoff}
"""
TCP = 'bind = ["127.0.0.1:443"]'
UNIX = 'bind = ["unix:/run/h.sock"]\nkind = "handoff"'
LEGACY = '[[handoff]]\nname = "legacy"\nsocket = "unix:/run/legacy.sock"\n'


def parse(listener=TCP, handoff=""):
    return config.parse(TEXT.format(listener=listener, handoff=handoff), "edge.toml")


def test_what_they_mean():
    settings = parse(
        UNIX + '\nhandoff = { mode = "0660", users = ["root"] }',
        LEGACY + 'match = { sni = ["OLD.example.com."], version = ["1.0"], alpn = ["acme-tls/1"], ja4 = ["t13*"] }',
    )
    (listener,) = settings.listener
    (bind,) = listener.bind
    assert (bind.path, str(bind), listener.handoff.mode, listener.handoff.users) == (
        "/run/h.sock",
        "unix:/run/h.sock",
        0o660,
        ("root",),
    )
    (handoff,) = settings.handoff
    assert (handoff.socket, handoff.otherwise, handoff.match.sni) == ("/run/legacy.sock", "close", ("old.example.com",))
    assert (handoff.match.version, handoff.match.alpn, handoff.match.ja4) == ((0x0301,), ("acme-tls/1",), ("t13*",))
    proxied = parse(TCP + '\nproxy_protocol = { proxies = ["10.0.0.0/8", "::1"] }').listener[0].proxy_protocol
    assert [str(network) for network in proxied.proxies] == ["10.0.0.0/8", "::1/128"]
    assert (proxied.others, proxied.timeout) == ("close", 5000)


@pytest.mark.parametrize(
    ("listener", "handoff", "key", "problem"),
    [
        ('bind = ["unix:/run/h.sock"]', "", "listener[0].bind[0]", "only a listener of handed-over connections"),
        (TCP + '\nkind = "handoff"', "", "listener[0].bind[0]", "not handed over through TCP"),
        ('bind = ["unix:h.sock"]\nkind = "handoff"', "", "listener[0].bind[0]", "is absolute"),
        (f'bind = ["unix:/{"x" * 107}"]\nkind = "handoff"', "", "listener[0].bind[0]", "at most 107 bytes"),
        (TCP + '\nhandoff = { mode = "0660" }', "", "listener[0].handoff", "no meaning"),
        (UNIX + '\nhandoff = { mode = "rw" }', "", "listener[0].handoff.mode", "no permissions"),
        (UNIX + '\nhandoff = { owner = "no-such" }', "", "listener[0].handoff.owner", "there is no user"),
        (UNIX + '\nhandoff = { group = "no-such" }', "", "listener[0].handoff.group", "there is no group"),
        (UNIX + '\nproxy_protocol = { proxies = ["::1"] }', "", "listener[0].proxy_protocol", "has been spoken"),
        (TCP + "\nproxy_protocol = {}", "", "listener[0].proxy_protocol.proxies", "is missing"),
        (TCP + '\nproxy_protocol = { proxies = ["10.0.0.1/8"] }', "", "proxy_protocol.proxies[0]", "host bits"),
        (TCP, LEGACY + LEGACY, "handoff[1].name", "is the name of handoff[0] too"),
        (TCP, LEGACY.replace("unix:", ""), "handoff[0].socket", "is no Unix socket"),
        (TCP, LEGACY + 'match = { sni = ["a b"] }', "handoff[0].match.sni[0]", "is no DNS name"),
        (TCP, LEGACY + 'match = { version = ["1.4"] }', "handoff[0].match.version[0]", "is not a known TLS version"),
        (TCP, LEGACY + 'match = { ja4 = ["T13"] }', "handoff[0].match.ja4[0]", "is not a JA4 fingerprint"),
        (TCP, LEGACY + 'match = { ja4 = ["t13d"] }', "handoff[0].match.ja4[0]", "is not a JA4 fingerprint"),
        (UNIX, LEGACY.replace("legacy.sock", "h.sock"), "handoff[0].socket", "listener[0]'s own"),
    ],
)
def test_what_they_may_not_be(listener, handoff, key, problem):
    with pytest.raises(ConfigError) as error:
        parse(listener, handoff)
    assert key in str(error.value)
    assert problem in str(error.value)
