"""The PRF of TLS 1.2 against published vectors, the cryptography package and OpenSSL, and what is derived by it."""

import hashlib
import hmac
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cext.tls import prf12

SHA256, SHA384 = 1, 2
HASHES = {SHA256: hashlib.sha256, SHA384: hashlib.sha384}
AES_128, AES_256, CHACHA20 = 1, 2, 3

# The vector for P_SHA256 that went around on the IETF's TLS list: secret, seed, 100 bytes for the label "test label".
P_SHA256 = (
    "9bbe436ba940f017b17652849a71db35", "a0ba9f936cda311827a6f796ffd5198c",
    "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def17"
    "abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66",
)


def p_hash(hash, secret, seed, n):
    """P_hash (RFC 5246, section 5), once more and by another hand."""
    out, a = b"", seed
    while len(out) < n:
        a = hmac.digest(secret, a, HASHES[hash])
        out += hmac.digest(secret, a + seed, HASHES[hash])
    return out[:n]


def test_published_vector():
    secret, seed, wanted = (bytes.fromhex(part) for part in P_SHA256)
    assert prf12.prf_bytes(SHA256, secret, b"test label", seed, len(wanted)) == wanted


@given(st.sampled_from([SHA256, SHA384]), st.binary(max_size=200), st.binary(max_size=30), st.binary(max_size=98),
       st.integers(0, 300))
def test_any(hash, secret, label, seed, n):
    label = label.replace(b"\0", b"x")
    assert prf12.prf_bytes(hash, secret, label, seed, n) == p_hash(hash, secret, label + seed, n)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl")
@pytest.mark.parametrize(("hash", "name"), [(SHA256, "SHA256"), (SHA384, "SHA384")])
def test_against_openssl(hash, name):
    secret, seed = bytes(range(48)), bytes(range(64))
    command = ["openssl", "kdf", "-keylen", "88", "-kdfopt", f"digest:{name}", "-kdfopt", f"hexsecret:{secret.hex()}",
               "-kdfopt", f"hexseed:{(b'key expansion' + seed).hex()}", "-binary", "TLS1-PRF"]
    said = subprocess.run(command, capture_output=True, check=False)
    if said.returncode:
        pytest.skip(said.stderr.decode())
    assert prf12.prf_bytes(hash, secret, b"key expansion", seed, 88) == said.stdout


@pytest.mark.parametrize("hash", HASHES)
def test_secrets_and_finished(hash):
    premaster, client, server = bytes(range(32)), b"c" * 32, b"s" * 32
    master = prf12.master(hash, premaster, client, server)
    assert master == p_hash(hash, premaster, b"master secret" + client + server, 48)
    digest = HASHES[hash](b"messages").digest()
    extended = p_hash(hash, premaster, b"extended master secret" + digest, 48)
    assert prf12.extended_master(hash, premaster, digest) == extended
    assert prf12.finished(hash, master, True, digest) == p_hash(hash, master, b"server finished" + digest, 12)
    assert prf12.finished(hash, master, False, digest) == p_hash(hash, master, b"client finished" + digest, 12)


@pytest.mark.parametrize(("aead", "key", "iv"), [(AES_128, 16, 4), (AES_256, 32, 4), (CHACHA20, 32, 12)])
@pytest.mark.parametrize("hash", HASHES)
def test_key_block(hash, aead, key, iv):
    """client_write_key, server_write_key, client_write_IV, server_write_IV (RFC 5246, section 6.3): no MAC keys."""
    master, client, server = bytes(range(48)), b"c" * 32, b"s" * 32
    block = p_hash(hash, master, b"key expansion" + server + client, 2 * (key + iv))
    keys, ivs = block[: 2 * key], block[2 * key :]
    assert prf12.keys(hash, aead, master, client, server) == (keys[:key] + ivs[:iv], keys[key:] + ivs[iv:])


@pytest.mark.parametrize("wrong", [
    lambda: prf12.prf_bytes(3, b"", b"", b"", 1),
    lambda: prf12.prf_bytes(SHA256, b"", b"a\0b", b"", 1),
    lambda: prf12.prf_bytes(SHA256, b"", b"label", bytes(124), 1),
    lambda: prf12.master(SHA256, b"", b"short", bytes(32)),
    lambda: prf12.extended_master(SHA384, b"", bytes(32)),
    lambda: prf12.keys(SHA256, 4, bytes(48), bytes(32), bytes(32)),
    lambda: prf12.finished(SHA256, bytes(48), True, bytes(48)),
])
def test_what_cannot_be(wrong):
    with pytest.raises(ValueError):
        wrong()
