"""ML-KEM-768: published vectors, the two providers against each other, and what must be refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.crypto import mlkem

PROVIDERS = mlkem.providers()
every_provider = pytest.mark.parametrize("provider", ["libcrypto", "package"])


@pytest.fixture(autouse=True)
def restore():
    before = mlkem.provided_by()
    yield
    mlkem.provided_by(before)


def choose(provider):
    if provider not in PROVIDERS:
        pytest.skip(f"no ML-KEM-768 by {provider} here")
    mlkem.provided_by(provider)


def test_libcrypto_is_taken_where_it_can():
    assert mlkem.provided_by() == (PROVIDERS or ["nobody"])[0]
    assert mlkem.quick() == ("libcrypto" in PROVIDERS)
    assert mlkem.available() == bool(PROVIDERS)


@every_provider
def test_wycheproof_encapsulation(wycheproof, provider):
    """The keys of FIPS 203's input check (section 7.2): the random m cannot be chosen here."""
    choose(provider)
    valid = invalid = overflown = 0
    for _, test in wycheproof("mlkem_768_encaps_test.json"):
        public = bytes.fromhex(test["ek"])
        if test["result"] == "valid":
            ciphertext, secret = mlkem.encapsulate(public)
            assert (len(ciphertext), len(secret)) == (1088, 32), test["tcId"]
            valid += 1
        else:
            with pytest.raises(ValueError):
                mlkem.encapsulate(public)
            invalid += 1
            overflown += "ModulusOverflow" in test["flags"] or test.get("comment") == "Public key not reduced"
    assert (valid, invalid) == (133, 132)
    assert overflown > 100


@every_provider
def test_wycheproof_decapsulation(wycheproof, provider):
    choose(provider)
    valid = invalid = 0
    for _, test in wycheproof("mlkem_768_test.json"):
        ciphertext = bytes.fromhex(test["c"])
        if test["result"] == "valid":
            key = mlkem.PrivateKey(bytes.fromhex(test["seed"]))
            assert key.public.hex() == test["ek"], test["tcId"]
            assert key.decapsulate(ciphertext).hex() == test["K"], test["tcId"]
            valid += 1
        else:
            with pytest.raises(ValueError):
                mlkem.PrivateKey(bytes.fromhex(test["seed"])).decapsulate(ciphertext)
            invalid += 1
    assert (valid, invalid) == (153, 40)


@every_provider
@pytest.mark.parametrize("peer", ["libcrypto", "package"])
def test_with_each_other(provider, peer):
    choose(provider)
    key = mlkem.PrivateKey()
    choose(peer)
    ciphertext, secret = mlkem.encapsulate(key.public)
    assert mlkem.encapsulate(key.public) != (ciphertext, secret)
    assert key.decapsulate(ciphertext) == secret
    assert mlkem.PrivateKey().public != key.public


@every_provider
def test_implicit_rejection(provider):
    choose(provider)
    key = mlkem.PrivateKey()
    ciphertext, secret = mlkem.encapsulate(key.public)
    changed = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    assert key.decapsulate(changed) == key.decapsulate(changed) != secret


@every_provider
@given(n=st.integers(0, 2400))
@settings(max_examples=100, deadline=None)
def test_wrong_lengths(provider, n):
    choose(provider)
    key = mlkem.PrivateKey(bytes(64))
    if n != 1184:
        with pytest.raises(ValueError):
            mlkem.encapsulate((key.public * 3)[:n])
    if n != 1088:
        with pytest.raises(ValueError):
            key.decapsulate(bytes(n))
    if n != 64:
        with pytest.raises(ValueError):
            mlkem.PrivateKey(bytes(n))


@every_provider
@given(place=st.integers(0, 767), value=st.integers(3329, 4095))
@settings(max_examples=100, deadline=None)
def test_coefficients_that_are_not_reduced(provider, place, value):
    """Two coefficients of 12 bits stand in three bytes, the first in the lower bits (FIPS 203, section 4.2.1)."""
    choose(provider)
    public = bytearray(mlkem.PrivateKey(bytes(64)).public)
    at, odd = place // 2 * 3, place % 2
    pair = int.from_bytes(public[at : at + 3], "little")
    pair = pair & 0x000FFF | value << 12 if odd else pair & 0xFFF000 | value
    public[at : at + 3] = pair.to_bytes(3, "little")
    with pytest.raises(ValueError):
        mlkem.encapsulate(bytes(public))


def test_nobody_has_it():
    mlkem.provided_by("nobody")
    assert not mlkem.available() and not mlkem.quick()
    for use in (mlkem.PrivateKey, lambda: mlkem.PrivateKey(bytes(64)), lambda: mlkem.encapsulate(bytes(1184))):
        with pytest.raises(ValueError):
            use()


@pytest.mark.parametrize("provider", ["libcrypto", "package", "unheard of"])
def test_a_provider_that_is_not_there(provider):
    if provider in PROVIDERS:
        pytest.skip(f"{provider} is there")
    with pytest.raises(ValueError):
        mlkem.provided_by(provider)


@every_provider
def test_keys_after_a_fork_differ(forked, provider):
    choose(provider)
    mlkem.PrivateKey()
    keys = [forked(lambda: mlkem.PrivateKey().public) for _ in range(3)]
    assert len({*keys, mlkem.PrivateKey().public}) == 4
