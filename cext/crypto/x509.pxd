"""What the handshake must know of a certificate: its key, and of our own who issued it and for how long. Trust in chains
and names is policy: `edge` reads those."""

from libc.stdint cimport int64_t

from cext.crypto.sign cimport PrivateKey, PublicKey

cpdef PublicKey public_key(bytes certificate_der)
"""The key of a DER certificate; ValueError when it cannot be read, is of no kind TLS 1.3 signs with, or may not sign by
the certificate's key usage."""

cpdef bint certifies_plainly(bytes certificate_der, PrivateKey key)
"""Whether it is plain to see that this certifies the key and lets it sign; for most it is, and takes a twentieth of what
public_key() does with OpenSSL 3.0. Where it is not, that one tells what is the case."""

cpdef bytes issuer_name(bytes certificate_der)
"""Its issuer's DistinguishedName in DER; ValueError when the certificate cannot be read."""

cpdef int64_t not_before(bytes certificate_der) except -1
cpdef int64_t not_after(bytes certificate_der) except -1
"""Seconds since 1970 (0 for what is before that). ValueError when the certificate cannot be read."""
