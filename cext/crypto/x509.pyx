"""The public key in a certificate (see the .pxd)."""

from cext.crypto.sign cimport PublicKey, public_key_of
from cext.lib.libcrypto cimport (
    EVP_PKEY, ERR_clear_error, EVP_PKEY_free, KU_DIGITAL_SIGNATURE, X509, X509_free, X509_get_key_usage,
    X509_get_pubkey, d2i_X509)


cpdef PublicKey public_key(bytes certificate_der):
    cdef const unsigned char *p
    cdef const unsigned char *end
    cdef X509 *certificate
    cdef EVP_PKEY *pkey = NULL
    cdef bint signs = 0
    if certificate_der is None:
        raise TypeError("a certificate is bytes")
    p = <const unsigned char *> <const char *> certificate_der
    end = p + len(certificate_der)
    certificate = d2i_X509(NULL, &p, len(certificate_der))
    if certificate != NULL and p == end:
        pkey = X509_get_pubkey(certificate)
        signs = X509_get_key_usage(certificate) & KU_DIGITAL_SIGNATURE != 0
    X509_free(certificate)
    ERR_clear_error()
    if pkey == NULL:
        raise ValueError("not a certificate in DER, or its public key cannot be read")
    if not signs:                       # RFC 8446 section 4.4.2.2
        EVP_PKEY_free(pkey)
        raise ValueError("the certificate's key usage does not allow signatures")
    return public_key_of(pkey)
