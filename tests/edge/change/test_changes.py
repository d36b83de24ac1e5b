"""What is said of a reload."""

import pytest

from edge import config
from edge.change import changes

TEXT = """
[server]
workers = 1
[[listener]]
bind = ["127.0.0.1:1"]
[[certificate]]
chain = "a.pem"
key = "a.key"
[[upstream]]
name = "a"
servers = ["127.0.0.1:9"]
[[route]]
match = {}
upstream = "a"
"""


def parse(text):
    return config.parse(text, "/x/edge.toml")


@pytest.mark.parametrize(
    ("replace", "by", "said"),
    [
        ("", "", "no settings changed"),
        ("workers = 1", 'workers = 1\ndrain_timeout = "1s"\nhook_timeout = "1s"', "server.drain_timeout changed, "),
        ('"127.0.0.1:1"]', '"127.0.0.1:1", "127.0.0.1:2"]', "1 listener added"),
        ('"127.0.0.1:1"]', '"127.0.0.1:2"]', "1 listener added, 1 listener removed"),
        ('"127.0.0.1:1"]', '"127.0.0.1:1"]\nbacklog = 9', "1 listener changed"),
        ("127.0.0.1:9", "127.0.0.1:8", "1 upstream changed"),
        ("match = {}", 'match = {}\npush = true', "1 route changed"),
        ("match = {}", 'match = { path = "/x" }', "1 route added, 1 route removed"),
        ("[[upstream]]", '[tls]\nmax_version = "1.2"\n[[upstream]]', "tls.max_version changed"),
        ("[[upstream]]", "[fleet]\nsecret_files = ['s']\nredis = ['127.0.0.1:1']\n[[upstream]]", "fleet added"),
        ("[[upstream]]", '[[handoff]]\nname = "p"\nsocket = "unix:/x/p"\n[[upstream]]', "1 handoff added"),
    ],
)
def test_what_is_different(replace, by, said):
    assert changes.describe(parse(TEXT), parse(TEXT.replace(replace, by, 1) if replace else TEXT)).startswith(said)


def test_certificates_go_by_what_is_in_their_files():
    old = parse(TEXT)
    assert changes.describe(old, old, 1) == "1 certificate new"
    assert changes.describe(old, old, 12, policies=True) == "12 certificates new, policies changed"
    more = parse(TEXT.replace("[[upstream]]", '[[certificate]]\nchain = "b.pem"\nkey = "b.key"\n[[upstream]]'))
    assert changes.describe(more, old) == "1 certificate removed"
