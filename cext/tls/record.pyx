"""The record layer (see the .pxd)."""

from libc.string cimport memcpy, memmove, memset

from cext.crypto.aead cimport AEAD_CHACHA20_POLY1305, aead_free, aead_key_length, aead_new, aead_open, aead_seal
from cext.crypto.hash_kdf cimport cleanse
from cext.tls.constants cimport (
    CONTENT_APPLICATION_DATA, CONTENT_CHANGE_CIPHER_SPEC, TLS12,
    bad_record_mac, internal_error, protocol_version, record_overflow, unexpected_message)
from cext.tls.key_schedule cimport TrafficKeys, traffic_keys
from cext.tls.prf12 cimport fixed_iv_length


cdef void direction_install(Direction *d, int hash, int aead, const uint8_t *secret, bint seals) noexcept nogil:
    cdef TrafficKeys keys
    direction_wipe(d)
    traffic_keys(hash, aead, secret, &keys)
    memcpy(d.key, keys.key, sizeof(d.key))
    memcpy(d.iv, keys.iv, sizeof(d.iv))
    cleanse(&keys, sizeof(keys))
    d.aead = <uint8_t> aead
    d.seals = seals


cdef void direction_install12(Direction *d, int aead, const uint8_t *key_iv, bint seals) noexcept nogil:
    cdef size_t n = aead_key_length(aead)
    direction_wipe(d)
    memcpy(d.key, key_iv, n)
    memcpy(d.iv, key_iv + n, fixed_iv_length(aead))
    d.aead = <uint8_t> aead
    d.seals = seals
    d.protocol = RECORD_TLS12
    d.explicit_nonce = 0 if aead == AEAD_CHACHA20_POLY1305 else EXPLICIT_NONCE


cdef void direction_park(Direction *d) noexcept nogil:
    aead_free(d.aead, d.ctx)
    d.ctx = NULL


cdef void direction_wipe(Direction *d) noexcept nogil:
    direction_park(d)
    cleanse(d, sizeof(Direction))


cdef bint keyed(Direction *d) noexcept nogil:
    """Whether there is an AEAD context; it is made when there is none."""
    if d.ctx == NULL and d.aead:
        d.ctx = aead_new(d.aead, d.key, d.seals)
    return d.ctx != NULL


cdef ssize_t record_length(const uint8_t *input, size_t n, bint protected_, bint tls12, uint8_t *type) noexcept nogil:
    cdef size_t length
    if n < RECORD_HEADER_LENGTH:
        return 0
    type[0] = input[0]
    if input[0] < CONTENT_CHANGE_CIPHER_SPEC or input[0] > CONTENT_APPLICATION_DATA:
        return -unexpected_message
    # legacy_record_version says nothing (section 5.1), but a major version other than 3 is no TLS.
    if input[1] != 3 or (tls12 and input[2] != 3):
        return -protocol_version
    length = (input[3] << 8) | input[4]
    # In TLS 1.2 too: what is longer than this holds more than PLAINTEXT_MAX, by any of our AEADs.
    if length > CIPHERTEXT_MAX or (
            length > PLAINTEXT_MAX and not (protected_ and (tls12 or input[0] == CONTENT_APPLICATION_DATA))):
        return -record_overflow
    return RECORD_HEADER_LENGTH + length


cdef inline void make_nonce(const Direction *d, uint8_t *nonce) noexcept nogil:
    """The IV XORed with the sequence number, padded on the left (section 5.3)."""
    cdef int i
    memcpy(nonce, d.iv, AEAD_IV)
    for i in range(8):
        nonce[AEAD_IV - 1 - i] ^= <uint8_t> (d.sequence >> (8 * i))


cdef inline void write_header(uint8_t *record, int type, uint16_t version, size_t n) noexcept nogil:
    record[0] = <uint8_t> type
    record[1] = <uint8_t> (version >> 8)
    record[2] = version & 0xFF
    record[3] = <uint8_t> (n >> 8)
    record[4] = n & 0xFF


cdef ssize_t record_protect(Direction *d, uint8_t *record, size_t n, int type) noexcept nogil:
    cdef uint8_t nonce[AEAD_IV]
    if n > PLAINTEXT_MAX or not keyed(d):
        return -internal_error
    if d.protocol == RECORD_TLS12:
        return protect12(d, record, n, type)
    record[RECORD_HEADER_LENGTH + n] = <uint8_t> type
    # The outer type is always application_data and the version 0x0303 (section 5.2); the header is the AAD.
    write_header(record, CONTENT_APPLICATION_DATA, TLS12, n + PROTECTION)
    make_nonce(d, nonce)
    if aead_seal(d.ctx, nonce, record, RECORD_HEADER_LENGTH, record + RECORD_HEADER_LENGTH, n + 1) < 0:
        return -internal_error
    d.sequence += 1
    return RECORD_HEADER_LENGTH + n + PROTECTION


cdef ssize_t record_unprotect(Direction *d, uint8_t *record, size_t length, uint8_t *type) noexcept nogil:
    cdef uint8_t nonce[AEAD_IV]
    cdef uint8_t *content = record + RECORD_HEADER_LENGTH
    cdef size_t n
    if not keyed(d):
        return -internal_error
    if d.protocol == RECORD_TLS12:
        return unprotect12(d, record, length, type)
    if length < RECORD_HEADER_LENGTH + AEAD_TAG:
        return -bad_record_mac
    n = length - RECORD_HEADER_LENGTH - AEAD_TAG
    make_nonce(d, nonce)
    if aead_open(d.ctx, nonce, record, RECORD_HEADER_LENGTH, content, n) < 0:
        return -bad_record_mac
    d.sequence += 1
    # TLSInnerPlaintext is content, type and zeros (section 5.4): at most 2^14 + 1 bytes with its padding.
    if n > PLAINTEXT_MAX + 1:
        return -record_overflow
    while n and content[n - 1] == 0:
        n -= 1
    if n == 0:
        return -unexpected_message
    type[0] = content[n - 1]
    return n - 1


cdef str describe_bad_header(int description, const uint8_t *header):
    if description == record_overflow:
        return f"a record of {(header[3] << 8) | header[4]} bytes"
    if header[:4] in (b"GET ", b"POST", b"HEAD", b"OPTI", b"PUT ", b"CONN", b"PRI "):
        return "a plaintext HTTP request"
    if description == protocol_version:
        return f"a record of version 0x{header[1]:02x}{header[2]:02x}"
    return f"not a TLS record: begins with {header[:5].hex()}"


# --- TLS 1.2: GenericAEADCipher (RFC 5246, section 6.2.3.3)

cdef enum:
    ADDITIONAL_DATA12 = 8 + 1 + 2 + 2   # seq_num, type, version, length of the content


cdef inline void additional_data12(const Direction *d, int type, size_t n, uint8_t *out) noexcept nogil:
    write_u64(out, d.sequence)
    write_header(out + 8, type, TLS12, n)


cdef inline void write_u64(uint8_t *out, uint64_t v) noexcept nogil:
    cdef int i
    for i in range(8):
        out[i] = <uint8_t> (v >> (56 - 8 * i))


cdef ssize_t protect12(Direction *d, uint8_t *record, size_t n, int type) noexcept nogil:
    cdef uint8_t nonce[AEAD_IV]
    cdef uint8_t aad[ADDITIONAL_DATA12]
    cdef uint8_t *content = record + RECORD_HEADER_LENGTH + d.explicit_nonce
    if d.explicit_nonce:
        # The content makes room for the nonce's explicit part. That is the sequence number: it never comes twice.
        memmove(content, content - EXPLICIT_NONCE, n)
        memcpy(nonce, d.iv, AEAD_IV - EXPLICIT_NONCE)
        write_u64(nonce + AEAD_IV - EXPLICIT_NONCE, d.sequence)
        write_u64(content - EXPLICIT_NONCE, d.sequence)
    else:
        make_nonce(d, nonce)            # RFC 7905, section 2
    additional_data12(d, type, n, aad)
    if aead_seal(d.ctx, nonce, aad, sizeof(aad), content, n) < 0:
        return -internal_error
    d.sequence += 1
    write_header(record, type, TLS12, d.explicit_nonce + n + AEAD_TAG)
    return RECORD_HEADER_LENGTH + d.explicit_nonce + n + AEAD_TAG


cdef ssize_t unprotect12(Direction *d, uint8_t *record, size_t length, uint8_t *type) noexcept nogil:
    cdef uint8_t nonce[AEAD_IV]
    cdef uint8_t aad[ADDITIONAL_DATA12]
    cdef uint8_t *content = record + RECORD_HEADER_LENGTH + d.explicit_nonce
    cdef size_t overhead = RECORD_HEADER_LENGTH + d.explicit_nonce + AEAD_TAG
    cdef size_t n
    if length < overhead:
        return -bad_record_mac
    n = length - overhead
    if d.explicit_nonce:
        memcpy(nonce, d.iv, AEAD_IV - EXPLICIT_NONCE)
        memcpy(nonce + AEAD_IV - EXPLICIT_NONCE, content - EXPLICIT_NONCE, EXPLICIT_NONCE)
    else:
        make_nonce(d, nonce)
    additional_data12(d, record[0], n, aad)
    if aead_open(d.ctx, nonce, aad, sizeof(aad), content, n) < 0:
        return -bad_record_mac
    d.sequence += 1
    if n > PLAINTEXT_MAX:
        return -record_overflow
    type[0] = record[0]
    return n


cdef size_t record_plain(uint8_t *record, size_t n, int type, uint16_t version) noexcept nogil:
    write_header(record, type, version, n)
    return RECORD_HEADER_LENGTH + n


# --- Python's face, for tests, fuzzing and tools

cdef class RecordKeys:
    """One direction's records under a traffic secret: RecordKeys(hash, aead, secret, seals). For TLS 1.2 `hash` is 0 and
    `secret` the direction's write_key and write_IV."""
    cdef Direction direction

    def __cinit__(self, int hash, int aead, bytes secret not None, bint seals):
        memset(&self.direction, 0, sizeof(Direction))
        if hash == 0:
            if not aead_key_length(aead) or <size_t> len(secret) != aead_key_length(aead) + fixed_iv_length(aead):
                raise ValueError("no such AEAD, or a key and IV of the wrong length")
            direction_install12(&self.direction, aead, secret, seals)
            return
        if aead_key_length(aead) == 0 or len(secret) != (32 if hash == 1 else 48):
            raise ValueError("no such AEAD, or a secret of the wrong length")
        direction_install(&self.direction, hash, aead, secret, seals)

    def __dealloc__(self):
        direction_wipe(&self.direction)

    @property
    def sequence(self):
        return self.direction.sequence

    @sequence.setter
    def sequence(self, uint64_t value):
        self.direction.sequence = value

    def protect(self, bytes content not None, int type, size_t padding=0):
        """The whole record; `padding` zeros follow the type inside it (as a peer may send them)."""
        cdef size_t n = len(content)
        cdef bytearray record = bytearray(RECORD_HEADER_LENGTH) + content
        cdef ssize_t length
        if padding and self.direction.protocol == RECORD_TLS12:
            raise ValueError("records of TLS 1.2 under an AEAD have no padding")
        if padding:
            # The padding goes through as content, the type before it: only the last zero is the "type".
            record += bytes([type]) + bytes(padding - 1)
            n, type = n + padding, 0
        record += bytes(PROTECTION_MAX)
        length = record_protect(&self.direction, record, n, type)
        if length < 0:
            raise ValueError(f"alert {-length}")
        return bytes(record[:length])

    def unprotect(self, bytes record not None):
        """(type, content); ValueError(AlertDescription) when it is refused."""
        cdef bytearray copy = bytearray(record)
        cdef uint8_t type = 0
        cdef ssize_t n
        if len(copy) < RECORD_HEADER_LENGTH:
            raise ValueError("no whole header")
        n = record_unprotect(&self.direction, copy, len(copy), &type)
        if n < 0:
            raise ValueError(-n)
        start = RECORD_HEADER_LENGTH + self.direction.explicit_nonce
        return type, bytes(copy[start:start + n])

    def park(self):
        direction_park(&self.direction)


def length_of(bytes input not None, bint protected=True, bint tls12=False):
    """record_length as (length, type): 0 for an incomplete header, negative for an alert."""
    cdef uint8_t type = 0
    cdef ssize_t n = record_length(input, len(input), protected, tls12, &type)
    return n, type
