"""A token of SoftHSM in a directory, with a key of each kind."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

PIN = "1234"
LABEL = "edge test"
KINDS = {"p256": "01", "p384": "02", "rsa": "03", "ed25519": "04"}
"""The keys' labels, and their ids."""


@functools.cache
def module():
    """The path of SoftHSM's module. Its lack is a failure, unless missing peers are allowed."""
    for path in ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"):
        if Path(path).exists() and shutil.which("softhsm2-util"):
            return path
    message = "softhsm2 is not installed (./dev test installs it)"
    if os.environ.get("EDGE_ALLOW_MISSING_PEERS"):
        pytest.skip(message)
    pytest.fail(message, pytrace=False)


def util(directory, *arguments):
    environment = {**os.environ, "SOFTHSM2_CONF": str(directory / "softhsm2.conf")}
    done = subprocess.run(
        ["softhsm2-util", "--module", module(), *arguments],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class SoftHsm:
    """A token that is made in `directory`. Whoever uses it needs `environment`."""

    def __init__(self, directory):
        self.directory = directory
        self.module = module()
        (directory / "tokens").mkdir()
        (directory / "softhsm2.conf").write_text(f"directories.tokendir = {directory}/tokens\nlog.level = ERROR\n")
        self.environment = {"SOFTHSM2_CONF": str(directory / "softhsm2.conf")}
        util(directory, "--init-token", "--free", "--label", LABEL, "--so-pin", "5678", "--pin", PIN)
        self.keys = {}

    def add(self, label, key_id, key):
        pem = self.directory / f"{label}.pem"
        pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        util(
            self.directory, "--import", str(pem), "--token", LABEL, "--label", label, "--id", key_id, "--pin", PIN
        )
        pem.unlink()
        self.keys[label] = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def add_each_kind(self):
        made = {
            "p256": ec.generate_private_key(ec.SECP256R1()),
            "p384": ec.generate_private_key(ec.SECP384R1()),
            "rsa": rsa.generate_private_key(65537, 2048),
            "ed25519": ed25519.Ed25519PrivateKey.generate(),
        }
        for label, key in made.items():
            self.add(label, KINDS[label], key)
        return self
