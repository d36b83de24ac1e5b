"""Traces, as settings."""

import ipaddress

import pytest

from edge.errors import ConfigError
from edge.observe import traces
from edge.observe.traces import Traces
from edge.schema import Place, read_table

AT = Place("edge.toml", "server.traces")


def read(**given):
    return read_table(Traces, {"endpoint": "http://127.0.0.1:4318/v1/traces", **given}, AT)


def test_defaults():
    made = read()
    assert (made.sample, made.trust, made.query, made.headers, made.queue) == (0.01, False, "none", (), 4096)


@pytest.mark.parametrize(
    ("written", "share"), [(0, 0), (1, 1), (0.5, 0.5), ("1%", 0.01), ("0.1 %", 0.001), ("100%", 1), ("0%", 0)])
def test_shares(written, share):
    assert read(sample=written).sample == pytest.approx(share)


@pytest.mark.parametrize("written", [-0.1, 1.5, "101%", "1", "%", "1%%", True, None, float("nan"), [], "-1%"])
def test_what_is_no_share(written):
    with pytest.raises(ConfigError, match=r"server\.traces\.sample: .* is no share; write"):
        read(sample=written)


def test_trust():
    assert read(trust=True).trust is True
    assert read(trust=["10.0.0.0/8", "::1"]).trust == (
        ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    for wrong in ("all", 1, ["example.com"], ["10.0.0.1/8"], {}):
        with pytest.raises(ConfigError, match=r"server\.traces\.trust"):
            read(trust=wrong)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:4318", "grpc://a", "http://", "https:///x", "http://u:p@a/", "http://a:99999/", "http://a/#b", 5])
def test_what_is_no_endpoint(url):
    with pytest.raises(ConfigError, match=r"server\.traces\.endpoint"):
        read(endpoint=url)


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": 5}, {"a": "b\r\nc: d"}, {"": "x"}, "a: b", {"a": "\x00"}])
def test_what_are_no_headers(headers):
    with pytest.raises(ConfigError, match=r"server\.traces\.headers"):
        read(headers=headers)


def test_headers_and_resource():
    made = read(headers={"x-api-key": "k"}, resource={"a.b": "c"})
    assert (made.headers, made.resource) == ((("x-api-key", "k"),), (("a.b", "c"),))
    assert read(resource={"a": {"b": "c", "d": {"e": "f"}}}).resource == (("a.b", "c"), ("a.d.e", "f"))
    with pytest.raises(ConfigError, match=r"resource\.\"a\.b\""):
        read(resource={"a": {"b": 1}})
    with pytest.raises(ConfigError, match="keep to"):
        read(resource={f"k{i}": "v" for i in range(65)})
    assert hash(made) == hash(read(headers={"x-api-key": "k"}, resource={"a.b": "c"}))


def test_without_the_package(monkeypatch):
    traces.check(read(), AT)
    monkeypatch.setattr(traces, "PACKAGE", "opentelemetry_that_is_not_there.exporter")
    with pytest.raises(ConfigError, match=r'server\.traces: needs OpenTelemetry.*pip install "edge\[traces\]"'):
        traces.check(read(), AT)


def test_authorities_that_are_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"server\.traces\.ca: .*no such file"):
        traces.check(read(ca=str(tmp_path / "none.pem")), AT)
