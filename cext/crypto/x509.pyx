"""The public key in a certificate (see the .pxd)."""

from cext.crypto.sign cimport PublicKey, public_key_of
from cext.lib.libcrypto cimport EVP_PKEY, ERR_clear_error, X509, X509_free, X509_get_pubkey, d2i_X509


cpdef PublicKey public_key(bytes certificate_der):
    cdef const unsigned char *p
    cdef const unsigned char *end
    cdef X509 *certificate
    cdef EVP_PKEY *pkey = NULL
    if certificate_der is None:
        raise TypeError("a certificate is bytes")
    p = <const unsigned char *> <const char *> certificate_der
    end = p + len(certificate_der)
    certificate = d2i_X509(NULL, &p, len(certificate_der))
    if certificate != NULL and p == end:
        pkey = X509_get_pubkey(certificate)
    X509_free(certificate)
    ERR_clear_error()
    if pkey == NULL:
        raise ValueError("not a certificate in DER, or its public key cannot be read")
    return public_key_of(pkey)
