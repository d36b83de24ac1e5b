"""Delegated credentials (RFC 9345; see the .pxd): read and checked when a configuration is made, since a server has to
vouch for its own, and none come from a peer."""

from libc.stdint cimport uint8_t, uint32_t

from cext.base.wire cimport Reader, left, read_u16, read_u32, read_vec16, read_vec24, reader_init
from cext.crypto.x509 cimport not_after, not_before
from cext.crypto.x509 cimport public_key as read_public_key
from cext.tls.session cimport wall_clock

VALIDITY_MAX = 7 * 24 * 3600            # seconds that are left at any time (section 4.1.3)
CONTEXT = b" " * 64 + b"TLS, server delegated credentials\0"


cdef class DelegatedCredential:
    """DelegatedCredential(encoded, leaf): the structure, delegated by the certificate `leaf` (DER).

    ValueError when it cannot be read, a key does not sign by the scheme that is given for it, the delegated one is of no
    kind that may be delegated to, or it has expired or is valid for more than seven days from now. Whether the
    certificate may delegate (section 4.2), and has, is for whoever chooses certificates to see: clients do.
    """

    def __init__(self, bytes encoded not None, bytes leaf not None):
        cdef Reader r, spki, signature
        cdef uint32_t valid_time = 0
        cdef PublicKey delegator = read_public_key(leaf)
        cdef const uint8_t *p = <const uint8_t *> <const char *> encoded
        reader_init(&r, p, len(encoded))
        if not (read_u32(&r, &valid_time) and read_u16(&r, &self.scheme) and read_vec24(&r, &spki)
                and read_u16(&r, &self.algorithm)):
            raise ValueError("the delegated credential cannot be decoded")
        self.signed = r.p - p           # all but the signature
        if not read_vec16(&r, &signature) or left(&r):
            raise ValueError("the delegated credential cannot be decoded")
        self.encoded = encoded
        self.public_key = PublicKey.from_spki((<const char *> spki.p)[:left(&spki)])
        if self.public_key.kind == "rsa":           # section 4: not by the OID rsaEncryption
            raise ValueError("a key of kind rsa cannot be delegated to: ECDSA, Ed25519 or RSASSA-PSS can")
        if self.scheme not in self.public_key.schemes:
            raise ValueError(f"the delegated key does not sign by {self.scheme:#06x}")
        if self.algorithm not in delegator.schemes:
            raise ValueError(f"the certificate's key does not sign by {self.algorithm:#06x}")
        self.expires = <uint64_t> min(not_before(leaf) + valid_time, not_after(leaf)) * 1000
        now = wall_clock()
        if self.expires <= now:
            raise ValueError("the delegated credential has expired")
        if self.expires - now > VALIDITY_MAX * 1000:    # section 4.1.3: clients refuse it
            raise ValueError("the delegated credential is valid for more than seven days from now")

    def is_signed_by(self, bytes leaf not None):
        """Whether the key of the certificate `leaf` (DER) has delegated by it: its signature (section 4)."""
        return read_public_key(leaf).verify_bytes(
            self.algorithm, CONTEXT + leaf + self.encoded[:self.signed], self.encoded[self.signed + 2:])
