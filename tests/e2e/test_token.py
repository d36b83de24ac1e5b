"""A certificate's key in a PKCS #11 token, of SoftHSM, in the edge itself and in a key server."""

import os
import sys

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.e2e.client import Client
from tests.e2e.examples import run_example
from tests.e2e.processes import Process, free_port, run
from tests.e2e.server import Edge
from tests.e2e.test_keyless import Remote, curl_is_served
from tests.edge.softhsm import LABEL, PIN, SoftHsm, module


@pytest.fixture(scope="module")
def hsm(tmp_path_factory, pki):
    made = SoftHsm(tmp_path_factory.mktemp("softhsm"))
    for i, certificate in enumerate((pki.default, pki.rsa, pki.ed25519)):
        made.add(certificate.label, f"0{i}", load_pem_private_key(certificate.key.read_bytes(), None))
    (made.directory / "pin").write_text(PIN + "\n")
    return made


def in_token(hsm, certificate, **changes):
    key = {
        "signer": "pkcs11", "module": hsm.module, "token": LABEL, "label": certificate.label,
        "pin_file": hsm.directory / "pin", "timeout": "30s", **changes,
    }  # fmt: skip
    return Remote(certificate, key)


@pytest.fixture(scope="module")
def edge(tmp_path_factory, pki, hsm, nginx):
    held = [in_token(hsm, certificate) for certificate in (pki.default, pki.rsa, pki.ed25519)]
    directory = tmp_path_factory.mktemp("edge")
    started = Edge(
        directory, pki, {"nginx": [nginx.server]}, certificates=held, server={"workers": 2}, env=hsm.environment
    )
    with started:
        yield started


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("name", ["edge.test", "rsa.edge.test", "ed25519.edge.test"])
def test_curl(edge, pki, name, version):
    curl_is_served(edge, pki, name, version)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"label": "rsa"}, 'key: token "edge test", key "rsa": is not the key of the certificate'),
        ({"label": "nothing"}, 'key: token "edge test", key "nothing": no such key'),
        ({"token": "nothing"}, 'key: token "nothing", key "default": no such token'),
        ({"pin_file": "/nowhere"}, "key.pin_file: /nowhere: no such file or directory"),
    ],
)
def test_a_fault_is_found_before_it_serves(tmp_path, pki, hsm, changes, why):
    held = [in_token(hsm, pki.default, **changes)]
    wrong = Edge(tmp_path, pki, {"nobody": ["127.0.0.1:1"]}, certificates=held)
    wrong.write()
    checked = run(
        [sys.executable, "-m", "edge", "check", "--config", wrong.config],
        env={**os.environ, **hsm.environment},
    )
    assert checked.returncode == 1
    assert f"certificate[0].{why}" in checked.stdout, checked.stdout


def test_a_key_server_with_a_token(tmp_path, pki, hsm, make_edge, nginx):
    port = free_port()
    own = pki.ca.issue("token-keys", "p256", "127.0.0.1")
    us = pki.ca.issue("token-client", "p256", "edge.example", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    server = Process(
        [
            sys.executable, "-m", "edge", "keyserver", "--listen", f"127.0.0.1:{port}", "--chain", own.chain,
            "--key", own.key, "--ca", pki.ca.file, "--module", hsm.module, "--token", LABEL,
            "--pin-file", hsm.directory / "pin",
        ],
        tmp_path / "log",
        env={**os.environ, **hsm.environment},
    )  # fmt: skip
    server.started(lambda: "by 3 keys" in server.output(), 30)
    key = {
        "signer": "keyless", "servers": [f"127.0.0.1:{port}"], "ca": pki.ca.file, "chain": us.chain, "key": us.key,
        "timeout": "20s",
    }  # fmt: skip
    edge = make_edge({"nginx": [nginx.server]}, certificates=[Remote(pki.rsa, key)])
    with Client(edge, name="rsa.edge.test") as client:
        assert client.get("/").status == 200
    assert server.stop() == 0, server.output()


def test_the_example(tmp_path):
    module()
    with run_example("pkcs11", tmp_path) as running:
        assert not (running.directory / "key.pem").exists()
        for version in ("1.2", "1.3"):
            status, _ = running.curl("/request", f"--tlsv{version}", "--tls-max", version)
            assert status == 200, running.log
