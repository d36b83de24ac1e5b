"""Signing and verifying by SignatureScheme (see the .pxd).

Messages are hashed by the plain-struct hashes and the digest is signed in a context that the key keeps per scheme, so
that a signature fetches and allocates nothing of ours. Ed25519 signs the message itself.
"""

import re

cimport cython
from libc.limits cimport INT_MAX
from libc.string cimport memcmp, memcpy

from cext.base.wire cimport Reader, left, reader_init
from cext.crypto.der cimport DER_INTEGER, DER_OID, DER_SEQUENCE, read_der_of
from cext.crypto.hash_kdf cimport HASH_SHA256, HASH_SHA384, hash_once
from cext.lib.libcrypto cimport (
    BIGNUM,
    BIO,
    BIO_free,
    BIO_new_mem_buf,
    BN_clear_free,
    EC_GROUP,
    EC_GROUP_new_by_curve_name,
    EC_POINT,
    EC_POINT_cmp,
    EC_POINT_free,
    EC_POINT_is_at_infinity,
    EC_POINT_mul,
    EC_POINT_new,
    EC_POINT_oct2point,
    ERR_clear_error,
    EVP_DigestSign,
    EVP_DigestSignInit,
    EVP_DigestVerify,
    EVP_DigestVerifyInit,
    EVP_MD,
    EVP_MD_CTX_copy_ex,
    EVP_MD_CTX_free,
    EVP_MD_CTX_new,
    EVP_PKEY_CTX_free,
    EVP_PKEY_CTX_new_from_pkey,
    EVP_PKEY_CTX_set_rsa_mgf1_md,
    EVP_PKEY_CTX_set_rsa_padding,
    EVP_PKEY_CTX_set_rsa_pss_saltlen,
    EVP_PKEY_CTX_set_signature_md,
    EVP_PKEY_KEYPAIR,
    EVP_PKEY_eq,
    EVP_PKEY_free,
    EVP_PKEY_get_bits,
    EVP_PKEY_get_bn_param,
    EVP_PKEY_get_group_name,
    EVP_PKEY_get_octet_string_param,
    EVP_PKEY_is_a,
    EVP_PKEY_sign,
    EVP_PKEY_sign_init,
    EVP_PKEY_verify,
    EVP_PKEY_verify_init,
    EVP_sha256,
    EVP_sha384,
    EVP_sha512,
    NID_X9_62_prime256v1,
    NID_secp384r1,
    NID_secp521r1,
    OPENSSL_clear_free,
    OPENSSL_free,
    OSSL_DECODER_CTX,
    OSSL_DECODER_CTX_free,
    OSSL_DECODER_CTX_new_for_pkey,
    OSSL_DECODER_from_data,
    OSSL_PKEY_PARAM_PRIV_KEY,
    OSSL_PKEY_PARAM_PUB_KEY,
    PEM_read_bio,
    PEM_read_bio_PrivateKey,
    RSA_PKCS1_PADDING,
    RSA_PKCS1_PSS_PADDING,
    RSA_PSS_SALTLEN_DIGEST,
    SHA512_CTX,
    SHA512_Final,
    SHA512_Init,
    SHA512_Update,
    d2i_PUBKEY,
    i2d_PUBKEY,
)

cdef enum:
    PROBE_LENGTH = 67
    DIGEST_MAX = 64
    RSA_MIN_BITS = 2048
    RSA_MAX_BITS = 8192                 # SIGNATURE_MAX

cdef enum Family:
    FAMILY_NONE = 0
    FAMILY_P256
    FAMILY_P384
    FAMILY_P521
    FAMILY_RSA
    FAMILY_RSA_PSS
    FAMILY_ED25519

cdef enum Padding:
    PADDING_NONE = 0
    PADDING_PKCS1
    PADDING_PSS

cdef struct Scheme:
    int id
    int family
    int digest_length                   # 32, 48 or 64 name SHA-256, -384, -512; 0: the message itself is signed
    int padding

# Per family, most preferred first.
cdef Scheme[SCHEME_COUNT] SCHEMES = [
    Scheme(ECDSA_SECP256R1_SHA256, FAMILY_P256, 32, PADDING_NONE),
    Scheme(ECDSA_SECP384R1_SHA384, FAMILY_P384, 48, PADDING_NONE),
    Scheme(ECDSA_SECP521R1_SHA512, FAMILY_P521, 64, PADDING_NONE),
    Scheme(ED25519, FAMILY_ED25519, 0, PADDING_NONE),
    Scheme(RSA_PSS_RSAE_SHA256, FAMILY_RSA, 32, PADDING_PSS),
    Scheme(RSA_PSS_RSAE_SHA384, FAMILY_RSA, 48, PADDING_PSS),
    Scheme(RSA_PSS_RSAE_SHA512, FAMILY_RSA, 64, PADDING_PSS),
    Scheme(RSA_PSS_PSS_SHA256, FAMILY_RSA_PSS, 32, PADDING_PSS),
    Scheme(RSA_PSS_PSS_SHA384, FAMILY_RSA_PSS, 48, PADDING_PSS),
    Scheme(RSA_PSS_PSS_SHA512, FAMILY_RSA_PSS, 64, PADDING_PSS),
    Scheme(RSA_PKCS1_SHA256, FAMILY_RSA, 32, PADDING_PKCS1),
    Scheme(RSA_PKCS1_SHA384, FAMILY_RSA, 48, PADDING_PKCS1),
    Scheme(RSA_PKCS1_SHA512, FAMILY_RSA, 64, PADDING_PKCS1),
]

# What comes before the key in a SubjectPublicKeyInfo of the plain form.
cdef struct Plain:
    int family
    const uint8_t *head
    size_t head_length
    size_t key_length

cdef Plain[4] PLAIN = [
    Plain(FAMILY_P256, <const uint8_t *> b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"
                       b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00", 26, 65),
    Plain(FAMILY_P384, <const uint8_t *> b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"
                       b"\x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00", 23, 97),
    Plain(FAMILY_P521, <const uint8_t *> b"\x30\x81\x9b\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01"
                       b"\x06\x05\x2b\x81\x04\x00\x23\x03\x81\x86\x00", 25, 133),
    Plain(FAMILY_ED25519, <const uint8_t *> b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 12, 32),
]

KINDS = {
    FAMILY_P256: "ecdsa-p256",
    FAMILY_P384: "ecdsa-p384",
    FAMILY_P521: "ecdsa-p521",
    FAMILY_RSA: "rsa",
    FAMILY_RSA_PSS: "rsa-pss",
    FAMILY_ED25519: "ed25519",
}


@cython.no_gc
cdef class PrivateKey:
    """A signing key: PrivateKey.from_pem(pem)."""

    def __init__(self):
        raise TypeError("use PrivateKey.from_pem")

    def __dealloc__(self):
        cdef int i
        for i in range(SCHEME_COUNT):
            EVP_PKEY_CTX_free(self.contexts[i])
        EVP_MD_CTX_free(self.ed25519)
        EVP_MD_CTX_free(self.scratch)
        EVP_PKEY_free(self.pkey)

    cdef bint supports(self, int scheme) noexcept nogil:
        cdef int i = find(scheme, self.family)
        return i >= 0 and SCHEMES[i].padding != PADDING_PKCS1 and self.allows(i)

    cdef int sign(self, int scheme, const uint8_t *message, size_t n,
                  uint8_t *signature, size_t *sig_len) noexcept nogil:
        return self.sign_by(find(scheme, self.family), message, n, signature, sig_len)

    cdef int sign12(self, int scheme, const uint8_t *message, size_t n,
                    uint8_t *signature, size_t *sig_len) noexcept nogil:
        return self.sign_by(find12(scheme, self.family), message, n, signature, sig_len)

    cdef int sign_by(self, int i, const uint8_t *message, size_t n,
                     uint8_t *signature, size_t *sig_len) noexcept nogil:
        cdef uint8_t digest[DIGEST_MAX]
        cdef bint done
        if i < 0 or not self.prepare(i):
            return -1
        sig_len[0] = SIGNATURE_MAX
        if SCHEMES[i].digest_length == 0:
            done = (EVP_MD_CTX_copy_ex(self.scratch, self.ed25519) == 1
                    and EVP_DigestSign(self.scratch, signature, sig_len, message, n) == 1)
        else:
            digest_of(SCHEMES[i].digest_length, message, n, digest)
            done = EVP_PKEY_sign(self.contexts[i], signature, sig_len, digest, SCHEMES[i].digest_length) == 1
        return 0 if done else failed()

    cdef bint allows(self, int i) noexcept nogil:
        """Whether the key does not refuse SCHEMES[i], as an RSASSA-PSS key does whose parameters name another hash
        (RFC 4055, section 1.2). Others are not asked: of many keys few ever sign, and by one scheme."""
        return self.family != FAMILY_RSA_PSS or self.prepare(i)

    cdef bint prepare(self, int i) noexcept nogil:
        """Makes what signing by SCHEMES[i] reuses, once."""
        if SCHEMES[i].digest_length:
            if self.contexts[i] == NULL:
                self.contexts[i] = new_context(self.pkey, &SCHEMES[i], 1)
            return self.contexts[i] != NULL
        if self.ed25519 == NULL:
            self.scratch = EVP_MD_CTX_new()
            self.ed25519 = EVP_MD_CTX_new()
            if (self.scratch == NULL or self.ed25519 == NULL
                    or EVP_DigestSignInit(self.ed25519, NULL, NULL, NULL, self.pkey) != 1):
                EVP_MD_CTX_free(self.scratch)
                EVP_MD_CTX_free(self.ed25519)
                self.scratch = NULL
                self.ed25519 = NULL
                failed()
                return 0
        return 1

    @staticmethod
    def from_pem(bytes pem not None):
        """The one private key in a PEM file: PKCS#8, or the older EC and RSA forms. Certificates beside it are passed
        over. ValueError, with the remedy, when there is none or more than one, or it is encrypted, malformed, of
        another kind, an RSA key outside 2048..8192 bits, or does not fit the public half it carries."""
        cdef PrivateKey self = PrivateKey.__new__(PrivateKey)
        cdef bytes block = _only_key(pem)
        self.pkey = _decode_pkcs8(block) if block.startswith(PKCS8) else NULL
        if self.pkey == NULL:
            self.pkey = _decode_any(block)
        ERR_clear_error()
        if self.pkey == NULL:
            raise ValueError("the private key cannot be read: malformed, or of a kind libcrypto does not know")
        self.family = _family(self.pkey)
        self.kind = KINDS[self.family]
        self.schemes, self.schemes12 = self._usable()
        self._prove()
        return self

    def _usable(self):
        """`schemes` and `schemes12`: the same objects for all keys of a family that refuses none."""
        cdef int i
        if self.family in _USABLE:
            return _USABLE[self.family]
        schemes = tuple(SCHEMES[i].id for i in range(SCHEME_COUNT) if self.supports(SCHEMES[i].id))
        others = tuple(SCHEMES[i].id for i in range(SCHEME_COUNT) if SCHEMES[i].id not in schemes
                       and find12(SCHEMES[i].id, self.family) == i and self.allows(i))
        if self.family != FAMILY_RSA_PSS:
            _USABLE[self.family] = schemes, schemes + others
        return schemes, schemes + others

    def sign_bytes(self, int scheme, bytes message not None):
        """The signature of a message by a SignatureScheme; ValueError for a scheme that does not fit the key."""
        cdef uint8_t signature[SIGNATURE_MAX]
        cdef size_t n = 0
        if self.sign(scheme, <const uint8_t *> <const char *> message, len(message), signature, &n) < 0:
            raise ValueError(f"a key of kind {self.kind} cannot sign by scheme {scheme:#06x}")
        return signature[:n]

    def sign12_bytes(self, int scheme, bytes message not None):
        """sign_bytes by the rules of TLS 1.2."""
        cdef uint8_t signature[SIGNATURE_MAX]
        cdef size_t n = 0
        if self.sign12(scheme, <const uint8_t *> <const char *> message, len(message), signature, &n) < 0:
            raise ValueError(f"a key of kind {self.kind} cannot sign by scheme {scheme:#06x}")
        return signature[:n]

    def sign_digest(self, int scheme, bytes digest not None):
        """The signature of what is hashed already (for Ed25519, of the message), by a SignatureScheme as TLS 1.2 reads it.
        Any number of threads may sign at once: the interpreter's lock is released. ValueError for a scheme or a digest
        that does not fit."""
        cdef uint8_t signature[SIGNATURE_MAX]
        cdef size_t n = SIGNATURE_MAX, length = len(digest)
        cdef const uint8_t *p = <const uint8_t *> <const char *> digest
        cdef int i = find12(scheme, self.family)
        cdef int done
        if i < 0 or (SCHEMES[i].digest_length and length != <size_t> SCHEMES[i].digest_length):
            raise ValueError(f"a key of kind {self.kind} cannot sign {length} bytes by scheme {scheme:#06x}")
        with nogil:
            done = sign_hashed(self.pkey, &SCHEMES[i], p, length, signature, &n)
        if done < 0:
            raise ValueError(f"a key of kind {self.kind} refuses to sign by scheme {scheme:#06x}")
        return signature[:n]

    def public_spki(self):
        """The public half as SubjectPublicKeyInfo (DER), to be compared with a certificate's."""
        cdef uint8_t plain[PLAIN_SPKI_MAX]
        cdef size_t n = self.plain_spki(plain)
        return plain[:n] if n else _spki(self.pkey)

    cdef size_t plain_spki(self, uint8_t *out) noexcept nogil:
        cdef int i
        cdef size_t n = 0
        for i in range(4):
            if PLAIN[i].family != self.family:
                continue
            if (EVP_PKEY_get_octet_string_param(self.pkey, OSSL_PKEY_PARAM_PUB_KEY, out + PLAIN[i].head_length,
                                                POINT_MAX, &n) != 1 or n != PLAIN[i].key_length):
                failed()
                return 0
            memcpy(out, PLAIN[i].head, PLAIN[i].head_length)
            return PLAIN[i].head_length + n
        return 0

    def matches(self, PublicKey public not None):
        """Whether `public` is this key's other half, however its SubjectPublicKeyInfo is written."""
        return EVP_PKEY_eq(self.pkey, public.pkey) == 1

    def _prove(self):
        # A file may carry a public half that is not its private half's: clients would see it as bad signatures. With EC
        # keys the one is the other times the generator, which is told in a tenth of what a signature takes.
        cdef uint8_t signature[SIGNATURE_MAX]
        cdef size_t n = 0
        cdef const uint8_t *probe = b"a signature of this by the private half verifies by the public half"
        if not self.schemes:
            raise ValueError("this RSASSA-PSS key's parameters allow no scheme of TLS: use a key without restrictions")
        if is_ecdsa(self.family):
            fits = has_own_point(self.pkey, group_of(self.family))
        else:
            fits = (self.sign(self.schemes[0], probe, PROBE_LENGTH, signature, &n) == 0 and
                    verify_with(self.pkey, find(self.schemes[0], self.family), probe, PROBE_LENGTH, signature, n) == 0)
        if not fits:
            raise ValueError("the private key does not fit the public key stored with it")


cdef class PublicKey:
    """A verifying key: PublicKey.from_spki(der), or x509.public_key(certificate_der)."""

    def __init__(self):
        raise TypeError("use PublicKey.from_spki")

    def __dealloc__(self):
        EVP_PKEY_free(self.pkey)

    cdef bint supports(self, int scheme) noexcept nogil:
        return find(scheme, self.family) >= 0

    cdef bint supports12(self, int scheme) noexcept nogil:
        return find12(scheme, self.family) >= 0

    cdef int verify(self, int scheme, const uint8_t *message, size_t n,
                    const uint8_t *signature, size_t sig_len) noexcept nogil:
        return self.verify_by(find(scheme, self.family), message, n, signature, sig_len)

    cdef int verify12(self, int scheme, const uint8_t *message, size_t n,
                      const uint8_t *signature, size_t sig_len) noexcept nogil:
        return self.verify_by(find12(scheme, self.family), message, n, signature, sig_len)

    cdef int verify_by(self, int i, const uint8_t *message, size_t n,
                       const uint8_t *signature, size_t sig_len) noexcept nogil:
        return verify_with(self.pkey, i, message, n, signature, sig_len)

    @property
    def schemes(self):
        """Those of its private half in TLS 1.3, most preferred first."""
        return tuple(SCHEMES[i].id for i in range(SCHEME_COUNT)
                     if SCHEMES[i].family == self.family and SCHEMES[i].padding != PADDING_PKCS1)

    @property
    def schemes12(self):
        """The same of TLS 1.2."""
        others = tuple(SCHEMES[i].id for i in range(SCHEME_COUNT) if find12(SCHEMES[i].id, self.family) == i)
        return self.schemes + tuple(scheme for scheme in others if scheme not in self.schemes)

    @staticmethod
    def from_spki(bytes der not None):
        """The key of a SubjectPublicKeyInfo; ValueError when it is malformed or of a kind or size we do not verify."""
        cdef const unsigned char *p = <const unsigned char *> <const char *> der
        cdef const unsigned char *end = p + len(der)
        cdef EVP_PKEY *pkey = d2i_PUBKEY(NULL, &p, len(der))
        if pkey == NULL or p != end:
            EVP_PKEY_free(pkey)
            failed()
            raise ValueError("not a SubjectPublicKeyInfo in DER")
        return public_key_of(pkey)

    def verify_bytes(self, int scheme, bytes message not None, bytes signature not None):
        """Whether `signature` is one of `message` by this key and SignatureScheme."""
        return self.verify(scheme, <const uint8_t *> <const char *> message, len(message),
                           <const uint8_t *> <const char *> signature, len(signature)) == 0

    def verify12_bytes(self, int scheme, bytes message not None, bytes signature not None):
        """verify_bytes by the rules of TLS 1.2."""
        return self.verify12(scheme, <const uint8_t *> <const char *> message, len(message),
                             <const uint8_t *> <const char *> signature, len(signature)) == 0

    def spki(self):
        """The key as SubjectPublicKeyInfo (DER)."""
        return _spki(self.pkey)


cdef PublicKey public_key_of(EVP_PKEY *pkey):
    cdef PublicKey key = PublicKey.__new__(PublicKey)
    key.pkey = pkey
    key.family = _family(pkey)
    key.kind = KINDS[key.family]
    return key


cdef int find(int scheme, int family) noexcept nogil:
    """Index in SCHEMES; -1 when the scheme is unknown or of another family."""
    cdef int i
    for i in range(SCHEME_COUNT):
        if SCHEMES[i].id == scheme:
            return i if SCHEMES[i].family == family else -1
    return -1


cdef int find12(int scheme, int family) noexcept nogil:
    """As find, but an ECDSA scheme stands for its hash on any curve, as TLS 1.2 has it (RFC 8446, section 4.2.3)."""
    cdef int i
    for i in range(SCHEME_COUNT):
        if SCHEMES[i].id == scheme:
            return i if SCHEMES[i].family == family or (is_ecdsa(SCHEMES[i].family) and is_ecdsa(family)) else -1
    return -1


cdef inline bint is_ecdsa(int family) noexcept nogil:
    return family == FAMILY_P256 or family == FAMILY_P384 or family == FAMILY_P521


cdef void digest_of(int length, const uint8_t *message, size_t n, uint8_t *out) noexcept nogil:
    cdef SHA512_CTX c
    if length == 64:
        SHA512_Init(&c)
        SHA512_Update(&c, message, n)
        SHA512_Final(out, &c)
    else:
        hash_once(HASH_SHA256 if length == 32 else HASH_SHA384, message, n, out)


cdef int verify_with(EVP_PKEY *pkey, int i, const uint8_t *message, size_t n,
                     const uint8_t *signature, size_t sig_len) noexcept nogil:
    cdef uint8_t digest[DIGEST_MAX]
    cdef EVP_PKEY_CTX *ctx
    cdef EVP_MD_CTX *md_ctx
    cdef bint done
    if i < 0 or sig_len > SIGNATURE_MAX:
        return -1
    if SCHEMES[i].digest_length == 0:
        md_ctx = EVP_MD_CTX_new()
        done = (md_ctx != NULL
                and EVP_DigestVerifyInit(md_ctx, NULL, NULL, NULL, pkey) == 1
                and EVP_DigestVerify(md_ctx, signature, sig_len, message, n) == 1)
        EVP_MD_CTX_free(md_ctx)
        return 0 if done else failed()

    digest_of(SCHEMES[i].digest_length, message, n, digest)
    ctx = new_context(pkey, &SCHEMES[i], 0)
    done = (ctx != NULL
            and EVP_PKEY_verify(ctx, signature, sig_len, digest, SCHEMES[i].digest_length) == 1)
    EVP_PKEY_CTX_free(ctx)
    return 0 if done else failed()


cdef int sign_hashed(EVP_PKEY *pkey, const Scheme *scheme, const uint8_t *p, size_t n,
                     uint8_t *signature, size_t *sig_len) noexcept nogil:
    """In contexts of its own, which no other thread has."""
    cdef EVP_MD_CTX *md_ctx
    cdef EVP_PKEY_CTX *ctx
    cdef bint done
    if scheme.digest_length == 0:
        md_ctx = EVP_MD_CTX_new()
        done = (md_ctx != NULL and EVP_DigestSignInit(md_ctx, NULL, NULL, NULL, pkey) == 1
                and EVP_DigestSign(md_ctx, signature, sig_len, p, n) == 1)
        EVP_MD_CTX_free(md_ctx)
        return 0 if done else failed()
    ctx = new_context(pkey, scheme, 1)
    done = ctx != NULL and EVP_PKEY_sign(ctx, signature, sig_len, p, n) == 1
    EVP_PKEY_CTX_free(ctx)
    return 0 if done else failed()


cdef EVP_PKEY_CTX *new_context(EVP_PKEY *pkey, const Scheme *scheme, bint sign) noexcept nogil:
    cdef EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL)
    cdef const EVP_MD *md = (EVP_sha256() if scheme.digest_length == 32 else
                             EVP_sha384() if scheme.digest_length == 48 else EVP_sha512())
    cdef bint done = ctx != NULL and (EVP_PKEY_sign_init(ctx) if sign else EVP_PKEY_verify_init(ctx)) == 1
    if done and scheme.padding:
        done = EVP_PKEY_CTX_set_rsa_padding(
            ctx, RSA_PKCS1_PSS_PADDING if scheme.padding == PADDING_PSS else RSA_PKCS1_PADDING) == 1
    done = done and EVP_PKEY_CTX_set_signature_md(ctx, md) == 1
    if done and scheme.padding == PADDING_PSS:
        # RFC 9846, section 4.3.3: MGF1 over the same hash, a salt as long as the digest.
        done = (EVP_PKEY_CTX_set_rsa_mgf1_md(ctx, md) == 1
                and EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) == 1)
    if not done:
        EVP_PKEY_CTX_free(ctx)
        failed()
        return NULL
    return ctx


cdef bint has_own_point(EVP_PKEY *pkey, const EC_GROUP *group) noexcept nogil:
    """Whether the public point of an EC key is its private number times the generator, and none that anybody knows the
    number of: infinity, of 0 (SEC 1, section 3.2.1)."""
    cdef uint8_t public[POINT_MAX]
    cdef size_t n = 0
    cdef BIGNUM *number = NULL
    cdef EC_POINT *stored = EC_POINT_new(group)
    cdef EC_POINT *own = EC_POINT_new(group)
    cdef bint same = (
        stored != NULL and own != NULL
        and EVP_PKEY_get_octet_string_param(pkey, OSSL_PKEY_PARAM_PUB_KEY, public, POINT_MAX, &n) == 1
        and EC_POINT_oct2point(group, stored, public, n, NULL) == 1
        and EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_PRIV_KEY, &number) == 1
        and EC_POINT_mul(group, own, number, NULL, NULL, NULL) == 1
        and EC_POINT_cmp(group, stored, own, NULL) == 0
        and EC_POINT_is_at_infinity(group, own) == 0)
    BN_clear_free(number)
    EC_POINT_free(stored)
    EC_POINT_free(own)
    ERR_clear_error()
    return same


# libcrypto makes a group anew for each who asks.
cdef EC_GROUP *_p256 = NULL
cdef EC_GROUP *_p384 = NULL
cdef EC_GROUP *_p521 = NULL


cdef const EC_GROUP *group_of(int family) except NULL:
    """Of an ECDSA family."""
    global _p256, _p384, _p521
    cdef EC_GROUP **group = &_p256 if family == FAMILY_P256 else &_p384 if family == FAMILY_P384 else &_p521
    cdef int nid = (NID_X9_62_prime256v1 if family == FAMILY_P256 else
                    NID_secp384r1 if family == FAMILY_P384 else NID_secp521r1)
    if group[0] == NULL:
        group[0] = EC_GROUP_new_by_curve_name(nid)
    if group[0] == NULL:
        raise MemoryError
    return group[0]


cdef int failed() noexcept nogil:
    """-1, with libcrypto's error queue emptied: a peer that sends bad signatures must not fill it."""
    ERR_clear_error()
    return -1


# libcrypto 3.0 takes 0.3 ms to find out which of its decoders are for private keys: they are looked for once, and those of
# a kind alone, since it tries one after the other.
cdef struct Decoder:
    const char *kind                    # libcrypto's name; NULL: any
    const uint8_t *oid                  # of the PrivateKeyInfo's privateKeyAlgorithm
    size_t oid_length
    OSSL_DECODER_CTX *ctx               # NULL: not made yet

cdef Decoder[4] _decoders = [
    Decoder(b"EC", <const uint8_t *> b"\x2a\x86\x48\xce\x3d\x02\x01", 7, NULL),
    Decoder(b"RSA", <const uint8_t *> b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01", 9, NULL),
    Decoder(b"ED25519", <const uint8_t *> b"\x2b\x65\x70", 3, NULL),
    Decoder(NULL, NULL, 0, NULL),
]
cdef EVP_PKEY *_decoded = NULL          # where they put a key

PKCS8 = b"-----BEGIN PRIVATE KEY-----"
_USABLE = {}                            # family -> (schemes, schemes12)


cdef Decoder *_decoder_for(const uint8_t *private_key_info, size_t n) noexcept:
    """By the algorithm of a PrivateKeyInfo (RFC 5208, section 5)."""
    cdef Reader r, info, version, algorithm, oid
    cdef int i
    reader_init(&r, private_key_info, n)
    if (read_der_of(&r, DER_SEQUENCE, &info) and read_der_of(&info, DER_INTEGER, &version)
            and read_der_of(&info, DER_SEQUENCE, &algorithm) and read_der_of(&algorithm, DER_OID, &oid)):
        for i in range(3):
            if left(&oid) == _decoders[i].oid_length and memcmp(oid.p, _decoders[i].oid, _decoders[i].oid_length) == 0:
                return &_decoders[i]
    return &_decoders[3]


cdef EVP_PKEY *_decode_pkcs8(bytes block) except? NULL:
    """The key of a PEM block with a PrivateKeyInfo; NULL when it cannot be read this way."""
    cdef unsigned char *der = NULL
    cdef char *label = NULL
    cdef char *header = NULL
    cdef long n = 0
    cdef EVP_PKEY *found = NULL
    cdef BIO *bio = BIO_new_mem_buf(<const char *> block, <int> len(block))
    if bio == NULL:
        raise MemoryError
    if PEM_read_bio(bio, &label, &header, &der, &n) == 1:
        found = _decode_by(_decoder_for(der, n), der, n)
    BIO_free(bio)
    OPENSSL_free(label)
    OPENSSL_free(header)
    OPENSSL_clear_free(der, n)
    return found


cdef EVP_PKEY *_decode_by(Decoder *decoder, const uint8_t *p, size_t n) noexcept:
    global _decoded
    cdef EVP_PKEY *found
    if decoder.ctx == NULL:
        decoder.ctx = OSSL_DECODER_CTX_new_for_pkey(&_decoded, b"DER", b"PrivateKeyInfo", decoder.kind,
                                                    EVP_PKEY_KEYPAIR, NULL, NULL)
    if decoder.ctx == NULL:
        return NULL
    _decoded = NULL
    if OSSL_DECODER_from_data(decoder.ctx, &p, &n) != 1 or n:
        EVP_PKEY_free(_decoded)
        _decoded = NULL
        OSSL_DECODER_CTX_free(decoder.ctx)              # it may remember the fault
        decoder.ctx = NULL
    found = _decoded
    _decoded = NULL
    return found


cdef EVP_PKEY *_decode_any(bytes block) except? NULL:
    """The key of a PEM block, whatever its form; NULL when it cannot be read."""
    cdef EVP_PKEY *found
    cdef BIO *bio = BIO_new_mem_buf(<const char *> block, <int> len(block))
    if bio == NULL:
        raise MemoryError
    found = PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, NULL)
    BIO_free(bio)
    return found


cdef int refuse_passphrase(char *buf, int size, int rwflag, void *u) noexcept nogil:
    return -1                           # libcrypto's own would ask at the terminal


cdef int _family(EVP_PKEY *pkey) except -1:
    """The family of a key, whose size is checked too; ValueError when TLS has no scheme for it."""
    cdef char name[32]
    cdef size_t n = 0
    cdef int bits
    if EVP_PKEY_is_a(pkey, b"ED25519"):
        return FAMILY_ED25519
    if EVP_PKEY_is_a(pkey, b"EC"):
        if EVP_PKEY_get_group_name(pkey, name, sizeof(name), &n) != 1:
            failed()
            raise ValueError("an EC key on an unnamed curve: use P-256 or P-384")
        curve = name[:n].decode()
        if curve == "prime256v1":
            return FAMILY_P256
        if curve == "secp384r1":
            return FAMILY_P384
        if curve == "secp521r1":
            return FAMILY_P521
        raise ValueError(f"an EC key on curve {curve}: TLS 1.3 signs on P-256, P-384 and P-521")
    if EVP_PKEY_is_a(pkey, b"RSA") or EVP_PKEY_is_a(pkey, b"RSA-PSS"):
        bits = EVP_PKEY_get_bits(pkey)
        if not RSA_MIN_BITS <= bits <= RSA_MAX_BITS:
            raise ValueError(f"an RSA key of {bits} bits: {RSA_MIN_BITS} to {RSA_MAX_BITS} are accepted")
        return FAMILY_RSA if EVP_PKEY_is_a(pkey, b"RSA") else FAMILY_RSA_PSS
    raise ValueError("a key of a kind TLS does not sign with: use ECDSA, Ed25519 or RSA")


cdef bytes _spki(EVP_PKEY *pkey):
    cdef unsigned char *der = NULL
    cdef int n = i2d_PUBKEY(pkey, &der)
    if n <= 0:
        failed()
        raise ValueError("the public key cannot be written")
    spki = der[:n]
    OPENSSL_free(der)
    return spki


cdef bytes _only_key(bytes pem):
    """The single private-key block of a PEM file."""
    blocks = re.findall(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----(.*?)-----END \1-----", pem, re.DOTALL)
    if not blocks:
        raise ValueError("no private key in PEM form")
    if len(blocks) > 1:
        raise ValueError(f"{len(blocks)} private keys: one file holds one key")
    label, body = blocks[0]
    if label == b"ENCRYPTED PRIVATE KEY" or b"ENCRYPTED" in body:
        raise ValueError("the private key is encrypted: decrypt it first (openssl pkey -in KEY -out PLAIN)")
    if len(body) > INT_MAX // 2:
        raise ValueError("the private key is too large")
    return b"-----BEGIN " + label + b"-----" + body + b"-----END " + label + b"-----\n"
