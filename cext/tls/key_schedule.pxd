"""The key schedule of TLS 1.3 (RFC 9846, section 7.1): one secret that moves early -> handshake -> master.

Every output length and label is fixed, so the HkdfLabel encodings are made once, at import.
"""

from libc.stdint cimport uint8_t

from cext.crypto.aead cimport AEAD_IV, AEAD_KEY_MAX
from cext.crypto.hash_kdf cimport HASH_MAX, Hmac

cdef enum SecretLabel:
    LABEL_DERIVED = 0
    LABEL_CLIENT_HANDSHAKE      # "c hs traffic"
    LABEL_SERVER_HANDSHAKE      # "s hs traffic"
    LABEL_CLIENT_APPLICATION    # "c ap traffic"
    LABEL_SERVER_APPLICATION    # "s ap traffic"
    LABEL_EXPORTER              # "exp master"
    LABEL_RESUMPTION            # "res master"
    LABEL_EXT_BINDER            # "ext binder"
    LABEL_RES_BINDER            # "res binder"
    LABEL_CLIENT_EARLY          # "c e traffic"
    LABEL_EARLY_EXPORTER        # "e exp master"
    LABEL_TRAFFIC_UPDATE        # "traffic upd"
    LABEL_FINISHED              # "finished"
    LABEL_KEY                   # "key"
    LABEL_IV                    # "iv"
    LABEL_COUNT

cdef struct KeySchedule:
    int hash                    # HashId
    size_t length               # of a secret
    Hmac secret                 # keyed with the current of Early, Handshake and Master Secret

cdef struct TrafficKeys:
    uint8_t key[AEAD_KEY_MAX]
    uint8_t iv[AEAD_IV]

cdef void schedule_init(KeySchedule *s, int hash) noexcept nogil
"""Early Secret without a PSK."""
cdef void schedule_handshake(KeySchedule *s, const uint8_t *shared, size_t n) noexcept nogil
"""Early -> Handshake Secret by the (EC)DHE shared secret."""
cdef void schedule_master(KeySchedule *s) noexcept nogil
"""Handshake -> Master Secret."""
cdef void derive_secret(const KeySchedule *s, int label, const uint8_t *transcript_hash, uint8_t *out) noexcept nogil
"""Derive-Secret(current secret, label, messages) by the messages' Transcript-Hash."""
cdef void schedule_wipe(KeySchedule *s) noexcept nogil

cdef void finished_verify_data(int hash, const uint8_t *base_secret, const uint8_t *transcript_hash,
                               uint8_t *out) noexcept nogil
"""verify_data of the side whose handshake traffic secret is base_secret (section 4.4.4)."""
cdef void traffic_keys(int hash, int aead, const uint8_t *secret, TrafficKeys *out) noexcept nogil
"""[sender]_write_key and _iv (section 7.3)."""
cdef void next_traffic_secret(int hash, uint8_t *secret) noexcept nogil
"""application_traffic_secret_N -> N+1, in place (section 7.2)."""
