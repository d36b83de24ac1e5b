"""The configuration: what it reads, and that every fault names file, key and remedy."""

import os
import pickle
import pwd
import socket
import time
import tomllib
from pathlib import Path

import pytest
from cext.proxy.timeouts import DEFAULTS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import config, limits, tcp, timeouts
from edge import settings as tables
from edge.errors import ConfigError
from edge.schema import Place, knobs, read_table
from edge.settings import Bind, Server

ROOT = Path(__file__).resolve().parents[2]

LEAST = """
[[listener]]
bind = ["127.0.0.1:8443"]
[[certificate]]
chain = "cert.pem"
key = "key.pem"
[[upstream]]
name = "app"
servers = ["127.0.0.1:9000"]
[[route]]
upstream = "app"
"""


def parse(text, tmp_path="/etc/edge"):
    return config.parse(text, f"{tmp_path}/edge.toml")


def with_line(after, line):
    """The least configuration with a line added under a heading, or in place of one that sets the same key."""
    key = line.split("=")[0].strip()
    lines, section = [], ""
    for old in LEAST.strip().splitlines():
        if old.startswith("["):
            section = old
        if not (section == after and old.split("=")[0].strip() == key):
            lines.append(old)
        if old == after:
            lines.append(line)
    if after not in lines:
        lines = [after, line, *lines]
    return "\n".join(lines)


def test_defaults():
    s = parse(LEAST)
    assert s.server.workers == len(os.sched_getaffinity(0))
    assert s.server.drain_timeout == 30_000
    assert s.server.access_log is None
    assert s.server.error_log.path is None
    assert s.listener[0].timeouts == timeouts.ListenerTimeouts(
        handshake=5000,
        header=10_000,
        body_idle=60_000,
        min_rate=0,
        connect=5000,
        first_byte=60_000,
        response_idle=60_000,
        write_idle=60_000,
        write_min_rate=0,
        rate_grace=5000,
        total=0,
        keepalive=75_000,
        websocket_idle=3_600_000,
    )
    assert tcp.options(s.listener[0].tcp) == tcp.options(s.upstream[0].tcp)
    assert tcp.options(s.listener[0].tcp) == {
        "keepalive_idle": 120,
        "keepalive_interval": 15,
        "keepalive_count": 4,
        "user_timeout": 0,
    }
    assert s.listener[0].limits == limits.Limits(
        line=8192,
        head=32768,
        fields=128,
        connections=65536,
        per_address=0,
        over_limit="close",
        requests_per_connection=0,
        requests_per_address=0,
    )
    assert s.route[0].limits == limits.RouteLimits(head=0, body=0, requests=0)
    assert s.server.memory_limit == 0
    assert s.listener[0].forwarded == "x-forwarded"
    assert s.tls.cipher_suites == (0x1301, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8)
    assert (s.tls.min_version, s.tls.max_version) == (0x0303, 0x0304)
    assert s.tls.groups == (0x11EC, 0x11EB, 0x1D, 0x17, 0x18)
    assert s.certificate[0].names is None
    assert s.upstream[0].pool == tables.Pool(max_idle=200, idle=10_000, max_connections=16)
    assert s.route[0].match == tables.Match(host=None, path="/*", method=None)
    assert timeouts.limits(s.route[0].timeouts) == {}
    assert timeouts.limits(s.listener[0].timeouts) == DEFAULTS


def test_every_key(tmp_path):
    user = pwd.getpwuid(os.getuid()).pw_name
    s = parse(
        f"""
[server]
workers = 3
user = "{user}"
drain_timeout = "1m"
worker_timeout = "10s"
pid_file = "edge.pid"
access_log = {{ path = "access.log", format = "json" }}
error_log = {{ path = "{tmp_path}/error.log", level = "debug" }}
[[listener]]
bind = ["0.0.0.0:443", "[::]:443"]
backlog = 17
tcp = {{ keepalive = {{ idle = "1s", interval = "2s" }}, user_timeout = "3s" }}
forwarded = "both"
timeouts = {{ handshake = "250ms", header = "none", keepalive = "2m", write_min_rate = "2 KiB/s" }}
limits = {{ line = "1KiB", head = "14KiB", fields = 7, connections = "none", per_address = 9, over_limit = "answer" }}
[[listener]]
bind = ["[2001:DB8::0:1]:8443"]
[tls]
cipher_suites = ["TLS_CHACHA20_POLY1305_SHA256"]
min_version = "1.3"
groups = ["secp384r1", "x25519", "X25519MLKEM768"]
[[certificate]]
names = ["Example.com", "*.example.com."]
chain = "a.pem"
key = "/keys/a.key"
[[upstream]]
name = "app"
servers = ["unix:/run/app.sock", "[::1]:9000", "10.0.0.7:80"]
pool = {{ max_idle = 0, idle = "1s" }}
tcp = {{ keepalive = "none" }}
[[route]]
match = {{ host = ["Example.com", "*.example.org", "[::1]"], path = "/a/*/b", method = ["GET", "M-SEARCH"] }}
upstream = "app"
[route.timeouts]
connect = "1s"
first_byte = "2s"
body_idle = "3s"
min_rate = "1KiB/s"
response_idle = "none"
write_idle = "4s"
write_min_rate = "none"
rate_grace = "6s"
total = "1h"
keepalive = "7s"
websocket_idle = "8s"
header = "9s"
""",
        tmp_path,
    )
    assert s.server.workers == 3
    assert s.server.user == user
    assert (s.server.drain_timeout, s.server.worker_timeout) == (60_000, 10_000)
    assert s.server.pid_file == tmp_path / "edge.pid"
    assert s.server.access_log == tables.AccessLog(path=tmp_path / "access.log", format="json")
    assert s.server.error_log == tables.ErrorLog(path=tmp_path / "error.log", level="debug")
    assert s.listener[0].bind == (Bind("0.0.0.0", 443), Bind("::", 443))
    assert s.listener[0].timeouts == timeouts.ListenerTimeouts(
        handshake=250, header=0, keepalive=120_000, write_min_rate=2048
    )
    assert s.listener[0].limits == limits.Limits(
        line=1024, head=14336, fields=7, connections=0, per_address=9, over_limit="answer"
    )
    assert s.listener[0].tcp == tcp.Tcp(keepalive=tcp.Keepalive(idle=1000, interval=2000, count=4), user_timeout=3000)
    assert tcp.options(s.upstream[0].tcp)["keepalive_idle"] == 0
    assert (s.listener[0].backlog, s.listener[0].forwarded) == (17, "both")
    assert [str(b) for b in s.listener[1].bind] == ["[2001:db8::1]:8443"]
    assert s.tls == tables.Tls(min_version=0x0304, cipher_suites=(0x1303,), groups=(0x18, 0x1D, 0x11EC))
    assert s.certificate[0].names == ("example.com", "*.example.com")
    assert s.certificate[0].chain == tmp_path / "a.pem"
    assert s.certificate[0].key == Path("/keys/a.key")
    assert s.upstream[0].servers == (Server(path="/run/app.sock"), Server("::1", 9000), Server("10.0.0.7", 80))
    assert s.addresses == ((("unix", "/run/app.sock"), ("tcp", "::1", 9000), ("tcp", "10.0.0.7", 80)),)
    assert s.upstream[0].pool == tables.Pool(max_idle=0, idle=1000, max_connections=16)
    assert s.route[0].match.host == ("example.com", "*.example.org", "[::1]")
    assert s.route[0].match.path == "/a/*/b"
    assert s.route[0].match.method == ("GET", "M-SEARCH")
    assert timeouts.limits(s.route[0].timeouts) == {
        "connect": 1000,
        "first_byte": 2000,
        "body_idle": 3000,
        "body_rate": 1024,
        "response_idle": 0,
        "write_idle": 4000,
        "write_rate": 0,
        "rate_grace": 6000,
        "total": 3_600_000,
        "keepalive": 7000,
        "tunnel_idle": 8000,
        "header": 9000,
    }


def test_settings_are_the_same_in_another_process(tmp_path):
    more = '[[route]]\nmatch = { path = "/x" }\nupstream = "app"\ntimeouts = { total = "9s" }\n'
    written = parse(LEAST + more, tmp_path)
    read = pickle.loads(pickle.dumps(written))
    assert read == written
    assert read.route[-1].timeouts.total == 9000
    with pytest.raises(ValueError, match="zip"):  # of a table that has other keys
        read.route[-1].__setstate__((1,))


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        parse(LEAST).server.workers = 2


def test_a_name_is_resolved():
    s = parse(with_line("[[upstream]]", 'servers = ["localhost:9000"]'))
    assert ("tcp", "127.0.0.1", 9000) in s.addresses[0]
    assert {a[1] for a in s.addresses[0]} <= {"127.0.0.1", "::1"}


FAULTS = [
    # heading, line, key path, words of the problem, words of the remedy
    ("[[route]]", 'upgrade = ["h2c"]', "route[0].upgrade[0]", "requests that no route has seen", "websocket"),
    ("[[route]]", 'upgrade = ["TLS/1.0"]', "route[0].upgrade[0]", "requests that no route has seen", "websocket"),
    ("[[route]]", 'upgrade = ["web socket"]', "route[0].upgrade[0]", "is no protocol of Upgrade", "websocket"),
    ("[[route]]", 'upgrade = "websocket"', "route[0].upgrade", "is not an array", '["websocket"]'),
    ("[server]", "wrokers = 2", "server.wrokers", "unknown key", 'did you mean "workers"?'),
    ("[server]", "zzz = 2", "server.zzz", "unknown key", "the keys here are: workers, user"),
    ("[sever]", "workers = 2", "sever", "unknown key", 'did you mean "server"?'),
    ("[server]", "'odd key' = 2", 'server."odd key"', "unknown key", "remove it"),
    ("[server]", "workers = 0", "server.workers", "0 is out of range", "between 1 and 1024"),
    ("[server]", "workers = true", "server.workers", "true is not an integer", "whole number"),
    ("[server]", 'workers = "2"', "server.workers", '"2" is not a number', "without quotes"),
    ("[server]", 'drain_timeout = "none"', "server.drain_timeout", "not possible", "100ms and 1d"),
    ("[server]", 'user = "no-such-user"', "server.user", 'no user "no-such-user"', "create it"),
    ("[server]", 'group = "no-such-group"', "server.group", 'no group "no-such-group"', "create it"),
    ("[server]", 'pid_file = "/no/such/dir/pid"', "server.pid_file", "/no/such/dir", "make it"),
    ("[server]", 'pid_file = "/"', "server.pid_file", "is a directory", "name a file"),
    ("[server]", 'hooks = "rules.py"', "server.hooks", "is not a policy", '"module:Class"'),
    ("[server]", "access_log = {}", "server.access_log.path", "is missing", "add it"),
    ("[[certificate]]", 'delegated = { credential = "a" }', "certificate[0].delegated.key", "is missing", "PEM file: "),
    ("[server]", 'access_log = "x"', "server.access_log", "not a table", "path, group, format"),
    ("[server]", 'access_log = { path = "/nodir/x" }', "server.access_log.path", "/nodir", "make it"),
    (
        "[server]",
        'access_log = { path = "/tmp/x", format = "common" }',
        "server.access_log.format",
        "not known",
        '"combined"',
    ),
    ("[server]", 'access_log = { target = "stdout", path = "/tmp/x" }', "server.access_log.path", "not used", "remove"),
    ("[server]", 'access_log = { target = "file" }', "server.access_log.path", "is missing", "name another target"),
    ("[server]", 'access_log = { path = "/tmp/x", sample = 0 }', "server.access_log.sample", "no share", "0.01"),
    ("[server]", 'access_log = { path = "/tmp/x", sample = 1.5 }', "server.access_log.sample", "no share", "at most 1"),
    ("[server]", 'access_log = { path = "/tmp/x", always = ["2xx"] }', "server.access_log.always[0]", "known", '"5xx"'),
    ("[server]", 'access_log = { path = "/x", fields = ["a b"] }', "server.access_log.fields[0]", "no name", "names"),
    (
        "[server]",
        'access_log = { path = "/tmp/x", fields = ["Cookie"] }',
        "server.access_log.fields[0]",
        "credentials",
        "names",
    ),
    (
        "[server]",
        'access_log = { path = "/tmp/x", format = "combined", fields = ["accept"] }',
        "server.access_log.fields",
        "fields of its own",
        '"json"',
    ),
    (
        "[server]",
        'access_log = { path = "/tmp/x", syslog = { tag = "a" } }',
        "server.access_log.syslog",
        "no meaning",
        "add that",
    ),
    (
        "[server]",
        'access_log = { target = "syslog", syslog = { address = "udp:loghost:514" } }',
        "server.access_log.syslog.address",
        "loghost",
        '"udp:192.0.2.1:514"',
    ),
    ("[server]", 'error_log = { target = "stdout" }', "server.error_log.target", "not known", '"stderr"'),
    ("[tls]", 'key_log = "/tmp/keys"', "tls.key_log", "whose secrets", 'clients = ["192.0.2.0/24"]'),
    ("[tls]", 'key_log = { path = "/tmp/keys" }', "tls.key_log.clients", "is missing", "networks"),
    ("[tls]", 'key_log = { path = "/k", clients = ["10.0.0.1/8"] }', "tls.key_log.clients[0]", "host bits", "write"),
    ("[server]", 'error_log = { level = "loud" }', "server.error_log.level", "not known", '"debug" or "info"'),
    ("[[listener]]", 'bind = "127.0.0.1:8443"', "listener[0].bind", "not an array", '["127.0.0.1:8443"]'),
    ("[[listener]]", "bind = []", "listener[0].bind", "is empty", "at least one"),
    ("[[listener]]", 'bind = ["127.0.0.1"]', "listener[0].bind[0]", "no port", "192.0.2.1:443"),
    ("[[listener]]", 'bind = ["::1:443"]', "listener[0].bind[0]", "in brackets", "[::]:443"),
    ("[[listener]]", 'bind = ["localhost:443"]', "listener[0].bind[0]", "localhost", "192.0.2.1:443"),
    ("[[listener]]", 'bind = ["1.2.3.4:0"]', "listener[0].bind[0]", "between 1 and 65535", "192.0.2.1:443"),
    ("[[listener]]", 'bind = ["1.2.3.4:65536"]', "listener[0].bind[0]", "between 1 and 65535", "192.0.2.1:443"),
    ("[[listener]]", 'bind = ["1.2.3.4:1", "1.2.3.4:1"]', "listener[0].bind[1]", "twice", "remove"),
    (
        "[[listener]]",
        'timeouts = { header = "5x" }',
        "listener[0].timeouts.header",
        '"5x" is not a duration',
        '"250ms"',
    ),
    ("[[listener]]", "timeouts = { header = 5 }", "listener[0].timeouts.header", "5 is not a duration", '"none"'),
    ("[[listener]]", 'timeouts = { header = "-5s" }', "listener[0].timeouts.header", "not a duration", '"250ms"'),
    ("[[listener]]", 'timeouts = { header = "8d" }', "listener[0].timeouts.header", "out of range", "1ms and 7d"),
    ("[[route]]", 'timeouts = { header = "11s" }', "route[0].timeouts.header", "longer than every", "raise timeouts"),
    ("[[route]]", 'timeouts = { header = "none" }', "route[0].timeouts.header", "longer than every", "raise timeouts"),
    ("[[route]]", 'timeouts = { handshake = "1s" }', "route[0].timeouts.handshake", "unknown key", "the keys here"),
    ("[[route]]", 'timeouts = { min_rate = "1KiB" }', "route[0].timeouts.min_rate", "is not a rate", '"1KiB/s"'),
    ("[[route]]", "timeouts = { min_rate = 1 }", "route[0].timeouts.min_rate", "1 is not a rate", '"1KiB/s"'),
    ("[[route]]", 'timeouts = { min_rate = "0B/s" }', "route[0].timeouts.min_rate", "out of range", "1B and 1GiB"),
    ("[[listener]]", 'timeouts = { head = "5s" }', "listener[0].timeouts.head", "unknown key", '"header"'),
    ("[[listener]]", 'tcp = { keepalive = "off" }', "listener[0].tcp.keepalive", "not a table", "interval, count"),
    ("[[listener]]", 'tcp = { keepalive = { idle = "10h" } }', "listener[0].tcp.keepalive.idle", "out of range", "9h"),
    ("[[listener]]", 'limits = { head = "14KB" }', "listener[0].limits.head", "not a size", '"14KiB"'),
    ("[[listener]]", 'limits = { head = "1GiB" }', "listener[0].limits.head", "out of range", "256B and 48KiB"),
    ("[[listener]]", "limits = { connections = 0 }", "listener[0].limits.connections", "out of range", "between 1"),
    ("[[listener]]", 'limits = { per_address = "x" }', "listener[0].limits.per_address", "not an integer", "number"),
    ("[[listener]]", "limits = { per_address = 65536 }", "listener[0].limits.per_address", "out of range", "65535"),
    ("[[listener]]", 'limits = { fields = "none" }', "listener[0].limits.fields", "not an integer", "number"),
    ("[[listener]]", 'limits = { over_limit = "x" }', "listener[0].limits.over_limit", "not known", '"close" or'),
    ("[[route]]", 'limits = { body = "1" }', "route[0].limits.body", "is not a size", 'or "none"'),
    ("[[route]]", 'limits = { line = "1KiB" }', "route[0].limits.line", "unknown key", "head"),
    ("[server]", 'memory_limit = "1MiB"', "server.memory_limit", "out of range", "16MiB and 1024GiB"),
    ("[[listener]]", 'forwarded = "yes"', "listener[0].forwarded", "not known", '"x-forwarded" or'),
    ("[tls]", 'groups = ["x2551"]', "tls.groups[0]", "not a known group", 'did you mean "x25519"?'),
    ("[tls]", 'cipher_suites = ["RC4"]', "tls.cipher_suites[0]", "not a known cipher suite", "TLS_AES_128"),
    ("[tls]", 'min_version = "1.1"', "tls.min_version", "not a known TLS version", 'did you mean "1.'),
    ("[tls]", 'max_version = "1.2"\nmin_version = "1.3"', "tls.min_version", "above max_version", "same version"),
    (
        "[tls]",
        'max_version = "1.2"\ncipher_suites = ["TLS_AES_128_GCM_SHA256"]',
        "tls.cipher_suites",
        "none of a version",
        "widen",
    ),
    ("[tls]", "cipher_suites = []", "tls.cipher_suites", "is empty", "at least one cipher suite"),
    ("[[certificate]]", 'names = ["a b"]', "certificate[0].names[0]", "no DNS name", "example.com"),
    ("[[certificate]]", 'names = ["bücher.de"]', "certificate[0].names[0]", "no DNS name", "xn--"),
    ("[[certificate]]", 'names = ["a.*.de"]', "certificate[0].names[0]", "no DNS name", "*.example.com"),
    ("[[certificate]]", 'chain = "~no-such-user/a"', "certificate[0].chain", "home directory", "the whole path"),
    ("[[certificate]]", "chain = 5", "certificate[0].chain", "5 is not a path", "in quotes"),
    ("[[upstream]]", 'name = "a b"', "upstream[0].name", '"a b"', "letters, digits"),
    ("[[upstream]]", 'servers = ["unix:app.sock"]', "upstream[0].servers[0]", "absolute", "unix:/run/app.sock"),
    ("[[upstream]]", f'servers = ["unix:/{"x" * 107}"]', "upstream[0].servers[0]", "107 bytes", "unix:/run/app.sock"),
    ("[[upstream]]", 'servers = ["http://x:80"]', "upstream[0].servers[0]", "is a URL", "host.name:80"),
    ("[[upstream]]", 'servers = ["*.x:80"]', "upstream[0].servers[0]", "no address", "host.name:80"),
    ("[[upstream]]", 'servers = ["no-such-host.invalid:80"]', "upstream[0].servers[0]", "resolved", "IP address"),
    ("[[upstream]]", "pool = { max_idle = -1 }", "upstream[0].pool.max_idle", "out of range", "0 and 65535"),
    ("[[upstream]]", 'protocol = "h3"', "upstream[0].protocol", '"h3" is not known', '"http/1.1"'),
    ("[[upstream]]", 'protocol = "h2c"\ntls = {}', "upstream[0].tls", "no place in h2c", 'protocol = "h2"'),
    ("[[upstream]]", "pool = { max_connections = 0 }", "upstream[0].pool.max_connections", "out of range", "1 and"),
    ("[[upstream]]", "tls = true", "upstream[0].tls", "true is not a table", "keys of: ca"),
    ("[[upstream]]", 'tls = { name = "*.x" }', "upstream[0].tls.name", "a pattern", "without a port"),
    ("[[upstream]]", 'tls = { name = "x:1" }', "upstream[0].tls.name", "no DNS name", "without a port"),
    ("[[upstream]]", 'tls = { ca = "a", verify = false }', "upstream[0].tls.ca", "verify = false", "one of the two"),
    ("[[upstream]]", 'tls = { chain = "a" }', "upstream[0].tls.key", "is missing", "needs both"),
    ("[[upstream]]", 'tls = { key = "a" }', "upstream[0].tls.chain", "is missing", "needs both"),
    ("[[route]]", 'upstream = "ap"', "route[0].upstream", 'no upstream "ap"', 'did you mean "app"?'),
    ("[[route]]", 'upstream = "zzz"', "route[0].upstream", 'no upstream "zzz"', "name one of: app"),
    ("[[route]]", 'match = { path = "x" }', "route[0].match.path", "no path", 'begin with "/"'),
    ("[[route]]", 'match = { path = "/x?y" }', "route[0].match.path", "no path", "no query"),
    ("[[route]]", 'match = { host = ["a:80"] }', "route[0].match.host[0]", "no DNS name", "without a port"),
    ("[[route]]", 'match = { host = "a" }', "route[0].match.host", "not an array", '["a"]'),
    ("[[route]]", 'early_hints = { links = ["/a"] }', "route[0].early_hints.links[0]", "no link", "rel=preload"),
    (
        "[[route]]",
        'early_hints = { links = ["</a>; rel=preload\\r\\nSet-Cookie: a"] }',
        "route[0].early_hints.links[0]",
        "in ASCII",
        "write one link",
    ),
    ("[[route]]", 'early_data = "forward"', "route[0].early_data", "no effect", "add [tls.early_data]"),
    ("[[route]]", 'early_data = "forwards"', "route[0].early_data", "not known", '"forward"'),
    ("[tls]", 'early_data.safe = { methods = ["TRACE"] }', "tls.early_data.safe.methods[0]", "never safe", "wait"),
    ("[tls]", 'early_data.safe = { methods = ["get"] }', "tls.early_data.safe.methods[0]", "no method", "capitals"),
    ("[tls]", 'early_data = { unique_header = "X Y" }', "tls.early_data.unique_header", "no field name", "Unique"),
    ("[tls]", 'early_data = { unique_header = "Cookie" }', "tls.early_data.unique_header", "of its own", '"none"'),
    ("[tls]", "early_data = { rate = 0 }", "tls.early_data.rate", "out of range", "between 1"),
    ("[[route]]", "early_hints = { learn = 1 }", "route[0].early_hints.learn", "neither true", "without quotes"),
    ("[[route]]", 'match = { method = ["get"] }', "route[0].match.method[0]", "not a method", "capitals"),
]


@pytest.mark.parametrize(("heading", "line", "key", "problem", "remedy"), FAULTS, ids=[f[1][:40] for f in FAULTS])
def test_a_fault_names_file_key_and_remedy(heading, line, key, problem, remedy):
    with pytest.raises(ConfigError) as caught:
        parse(with_line(heading, line))
    e = caught.value
    assert e.file == "/etc/edge/edge.toml"
    assert e.key == key
    assert problem in e.problem
    assert remedy in e.remedy
    assert str(e).startswith(f"{e.file}: {key}: ")
    assert "\n" not in str(e)


@pytest.mark.parametrize("table", ["listener", "certificate", "upstream", "route"])
def test_one_of_each_is_needed(table):
    blocks = ("\n" + LEAST.strip()).split("\n[[")
    without = "".join("\n[[" + b for b in blocks if b and not b.startswith(table))
    with pytest.raises(ConfigError) as caught:
        parse(without)
    assert (caught.value.key, caught.value.problem) == (table, "is missing")
    with pytest.raises(ConfigError) as caught:
        parse(f"{table} = []\n" + without)
    assert "is empty" in caught.value.problem
    with pytest.raises(ConfigError) as caught:
        parse(without + f"\n[{table}]\n")
    assert caught.value.remedy == f"write [[{table}]] with two brackets on each side"


def test_keys_that_must_be_there():
    for line in ('chain = "cert.pem"', 'key = "key.pem"', 'name = "app"', 'servers = ["127.0.0.1:9000"]'):
        with pytest.raises(ConfigError, match=rf"\.{line.split()[0]}: is missing; add it"):
            parse(LEAST.replace(line + "\n", ""))


def test_the_same_address_in_two_listeners():
    with pytest.raises(ConfigError) as caught:
        parse(LEAST + '[[listener]]\nbind = ["127.0.0.1:8443"]\n')
    assert caught.value.key == "listener[1].bind[0]"
    assert "listener[0].bind[0]" in caught.value.problem


def test_two_upstreams_of_one_name():
    with pytest.raises(ConfigError) as caught:
        parse(LEAST + '[[upstream]]\nname = "app"\nservers = ["127.0.0.1:1"]\n')
    assert caught.value.key == "upstream[1].name"


def test_two_routes_of_one_match():
    with pytest.raises(ConfigError) as caught:
        parse(LEAST + '[[route]]\nmatch = {}\nupstream = "app"\n')
    assert caught.value.key == "route[1].match"


def test_whom_a_certificate_is_to_be_for():
    servers = 'servers = ["127.0.0.1:1", "localhost:2"]\n'
    assert set(parse(with_line("[[upstream]]", servers + "tls = {}")).server_names[0]) == {"127.0.0.1", "localhost"}
    named = parse(with_line("[[upstream]]", servers + 'tls = { name = "App.internal" }'))
    assert set(named.server_names[0]) == {"app.internal"}
    assert len(named.server_names[0]) == len(named.addresses[0])


def test_a_unix_socket_has_no_name_of_its_own():
    unix = 'servers = ["unix:/run/app.sock"]\n'
    for line in ("tls = {}", 'protocol = "h2"'):
        with pytest.raises(ConfigError) as caught:
            parse(with_line("[[upstream]]", unix + line))
        assert caught.value.key == "upstream[0].tls.name"
    assert parse(with_line("[[upstream]]", unix + "tls = { verify = false }")).server_names == (("",),)
    assert parse(with_line("[[upstream]]", unix + 'tls = { name = "app.internal" }')).server_names == (
        ("app.internal",),
    )


@pytest.mark.parametrize(("protocol", "warned"), [("http/1.1", False), ("h2c", True)])
def test_websockets_to_http_2_are_a_warning(protocol, warned):
    s = parse(LEAST.replace("[[route]]", f'protocol = "{protocol}"\n[[route]]\ntimeouts = {{ websocket_idle = "1m" }}'))
    assert [w.split(":")[1].strip() for w in s.warnings] == ["route[0].timeouts.websocket_idle"] * warned


def test_an_upstream_without_route_is_a_warning():
    s = parse(LEAST + '[[upstream]]\nname = "spare"\nservers = ["127.0.0.1:1"]\n')
    assert s.warnings == ('/etc/edge/edge.toml: upstream[1]: no route uses "spare"',)


def test_an_upstream_that_a_hook_may_choose_is_none():
    s = parse(LEAST + '[[upstream]]\nname = "spare"\nservers = ["127.0.0.1:1"]\n[server]\nhooks = "rules:Policy"\n')
    assert s.warnings == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_a_user_brings_its_group():
    s = parse(with_line("[server]", 'user = "nobody"'))
    entry = pwd.getpwnam("nobody")
    assert config.owner(s.server, Place("x")) == (entry.pw_uid, entry.pw_gid)


def test_broken_files(tmp_path):
    file = tmp_path / "edge.toml"
    with pytest.raises(ConfigError, match="no such file or directory; name a readable file"):
        config.load(file)
    with pytest.raises(ConfigError, match="is a directory"):
        config.load(tmp_path)
    file.write_bytes(b"[server]\nworkers = 'caf\xe9'\n")
    with pytest.raises(ConfigError, match=r"is not UTF-8 \(byte 23\)"):
        config.load(file)
    file.write_text("[server]\nworkers == 2\n")
    with pytest.raises(ConfigError, match=r"is no TOML: .*line 2"):
        config.load(file)


def test_relative_paths_start_at_the_file(tmp_path, monkeypatch):
    (tmp_path / "edge.toml").write_text(LEAST)
    monkeypatch.chdir(tmp_path)
    assert config.load(Path("edge.toml")).certificate[0].chain == tmp_path / "cert.pem"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=8), v, max_size=3), max_leaves=6
)


def places(value, path=()):
    """The path of everything within a value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, v in inner:
        yield from places(v, (*path, key))


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=200)
@given(st.data())
def test_any_value_anywhere_gives_settings_or_a_config_error(data):
    raw = tomllib.loads(LEAST)
    *way, last = data.draw(st.sampled_from([p for p in places(raw) if p]))
    at = raw
    for key in way:
        at = at[key]
    at[last] = data.draw(VALUES)
    try:
        read_table(tables.Settings, raw, Place("x.toml"), file="x.toml", addresses=(), warnings=())
    except ConfigError as e:
        assert e.file == "x.toml"
        assert "\n" not in str(e)


def test_the_reference_is_up_to_date():
    assert (ROOT / "docs/configuration.md").read_text() == config.page(), (
        "run: python -m edge.config > docs/configuration.md"
    )


def test_the_reference_names_every_key():
    page = config.page()
    for cls in (tables.ServerTable, tables.Listener, tables.Tls, tables.Certificate, tables.Upstream, tables.Route):
        for name, knob in knobs(cls):
            assert f"`{name}" in page
            assert knob.doc in page


def test_the_example_of_the_reference_is_right(tmp_path):
    example = config.page().split("```toml\n")[1].split("```")[0]
    user = pwd.getpwuid(os.getuid()).pw_name
    s = parse(
        example.replace('"edge"', f'"{user}"')
        .replace("/run/edge/", "/tmp/")
        .replace("/var/log/edge", "/tmp"),
        tmp_path,
    )
    assert len(s.route) == 2
    assert s.listener[0].bind[1].family == socket.AF_INET6


def test_tables_that_leave_a_key_out_share_its_default():
    route = '[[route]]\nmatch = {{ host = ["{}.test"] }}\nupstream = "u"\n'
    text = '[[listener]]\nbind = ["127.0.0.1:1"]\n[[certificate]]\nchain = "a"\nkey = "b"\n'
    text += '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:1"]\n' + "".join(map(route.format, "ab"))
    one, other = config.parse(text, "edge.toml").route
    assert one.timeouts is other.timeouts
    assert one.limits is other.limits


def test_a_long_list_is_read_at_once():
    """Each item was once held against all before it."""
    hosts = ", ".join(f'"host-{i}.test"' for i in range(20_000))
    text = '[[listener]]\nbind = ["127.0.0.1:1"]\n[[certificate]]\nchain = "a"\nkey = "b"\n'
    text += f'[[upstream]]\nname = "u"\nservers = ["127.0.0.1:1"]\n[[route]]\nmatch = {{ host = [{hosts}] }}\n'
    begun = time.process_time()
    assert len(config.parse(text + 'upstream = "u"\n', "edge.toml").route[0].match.host) == 20_000
    assert time.process_time() - begun < 5
