"""Hashes, HMAC and HKDF against RFC vectors, Wycheproof and Python's own."""

import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.crypto import hash_kdf

NAMES = {hash_kdf.SHA256: "sha256", hash_kdf.SHA384: "sha384"}
ids = st.sampled_from(sorted(NAMES))
every_hash = pytest.mark.parametrize("id", sorted(NAMES))


@pytest.mark.parametrize(("id", "count"), [(hash_kdf.SHA256, 174), (hash_kdf.SHA384, 174)])
def test_wycheproof_hmac(wycheproof, id, count):
    ran = 0
    for group, test in wycheproof(f"hmac_{NAMES[id]}_test.json"):
        tag = hash_kdf.hmac(id, bytes.fromhex(test["key"]), bytes.fromhex(test["msg"]))[: group["tagSize"] // 8]
        assert hash_kdf.equal(tag, bytes.fromhex(test["tag"])) == (test["result"] == "valid"), test["tcId"]
        ran += 1
    assert ran == count


@pytest.mark.parametrize(("id", "count"), [(hash_kdf.SHA256, 86), (hash_kdf.SHA384, 83)])
def test_wycheproof_hkdf(wycheproof, id, count):
    ran = 0
    for _, test in wycheproof(f"hkdf_{NAMES[id]}_test.json"):
        ikm, salt, info = (bytes.fromhex(test[k]) for k in ("ikm", "salt", "info"))
        prk = hash_kdf.extract(id, salt, ikm)
        if test["result"] == "valid":
            assert hash_kdf.expand(id, prk, info, test["size"]).hex() == test["okm"], test["tcId"]
        else:
            with pytest.raises(ValueError):
                hash_kdf.expand(id, prk, info, test["size"])
        ran += 1
    assert ran == count


def test_rfc_5869_appendix_a_1():
    prk = hash_kdf.extract(hash_kdf.SHA256, bytes(range(13)), b"\x0b" * 22)
    assert prk.hex() == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"
    okm = hash_kdf.expand(hash_kdf.SHA256, prk, bytes(range(0xF0, 0xFA)), 42)
    assert okm.hex() == "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"


def test_rfc_5869_appendix_a_3_no_salt_no_info():
    prk = hash_kdf.extract(hash_kdf.SHA256, b"", b"\x0b" * 22)
    assert prk.hex() == "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04"
    okm = hash_kdf.expand(hash_kdf.SHA256, prk, b"", 42)
    assert okm.hex() == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"


@pytest.mark.parametrize(
    ("id", "tag"),
    [
        (hash_kdf.SHA256, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (
            hash_kdf.SHA384,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
    ],
)
def test_rfc_4231_case_2(id, tag):
    assert hash_kdf.hmac(id, b"Jefe", b"what do ya want for nothing?").hex() == tag


@settings(max_examples=150, deadline=None)
@given(ids, st.lists(st.binary(max_size=200), max_size=6))
def test_a_hash_in_pieces(id, pieces):
    running = hash_kdf.Hasher(id)
    peer = hashlib.new(NAMES[id])
    for piece in pieces:
        running.update(piece)
        peer.update(piece)
        assert running.digest() == peer.digest()


@every_hash
def test_every_length_around_the_blocks(id):
    for n in range(300):
        running = hash_kdf.Hasher(id)
        running.update(b"x" * n)
        assert running.digest() == hashlib.new(NAMES[id], b"x" * n).digest()


@every_hash
def test_a_copy_goes_its_own_way(id):
    first = hash_kdf.Hasher(id)
    first.update(b"common")
    second = first.copy()
    first.update(b"first")
    second.update(b"second")
    assert first.digest() == hashlib.new(NAMES[id], b"commonfirst").digest()
    assert second.digest() == hashlib.new(NAMES[id], b"commonsecond").digest()


@settings(max_examples=150, deadline=None)
@given(ids, st.binary(max_size=300), st.binary(max_size=300))
def test_hmac_agrees(id, key, message):
    assert hash_kdf.hmac(id, key, message) == hmac.digest(key, message, NAMES[id])


@settings(max_examples=100, deadline=None)
@given(ids, st.binary(max_size=150), st.binary(max_size=150), st.integers(0, 400))
def test_expand_follows_its_definition(id, prk, info, n):
    t = okm = b""
    for counter in range(1, 12 + 1):
        t = hmac.digest(prk, t + info + bytes([counter]), NAMES[id])
        okm += t
    n = min(n, len(okm))
    assert hash_kdf.expand(id, prk, info, n) == okm[:n]


@pytest.mark.parametrize(("id", "longest"), [(hash_kdf.SHA256, 255 * 32), (hash_kdf.SHA384, 255 * 48)])
def test_expand_ends_at_255_hashes(id, longest):
    assert len(hash_kdf.expand(id, b"k", b"", longest)) == longest
    for n in (longest + 1, 2**62):
        with pytest.raises(ValueError):
            hash_kdf.expand(id, b"k", b"", n)


def test_compare_of_32_bytes():
    a = bytes(range(32))
    assert hash_kdf.equal(a, bytes(range(32)))
    for bit in range(256):
        b = bytearray(a)
        b[bit // 8] ^= 1 << bit % 8
        assert not hash_kdf.equal(a, bytes(b))
    assert not hash_kdf.equal(a, a[:31])
    assert not hash_kdf.equal(a, a + b"\0")
    assert hash_kdf.equal(b"", b"")


def test_random():
    assert hash_kdf.random(0) == b""
    drawn = {hash_kdf.random(32) for _ in range(200)}
    assert len(drawn) == 200
    assert {len(r) for r in drawn} == {32}
    assert len(set(hash_kdf.random(4096))) > 200
    with pytest.raises(ValueError):
        hash_kdf.random(2**20 + 1)


def test_random_differs_in_forked_processes(forked):
    hash_kdf.random(1)  # seeds the generator that the children inherit
    drawn = [forked(lambda: hash_kdf.random(32)) for _ in range(4)]
    assert len({*drawn, hash_kdf.random(32)}) == 5


@pytest.mark.parametrize("id", [0, 3, -1])
def test_unknown_hash(id):
    for call in (
        lambda: hash_kdf.Hasher(id),
        lambda: hash_kdf.hmac(id, b"", b""),
        lambda: hash_kdf.extract(id, b"", b""),
        lambda: hash_kdf.expand(id, b"", b"", 1),
    ):
        with pytest.raises(ValueError):
            call()
