"""The real gokeyless: its server asked by our client, and its client asking our server.

EDGE_GOKEYLESS names its program `gokeyless`, of which no package exists; beside it `gokeyless-cli-tester` is to stand,
its test client. It listens on every address of the machine: run these tests where nobody else reaches it.
"""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest
from cext.crypto.sign import PrivateKey, PublicKey
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from edge.keyless import client, wire
from edge.keyless.client import SignError
from tests.edge.keyless.rig import (
    MESSAGE,
    Log,
    authority,
    key_server,
    keys,
    pem,
    server_config,
    servers,
    until,
    unused_port,
)

GOKEYLESS = os.environ.get("EDGE_GOKEYLESS", "")
TESTER = str(Path(GOKEYLESS).parent / "gokeyless-cli-tester")

pytestmark = pytest.mark.skipif(
    not GOKEYLESS, reason="EDGE_GOKEYLESS does not name a gokeyless program (it is in no package of Debian or PyPI)"
)

MADE = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}
OURS = {kind: PrivateKey.from_pem(pem(key)) for kind, key in MADE.items()}


def chain_pem(chain):
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain)


@pytest.fixture(scope="module")
def gokeyless(tmp_path_factory):
    """Its server, with each of the keys -> the port."""
    directory = tmp_path_factory.mktemp("gokeyless")
    chain, key = authority("right").issue("127.0.0.1", "keys.example")
    (directory / "server.pem").write_bytes(chain_pem(chain))
    (directory / "server-key.pem").write_bytes(key)
    (directory / "ca.pem").write_bytes(authority("right").root.public_bytes(Encoding.PEM))
    (directory / "keys").mkdir()
    for kind, made in MADE.items():
        (directory / "keys" / f"{kind}.key").write_bytes(pem(made))
    port, metrics = unused_port(), unused_port()
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                GOKEYLESS,
                "--hostname=keys.example",
                f"--auth-cert={directory}/server.pem",
                f"--auth-key={directory}/server-key.pem",
                f"--auth-csr={directory}/server.csr",
                f"--cloudflare-ca-cert={directory}/ca.pem",
                f"--private-key-dirs={directory}/keys",
                f"--port={port}",
                f"--metrics-port={metrics}",
            ],
            cwd=directory,
            stdout=log,
            stderr=log,
        )
    yield port
    process.terminate()
    process.wait(30)
    if process.returncode not in (0, -15):
        print((directory / "log").read_text())


def run(test):
    async def limited():
        async with asyncio.timeout(60):
            await test

    asyncio.run(limited())


def started(port, kind, **changes):
    ski = client.subject_key_identifier(OURS[kind].public_spki())
    made = client.KeylessSigner(servers(port, **changes), ski, "a.example")
    log = Log()
    made.start(asyncio.get_running_loop(), log)
    return made, log


@pytest.mark.parametrize("kind", sorted(MADE))
def test_its_server_signs_by_every_scheme(gokeyless, kind):
    async def test():
        signer, log = started(gokeyless, kind)
        public = PublicKey.from_spki(OURS[kind].public_spki())
        for scheme in OURS[kind].schemes12:
            signature = await signer.sign(MESSAGE, scheme)
            assert public.verify12_bytes(scheme, MESSAGE, signature), hex(scheme)
        (server,) = signer._client.servers.values()
        assert server.up[0].engine.version == 0x0303
        assert "connection" not in str(log).replace("connection refused", "")
        signer.stop()

    run(test())


def test_five_hundred_at_once(gokeyless):
    """Its answers come in any order."""

    async def test():
        signer, _ = started(gokeyless, "p256")
        public = PublicKey.from_spki(OURS["p256"].public_spki())
        messages = [b"message %d" % i for i in range(500)]
        for message, signature in zip(
            messages, await asyncio.gather(*(signer.sign(m, 0x0403) for m in messages)), strict=True
        ):
            assert public.verify_bytes(0x0403, message, signature)
        signer.stop()

    run(test())


def test_its_errors(gokeyless):
    async def test():
        signer, _ = started(gokeyless, "p256")
        signer.ski = bytes([1] * 20)
        with pytest.raises(SignError, match="answers key not found"):
            await signer.sign(MESSAGE, 0x0403)
        signer.stop()

    run(test())


def test_it_refuses_a_client_of_another_authority(gokeyless):
    async def test():
        signer, log = started(gokeyless, "p256", of="wrong", timeout=2.0)
        with pytest.raises(SignError, match=f"key server 127.0.0.1:{gokeyless}: "):
            await signer.sign(MESSAGE, 0x0403)
        assert "peer's alert" in str(log)
        signer.stop()

    run(test())


def test_its_pings(gokeyless, monkeypatch):
    monkeypatch.setattr(client, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(client, "PING_SECONDS", 0.02)

    async def test():
        signer, log = started(gokeyless, "p256")
        (server,) = signer._client.servers.values()
        await until(lambda: server.up)
        (connection, *_) = server.up
        first = connection._id
        await until(lambda: (connection._id - first) & 0xFFFFFFFF > 3)
        assert connection in server.up
        assert "connection" not in str(log).replace("connection refused", "")
        signer.stop()

    run(test())


def test_its_client_asks_our_server(tmp_path):
    chain, key = authority("right").issue("us.example")
    (tmp_path / "client.pem").write_bytes(chain_pem(chain))
    (tmp_path / "client-key.pem").write_bytes(key)
    (tmp_path / "ca.pem").write_bytes(authority("right").root.public_bytes(Encoding.PEM))
    (tmp_path / "certs").mkdir()
    skis = {}
    for kind in ("p256", "p384", "rsa"):  # of Ed25519 it knows the server's part alone
        spki = keys()[kind].public_spki()
        text = load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "certs" / f"{kind}.pubkey").write_bytes(text)
        skis[kind] = client.subject_key_identifier(spki).hex()

    async def test():
        log = Log()
        async with key_server(tls=server_config(name="localhost"), log=log) as ks:
            process = await asyncio.create_subprocess_exec(
                TESTER,
                f"-cert={tmp_path}/client.pem",
                f"-key={tmp_path}/client-key.pem",
                f"-ca-file={tmp_path}/ca.pem",
                f"-keyserver=localhost:{ks.port}",
                f"-cert-directory={tmp_path}/certs",
                "-benchmark",
                "-repeats=3",
                "-workers=4",
                "-loglevel=3",
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            out, err = await process.communicate()
            return json.loads(out), err.decode(), ks.signed, str(log)

    results, err, signed, log = asyncio.run(asyncio.wait_for(test(), 60))
    tests = {name.lower(): test["results"] for name, test in results["tests"].items()}
    assert tests.pop("ping")["success"]["count"] == 12, err
    for kind, ski in skis.items():
        for name in ("sha256", "sha384", "sha512"):
            found = tests.pop(f"{ski}.sign.{name}")
            assert (found["success"]["count"], found["failure"]["count"]) == (12, 0), (kind, name, err, log)
    # What is left are hashes that nobody should sign by any more.
    assert {name.split(".")[-1] for name in tests} == {"md5sha1", "sha1", "sha224"}
    assert all(test["success"]["count"] == 0 for test in tests.values())
    assert signed == 3 * 3 * 12
    assert wire.Code.BAD_OPCODE == 5 and "none that is permitted" in log
