"""[fleet]: what can be written, what is refused and with which remedy, and that it is shown as it was written."""

import pytest

from edge import config
from edge.errors import ConfigError
from edge.fleet.settings import RedisServer, each_to_himself, in_the_clear
from edge.schema import write_table

REST = (
    '[[listener]]\nbind = ["127.0.0.1:1"]\n[[certificate]]\nchain = "c"\nkey = "k"\n'
    '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:2"]\n[[route]]\nupstream = "u"\n'
)
LEAST = 'secret_files = ["s"]\nredis = ["redis.test:6379"]\n'


def parse(fleet, tickets=""):
    return config.parse(f"[tls.tickets]\n{tickets}\n{REST}[fleet]\n{fleet}", "/etc/edge/edge.toml")


def test_the_least():
    fleet = parse(LEAST).fleet
    assert fleet.redis == (RedisServer("redis.test", 6379),)
    assert (fleet.name, fleet.mode, fleet.deadline, fleet.share) == ("edge", "server", 50, ("tickets", "early-data"))
    assert str(fleet.secret_files[0]) == "/etc/edge/s"


def test_there_is_none_without_the_table():
    assert config.parse(REST, "edge.toml").fleet is None


@pytest.mark.parametrize(
    ("written", "server"),
    [
        ("10.0.0.1:6379", RedisServer("10.0.0.1", 6379)),
        ("redis://10.0.0.1:6379", RedisServer("10.0.0.1", 6379)),
        ("rediss://Redis.test:6380", RedisServer("redis.test", 6380, tls=True)),
        ("rediss://[::1]:6380/", RedisServer("::1", 6380, tls=True)),
        ("unix:/run/redis.sock", RedisServer(path="/run/redis.sock")),
        ("unix:///run/redis.sock", RedisServer(path="/run/redis.sock")),
    ],
)
def test_addresses(written, server):
    found = parse(f'secret_files = ["s"]\nredis = ["{written}"]').fleet.redis
    assert found == (server,)
    assert parse(f'secret_files = ["s"]\nredis = ["{server}"]').fleet.redis == found


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("redis.test", "no port"),
        ("redis.test:0", "no port"),
        ("http://redis.test:6379", "unknown scheme"),
        ("redis://user:password@redis.test:6379", "password_file"),
        ("redis://redis.test:6379/3", "more than host and port"),
        ("redis://redis.test:6379?x=y", "more than host and port"),
        ("unix:redis.sock", "absolute path"),
        ("unix:", "absolute path"),
        ("*.test:6379", "no address or host name"),
    ],
)
def test_what_is_no_address(written, said):
    with pytest.raises(ConfigError, match=rf"fleet\.redis\[0\].*{said}.*; write ") as error:
        parse(f'secret_files = ["s"]\nredis = ["{written}"]')
    assert str(error.value).startswith("/etc/edge/edge.toml: ")


@pytest.mark.parametrize(
    ("fleet", "said"),
    [
        ('redis = ["a:1"]', r"fleet\.secret_files: is missing"),
        ('secret_files = ["s"]', r"fleet\.redis: is missing"),
        ('secret_files = []\nredis = ["a:1"]', r"fleet\.secret_files: is empty"),
        ('secret_files = ["s"]\nredis = ["a:1", "b:1"]', r"fleet\.redis.*sentinel"),
        ('secret_files = ["s"]\nmode = "cluster"\nredis = ["a:1", "rediss://b:1"]', r"fleet\.redis.*mixed"),
        ('secret_files = ["s"]\nmode = "cluster"\nredis = ["unix:/r"]', r"fleet\.redis.*Unix socket"),
        ('secret_files = ["s"]\nmode = "ring"\nredis = ["a:1"]', r"fleet\.mode"),
        (LEAST + 'ca = "ca.pem"', r"fleet\.ca.*rediss"),
        ('secret_files = ["s"]\nredis = ["rediss://a:1"]\nkey = "k"', r"fleet\.certificate: is missing"),
        ('secret_files = ["s"]\nredis = ["rediss://a:1"]\ncertificate = "k"', r"fleet\.key: is missing"),
        (LEAST + 'username = "edge"', r"fleet\.password_file: is missing"),
        (LEAST + 'sentinel_password_file = "p"', r"fleet\.sentinel_password_file.*sentinel"),
        (LEAST + 'poll = "5s"\nsettle = "10s"', r"fleet\.settle.*3 times"),
        (LEAST + "share = []", r"fleet\.share: is empty"),
        (LEAST + 'share = ["tickets", "cookies"]', r"fleet\.share\[1\]"),
        (LEAST + 'name = "a:b"', r"fleet\.name"),
        (LEAST + 'password = "x"', r"fleet\.password: unknown key; did you mean \"password_file\""),
        (LEAST + 'share = ["early-data"]', r"fleet\.share.*cannot open each other's tickets"),
    ],
)
def test_what_is_refused(fleet, said):
    with pytest.raises(ConfigError, match=said) as error:
        parse(fleet)
    assert error.value.remedy


def test_keys_have_one_source():
    with pytest.raises(ConfigError, match=r"tickets\.secret_file.*one source"):
        parse(LEAST, 'secret_file = "s"')
    with pytest.raises(ConfigError, match=r"tickets\.directory.*one source"):
        parse(LEAST, 'directory = "d"')
    with pytest.raises(ConfigError, match=r"tickets\.directory.*one source"):
        config.parse('[tls.tickets]\nsecret_file = "s"\ndirectory = "d"\n' + REST, "edge.toml")
    assert parse(LEAST + 'share = ["early-data"]', 'directory = "d"').fleet
    assert parse(LEAST + 'share = ["early-data"]', 'secret_file = "s"').fleet


@pytest.mark.parametrize(
    ("servers", "clear"),
    [
        (["127.0.0.1:1"], []),
        (["[::1]:1"], []),
        (["localhost:1"], []),
        (["unix:/r"], []),
        (["rediss://a:1"], []),
        (["a:1"], ["redis://a:1"]),
        (["10.0.0.1:1"], ["redis://10.0.0.1:1"]),
    ],
)
def test_where_a_password_can_be_overheard(servers, clear):
    assert in_the_clear(parse(f'secret_files = ["s"]\nredis = {servers}').fleet) == clear


@pytest.mark.parametrize("server", ["127.0.0.1:1", "rediss://[::1]:1", "localhost:1", "unix:/r"])
def test_where_each_host_may_have_another(server):
    fleet = parse(f'secret_files = ["s"]\nredis = ["{server}"]').fleet
    assert each_to_himself(fleet) == [str(fleet.redis[0])]
    assert each_to_himself(parse('secret_files = ["s"]\nredis = ["10.0.0.1:1"]').fleet) == []


def test_it_is_shown_as_it_was_written():
    fleet = parse(
        'name = "west"\nsecret_files = ["/s"]\nredis = ["rediss://a:1", "rediss://b:2"]\nmode = "sentinel"\n'
        'service = "m"\nusername = "u"\npassword_file = "/p"\nca = "/ca"\nshare = ["tickets"]\nsettle = "1m"'
    ).fleet
    assert write_table(fleet) == {
        "name": "west",
        "secret_files": ["/s"],
        "redis": ["rediss://a:1", "rediss://b:2"],
        "mode": "sentinel",
        "service": "m",
        "username": "u",
        "password_file": "/p",
        "ca": "/ca",
        "share": ["tickets"],
        "deadline": "50ms",
        "replicas": 0,
        "poll": "5s",
        "settle": "1m",
    }
