"""The key schedule of TLS 1.3 (RFC 9846, section 7.1): one secret that moves early -> handshake -> master.

Every label and length is known beforehand, so HkdfLabels are encoded once, at import; what follows from a
handshake without a PSK alone (the Early Secret, and the salt derived from it) is computed then, too.

Without a PSK: schedule_handshake, schedule_master. With one: schedule_early, schedule_resumed, schedule_master.
"""

from libc.stdint cimport uint8_t

from cext.crypto.aead cimport AEAD_IV, AEAD_KEY_MAX
from cext.crypto.hash_kdf cimport Hmac

cdef enum SecretLabel:
    LABEL_DERIVED = 0           # "derived"
    LABEL_CLIENT_HANDSHAKE      # "c hs traffic"
    LABEL_SERVER_HANDSHAKE      # "s hs traffic"
    LABEL_CLIENT_APPLICATION    # "c ap traffic"
    LABEL_SERVER_APPLICATION    # "s ap traffic"
    LABEL_CLIENT_EARLY          # "c e traffic"
    LABEL_EXPORTER_MASTER       # "exp master"
    LABEL_RESUMPTION_BINDER     # "res binder"
    LABEL_RESUMPTION_MASTER     # "res master"
    LABEL_RESUMPTION            # "resumption"
    LABEL_TRAFFIC_UPDATE        # "traffic upd"
    LABEL_FINISHED              # "finished"
    LABEL_KEY                   # "key"
    LABEL_IV                    # "iv"
    LABEL_COUNT

cdef struct KeySchedule:
    int hash                    # HashId
    Hmac secret                 # keyed with the current of Early, Handshake and Master Secret

cdef struct TrafficKeys:
    uint8_t key[AEAD_KEY_MAX]
    uint8_t iv[AEAD_IV]

cdef void schedule_handshake(KeySchedule *s, int hash, const uint8_t *shared, size_t n) noexcept nogil
"""The Handshake Secret of a handshake without PSK, from the (EC)DHE shared secret."""
cdef void schedule_early(KeySchedule *s, int hash, const uint8_t *psk, size_t n) noexcept nogil
"""The Early Secret of a PSK."""
cdef void schedule_resumed(KeySchedule *s, const uint8_t *shared, size_t n) noexcept nogil
"""Early -> Handshake Secret; shared NULL: psk_ke, without (EC)DHE."""
cdef void schedule_master(KeySchedule *s) noexcept nogil
"""Handshake -> Master Secret."""
cdef void derive_secret(const KeySchedule *s, int label, const uint8_t *transcript_hash, uint8_t *out) noexcept nogil
"""Derive-Secret(current secret, label, messages), given the messages' Transcript-Hash."""
cdef void psk_binder(const KeySchedule *early, const uint8_t *transcript_hash, uint8_t *out) noexcept nogil
"""A binder of a resumption PSK, given the Transcript-Hash up to and with the truncated ClientHello (section
4.2.11.2): hash_length(early.hash) bytes."""
cdef void resumption_psk(int hash, const uint8_t *resumption_secret, const uint8_t *nonce, size_t n,
                         uint8_t *out) noexcept nogil
"""The PSK of a ticket with this nonce (n <= 255), from the resumption_master_secret (section 4.6.1)."""
cdef void schedule_wipe(KeySchedule *s) noexcept nogil

cdef void finished_verify_data(int hash, const uint8_t *base_secret, const uint8_t *transcript_hash,
                               uint8_t *out) noexcept nogil
"""verify_data of the side whose handshake traffic secret is base_secret (section 4.4.4)."""
cdef void traffic_keys(int hash, int aead, const uint8_t *secret, TrafficKeys *out) noexcept nogil
"""[sender]_write_key and _iv (section 7.3)."""
cdef void next_traffic_secret(int hash, uint8_t *secret) noexcept nogil
"""application_traffic_secret_N -> N+1, in place (section 7.2)."""
