"""The public key in a certificate (see the .pxd)."""

from libc.string cimport memset
from libc.time cimport time_t, tm

from cext.crypto.sign cimport PublicKey, public_key_of
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
