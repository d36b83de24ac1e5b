"""The hybrid groups: against a peer that is put together here, part by part, and the shares that must be refused."""

import resource
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.crypto import kx, mlkem

# a client's share and the server's (draft-ietf-tls-ecdhe-mlkem, section 4), and the bytes of either that are ML-KEM's
LENGTHS = {kx.X25519MLKEM768: (1216, 1120), kx.SECP256R1MLKEM768: (1249, 1153)}
KEM = {kx.X25519MLKEM768: slice(0, -32), kx.SECP256R1MLKEM768: slice(65, None)}
CURVE = {kx.X25519MLKEM768: slice(-32, None), kx.SECP256R1MLKEM768: slice(0, 65)}
KEM_SECRET = {kx.X25519MLKEM768: slice(0, 32), kx.SECP256R1MLKEM768: slice(32, 64)}
every_group = pytest.mark.parametrize("group", LENGTHS, ids=hex)
pytestmark = pytest.mark.skipif(not mlkem.available(), reason="nothing here does ML-KEM-768")


@pytest.fixture(params=["libcrypto", "package"], autouse=True)
def provider(request):
    if request.param not in mlkem.providers():
        pytest.skip(f"no ML-KEM-768 by {request.param} here")
    before = mlkem.provided_by()
    yield mlkem.provided_by(request.param)
    mlkem.provided_by(before)


class CurvePeer:
    """The Diffie-Hellman's other end, of another implementation."""

    def __init__(self, group):
        if group == kx.X25519MLKEM768:
            self.key = x25519.X25519PrivateKey.generate()
            self.share = self.key.public_key().public_bytes_raw()
        else:
            self.key = ec.generate_private_key(ec.SECP256R1())
            self.share = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def secret(self, share):
        if isinstance(self.key, x25519.X25519PrivateKey):
            return self.key.exchange(x25519.X25519PublicKey.from_public_bytes(share))
        return self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), share))


def joined(group, kem, curve):
    return kem + curve if group == kx.X25519MLKEM768 else curve + kem


def refuses(group, share):
    """Whether a server does, and can go on."""
    server = kx.KeyExchange()
    with pytest.raises(ValueError, match="refused"):
        server.answer(group, share)
    client = kx.KeyExchange()
    answer, secret = server.answer(group, client.start(group))
    return client.finish(answer) == secret


@every_group
def test_as_server(group):
    peer, key = CurvePeer(group), mlkem.PrivateKey()
    answer, secret = kx.KeyExchange().answer(group, joined(group, key.public, peer.share))
    assert len(answer) == LENGTHS[group][1]
    assert secret == joined(group, key.decapsulate(answer[KEM[group]]), peer.secret(answer[CURVE[group]]))


@every_group
def test_as_client(group):
    ours, peer = kx.KeyExchange(), CurvePeer(group)
    share = ours.start(group)
    assert len(share) == LENGTHS[group][0] and ours.group == group
    ciphertext, secret = mlkem.encapsulate(share[KEM[group]])
    assert ours.finish(joined(group, ciphertext, peer.share)) == joined(group, secret, peer.secret(share[CURVE[group]]))


@every_group
def test_all_is_fresh(group):
    client = kx.KeyExchange()
    shares = [client.start(group) for _ in range(4)]
    answers = [kx.KeyExchange().answer(group, shares[0]) for _ in range(4)]
    for part in (KEM[group], CURVE[group]):
        assert len({share[part] for share in shares}) == 4
        assert len({answer[part] for answer, _ in answers}) == 4
    assert len({secret for _, secret in answers}) == 4


@pytest.mark.parametrize("group", [kx.X25519, kx.SECP256R1, kx.SECP384R1], ids=hex)
def test_curves_answer_alike(group):
    client = kx.KeyExchange()
    answer, secret = kx.KeyExchange().answer(group, client.start(group))
    assert client.finish(answer) == secret
    with pytest.raises(ValueError, match="refused"):
        kx.KeyExchange().answer(group, answer[:-1])


@every_group
def test_client_shares_of_wrong_length(group):
    share = kx.KeyExchange().start(group)
    for n in (0, 1, 32, 65, 1184, 1216, 1249, len(share) - 1):
        assert n >= len(share) or refuses(group, share[:n])
    assert refuses(group, share + b"\0")


@every_group
def test_answers_of_wrong_length(group):
    client = kx.KeyExchange()
    answer, secret = kx.KeyExchange().answer(group, client.start(group))
    for wrong in (b"", answer[:-1], answer + b"\0", answer[:32], answer[:65], answer[:1088]):
        with pytest.raises(ValueError, match="refused"):
            client.finish(wrong)
    assert client.finish(answer) == secret


@every_group
def test_encapsulation_key_that_is_not_reduced(group):
    key, peer = mlkem.PrivateKey(), CurvePeer(group)
    assert refuses(group, joined(group, b"\xff" * 1152 + key.public[1152:], peer.share))
    assert refuses(group, joined(group, b"\x01\x0d\x00" + key.public[3:], peer.share))  # 3329 is the modulus itself


@every_group
def test_points_that_are_none(group):
    client = kx.KeyExchange()
    share = client.start(group)
    answer, _ = kx.KeyExchange().answer(group, share)
    bad = bytes(32) if group == kx.X25519MLKEM768 else share[:64] + bytes([share[64] ^ 1])
    assert refuses(group, joined(group, share[KEM[group]], bad))
    with pytest.raises(ValueError, match="refused"):
        client.finish(joined(group, answer[KEM[group]], bad))
    if group == kx.SECP256R1MLKEM768:
        for form in set(range(256)) - {4}:
            assert refuses(group, bytes([form]) + share[1:])


@every_group
def test_a_ciphertext_for_another_gives_another_secret(group):
    client = kx.KeyExchange()
    answer, secret = kx.KeyExchange().answer(group, client.start(group))
    other = kx.KeyExchange()
    other.start(group)
    assert other.finish(answer)[KEM_SECRET[group]] != secret[KEM_SECRET[group]]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(LENGTHS)), st.binary(max_size=1300))
def test_random_shares_give_a_secret_or_a_refusal(group, share):
    client = kx.KeyExchange()
    client.start(group)
    for use in (client.finish, lambda share: kx.KeyExchange().answer(group, share)):
        try:
            use(share)
        except ValueError as error:
            assert "refused" in str(error)


def test_exchanges_of_other_groups_in_between():
    client = kx.KeyExchange()
    client.start(kx.X25519MLKEM768)
    share = client.start(kx.X25519)
    answer, secret = kx.KeyExchange().answer(kx.X25519, share)
    assert client.finish(answer) == secret
    answer, secret = kx.KeyExchange().answer(kx.SECP256R1MLKEM768, client.start(kx.SECP256R1MLKEM768))
    assert client.finish(answer) == secret


@every_group
def test_nobody_does_ml_kem(group):
    share = kx.KeyExchange().start(group)
    mlkem.provided_by("nobody")
    with pytest.raises(ValueError, match="no group"):
        kx.KeyExchange().answer(group, share)
    with pytest.raises(ValueError, match="cannot generate"):
        kx.KeyExchange().start(group)


@every_group
def test_memory_is_flat(group):
    if "libasan" in Path("/proc/self/maps").read_text():
        pytest.skip("AddressSanitizer keeps freed memory")

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    def run():
        for _ in range(150):
            client = kx.KeyExchange()
            answer, _ = kx.KeyExchange().answer(group, client.start(group))
            client.finish(answer)
            with pytest.raises(ValueError, match="refused"):
                client.finish(answer[:-1])

    run()
    before = resident()
    run()
    # A decapsulation key is over 2400 bytes: leaked, they would be over 350 KiB.
    assert resident() - before < 300_000
