"""Signatures by SignatureScheme: published vectors, a peer implementation, and how keys are loaded."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.crypto import sign

HASHES = {
    **dict.fromkeys((0x0401, 0x0403, 0x0804, 0x0809), hashes.SHA256()),
    **dict.fromkeys((0x0501, 0x0503, 0x0805, 0x080A), hashes.SHA384()),
    **dict.fromkeys((0x0601, 0x0603, 0x0806, 0x080B), hashes.SHA512()),
    0x0807: None,
}
PKCS1 = (0x0401, 0x0501, 0x0601)
SCHEMES = {
    "ecdsa-p256": (0x0403,),
    "ecdsa-p384": (0x0503,),
    "ecdsa-p521": (0x0603,),
    "rsa": (0x0804, 0x0805, 0x0806),
    "rsa-pss": (0x0809, 0x080A, 0x080B),
    "ed25519": (0x0807,),
}
FEW_KINDS = sorted(set(SCHEMES) - {"ecdsa-p521"})  # slow in libcrypto
every_kind = pytest.mark.parametrize("kind", sorted(SCHEMES))


def signable(kind):
    return SCHEMES[kind] + (PKCS1 if kind == "rsa" else ())


def pem(key, form=PrivateFormat.PKCS8, encryption=None):
    return key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())


def spki(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def der(tag, *parts):
    body = b"".join(parts)
    length = bytes([len(body)]) if len(body) < 0x80 else b"\x82" + len(body).to_bytes(2, "big")
    return bytes([tag]) + length + body


ID_RSASSA_PSS = der(0x06, bytes.fromhex("2a864886f70d01010a"))
ID_MGF1 = der(0x06, bytes.fromhex("2a864886f70d010108"))
ID_SHA384 = der(0x06, bytes.fromhex("608648016503040202"))
# RSASSA-PSS-params (RFC 4055, section 3.1) that allow SHA-384 alone
ONLY_SHA384 = der(
    0x30,
    der(0xA0, der(0x30, ID_SHA384)),
    der(0xA1, der(0x30, ID_MGF1, der(0x30, ID_SHA384))),
    der(0xA2, der(0x02, b"\x30")),
)


def rsa_pss_pem(key, params=b""):
    """An RSA key as PKCS#8 under id-RSASSA-PSS, which `cryptography` does not write."""
    inner = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    whole = der(0x30, der(0x02, b"\0"), der(0x30, ID_RSASSA_PSS, params), der(0x04, inner))
    return b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(whole) + b"-----END PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def peers():
    """kind -> the same key in `cryptography`, to which RSA and RSASSA-PSS keys are one."""
    rsa_key = rsa.generate_private_key(65537, 2048)
    return {
        "ecdsa-p256": ec.generate_private_key(ec.SECP256R1()),
        "ecdsa-p384": ec.generate_private_key(ec.SECP384R1()),
        "ecdsa-p521": ec.generate_private_key(ec.SECP521R1()),
        "rsa": rsa_key,
        "rsa-pss": rsa_key,
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }


@pytest.fixture(scope="module")
def keys(peers):
    return {
        k: sign.PrivateKey.from_pem(rsa_pss_pem(peer) if k == "rsa-pss" else pem(peer)) for k, peer in peers.items()
    }


def parameters(scheme):
    """What `cryptography` wants beside the signature and the message."""
    algorithm = HASHES[scheme]
    if scheme == 0x0807:
        return ()
    if scheme & 0xFF == 0x03:
        return (ec.ECDSA(algorithm),)
    if scheme in PKCS1:
        return (padding.PKCS1v15(), algorithm)
    return (padding.PSS(padding.MGF1(algorithm), algorithm.digest_size), algorithm)


def check_wycheproof(tests, scheme, expected):
    keys, ran = {}, 0
    for group, test in tests:
        encoded = group["publicKeyDer"]
        key = keys[encoded] = keys.get(encoded) or sign.PublicKey.from_spki(bytes.fromhex(encoded))
        verified = key.verify_bytes(scheme, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
        assert verified == (test["result"] == "valid"), test["tcId"]
        ran += 1
    assert ran == expected


@pytest.mark.parametrize(
    ("file", "scheme", "count"),
    [
        ("ecdsa_secp256r1_sha256_test.json", 0x0403, 484),
        ("ecdsa_secp384r1_sha384_test.json", 0x0503, 504),
        ("ed25519_test.json", 0x0807, 151),
        ("rsa_pss_2048_sha256_mgf1_32_test.json", 0x0804, 108),
    ],
)
def test_wycheproof(wycheproof, file, scheme, count):
    check_wycheproof(wycheproof(file), scheme, count)


def test_rfc_8032_section_7_1_test_2():
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = sign.PrivateKey.from_pem(pem(ed25519.Ed25519PrivateKey.from_private_bytes(seed)))
    assert key.public_spki()[-32:].hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign_bytes(0x0807, b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@every_kind
def test_kind_and_schemes(keys, kind):
    assert keys[kind].kind == kind
    assert keys[kind].schemes == SCHEMES[kind]


@every_kind
def test_a_peer_verifies_what_we_sign(keys, peers, kind):
    for scheme in signable(kind):
        for message in (b"", b"x", b"x" * 64, b"x" * 10_000):
            # more than one per context: contexts are kept and used again
            for _ in range(2):
                peers[kind].public_key().verify(keys[kind].sign_bytes(scheme, message), message, *parameters(scheme))


@every_kind
def test_we_verify_what_a_peer_signs(peers, keys, kind):
    public = sign.PublicKey.from_spki(keys[kind].public_spki())
    assert public.kind == kind
    for scheme in signable(kind):
        for message in (b"", b"x" * 200):
            signature = peers[kind].sign(message, *parameters(scheme))
            assert public.verify_bytes(scheme, message, signature)
            assert not public.verify_bytes(scheme, message + b"\0", signature)
            assert not public.verify_bytes(scheme, message, signature + b"\0")
            assert not public.verify_bytes(scheme, message, signature[:-1])
            assert not public.verify_bytes(scheme, message, b"")
            assert not public.verify_bytes(scheme, message, bytes(2000))


@every_kind
def test_schemes_of_other_keys_are_refused(keys, kind):
    public = sign.PublicKey.from_spki(keys[kind].public_spki())
    own = signable(kind)
    signature = keys[kind].sign_bytes(own[0], b"m")
    for scheme in [*HASHES, 0, -1, 0x0201, 0x0203, 0x0808, 0x081A, 0xFFFF]:
        if scheme in own:
            continue
        with pytest.raises(ValueError):
            keys[kind].sign_bytes(scheme, b"m")
        assert not public.verify_bytes(scheme, b"m", signature)


def test_schemes_of_one_key_are_not_interchangeable(keys):
    public = sign.PublicKey.from_spki(keys["rsa"].public_spki())
    for made in signable("rsa"):
        signature = keys["rsa"].sign_bytes(made, b"m")
        assert [s for s in signable("rsa") if public.verify_bytes(s, b"m", signature)] == [made]


def test_the_salt_is_as_long_as_the_digest(keys, peers):
    public = sign.PublicKey.from_spki(keys["rsa"].public_spki())
    for salt, fits in ((32, True), (0, False), (20, False), (31, False), (33, False), (48, False)):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        assert public.verify_bytes(0x0804, b"m", peers["rsa"].sign(b"m", pss, hashes.SHA256())) == fits
        if not fits:
            with pytest.raises(InvalidSignature):
                peers["rsa"].public_key().verify(keys["rsa"].sign_bytes(0x0804, b"m"), b"m", pss, hashes.SHA256())


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FEW_KINDS), st.integers(0, 5), st.binary(max_size=64), st.integers(0, 2**16))
def test_any_flipped_bit_fails(keys, kind, nth, message, bit):
    scheme = signable(kind)[nth % len(signable(kind))]
    public = sign.PublicKey.from_spki(keys[kind].public_spki())
    signature = keys[kind].sign_bytes(scheme, message)
    bit %= 8 * len(signature)  # ECDSA's signatures differ in length
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert public.verify_bytes(scheme, message, signature)
    assert not public.verify_bytes(scheme, message, bytes(flipped))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(SCHEMES)), st.sampled_from(sorted(HASHES)), st.binary(max_size=600))
def test_random_signatures_never_verify(keys, kind, scheme, signature):
    assert not sign.PublicKey.from_spki(keys[kind].public_spki()).verify_bytes(scheme, b"m", signature)


def test_ecdsa_nonces_are_fresh(keys):
    assert len({keys["ecdsa-p256"].sign_bytes(0x0403, b"m") for _ in range(50)}) == 50


def test_ecdsa_nonces_differ_in_forked_processes(keys, forked):
    made = [forked(lambda: keys["ecdsa-p256"].sign_bytes(0x0403, b"m")) for _ in range(4)]
    assert len({*made, keys["ecdsa-p256"].sign_bytes(0x0403, b"m")}) == 5


# Loading


@every_kind
def test_every_pem_form_is_the_same_key(keys, peers, kind):
    forms = [rsa_pss_pem(peers[kind]) if kind == "rsa-pss" else pem(peers[kind])]
    if kind.startswith("ecdsa") or kind == "rsa":
        forms.append(pem(peers[kind], PrivateFormat.TraditionalOpenSSL))
    for form in forms:
        for written in (form, b"a comment\n" + form, form.replace(b"\n", b"\r\n"), b"\n" + form + b"\n\n"):
            loaded = sign.PrivateKey.from_pem(written)
            assert loaded.kind == kind
            assert loaded.public_spki() == keys[kind].public_spki()


def test_ec_parameters_and_certificates_beside_the_key_are_passed_over(peers):
    # what `openssl ecparam -genkey` writes, and a file of chain and key together
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    certificate = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    key = pem(peers["ecdsa-p256"], PrivateFormat.TraditionalOpenSSL)
    for written in (parameters + key, certificate + key, key + certificate):
        assert sign.PrivateKey.from_pem(written).kind == "ecdsa-p256"


@every_kind
def test_matches_its_public_half_alone(keys, kind):
    for other in SCHEMES:
        public = sign.PublicKey.from_spki(keys[other].public_spki())
        assert keys[kind].matches(public) == (other == kind)
        assert public.spki() == keys[other].public_spki()


@pytest.mark.parametrize("kind", ["ecdsa-p256", "ecdsa-p384", "rsa", "ed25519"])
def test_public_spki_is_what_a_certificate_has(keys, peers, kind):
    assert keys[kind].public_spki() == spki(peers[kind])


def refusal(written):
    with pytest.raises(ValueError) as e:
        sign.PrivateKey.from_pem(written)
    return str(e.value)


def test_no_key_or_several(peers):
    one = pem(peers["ecdsa-p256"])
    unfinished = one[: len(one) // 2], one.replace(b"END", b"EMD")
    for nothing in (b"", b"\0" * 100, b"not a key", spki(peers["rsa"]), *unfinished):
        assert "no private key" in refusal(nothing)
    public = peers["rsa"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert "no private key" in refusal(public)
    assert "2 private keys" in refusal(one + one)
    assert "2 private keys" in refusal(one + pem(peers["rsa"], PrivateFormat.TraditionalOpenSSL))


def test_encrypted_keys(peers):
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        message = refusal(pem(peers["rsa"], form, BestAvailableEncryption(b"secret")))
        assert "encrypted" in message
        assert "openssl pkey" in message


def test_malformed_keys(peers):
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
        header, *body, footer = pem(peers["rsa"], form).splitlines(keepends=True)
        for broken in (body[:-1], body[1:], [b"!!!!\n"], [], [body[0]]):
            assert "cannot be read" in refusal(b"".join([header, *broken, footer]))


@pytest.mark.parametrize("bits", [1024, 2047])
def test_short_rsa_keys(bits):
    key = rsa.generate_private_key(65537, bits)
    assert f"{bits} bits" in refusal(pem(key))
    assert f"{bits} bits" in refusal(rsa_pss_pem(key))
    with pytest.raises(ValueError, match=f"{bits} bits"):
        sign.PublicKey.from_spki(spki(key))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ec.generate_private_key(ec.SECP224R1()),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: dsa.generate_private_key(2048),
        ed448.Ed448PrivateKey.generate,
        x25519.X25519PrivateKey.generate,
    ],
    ids=["secp224r1", "secp256k1", "dsa", "ed448", "x25519"],
)
def test_kinds_tls_does_not_sign_with(make):
    key = make()
    refusal(pem(key))
    with pytest.raises(ValueError):
        sign.PublicKey.from_spki(spki(key))


def test_restricted_rsa_pss_keys_sign_by_what_they_allow(peers):
    key = sign.PrivateKey.from_pem(rsa_pss_pem(peers["rsa"], ONLY_SHA384))
    assert key.schemes == (0x080A,)
    peers["rsa"].public_key().verify(key.sign_bytes(0x080A, b"m"), b"m", *parameters(0x080A))
    for scheme in (0x0809, 0x080B):
        with pytest.raises(ValueError):
            key.sign_bytes(scheme, b"m")
    public = sign.PublicKey.from_spki(key.public_spki())
    assert public.verify_bytes(0x080A, b"m", key.sign_bytes(0x080A, b"m"))
    assert not public.verify_bytes(0x0809, b"m", peers["rsa"].sign(b"m", *parameters(0x0809)))


def test_rsa_pss_keys_that_allow_no_scheme(peers):
    # empty parameters stand for SHA-1 (RFC 4055, section 3.1)
    assert "no scheme" in refusal(rsa_pss_pem(peers["rsa"], der(0x30)))


CURVES = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1()}


@pytest.mark.parametrize("curve", sorted(CURVES))
def test_halves_that_do_not_fit(curve):
    # the public point in an EC key's file replaced by another's
    a, b = (ec.generate_private_key(CURVES[curve]) for _ in range(2))
    points = [k.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) for k in (a, b)]
    whole = a.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert points[0] in whole
    assert "does not fit" in refusal(armoured(whole.replace(*points)))
    # ... and by its opposite, which has the same x
    x, y = points[0][1 : 1 + len(points[0]) // 2], points[0][1 + len(points[0]) // 2 :]
    opposite = b"\4" + x + (PRIMES[curve] - int.from_bytes(y, "big")).to_bytes(len(y), "big")
    assert "does not fit" in refusal(armoured(whole.replace(points[0], opposite)))


PRIMES = {
    "p256": 2**256 - 2**224 + 2**192 + 2**96 - 1,
    "p384": 2**384 - 2**128 - 2**96 + 2**32 - 1,
    "p521": 2**521 - 1,
}


def armoured(whole):
    return b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(whole) + b"-----END PRIVATE KEY-----\n"


def p256(number, point=b""):
    """PEM of a private number, and of a public point if there is to be one."""
    curve = der(0x06, bytes.fromhex("2a8648ce3d030107"))
    algorithm = der(0x30, der(0x06, bytes.fromhex("2a8648ce3d0201")), curve)
    public = der(0xA1, der(0x03, b"\0" + point)) if point else b""
    inner = der(0x30, der(0x02, b"\1"), der(0x04, number.to_bytes(32, "big")), public)
    return armoured(der(0x30, der(0x02, b"\0"), algorithm, der(0x04, inner)))


ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize("number", [0, ORDER])
@pytest.mark.parametrize("point", [b"", b"\0"])
def test_a_number_that_gives_infinity(number, point):
    assert "does not fit" in refusal(p256(number, point))


def test_an_ec_key_without_its_public_half_or_with_a_compressed_one():
    key = ec.generate_private_key(ec.SECP256R1())
    number = key.private_numbers().private_value
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    for public in (b"", point):
        loaded = sign.PrivateKey.from_pem(p256(number, public))
        assert loaded.matches(sign.PublicKey.from_spki(spki(key)))
        key.public_key().verify(loaded.sign_bytes(0x0403, b"m"), b"m", *parameters(0x0403))


def test_an_algorithm_that_is_not_the_keys(peers):
    """A PrivateKeyInfo whose algorithm says another kind than what stands in it."""
    whole = peers["ecdsa-p256"].private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    rsa_id, ec_id = bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06072a8648ce3d0201")
    algorithm = der(0x30, ec_id, der(0x06, bytes.fromhex("2a8648ce3d030107")))
    assert algorithm in whole
    content = whole[whole.index(algorithm) + len(algorithm) :]
    for other in (der(0x30, rsa_id, b"\5\0"), der(0x30, bytes.fromhex("06032b6570")), der(0x30, b"\6\1\1")):
        assert "cannot be read" in refusal(armoured(der(0x30, der(0x02, b"\0"), other, content)))
    assert sign.PrivateKey.from_pem(armoured(whole)).kind == "ecdsa-p256", "and the next is read as ever"


def test_malformed_spki(peers):
    good = spki(peers["ecdsa-p256"])
    for n in range(len(good)):
        with pytest.raises(ValueError):
            sign.PublicKey.from_spki(good[:n])
    with pytest.raises(ValueError):
        sign.PublicKey.from_spki(good + b"\0")
    with pytest.raises(ValueError):
        sign.PublicKey.from_spki(good[:-1] + bytes([good[-1] ^ 1]))


def test_keys_are_made_by_their_factories_alone():
    for cls in (sign.PrivateKey, sign.PublicKey):
        with pytest.raises(TypeError):
            cls()
    empty = sign.PrivateKey.__new__(sign.PrivateKey)
    with pytest.raises(ValueError):
        empty.sign_bytes(0x0403, b"m")
