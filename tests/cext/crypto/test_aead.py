"""AEADs: published vectors, a peer implementation, and what becomes of keys."""

import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.crypto import aead

ROOT = Path(__file__).resolve().parents[3]
KEY_LENGTHS = {aead.AES_128_GCM: 16, aead.AES_256_GCM: 32, aead.CHACHA20_POLY1305: 32}
PEERS = {aead.AES_128_GCM: AESGCM, aead.AES_256_GCM: AESGCM, aead.CHACHA20_POLY1305: ChaCha20Poly1305}
ids = st.sampled_from(sorted(KEY_LENGTHS))
every_aead = pytest.mark.parametrize("id", sorted(KEY_LENGTHS))


def contexts(id, key):
    return aead.Aead(id, key, True), aead.Aead(id, key, False)


def check_wycheproof(tests, choose):
    """Runs the tests TLS could meet (12-byte nonce, 16-byte tag, a key length we have); how many there were."""
    ran = 0
    for group, test in tests:
        id = choose(group["keySize"])
        if group["ivSize"] != 96 or group["tagSize"] != 128 or id is None:
            continue
        seal, open_ = contexts(id, bytes.fromhex(test["key"]))
        nonce, aad, message = (bytes.fromhex(test[k]) for k in ("iv", "aad", "msg"))
        sealed = bytes.fromhex(test["ct"] + test["tag"])
        if test["result"] == "valid":
            assert seal.seal(nonce, aad, message) == sealed, test["tcId"]
            assert open_.open(nonce, aad, sealed) == message, test["tcId"]
        else:
            assert open_.open(nonce, aad, sealed) is None, test["tcId"]
        ran += 1
    return ran


def test_wycheproof_aes_gcm(wycheproof):
    choose = {128: aead.AES_128_GCM, 256: aead.AES_256_GCM}.get
    assert check_wycheproof(wycheproof("aes_gcm_test.json"), choose) == 133


def test_wycheproof_chacha20_poly1305(wycheproof):
    choose = {256: aead.CHACHA20_POLY1305}.get
    assert check_wycheproof(wycheproof("chacha20_poly1305_test.json"), choose) == 316


def test_gcm_specification_case_4():
    # McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B, test case 4
    seal, open_ = contexts(aead.AES_128_GCM, bytes.fromhex("feffe9928665731c6d6a8f9467308308"))
    nonce = bytes.fromhex("cafebabefacedbaddecaf888")
    aad = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
    message = bytes.fromhex(
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72"
        "1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39"
    )
    sealed = seal.seal(nonce, aad, message)
    assert sealed[-16:].hex() == "5bc94fbc3221a5db94fae95ae7121a47"
    assert open_.open(nonce, aad, sealed) == message


def test_rfc_8439_section_2_8_2():
    seal, open_ = contexts(aead.CHACHA20_POLY1305, bytes(range(0x80, 0xA0)))
    nonce, aad = bytes.fromhex("070000004041424344454647"), bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    message = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = seal.seal(nonce, aad, message)
    assert sealed[:16].hex() == "d31a8d34648e60db7b86afbc53ef7ec2"
    assert sealed[-16:].hex() == "1ae10b594f09e26a7e902ecbd0600691"
    assert open_.open(nonce, aad, sealed) == message


@settings(max_examples=150, deadline=None)
@given(ids, st.data())
def test_agrees_with_a_peer_and_round_trips(id, data):
    key = data.draw(st.binary(min_size=KEY_LENGTHS[id], max_size=KEY_LENGTHS[id]))
    seal, open_ = contexts(id, key)
    for nonce, aad, message in data.draw(
        st.lists(
            st.tuples(st.binary(min_size=12, max_size=12), st.binary(max_size=40), st.binary(max_size=300)),
            min_size=1,
            max_size=4,
        )
    ):
        sealed = seal.seal(nonce, aad, message)
        assert sealed == PEERS[id](key).encrypt(nonce, message, aad)
        assert open_.open(nonce, aad, sealed) == message


@settings(max_examples=150, deadline=None)
@given(ids, st.binary(min_size=12, max_size=12), st.binary(max_size=20), st.binary(max_size=80), st.data())
def test_any_flipped_bit_fails(id, nonce, aad, message, data):
    seal, open_ = contexts(id, b"k" * KEY_LENGTHS[id])
    parts = [nonce, aad, seal.seal(nonce, aad, message)]
    which = data.draw(st.sampled_from([i for i in range(3) if parts[i]]))
    bit = data.draw(st.integers(0, 8 * len(parts[which]) - 1))
    flipped = bytearray(parts[which])
    flipped[bit // 8] ^= 1 << bit % 8
    wrong = [*parts]
    wrong[which] = bytes(flipped)
    assert open_.open(*wrong) is None
    # A forgery leaves the context usable: trial decryption of rejected early data depends on it.
    assert open_.open(*parts) == message


@every_aead
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 255, 16384, 16385, 100_000])
def test_lengths(id, n):
    seal, open_ = contexts(id, b"k" * KEY_LENGTHS[id])
    message, nonce = bytes(n), b"n" * 12
    sealed = seal.seal(nonce, b"header", message)
    assert len(sealed) == n + 16
    assert open_.open(nonce, b"header", sealed) == message
    assert open_.open(nonce, b"header", sealed[:-1]) is None
    assert open_.open(nonce, b"header", sealed + b"\0") is None


@every_aead
def test_truncated_below_a_tag(id):
    open_ = aead.Aead(id, b"k" * KEY_LENGTHS[id], False)
    for n in range(17):
        assert open_.open(b"n" * 12, b"", bytes(n)) is None


@every_aead
def test_contexts_made_after_others_do_not_mix_keys(id):
    n = KEY_LENGTHS[id]
    for i in range(40):
        key, other = bytes([i]) * n, bytes([i + 100]) * n
        first, second = aead.Aead(id, key, i % 2 == 0), aead.Aead(id, other, True)
        del first
        seal, open_ = contexts(id, key)
        sealed = seal.seal(b"n" * 12, b"a", b"message")
        assert sealed == PEERS[id](key).encrypt(b"n" * 12, b"message", b"a")
        assert open_.open(b"n" * 12, b"a", sealed) == b"message"
        assert open_.open(b"n" * 12, b"a", second.seal(b"n" * 12, b"a", b"message")) is None


@every_aead
def test_no_context_leaks(id):
    in_use = aead.contexts()
    held = [aead.Aead(id, b"k" * KEY_LENGTHS[id], True) for _ in range(400)]
    assert aead.contexts() == in_use + 400
    held[0].__init__(id, b"K" * KEY_LENGTHS[id], False)
    assert aead.contexts() == in_use + 400
    held.clear()
    assert aead.contexts() == in_use


def test_a_context_is_of_one_direction_and_takes_whole_keys_and_nonces():
    seal, open_ = contexts(aead.AES_128_GCM, bytes(16))
    for call in (lambda: seal.open(bytes(12), b"", bytes(16)), lambda: open_.seal(bytes(12), b"", b"")):
        with pytest.raises(ValueError):
            call()
    for nonce in (b"", bytes(11), bytes(13)):
        with pytest.raises(ValueError):
            seal.seal(nonce, b"", b"")
    for id, n in ((1, 15), (1, 32), (2, 16), (3, 31), (0, 0), (0, 16), (4, 32), (-1, 0)):
        with pytest.raises(ValueError):
            aead.Aead(id, bytes(n), True)


# Runs in a process of its own, which is told to free its context and then waits to be looked into.
HOLDER = """
import sys
from cext.crypto import aead
key = bytes.fromhex(sys.stdin.readline())
context = aead.Aead(aead.AES_128_GCM, key, True)
context.seal(bytes(12), b"", b"x")
print("keyed", flush=True)
sys.stdin.readline()
del context
print("freed", flush=True)
sys.stdin.readline()
"""


def last_round_key(key):
    """The eleventh round key of AES-128 (FIPS 197, section 5.2): no copy of it exists but in a key schedule."""
    sbox = aes_sbox()
    words = [list(key[i : i + 4]) for i in range(0, 16, 4)]
    rcon = 1
    for i in range(4, 44):
        word = list(words[i - 1])
        if i % 4 == 0:
            word = [sbox[b] for b in word[1:] + word[:1]]
            word[0] ^= rcon
            rcon = rcon << 1 ^ (0x11B if rcon & 0x80 else 0)
        words.append([a ^ b for a, b in zip(words[i - 4], word, strict=True)])
    return bytes(b for word in words[40:] for b in word)


def aes_sbox():
    sbox, p, q = [0x63] * 256, 1, 1
    while True:
        p = p ^ (p << 1 & 0xFF) ^ (0x1B if p & 0x80 else 0)
        for shift in (1, 2, 4):
            q = (q ^ q << shift) & 0xFF
        q ^= 0x09 if q & 0x80 else 0
        rotations = [(q << r | q >> 8 - r) & 0xFF for r in range(5)]
        sbox[p] = 0x63 ^ rotations[0] ^ rotations[1] ^ rotations[2] ^ rotations[3] ^ rotations[4]
        if p == 1:
            return sbox


def writable_memory(pid):
    """What a process holds in memory of its own, but for the stack: libcrypto 3.5 leaves scratch of a seal there."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb") as mem:
        for line in maps:
            span, access = line.split()[:2]
            start, end = (int(x, 16) for x in span.split("-"))
            # An AddressSanitizer build maps terabytes of shadow, which hold none of the program's bytes.
            if not access.startswith("rw") or "[v" in line or "[stack]" in line or end - start > 1 << 30:
                continue
            mem.seek(start)
            yield mem.read(end - start)


def test_a_freed_context_holds_no_key():
    key = b"an AES-128 key.."
    needle = last_round_key(key)
    command, pipe = [sys.executable, "-c", HOLDER], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as p:
        try:
            found = []
            for line, state in ((key.hex(), "keyed"), ("free", "freed")):
                p.stdin.write(line + "\n")
                p.stdin.flush()
                assert p.stdout.readline().strip() == state
                found.append(any(needle in memory for memory in writable_memory(p.pid)))
            assert found == [True, False]
        finally:
            p.kill()
