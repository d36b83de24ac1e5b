"""The primitives of cext.crypto, each in a loop of C.

    python -m pytest bench/micro/test_crypto.py --benchmark-timer=time.process_time

The timer counts CPU time, since the machine may have other work. One round is 1000 operations, so a figure in ms is
microseconds per operation, and one in us nanoseconds.
"""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.micro import crypto_loops
from cext.crypto import aead, hash_kdf, kx, sign

TIMES = 1000
AEADS = {
    "aes-128-gcm": aead.AES_128_GCM,
    "aes-256-gcm": aead.AES_256_GCM,
    "chacha20-poly1305": aead.CHACHA20_POLY1305,
}
HASHES = {"sha256": hash_kdf.SHA256, "sha384": hash_kdf.SHA384}
GROUPS = {"x25519": kx.X25519, "p256": kx.SECP256R1, "x25519mlkem768": kx.X25519MLKEM768}
SIGNERS = {
    "ecdsa-p256": (lambda: ec.generate_private_key(ec.SECP256R1()), 0x0403),
    "ed25519": (ed25519.Ed25519PrivateKey.generate, 0x0807),
    "rsa-2048": (lambda: rsa.generate_private_key(65537, 2048), 0x0804),
}

every_aead = pytest.mark.parametrize("name", AEADS)
every_hash = pytest.mark.parametrize("name", HASHES)
every_group = pytest.mark.parametrize("name", GROUPS)
every_signer = pytest.mark.parametrize("name", SIGNERS)
record_sizes = pytest.mark.parametrize("n", [50, 1024, 16384])


@every_aead
@record_sizes
def test_seal(benchmark, name, n):
    assert benchmark(crypto_loops.seal, AEADS[name], n, TIMES) == 0


@every_aead
@record_sizes
def test_seal_and_open(benchmark, name, n):
    assert benchmark(crypto_loops.seal_and_open, AEADS[name], n, TIMES) == 0


@every_aead
def test_new_context(benchmark, name):
    assert benchmark(crypto_loops.new_context, AEADS[name], TIMES) == 0


@every_hash
def test_transcript_hash(benchmark, name):
    """100 bytes, the digest so far taken from a copy."""
    assert benchmark(crypto_loops.transcript_hash, HASHES[name], 100, TIMES) == 0


@every_hash
def test_keyed_hmac(benchmark, name):
    """50 bytes under a key that stands."""
    assert benchmark(crypto_loops.keyed_hmac, HASHES[name], 50, TIMES) == 0


@every_hash
def test_hkdf_expand(benchmark, name):
    assert benchmark(crypto_loops.expand, HASHES[name], TIMES) == 0


@every_group
def test_generate(benchmark, name):
    assert benchmark(crypto_loops.generate, GROUPS[name], TIMES) == 0


@every_group
def test_derive(benchmark, name):
    assert benchmark(crypto_loops.derive, GROUPS[name], TIMES) == 0


@every_group
def test_respond(benchmark, name):
    assert benchmark(crypto_loops.respond, GROUPS[name], TIMES) == 0


@pytest.fixture(scope="module")
def keys():
    return {
        name: sign.PrivateKey.from_pem(make().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        for name, (make, _) in SIGNERS.items()
    }


@every_signer
def test_sign(benchmark, keys, name):
    assert benchmark(crypto_loops.sign, keys[name], SIGNERS[name][1], TIMES) == 0


@every_signer
def test_verify(benchmark, keys, name):
    public = sign.PublicKey.from_spki(keys[name].public_spki())
    assert benchmark(crypto_loops.verify, public, keys[name], SIGNERS[name][1], TIMES) == 0
