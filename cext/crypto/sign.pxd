"""Signing and verifying by TLS SignatureScheme (RFC 9846, section 4.3.3)."""

from libc.stdint cimport uint8_t

from cext.lib.libcrypto cimport EVP_MD_CTX, EVP_PKEY, EVP_PKEY_CTX

cdef enum SignatureScheme:
    RSA_PKCS1_SHA256 = 0x0401
    RSA_PKCS1_SHA384 = 0x0501
    RSA_PKCS1_SHA512 = 0x0601
    ECDSA_SECP256R1_SHA256 = 0x0403
    ECDSA_SECP384R1_SHA384 = 0x0503
    ECDSA_SECP521R1_SHA512 = 0x0603
    RSA_PSS_RSAE_SHA256 = 0x0804
    RSA_PSS_RSAE_SHA384 = 0x0805
    RSA_PSS_RSAE_SHA512 = 0x0806
    ED25519 = 0x0807
    RSA_PSS_PSS_SHA256 = 0x0809
    RSA_PSS_PSS_SHA384 = 0x080A
    RSA_PSS_PSS_SHA512 = 0x080B

cdef enum:
    SIGNATURE_MAX = 1024               # RSA-8192
    SCHEME_COUNT = 13
    POINT_MAX = 133                    # bytes of an uncompressed point, on P-521
    PLAIN_SPKI_MAX = 32 + POINT_MAX

cdef class PrivateKey:
    """A signing key. Python: PrivateKey.from_pem(bytes) (ValueError on anything else than one unencrypted key)."""
    cdef EVP_PKEY *pkey
    cdef int family                     # of key; a scheme belongs to one
    cdef readonly str kind             # "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa", "rsa-pss", "ed25519"
    cdef readonly tuple schemes        # usable in TLS 1.3, most preferred first
    cdef readonly tuple schemes12      # usable in TLS 1.2, where an ECDSA scheme names its hash alone, likewise
    cdef EVP_PKEY_CTX *contexts[SCHEME_COUNT]      # prepared at a scheme's first use, then signing over and over
    cdef EVP_MD_CTX *ed25519            # prepared likewise; copied into `scratch` for each signature
    cdef EVP_MD_CTX *scratch
    cdef bint prepare(self, int i) noexcept nogil
    cdef bint allows(self, int i) noexcept nogil
    cdef size_t plain_spki(self, uint8_t *out) noexcept nogil
    # The public half's SubjectPublicKeyInfo as nearly everybody writes it (an EC key with a named curve and an uncompressed
    # point, RFC 5480, section 2), of at most PLAIN_SPKI_MAX bytes; 0: it has no such form, or not this simple one.
    cdef bint supports(self, int scheme) noexcept nogil
    # whether `schemes` has it: never true of PKCS#1, which sign() does for TLS 1.2
    cdef int sign(self, int scheme, const uint8_t *message, size_t n, uint8_t *signature, size_t *sig_len) noexcept nogil
    # 0, or -1. signature has room for SIGNATURE_MAX bytes. Contexts are kept, not made anew:
    # 16.5 us instead of 20.8 for P-256.
    cdef int sign12(self, int scheme, const uint8_t *message, size_t n, uint8_t *signature, size_t *sig_len) noexcept nogil
    # the same by the rules of TLS 1.2
    cdef int sign_by(self, int i, const uint8_t *message, size_t n, uint8_t *signature, size_t *sig_len) noexcept nogil

cdef class PublicKey:
    """A verifying key. Python: PublicKey.from_spki(der); x509.public_key(certificate_der)."""
    cdef EVP_PKEY *pkey
    cdef int family
    cdef readonly str kind
    cdef bint supports(self, int scheme) noexcept nogil      # whether the scheme fits the key
    cdef bint supports12(self, int scheme) noexcept nogil    # by the rules of TLS 1.2
    cdef int verify(self, int scheme, const uint8_t *message, size_t n, const uint8_t *signature, size_t sig_len) noexcept nogil
    # 0 when it verifies, -1 otherwise (also for a scheme that does not fit the key)
    cdef int verify12(self, int scheme, const uint8_t *message, size_t n, const uint8_t *signature, size_t sig_len) noexcept nogil
    # the same by the rules of TLS 1.2
    cdef int verify_by(self, int i, const uint8_t *message, size_t n, const uint8_t *signature, size_t sig_len) noexcept nogil

cdef PublicKey public_key_of(EVP_PKEY *pkey)
"""Takes ownership of pkey (freed on error too). ValueError when its kind or size is not one that we verify with."""
