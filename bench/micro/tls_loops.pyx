"""The engine's hot paths called in a loop of C (see crypto_loops)."""

import random

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from cext.base.buffer cimport Bytes
from cext.base.wire cimport reader_init
from cext.crypto.hash_kdf cimport HASH_MAX
from cext.tls.connection cimport RECORD_OVERHEAD, TLS_DATA, Connection
from cext.tls.key_schedule cimport (
    LABEL_CLIENT_APPLICATION, LABEL_CLIENT_HANDSHAKE, LABEL_SERVER_APPLICATION, LABEL_SERVER_HANDSHAKE, KeySchedule,
    TrafficKeys, derive_secret, finished_verify_data, schedule_handshake, schedule_master, traffic_keys)
from cext.tls.replay cimport REGISTER_FRESH, SharedRegister
from cext.tls.session cimport SessionState, TicketKeys, forget_state

cdef uint8_t[16384 + RECORD_OVERHEAD] RECORD


def seal(Connection connection not None, size_t n, int times):
    """Seals records of n <= 16384 bytes; how many calls failed (as of all functions here)."""
    cdef int i
    cdef int failures = 0
    with nogil:
        for i in range(times):
            failures += connection.seal(RECORD, n) < 0
    return failures


def seal_and_receive(Connection sender not None, Connection receiver not None, size_t n, int times):
    """Seals each record at one end and takes it in at the other; the receiver is as good as new afterwards."""
    cdef uint8_t *data = NULL
    cdef size_t consumed = 0, length = 0
    cdef ssize_t whole
    cdef int i
    cdef int failures = 0
    for i in range(times):
        whole = sender.seal(RECORD, n)
        failures += receiver.receive(RECORD, whole, &consumed, &data, &length) != TLS_DATA or length != n
    return failures


def park_and_seal(Connection connection not None, size_t n, int times):
    """An idle connection that wakes for one record."""
    cdef int i
    cdef int failures = 0
    with nogil:
        for i in range(times):
            connection.park()
            failures += connection.seal(RECORD, n) < 0
    return failures


def key_schedule(int hash, int aead, int times):
    """All of a server's handshake without PSK: four traffic secrets with their keys, both Finished."""
    cdef KeySchedule schedule
    cdef TrafficKeys keys
    cdef uint8_t[HASH_MAX] secret
    cdef uint8_t[HASH_MAX] digest
    cdef uint8_t[HASH_MAX] out
    cdef int i, label
    memset(digest, 7, sizeof(digest))
    with nogil:
        for i in range(times):
            schedule_handshake(&schedule, hash, digest, 32)
            for label in range(LABEL_CLIENT_HANDSHAKE, LABEL_SERVER_HANDSHAKE + 1):
                derive_secret(&schedule, label, digest, secret)
                traffic_keys(hash, aead, secret, &keys)
                finished_verify_data(hash, secret, digest, out)
            schedule_master(&schedule)
            for label in range(LABEL_CLIENT_APPLICATION, LABEL_SERVER_APPLICATION + 1):
                derive_secret(&schedule, label, digest, secret)
                traffic_keys(hash, aead, secret, &keys)
    return 0


def seal_tickets(TicketKeys keys not None, size_t chain, int times):
    """Seals the state of a usual session into a ticket, with `chain` bytes of certificates in it."""
    cdef SessionState state
    cdef uint8_t[4096] ticket
    cdef int i
    cdef int failures = 0
    usual_state(&state, min(chain, <size_t> 2048))
    for i in range(times):
        failures += keys.seal_state(&state, ticket, sizeof(ticket)) <= 0
    return failures


def open_tickets(TicketKeys keys not None, int times):
    """Opens such a ticket."""
    cdef SessionState state, found
    cdef uint8_t[4096] ticket
    cdef Bytes memory
    cdef ssize_t n
    cdef int i
    cdef int failures = 0
    usual_state(&state, 0)
    memset(&memory, 0, sizeof(memory))
    n = keys.seal_state(&state, ticket, sizeof(ticket))
    for i in range(times):
        failures += not keys.open_state(NULL, 0, ticket, n, &memory, &found)
        forget_state(&memory, &found)
    return failures


cdef void usual_state(SessionState *state, size_t chain) noexcept:
    memset(state, 0, sizeof(SessionState))
    state.version = 0x0304
    state.cipher_suite = 0x1301
    state.secret_length = 32
    reader_init(&state.alpn, RECORD, 8)
    reader_init(&state.server_name, RECORD, 11)
    reader_init(&state.peer_chain, RECORD, chain)


def enter_register(SharedRegister register not None, int times):
    """Enters binders that the register has not seen."""
    cdef uint8_t[32] binder
    cdef uint64_t number
    cdef int i
    cdef int failures = 0
    memset(binder, 0, sizeof(binder))
    number = <uint64_t> random.getrandbits(63)
    with nogil:
        for i in range(times):
            number += 1
            memcpy(binder, &number, sizeof(number))
            failures += register.enter_binder(binder, sizeof(binder)) != REGISTER_FRESH
    return failures
