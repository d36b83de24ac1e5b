"""What a configuration amounts to: whole, and such that it could be written down again."""

import dataclasses
import json
import tomllib

import pytest

from edge import config, toml
from edge.admin import shown
from edge.schema import REQUIRED, Place, knobs, write_table
from edge.settings import Settings
from tests.edge.test_config import LEAST, ROOT, parse

FULL = """
[server]
workers = 3
metrics = "127.0.0.1:9145"
access_log = { path = "/tmp/access.log", sample = 0.25 }
traces = { endpoint = "http://127.0.0.1:4318/v1/traces", trust = ["10.0.0.0/8"], resource = { a.b = "c" } }
memory_limit = "1GiB"
certificate_check = "none"
hooks = "policy:Policy"
[[listener]]
bind = ["0.0.0.0:8443", "[::1]:8443"]
timeouts = { handshake = "1500ms", header = "none" }
tcp = { keepalive = "none" }
limits = { connections = "none", line = "1KiB" }
proxy_protocol = { proxies = ["10.0.0.0/8", "::1"] }
[[listener]]
kind = "handoff"
bind = ["unix:/run/other.sock"]
handoff = { mode = "0660", users = ["root"] }
[tls]
cipher_suites = ["TLS_AES_256_GCM_SHA384"]
groups = ["secp384r1"]
early_data = { unique_header = "none" }
[[certificate]]
chain = "a.pem"
key = "a.key"
ocsp = "fetch"
[[certificate]]
chain = "b.pem"
key = { signer = "keyless", servers = ["10.0.0.5:2407", "[::5]:2407"], ca = "ca", chain = "c", key = "k" }
[[certificate]]
chain = "c.pem"
key = { signer = "pkcs11", module = "m.so", token = "HSM", id = "01:ab", pin_file = "pin" }
[[upstream]]
name = "app"
servers = ["127.0.0.1:9000", "unix:/run/app.sock", "[::1]:80"]
[[upstream]]
name = "two"
servers = ["127.0.0.1:443"]
protocol = "h2"
[[route]]
upstream = "app"
match = { host = ["a.de", "*.b.de"], path = "/x", method = ["PUT"] }
timeouts = { total = "none", min_rate = "1KiB/s" }
[[route]]
upstream = "two"
hooks = "of:Route"
early_data = "forward"
[fleet]
secret_files = ["fleet.secret"]
redis = ["rediss://10.0.0.1:26379", "rediss://[::1]:26379"]
mode = "sentinel"
username = "edge"
password_file = "password"
[[handoff]]
name = "old"
socket = "unix:/run/old.sock"
match = { sni = ["*.old.de"], version = ["1.0"] }
"""


def everything(settings):
    """What is the same again when it is read from what was written."""
    return dataclasses.replace(settings, file="", warnings=())


def written(settings):
    document = {}
    for item in shown.configuration(settings):
        if item["array"]:
            document.setdefault(item["table"], []).append(item["values"])
        else:
            document[item["table"]] = item["values"]
    return "\n".join(toml.lines(document))


@pytest.mark.parametrize("text", [LEAST, FULL], ids=["least", "full"])
def test_what_is_shown_can_be_read_again(text):
    settings = parse(text)
    assert everything(parse(written(settings), "/somewhere/else")) == everything(settings)


@pytest.mark.parametrize("example", sorted((ROOT / "docs/examples").glob("*/edge.toml")), ids=lambda p: p.parent.name)
def test_what_is_shown_of_examples_can_be_read_again(example):
    settings = config.parse(example.read_text().replace("\"unix:", "\"unix:/run/"), str(example))
    again = config.parse(written(settings), str(example))
    assert everything(again) == everything(settings)


def test_all_of_it_is_json():
    settings = parse(FULL)
    for kind in (shown.configuration, shown.listeners, shown.routes, shown.upstreams, shown.handoffs):
        assert json.loads(json.dumps(list(kind(settings)))) == list(kind(settings))


def test_where_keys_are():
    certificates = parse(FULL).certificate
    assert [shown.where(c) for c in certificates] == [
        "file /etc/edge/a.key",
        "key server 10.0.0.5:2407, [::5]:2407",
        'token "HSM", id 01ab',
    ]


def test_routes_and_upstreams():
    settings = parse(FULL)
    first, second = shown.routes(settings)
    assert (first["hosts"], first["path"], first["methods"]) == (["a.de", "*.b.de"], "/x", ["PUT"])
    assert (second["upstream"], second["hooks"], second["early_data"]) == ("two", "of:Route", "forward")
    app, two = shown.upstreams(settings)
    assert app["addresses"] == ["127.0.0.1:9000", "unix:/run/app.sock", "[::1]:80"]
    assert (app["tls"], two["tls"]) == (None, {"name": None, "verify": True})


@pytest.mark.parametrize("value", ["plain", 'quo"te', "back\\slash", "\x00\x1f\x7f", "ünï", 7, True, [], ["a", 1]])
def test_values_are_toml(value):
    assert tomllib.loads(f"x = {toml.inline(value)}") == {"x": value}


def test_tables_are_toml():
    document = {"a": {"b": {"c": {"odd key": 1}}, "d": [], "e": {}, "f": [{"g": 1}]}, "h": [{"i": 1}, {"i": 2}]}
    assert tomllib.loads("\n".join(toml.lines(document))) == document


def tables(cls):
    """All tables of the settings."""
    yield cls
    for _, k in knobs(cls):
        for below in (*([k.kind.cls] if hasattr(k.kind, "cls") else []), *getattr(k.kind, "tables", {}).values()):
            yield from tables(below)


@pytest.mark.parametrize("table", sorted(set(tables(Settings)), key=str), ids=lambda cls: cls.__name__)
def test_every_default_can_be_written(table):
    """Whatever kind of value is added, it can be shown."""
    at = Place("/etc/edge/edge.toml")
    for name, k in knobs(table):
        if k.default is not REQUIRED and k.default is not None:
            value = k.kind.read(k.default, at)
            written = json.loads(json.dumps(k.kind.write(value)))
            assert k.kind.read(written, at) == value, name


def test_what_is_secret_is_not_shown():
    secret = 'traces = { endpoint = "http://127.0.0.1:4318/x", headers = { authorization = "Bearer hidden" } }'
    settings = parse(f"[server]\n{secret}\n{LEAST}")
    text = written(settings)
    assert "hidden" not in text
    assert 'traces.headers.authorization = "(not shown)"' in text


def test_the_written_form_of_a_table_has_what_has_no_value_left_out():
    settings = parse(LEAST)
    assert "admin" not in write_table(settings.server)
    assert write_table(settings.server)["drain_timeout"] == "30s"
