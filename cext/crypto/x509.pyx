"""The public key in a certificate (see the .pxd)."""

from libc.stdint cimport uint8_t
from libc.string cimport memcmp, memset
from libc.time cimport time_t, tm

from cext.base.wire cimport Reader, left, reader_init
from cext.crypto.der cimport (
    DER_BIT_STRING, DER_BOOLEAN, DER_EXTENSIONS, DER_INTEGER, DER_OCTET_STRING, DER_OID, DER_SEQUENCE, DER_VERSION,
    read_der, read_der_of)
from cext.crypto.sign cimport PLAIN_SPKI_MAX, PrivateKey, PublicKey, public_key_of
from cext.lib.libcrypto cimport (
    ASN1_TIME, ASN1_TIME_to_tm, EVP_PKEY, ERR_clear_error, EVP_PKEY_free, KU_DIGITAL_SIGNATURE, OPENSSL_free, X509,
    X509_free, X509_get0_notAfter, X509_get0_notBefore, X509_get_issuer_name, X509_get_key_usage, X509_get_pubkey,
    d2i_X509, i2d_X509_NAME)

cdef extern from "<time.h>" nogil:
    time_t timegm(tm *broken_down)


cpdef PublicKey public_key(bytes certificate_der):
    cdef X509 *certificate = read(certificate_der)
    cdef EVP_PKEY *pkey = X509_get_pubkey(certificate)
    cdef bint signs = X509_get_key_usage(certificate) & KU_DIGITAL_SIGNATURE != 0
    X509_free(certificate)
    ERR_clear_error()
    if pkey == NULL:
        raise ValueError(UNREADABLE)
    if not signs:                       # RFC 8446 section 4.4.2.2
        EVP_PKEY_free(pkey)
        raise ValueError("the certificate's key usage does not allow signatures")
    return public_key_of(pkey)


cpdef bint certifies_plainly(bytes certificate_der, PrivateKey key):
    cdef Reader whole, spki, extensions
    cdef uint8_t own[PLAIN_SPKI_MAX]
    cdef size_t n
    if key is None:
        raise TypeError("a PrivateKey is needed")
    n = key.plain_spki(own)
    reader_init(&whole, certificate_der, len(certificate_der))
    if not n or not find_in_certificate(whole, &spki, &extensions):
        return False
    return left(&spki) == n and memcmp(spki.p, own, n) == 0 and may_sign(extensions)


cdef bint find_in_certificate(Reader r, Reader *spki, Reader *extensions) noexcept nogil:
    """The whole SubjectPublicKeyInfo, and the Extensions (.p NULL: none) of a Certificate (RFC 5280, section 4.1); False
    when its structure is another."""
    cdef Reader certificate, tbs, passed
    cdef int tag
    extensions.p = extensions.end = NULL
    if not read_der_of(&r, DER_SEQUENCE, &certificate) or left(&r):
        return 0
    if not read_der_of(&certificate, DER_SEQUENCE, &tbs):
        return 0
    # signatureAlgorithm, signatureValue
    if (not read_der_of(&certificate, DER_SEQUENCE, &passed) or not read_der_of(&certificate, DER_BIT_STRING, &passed)
            or left(&certificate)):
        return 0
    # version, serialNumber; signature, issuer, validity, subject
    if not read_der_of(&tbs, DER_VERSION, &passed) or not read_der_of(&tbs, DER_INTEGER, &passed):
        return 0
    for _ in range(4):
        if not read_der_of(&tbs, DER_SEQUENCE, &passed):
            return 0
    spki.p = tbs.p
    if not read_der_of(&tbs, DER_SEQUENCE, &passed):
        return 0
    spki.end = tbs.p
    while left(&tbs):
        if not read_der(&tbs, &tag, &passed):
            return 0
        if tag == DER_EXTENSIONS and (not read_der_of(&passed, DER_SEQUENCE, extensions) or left(&passed)):
            return 0
    return 1


cdef bint may_sign(Reader extensions) noexcept nogil:
    """Whether they have no key usage, or one with digitalSignature (RFC 5280, section 4.2.1.3)."""
    cdef Reader extension, oid, critical, value, bits
    while left(&extensions):
        if not read_der_of(&extensions, DER_SEQUENCE, &extension) or not read_der_of(&extension, DER_OID, &oid):
            return 0
        if left(&oid) != 3 or memcmp(oid.p, b"\x55\x1d\x0f", 3) != 0:
            continue
        read_der_of(&extension, DER_BOOLEAN, &critical)
        # The first byte of a BIT STRING counts the unused bits at its end.
        if (not read_der_of(&extension, DER_OCTET_STRING, &value) or left(&extension)
                or not read_der_of(&value, DER_BIT_STRING, &bits) or left(&value)
                or left(&bits) < 2 or bits.p[0] > 7 or not bits.p[1] & 0x80):
            return 0
    return 1


cpdef bytes issuer_name(bytes certificate_der):
    cdef X509 *certificate = read(certificate_der)
    cdef unsigned char *der = NULL
    cdef int n = i2d_X509_NAME(X509_get_issuer_name(certificate), &der)
    X509_free(certificate)
    ERR_clear_error()
    if n <= 0:
        raise ValueError(UNREADABLE)
    name = der[:n]
    OPENSSL_free(der)
    return name


cpdef int64_t not_before(bytes certificate_der) except -1:
    cdef X509 *certificate = read(certificate_der)
    cdef int64_t moment = seconds(X509_get0_notBefore(certificate))
    X509_free(certificate)
    return readable(moment)


cpdef int64_t not_after(bytes certificate_der) except -1:
    cdef X509 *certificate = read(certificate_der)
    cdef int64_t moment = seconds(X509_get0_notAfter(certificate))
    X509_free(certificate)
    return readable(moment)


UNREADABLE = "not a certificate in DER, or its public key cannot be read"


cdef X509 *read(bytes certificate_der) except NULL:
    """The certificate, which the caller frees."""
    cdef const unsigned char *p
    cdef const unsigned char *end
    cdef X509 *certificate
    if certificate_der is None:
        raise TypeError("a certificate is bytes")
    p = <const unsigned char *> <const char *> certificate_der
    end = p + len(certificate_der)
    certificate = d2i_X509(NULL, &p, len(certificate_der))
    ERR_clear_error()
    if certificate == NULL or p != end:
        X509_free(certificate)
        raise ValueError(UNREADABLE)
    return certificate


cdef int64_t seconds(const ASN1_TIME *time) noexcept nogil:
    cdef tm broken_down
    cdef int64_t moment
    memset(&broken_down, 0, sizeof(broken_down))
    if ASN1_TIME_to_tm(time, &broken_down) != 1:
        ERR_clear_error()
        return -1
    moment = timegm(&broken_down)
    return max(moment, <int64_t> 0)


cdef int64_t readable(int64_t moment) except -1:
    if moment < 0:
        raise ValueError("the certificate's validity cannot be read")
    return moment
