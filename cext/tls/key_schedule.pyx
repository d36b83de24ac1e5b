"""The key schedule of TLS 1.3 (see the .pxd)."""

from libc.string cimport memcpy, memset

from cext.crypto.aead cimport aead_key_length
from cext.crypto.hash_kdf cimport (
    HASH_MAX, HASH_SHA256, HASH_SHA384, cleanse, hash_length, hash_once, hmac_key, hmac_sign, hkdf_extract)

# A HkdfLabel (section 7.1) as far as it does not depend on the hash: uint16 length, opaque label<7..255> with
# its prefix "tls13 ", opaque context<0..255>. The two lengths are filled in when it is used.
cdef enum:
    LABEL_MAX = 2 + 1 + 6 + 12 + 1
    CONTEXT_MAX = 255                       # a hash, or a ticket's nonce
    INFO_MAX = LABEL_MAX + CONTEXT_MAX + 1  # with the context and HKDF-Expand's counter

cdef struct Label:
    uint8_t encoded[LABEL_MAX]
    size_t length

cdef struct Constants:                      # of a hash
    uint8_t empty[HASH_MAX]                 # Transcript-Hash of no message
    Hmac early_salt                         # keyed with zeros
    Hmac handshake_salt                     # keyed with Derive-Secret(Early Secret without PSK, "derived", "")

cdef Label[LABEL_COUNT] LABELS
cdef Constants[HASH_SHA384 + 1] CONSTANTS


cdef void schedule_handshake(KeySchedule *s, int hash, const uint8_t *shared, size_t n) noexcept nogil:
    cdef uint8_t secret[HASH_MAX]
    s.hash = hash
    hmac_sign(&CONSTANTS[hash].handshake_salt, shared, n, secret)
    hmac_key(&s.secret, hash, secret, hash_length(hash))
    cleanse(secret, sizeof(secret))


cdef void schedule_early(KeySchedule *s, int hash, const uint8_t *psk, size_t n) noexcept nogil:
    cdef uint8_t secret[HASH_MAX]
    s.hash = hash
    hmac_sign(&CONSTANTS[hash].early_salt, psk, n, secret)
    hmac_key(&s.secret, hash, secret, hash_length(hash))
    cleanse(secret, sizeof(secret))


cdef void schedule_resumed(KeySchedule *s, const uint8_t *shared, size_t n) noexcept nogil:
    advance_secret(s, shared, n)


cdef void schedule_master(KeySchedule *s) noexcept nogil:
    advance_secret(s, NULL, 0)


cdef void advance_secret(KeySchedule *s, const uint8_t *input, size_t length) noexcept nogil:
    """To the next secret, by input keying material; NULL: zeros."""
    cdef uint8_t salt[HASH_MAX]
    cdef uint8_t zeros[HASH_MAX]
    cdef uint8_t secret[HASH_MAX]
    cdef size_t n = hash_length(s.hash)
    memset(zeros, 0, sizeof(zeros))
    derive_secret(s, LABEL_DERIVED, CONSTANTS[s.hash].empty, salt)
    if input == NULL:
        input = zeros
        length = n
    hkdf_extract(s.hash, salt, n, input, length, secret)
    hmac_key(&s.secret, s.hash, secret, n)
    cleanse(salt, sizeof(salt))
    cleanse(secret, sizeof(secret))


cdef void derive_secret(const KeySchedule *s, int label, const uint8_t *transcript_hash, uint8_t *out) noexcept nogil:
    cdef size_t n = hash_length(s.hash)
    expand_label(&s.secret, s.hash, label, transcript_hash, n, out, n)


cdef void psk_binder(const KeySchedule *early, const uint8_t *transcript_hash, uint8_t *out) noexcept nogil:
    cdef uint8_t binder_key[HASH_MAX]
    derive_secret(early, LABEL_RESUMPTION_BINDER, CONSTANTS[early.hash].empty, binder_key)
    finished_verify_data(early.hash, binder_key, transcript_hash, out)
    cleanse(binder_key, sizeof(binder_key))


cdef void resumption_psk(int hash, const uint8_t *resumption_secret, const uint8_t *nonce, size_t n,
                         uint8_t *out) noexcept nogil:
    cdef Hmac mac
    cdef size_t length = hash_length(hash)
    hmac_key(&mac, hash, resumption_secret, length)
    expand_label(&mac, hash, LABEL_RESUMPTION, nonce, n, out, length)
    cleanse(&mac, sizeof(mac))


cdef void schedule_wipe(KeySchedule *s) noexcept nogil:
    cleanse(s, sizeof(KeySchedule))


cdef void finished_verify_data(int hash, const uint8_t *base_secret, const uint8_t *transcript_hash,
                               uint8_t *out) noexcept nogil:
    cdef Hmac mac
    cdef uint8_t finished_key[HASH_MAX]
    cdef size_t n = hash_length(hash)
    hmac_key(&mac, hash, base_secret, n)
    expand_label(&mac, hash, LABEL_FINISHED, NULL, 0, finished_key, n)
    hmac_key(&mac, hash, finished_key, n)
    hmac_sign(&mac, transcript_hash, n, out)
    cleanse(finished_key, sizeof(finished_key))
    cleanse(&mac, sizeof(mac))


cdef void traffic_keys(int hash, int aead, const uint8_t *secret, TrafficKeys *out) noexcept nogil:
    cdef Hmac mac
    hmac_key(&mac, hash, secret, hash_length(hash))
    expand_label(&mac, hash, LABEL_KEY, NULL, 0, out.key, aead_key_length(aead))
    expand_label(&mac, hash, LABEL_IV, NULL, 0, out.iv, AEAD_IV)
    cleanse(&mac, sizeof(mac))


cdef void next_traffic_secret(int hash, uint8_t *secret) noexcept nogil:
    cdef Hmac mac
    cdef size_t n = hash_length(hash)
    hmac_key(&mac, hash, secret, n)
    expand_label(&mac, hash, LABEL_TRAFFIC_UPDATE, NULL, 0, secret, n)
    cleanse(&mac, sizeof(mac))


cdef void expand_label(const Hmac *secret, int hash, int label, const uint8_t *context, size_t context_len,
                       uint8_t *out, size_t n) noexcept nogil:
    """HKDF-Expand-Label for n <= hash_length(hash), where HKDF-Expand is one HMAC (RFC 5869, section 2.3)."""
    cdef uint8_t info[INFO_MAX]
    cdef uint8_t block[HASH_MAX]
    cdef const Label *l = &LABELS[label]
    memcpy(info, l.encoded, l.length)
    info[0] = 0
    info[1] = <uint8_t> n
    info[l.length - 1] = <uint8_t> context_len
    if context_len:
        memcpy(info + l.length, context, context_len)
    info[l.length + context_len] = 1
    hmac_sign(secret, info, l.length + context_len + 1, block)
    memcpy(out, block, n)
    cleanse(block, sizeof(block))


cdef int encode_label(Label *l, bytes name) except -1:
    cdef bytes prefixed = b"tls13 " + name
    l.length = 3 + len(prefixed) + 1
    if l.length > LABEL_MAX:
        raise ValueError(name)
    memset(l.encoded, 0, sizeof(l.encoded))
    l.encoded[2] = <uint8_t> len(prefixed)
    memcpy(l.encoded + 3, <const uint8_t *> prefixed, len(prefixed))
    return 0


cdef int compute_constants(int hash) except -1:
    cdef uint8_t zeros[HASH_MAX]
    cdef uint8_t secret[HASH_MAX]
    cdef Hmac early
    cdef Constants *c = &CONSTANTS[hash]
    cdef size_t n = hash_length(hash)
    memset(zeros, 0, sizeof(zeros))
    hash_once(hash, zeros, 0, c.empty)
    hmac_key(&c.early_salt, hash, zeros, n)
    hkdf_extract(hash, zeros, n, zeros, n, secret)
    hmac_key(&early, hash, secret, n)
    expand_label(&early, hash, LABEL_DERIVED, c.empty, n, secret, n)
    hmac_key(&c.handshake_salt, hash, secret, n)
    return 0


NAMES = {
    "derived": LABEL_DERIVED,
    "c hs traffic": LABEL_CLIENT_HANDSHAKE,
    "s hs traffic": LABEL_SERVER_HANDSHAKE,
    "c ap traffic": LABEL_CLIENT_APPLICATION,
    "s ap traffic": LABEL_SERVER_APPLICATION,
    "c e traffic": LABEL_CLIENT_EARLY,
    "exp master": LABEL_EXPORTER_MASTER,
    "res binder": LABEL_RESUMPTION_BINDER,
    "res master": LABEL_RESUMPTION_MASTER,
    "resumption": LABEL_RESUMPTION,
    "traffic upd": LABEL_TRAFFIC_UPDATE,
    "finished": LABEL_FINISHED,
    "key": LABEL_KEY,
    "iv": LABEL_IV,
}

for name, number in NAMES.items():
    encode_label(&LABELS[<int> number], name.encode())
compute_constants(HASH_SHA256)
compute_constants(HASH_SHA384)


# --- Python's face, for tests and tools

cdef size_t checked_length(int hash, bytes value, str what) except 0:
    if hash not in (HASH_SHA256, HASH_SHA384):
        raise ValueError(f"no such hash: {hash}")
    if value is not None and len(value) != <Py_ssize_t> hash_length(hash):
        raise ValueError(f"{what}: {len(value)} bytes")
    return hash_length(hash)


cdef class Schedule:
    """The schedule from the Handshake Secret on: Schedule(hash, shared), derive(), then master() and derive(). With a
    PSK from the Early Secret on: Schedule(hash, psk=psk), derive() and binder(), then handshake(shared)."""
    cdef KeySchedule schedule

    def __cinit__(self, int hash, bytes shared=None, *, bytes psk=None):
        checked_length(hash, None, "")
        if (shared is None) == (psk is None):
            raise ValueError("either shared or psk")
        if psk is not None:
            schedule_early(&self.schedule, hash, psk, len(psk))
        else:
            schedule_handshake(&self.schedule, hash, shared, len(shared))

    def __dealloc__(self):
        schedule_wipe(&self.schedule)

    def handshake(self, bytes shared):
        """Early -> Handshake Secret; None: without (EC)DHE."""
        if shared is None:
            schedule_resumed(&self.schedule, NULL, 0)
        else:
            schedule_resumed(&self.schedule, shared, len(shared))

    def binder(self, bytes transcript_hash not None):
        """Of the PSK, as long as this is the Early Secret."""
        cdef uint8_t out[HASH_MAX]
        cdef size_t n = checked_length(self.schedule.hash, transcript_hash, "transcript_hash")
        psk_binder(&self.schedule, transcript_hash, out)
        return out[:n]

    def master(self):
        schedule_master(&self.schedule)

    def derive(self, str label, bytes transcript_hash=None):
        """Derive-Secret by label ("c hs traffic" ...); no transcript_hash: of no message."""
        cdef uint8_t out[HASH_MAX]
        cdef size_t n = checked_length(self.schedule.hash, transcript_hash, "transcript_hash")
        cdef const uint8_t *context = CONSTANTS[self.schedule.hash].empty
        if transcript_hash is not None:
            context = transcript_hash
        derive_secret(&self.schedule, NAMES[label], context, out)
        return out[:n]


def verify_data(int hash, bytes base_secret not None, bytes transcript_hash not None):
    """Finished.verify_data."""
    cdef uint8_t out[HASH_MAX]
    cdef size_t n = checked_length(hash, base_secret, "base_secret")
    checked_length(hash, transcript_hash, "transcript_hash")
    finished_verify_data(hash, base_secret, transcript_hash, out)
    return out[:n]


def keys_of(int hash, int aead, bytes secret not None):
    """(key, iv) of a traffic secret."""
    cdef TrafficKeys keys
    checked_length(hash, secret, "secret")
    if aead_key_length(aead) == 0:
        raise ValueError(f"no such AEAD: {aead}")
    traffic_keys(hash, aead, secret, &keys)
    return keys.key[:aead_key_length(aead)], keys.iv[:AEAD_IV]


def updated(int hash, bytes secret not None):
    """The next generation of a traffic secret."""
    cdef uint8_t out[HASH_MAX]
    cdef size_t n = checked_length(hash, secret, "secret")
    memcpy(out, <const uint8_t *> secret, n)
    next_traffic_secret(hash, out)
    return out[:n]
