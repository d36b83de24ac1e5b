"""The record layer (TLS 1.3: RFC 9846, section 5; 1.2: RFC 5246, section 6.2.3.3): a record's header, and its
protection in place.

A Direction is one side's traffic keys. Of an idle connection it keeps key, IV and sequence number only; the AEAD
context is made at the first record that needs it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.crypto.aead cimport AEAD_IV, AEAD_KEY_MAX, AEAD_TAG, EVP_CIPHER_CTX

cdef enum:
    RECORD_HEADER_LENGTH = 5
    PLAINTEXT_MAX = 1 << 14             # TLSPlaintext.fragment (section 5.1)
    CIPHERTEXT_MAX = (1 << 14) + 256    # TLSCiphertext.encrypted_record (section 5.2)
    PROTECTION = 1 + AEAD_TAG           # what a protected record of TLS 1.3 holds beside header and content
    EXPLICIT_NONCE = 8                  # in front of what AES-GCM seals in TLS 1.2 (RFC 5288, section 3)
    PROTECTION_MAX = EXPLICIT_NONCE + AEAD_TAG  # the same as PROTECTION, of either version

cdef enum RecordProtocol:
    RECORD_TLS13 = 0
    RECORD_TLS12 = 1

cdef struct Direction:
    EVP_CIPHER_CTX *ctx                 # NULL until it is needed, and after direction_park
    uint64_t sequence                   # of the next record
    uint8_t key[AEAD_KEY_MAX]
    uint8_t iv[AEAD_IV]
    uint8_t aead                        # AeadId; 0: records are plaintext
    bint seals                          # our sending side
    uint8_t protocol                    # RecordProtocol
    uint8_t explicit_nonce              # bytes between a record's header and what is sealed: EXPLICIT_NONCE or 0

cdef void direction_install(Direction *d, int hash, int aead, const uint8_t *secret, bint seals) noexcept nogil
"""Puts the keys of a traffic secret in place of whatever was there; the sequence starts anew (section 5.3)."""
cdef void direction_install12(Direction *d, int aead, const uint8_t *key_iv, bint seals) noexcept nogil
"""The same with what TLS 1.2's key block has for the direction: write_key, then write_IV."""
cdef void direction_park(Direction *d) noexcept nogil
"""Frees the AEAD context; keys and sequence number stay."""
cdef void direction_wipe(Direction *d) noexcept nogil
"""Frees the context and cleanses the keys: no record can be protected any more."""

cdef ssize_t record_length(const uint8_t *input, size_t n, bint protected_, bint tls12, uint8_t *type) noexcept nogil
"""Length of the record at input with its header, as soon as the header stands (the record may not be whole yet).
0: fewer than five bytes; -unexpected_message: no content type of TLS; -protocol_version: no TLS version;
-record_overflow. `protected_`: whether application_data records are (their limit is 256 bytes higher); `tls12`: whether
TLS 1.2 is settled, in which every type of record may be, and all have its version."""

cdef str describe_bad_header(int description, const uint8_t *header)
"""For the log: what came instead of a record, whose five bytes record_length refused by `description`."""

cdef ssize_t record_protect(Direction *d, uint8_t *record, size_t n, int type) noexcept nogil
"""Protects the n <= PLAINTEXT_MAX bytes of content at record + 5 in place; there is room for PROTECTION_MAX after them.
Writes the header. The whole length, or -internal_error when libcrypto fails."""

cdef ssize_t record_unprotect(Direction *d, uint8_t *record, size_t length, uint8_t *type) noexcept nogil
"""Opens the whole record (header included) in place: the content stands at record + 5 + d.explicit_nonce. Its length
and type, or
-bad_record_mac, -record_overflow (inner plaintext too long), -unexpected_message (no type: all zero), -internal_error.
After -bad_record_mac the sequence number is as it was and the record's bytes are of no use."""

cdef size_t record_plain(uint8_t *record, size_t n, int type, uint16_t version) noexcept nogil
"""Writes the header of a plaintext record of n bytes; returns the whole length."""
