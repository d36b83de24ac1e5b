"""Delegated credentials (RFC 9345): a key that a certificate's key has signed, for days at most, so that a server need
not have the certificate's own."""

from libc.stdint cimport uint16_t, uint64_t

from cext.crypto.sign cimport PublicKey

cdef class DelegatedCredential:
    cdef readonly bytes encoded             # the DelegatedCredential structure (section 4)
    cdef readonly uint16_t scheme           # dc_cert_verify_algorithm: what a CertificateVerify is signed by
    cdef readonly PublicKey public_key      # its own
    cdef readonly uint16_t algorithm        # what the certificate's key has signed it by
    cdef readonly uint64_t expires          # milliseconds since 1970
    cdef size_t signed                      # how many bytes of `encoded` the signature is of
