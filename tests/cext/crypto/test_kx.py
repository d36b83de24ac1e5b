"""Key exchange: published vectors, a peer implementation, and the shares that must be refused."""

import resource
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.crypto import kx

PUBLIC_LENGTHS = {kx.X25519: 32, kx.SECP256R1: 65, kx.SECP384R1: 97, kx.SECP521R1: 133}
SHARED_LENGTHS = {kx.X25519: 32, kx.SECP256R1: 32, kx.SECP384R1: 48, kx.SECP521R1: 66}
CURVES = {kx.SECP256R1: ec.SECP256R1(), kx.SECP384R1: ec.SECP384R1(), kx.SECP521R1: ec.SECP521R1()}
FIELD_PRIMES = {
    kx.SECP256R1: 2**256 - 2**224 + 2**192 + 2**96 - 1,
    kx.SECP384R1: 2**384 - 2**128 - 2**96 + 2**32 - 1,
    kx.SECP521R1: 2**521 - 1,
}
every_group = pytest.mark.parametrize("group", sorted(PUBLIC_LENGTHS), ids=hex)
every_curve = pytest.mark.parametrize("group", sorted(CURVES), ids=hex)


def refused(exchange, share):
    with pytest.raises(ValueError):
        exchange.finish(share)
    return True


@pytest.fixture(params=kx.WAYS)
def way(request):
    """Each way to X25519 that this machine has, in turn."""
    before = kx.x25519_way()
    try:
        kx.x25519_way(request.param)
    except ValueError:
        pytest.skip("lib25519 is not installed")
    yield request.param
    kx.x25519_way(before)


def test_wycheproof_x25519(wycheproof, way):
    ran = zero = 0
    for _, test in wycheproof("x25519_test.json"):
        exchange = kx.KeyExchange.from_private(kx.X25519, bytes.fromhex(test["private"]))
        share = bytes.fromhex(test["public"])
        # RFC 9846, section 7.4.2: "acceptable" are low-order points too, whose secret is zero
        if not int(test["shared"], 16):
            assert refused(exchange, share), test["tcId"]
            zero += 1
        else:
            assert exchange.finish(share).hex() == test["shared"], test["tcId"]
        ran += 1
    assert ran == 518
    assert zero > 10


@pytest.mark.parametrize(
    ("group", "file", "count"),
    [
        (kx.SECP256R1, "ecdh_secp256r1_ecpoint_test.json", 355),
        (kx.SECP384R1, "ecdh_secp384r1_ecpoint_test.json", 790),
    ],
)
def test_wycheproof_ecdh(wycheproof, group, file, count):
    ran = 0
    for _, test in wycheproof(file):
        exchange = kx.KeyExchange.from_private(group, bytes.fromhex(test["private"]))
        share = bytes.fromhex(test["public"])
        # "acceptable" is a compressed point, which TLS 1.3 has not (section 4.3.8.2)
        if test["result"] == "valid":
            assert exchange.finish(share).hex() == test["shared"], test["tcId"]
        else:
            assert refused(exchange, share), test["tcId"]
        ran += 1
    assert ran == count


def test_rfc_7748_section_6_1():
    bob = kx.KeyExchange.from_private(
        kx.X25519, bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    )
    alice = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    assert bob.finish(alice).hex() == "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"


@every_group
def test_two_sides_agree_and_keys_are_fresh(group):
    shares = set()
    for _ in range(20):
        a, b = kx.KeyExchange(), kx.KeyExchange()
        share_a, share_b = a.start(group), b.start(group)
        secret = a.finish(share_b)
        assert secret == b.finish(share_a)
        assert len(secret) == SHARED_LENGTHS[group]
        assert len(share_a) == PUBLIC_LENGTHS[group]
        assert a.group == group
        shares |= {share_a, share_b}
    assert len(shares) == 40


def test_agrees_with_a_peer_x25519():
    for _ in range(20):
        ours, theirs = kx.KeyExchange(), x25519.X25519PrivateKey.generate()
        share = ours.start(kx.X25519)
        secret = theirs.exchange(x25519.X25519PublicKey.from_public_bytes(share))
        assert ours.finish(theirs.public_key().public_bytes_raw()) == secret


@every_curve
def test_agrees_with_a_peer_ecdh(group):
    for _ in range(5):
        ours, theirs = kx.KeyExchange(), ec.generate_private_key(CURVES[group])
        share = ours.start(group)
        secret = theirs.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(CURVES[group], share))
        point = theirs.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        assert ours.finish(point) == secret


@every_group
def test_wrong_lengths(group):
    exchange = kx.KeyExchange()
    share = exchange.start(group)
    for n in range(len(share)):
        refused(exchange, share[:n])
    refused(exchange, share + b"\0")
    for other in PUBLIC_LENGTHS:
        if other != group:
            refused(exchange, kx.KeyExchange().start(other))


@every_curve
def test_malformed_points(group):
    exchange, other = kx.KeyExchange(), kx.KeyExchange()
    exchange.start(group)
    share = other.start(group)
    size = len(share) // 2
    x, y = int.from_bytes(share[1 : 1 + size], "big"), int.from_bytes(share[1 + size :], "big")
    prime = FIELD_PRIMES[group]
    for form in set(range(256)) - {4}:
        refused(exchange, bytes([form]) + share[1:])
    refused(exchange, b"\0")  # infinity, as SEC 1 writes it
    refused(exchange, b"\4" + bytes(2 * size))
    refused(exchange, share[:-1] + bytes([share[-1] ^ 1]))
    refused(exchange, b"\4" + share[1 + size :] + share[1 : 1 + size])
    refused(exchange, b"\4" + b"\xff" * 2 * size)
    refused(exchange, b"\4" + prime.to_bytes(size, "big") + y.to_bytes(size, "big"))
    # -P is a point as well, and shares its x: the secret is the same
    negated = b"\4" + x.to_bytes(size, "big") + (prime - y).to_bytes(size, "big")
    assert exchange.finish(negated) == exchange.finish(share)


@pytest.mark.parametrize(
    "point",
    [
        # the points of small order and their non-canonical twins (RFC 7748, section 6.1: the secret is zero)
        bytes(32),
        b"\1" + bytes(31),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
        bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
        (2**255 - 20).to_bytes(32, "little"),
        (2**255 - 19).to_bytes(32, "little"),
        (2**255 - 18).to_bytes(32, "little"),
        (2**255 + 0).to_bytes(32, "little"),
    ],
    ids=lambda p: p.hex()[:8],
)
def test_x25519_small_order(point):
    exchange = kx.KeyExchange()
    exchange.start(kx.X25519)
    refused(exchange, point)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(PUBLIC_LENGTHS)), st.binary(max_size=100))
def test_random_shares_give_a_secret_or_a_refusal(group, share):
    exchange = kx.KeyExchange()
    exchange.start(group)
    try:
        secret = exchange.finish(share)
    except ValueError:
        return
    assert len(secret) == SHARED_LENGTHS[group]
    assert any(secret)


@every_group
def test_a_refused_share_leaves_the_exchange_usable(group):
    a, b = kx.KeyExchange(), kx.KeyExchange()
    share_a, share_b = a.start(group), b.start(group)
    refused(a, share_b[:-1])
    if group != kx.X25519:
        refused(a, share_b[:-1] + bytes([share_b[-1] ^ 1]))
    assert a.finish(share_b) == b.finish(share_a)


def test_starting_again_makes_another_key():
    a, b = kx.KeyExchange(), kx.KeyExchange()
    first = a.start(kx.X25519)
    share_a, share_b = a.start(kx.SECP256R1), b.start(kx.SECP256R1)
    assert first != share_a
    assert a.finish(share_b) == b.finish(share_a)


def test_before_start_and_unknown_groups():
    refused(kx.KeyExchange(), bytes(32))
    for group in (0, 0x001A, 0x001E, 0x11ED, 0x0A0A, -1):
        with pytest.raises(ValueError):
            kx.KeyExchange().start(group)
    exchange = kx.KeyExchange()
    exchange.start(kx.X25519)
    with pytest.raises(ValueError):
        exchange.start(0x001A)
    refused(exchange, kx.KeyExchange().start(kx.X25519))


@every_group
def test_keys_differ_in_forked_processes(forked, group):
    kx.KeyExchange().start(group)
    shares = [forked(lambda: kx.KeyExchange().start(group)) for _ in range(4)]
    assert len({*shares, kx.KeyExchange().start(group)}) == 5


@pytest.mark.parametrize("group", [kx.X25519, kx.SECP256R1], ids=hex)
def test_memory_is_flat(group):
    if "libasan" in Path("/proc/self/maps").read_text():
        pytest.skip("AddressSanitizer keeps freed memory")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def run():
        for _ in range(1500):
            exchange = kx.KeyExchange()
            share = exchange.start(group)
            exchange.finish(share)
            refused(exchange, share[:-1])
            refused(exchange, bytes(len(share)))

    run()
    before = resident()
    run()
    # A key pair is over 400 bytes: leaked, they would be over 600 KiB.
    assert resident() - before < 400_000


def test_every_way_to_x25519_agrees_with_a_peer(way):
    shares = set()
    for _ in range(50):
        ours, theirs = kx.KeyExchange(), x25519.X25519PrivateKey.generate()
        share = ours.start(kx.X25519)
        secret = ours.finish(theirs.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
        assert secret == theirs.exchange(x25519.X25519PublicKey.from_public_bytes(share))
        shares.add(share)
    assert len(shares) == 50


def test_a_way_that_is_not_there():
    with pytest.raises(ValueError, match="no such way to X25519: abacus"):
        kx.x25519_way("abacus")


def test_one_key_pair_serves_several_peers():
    ours = kx.KeyExchange()
    share = x25519.X25519PublicKey.from_public_bytes(ours.start(kx.X25519))
    for _ in range(3):
        theirs = x25519.X25519PrivateKey.generate()
        assert ours.finish(theirs.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)) == theirs.exchange(share)
    assert refused(ours, bytes(32))
    theirs = x25519.X25519PrivateKey.generate()
    assert ours.finish(theirs.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)) == theirs.exchange(share)


def test_who_does_the_arithmetic():
    told = kx.arithmetic()
    assert told["libcrypto"].split(".")[0] == "3"
    assert told["x25519"] in ("libcrypto", "lib25519")
    native = tuple(map(int, told["libcrypto"].split(".")[:2])) >= (3, 5)
    assert told["ml_kem"] in (("libcrypto",) if native else ("cryptography", None))
