"""The connection to real Redis servers: plain, by a Unix socket, in TLS, through Sentinel, to a cluster; in bounded
time, and by who trusts the right authority."""

import asyncio
import os
import pickle
import re
import subprocess
import sys
import time
import tomllib

import pytest
import redis
from cryptography.x509.oid import ExtendedKeyUsageOID

from edge import config, demo, plane
from edge.change.material import Handed, Material, from_pieces
from edge.errors import ConfigError
from edge.fleet import link as links
from edge.fleet.connection import FAILURES
from edge.fleet.settings import Fleet
from edge.schema import Place, read_table
from tests import redis_server
from tests.e2e.pki import Authority
from tests.e2e.processes import ROOT
from tests.redis_server import RedisServer


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def make(tmp_path):
    """A Link of `[fleet]` with these keys."""
    (tmp_path / "secret").write_bytes(bytes(range(48)))

    def made(*servers, **values):
        urls = [server if isinstance(server, str) else server.url for server in servers]
        values = {"secret_files": ["secret"], "redis": urls, **values}
        at = Place(str(tmp_path / "edge.toml")).key("fleet")
        return links.read(read_table(Fleet, values, at), at)

    return made


def talk(link, *commands, seconds=5.0, retries=0):
    """The answers to some commands, by one client."""

    async def go():
        client = link.asyncio(connections=2, seconds=seconds, retries=retries)
        try:
            return [await client.redis.execute_command(*command) for command in commands]
        finally:
            await client.close()

    return asyncio.run(go())


SET_AND_GET = (("SET", "edge:edge:k", "v"), ("GET", "edge:edge:k"))


def test_plain(make, tmp_path):
    with RedisServer(tmp_path) as server:
        assert talk(make(server), *SET_AND_GET)[1] == b"v"
        assert make(f"127.0.0.1:{server.port}").servers == make(server).servers


def test_a_unix_socket(make, tmp_path):
    path = tmp_path / "r.sock"
    with RedisServer(tmp_path, config={"unixsocket": str(path)}):
        assert talk(make(f"unix:{path}"), *SET_AND_GET)[1] == b"v"


def test_a_user_and_its_password(make, tmp_path):
    (tmp_path / "password").write_text("let me in\n")
    (tmp_path / "wrong").write_text("let me out\n")
    with RedisServer(tmp_path, password="others") as server:
        server.call("ACL", "SETUSER", "edge", "on", ">let me in", "~edge:*", "+get", "+set")
        link = make(server, username="edge", password_file="password")
        assert talk(link, *SET_AND_GET)[1] == b"v"
        with pytest.raises(redis.AuthenticationError):
            talk(make(server, username="edge", password_file="wrong"), *SET_AND_GET)
        with pytest.raises(redis.exceptions.NoPermissionError):
            talk(link, ("GET", "other"))


@pytest.fixture(scope="module")
def shown(authority):
    return authority.issue("client", "p256", "edge", usage=ExtendedKeyUsageOID.CLIENT_AUTH)


@pytest.fixture(scope="module")
def tls_server(tmp_path_factory, authority):
    """For 127.0.0.1, not for localhost."""
    certificate = authority.issue("redis", "p256", "127.0.0.1")
    with RedisServer(tmp_path_factory.mktemp("tls"), certificate=certificate, ca=authority.file) as server:
        yield server


def test_tls(make, tls_server, authority):
    assert talk(make(tls_server, ca=str(authority.file)), *SET_AND_GET)[1] == b"v"


def test_tls_is_verified(make, tls_server, authority, tmp_path):
    other = Authority(tmp_path)
    for link in (make(tls_server, ca=str(other.file)), make(tls_server)):
        with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            talk(link, *SET_AND_GET)
    with pytest.raises(redis.ConnectionError, match="certificate"):  # not for that name
        talk(make(f"rediss://localhost:{tls_server.port}", ca=str(authority.file)), *SET_AND_GET)


def test_the_systems_authorities_are_not_trusted_beside_those_that_are_named(make, tls_server, authority, tmp_path):
    """The server's certificate is good for the system here: whoever names another authority does not take it."""
    link, other = make(tls_server), make(tls_server, ca=str(Authority(tmp_path).file))
    program = (
        "import sys, pickle, asyncio; link = pickle.load(sys.stdin.buffer)\n"
        "async def go():\n"
        "    client = link.asyncio(connections=1, seconds=20)\n"
        "    print(await client.redis.execute_command('PING'))\n"
        "    await client.close()\n"
        "asyncio.run(go())"
    )
    environ = {**os.environ, "SSL_CERT_FILE": str(authority.file)}
    for one, code in ((link, 0), (other, 1)):
        process = subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps(one),
            capture_output=True,
            env=environ,
            timeout=60,
            check=False,
        )
        assert process.returncode == code, process.stderr
    assert b"certificate verify failed" in process.stderr


def test_a_client_certificate_of_memory(make, tmp_path, authority, shown):
    """A worker could not read the files."""
    certificate = authority.issue("redis2", "p256", "127.0.0.1")
    chain, key = tmp_path / "client.pem", tmp_path / "client.key"
    chain.write_bytes(shown.chain.read_bytes())
    key.write_bytes(shown.key.read_bytes())
    with RedisServer(tmp_path, certificate=certificate, ca=authority.file, shown=shown) as server:
        link = make(server, ca=str(authority.file), certificate=str(chain), key=str(key))
        chain.unlink()
        key.unlink()
        assert talk(pickle.loads(pickle.dumps(link)), *SET_AND_GET)[1] == b"v"
        with pytest.raises(redis.ConnectionError):
            talk(make(server, ca=str(authority.file)), *SET_AND_GET)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_sentinel(make, tmp_path, authority, tls):
    (tmp_path / "password").write_text("p1")
    (tmp_path / "sentinels").write_text("p2")
    options, values = {}, {}
    if tls:
        options = {"certificate": authority.issue("redis3", "p256", "127.0.0.1"), "ca": authority.file}
        values = {"ca": str(authority.file)}
    with (
        RedisServer(tmp_path, password="p1", **options) as master,
        redis_server.sentinel(tmp_path, master, "tls" if tls else "plain", password="p2", **options) as sentinel,
    ):
        link = make(
            "redis://127.0.0.1:1" if not tls else "rediss://127.0.0.1:1",
            sentinel,
            mode="sentinel",
            service="tls" if tls else "plain",
            password_file="password",
            sentinel_password_file="sentinels",
            **values,
        )
        assert talk(link, *SET_AND_GET)[1] == b"v"
        assert master.call("GET", "edge:edge:k") == b"v"
        other = make(sentinel, mode="sentinel", service="other", sentinel_password_file="sentinels", **values)
        with pytest.raises(redis.ConnectionError):
            talk(other, ("PING",))


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_cluster(make, tmp_path, authority, shown, tls):
    options, values = {}, {}
    if tls:
        options = {"certificate": authority.issue("redis4", "p256", "127.0.0.1"), "ca": authority.file}
        options["config"] = {"tls-client-cert-file": str(shown.chain), "tls-client-key-file": str(shown.key)}
        values = {"ca": str(authority.file)}
    with redis_server.cluster(tmp_path, **options) as nodes:
        link = make(*nodes[1:], mode="cluster", **values)
        keys = [f"edge:edge:{i}" for i in range(20)]
        assert talk(link, *(("SET", key, "v") for key in keys)) == [True] * 20
        assert all(node.call("DBSIZE") for node in nodes)
        if tls:
            with pytest.raises(FAILURES):
                talk(make(*nodes, mode="cluster", ca=str(Authority(tmp_path).file)), ("GET", "k"))


@pytest.mark.parametrize("mode", ["server", "cluster"])
def test_nobody_answers_in_bounded_time(make, tmp_path, mode):
    with RedisServer(tmp_path, config={"cluster-enabled": "yes" if mode == "cluster" else "no"}) as server:
        link = make(server, mode=mode)
        server.pause()
        try:
            before = time.monotonic()
            with pytest.raises(FAILURES):
                talk(link, ("GET", "k"), seconds=0.2)
            assert time.monotonic() - before < 5
        finally:
            server.resume()


def test_connections_are_bounded(make, tmp_path):
    with RedisServer(tmp_path) as server:
        link = make(server)

        async def go():
            client = link.asyncio(connections=2, seconds=20)
            await asyncio.gather(*(client.redis.execute_command("PING") for _ in range(50)))
            seen = await client.redis.execute_command("INFO", "clients")
            await client.close()
            return seen

        assert asyncio.run(go())["connected_clients"] <= 2


# What the files hold.


def test_secrets_show_nowhere(make, tmp_path):
    (tmp_path / "password").write_text("let me in")
    (tmp_path / "other").write_bytes(b"o" * 32)
    link = make("a:1", password_file="password", secret_files=["secret", "other"])
    assert "let me in" not in repr(link) + str(link)
    for secret in link.secrets:
        for one in (secret._secret, secret.wrap_key, secret.fingerprint_key):
            assert repr(one)[2:-1] not in repr(link)
    assert pickle.loads(pickle.dumps(link)) == link


def test_derived_keys(make, tmp_path):
    (tmp_path / "other").write_bytes(b"o" * 32)
    one, other = make("a:1", secret_files=["secret", "other"]).secrets
    derived = [one.name, one.wrap_key, one.fingerprint_key, one.register_identity(1), one.register_identity(12)]
    derived += [other.name, other.wrap_key, other.fingerprint_key, other.register_identity(1)]
    assert len(set(derived)) == len(derived)
    assert one.register_identity(1, 2) != one.register_identity(12)
    assert [len(d) for d in derived[:4]] == [8, 32, 32, 8]
    assert make("b:1").secrets[0] == one, "the same on every host"


@pytest.mark.parametrize(
    ("files", "values", "said"),
    [
        ({}, {"secret_files": ["none"]}, r"fleet\.secret_files\[0\].*no such file"),
        ({"s": b"short"}, {"secret_files": ["s"]}, r"fleet\.secret_files\[0\].*shorter than 32.*openssl rand"),
        ({"s": bytes(range(48))}, {"secret_files": ["secret", "s"]}, r"fleet\.secret_files.*same content"),
        ({"p": b""}, {"password_file": "p"}, r"fleet\.password_file.*no password"),
        ({"p": b"a\nb"}, {"password_file": "p"}, r"fleet\.password_file.*no password"),
        ({"p": b"\xff"}, {"password_file": "p"}, r"fleet\.password_file.*no password"),
        ({"p": b"p" * 5000}, {"password_file": "p"}, r"fleet\.password_file.*no password"),
        ({"c": b"none"}, {"ca": "c", "redis": ["rediss://a:1"]}, r"fleet\.ca.*no certificates"),
        (
            {"c": b"x", "k": b"y"},
            {"certificate": "c", "key": "k", "redis": ["rediss://a:1"]},
            r"fleet\.certificate.*cannot be used",
        ),
    ],
)
def test_files_that_are_none(make, tmp_path, files, values, said):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        make("a:1", **values)


def test_a_key_that_is_encrypted_asks_nobody(make, tmp_path, shown):
    command = ["openssl", "pkey", "-in", shown.key, "-aes256", "-passout", "pass:x", "-out", tmp_path / "k"]
    subprocess.run(command, check=True, timeout=30)
    with pytest.raises(ConfigError, match=r"fleet\.certificate"):
        make("rediss://a:1", certificate=str(shown.chain), key=str(tmp_path / "k"))


def test_without_the_package(make, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"fleet: needs the Python package redis; .*edge\[fleet\]"):
        make("a:1")


def test_a_configuration_is_read_once_and_by_the_master_alone(tmp_path):
    """A worker makes the same of what the master has read."""
    demo.make_certificates(tmp_path)
    file = tmp_path / "edge.toml"
    file.write_text(
        '[[listener]]\nbind = ["127.0.0.1:1"]\n[[certificate]]\nchain = "localhost.pem"\nkey = "localhost.key"\n'
        '[[upstream]]\nname = "u"\nservers = ["127.0.0.1:2"]\n[[route]]\nupstream = "u"\n'
        '[fleet]\nsecret_files = ["s"]\nredis = ["a:1"]\npassword_file = "p"\n'
    )
    settings = config.load(file)
    with pytest.raises(ConfigError, match=r"edge\.toml: fleet\.secret_files\[0\]: .*/s: no such file.*; name a file"):
        plane.prepare(settings, bytes(32))
    (tmp_path / "s").write_bytes(bytes(48))
    (tmp_path / "p").write_text("p")
    material = Material()
    prepared = plane.prepare(settings, bytes(32), material=material)
    (tmp_path / "s").unlink()
    (tmp_path / "p").unlink()
    handed = Handed(from_pieces(material.pieces()), {})
    assert plane.prepare(settings, bytes(32), material=handed).link == prepared.link
    assert prepared.link.password == "p"


def test_the_oldest_package_that_is_taken_is_said_to_be_tested():
    [extra] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["fleet"]
    oldest = re.fullmatch(r"redis>=(\d+),<\d+", extra)[1]
    assert f"{oldest}.0.0" in (ROOT / "docs/fleet.md").read_text()
