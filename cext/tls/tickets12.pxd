"""Session tickets in TLS 1.2 (RFC 5077): what a server resumes and gives, bound to the extended master secret (RFC
7627).

A session without the extended master secret is neither given a ticket nor resumed: its master secret is not tied to its
handshake (RFC 7627, sections 1 and 5.3).
"""

from libc.stdint cimport uint8_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.tls.config cimport ServerConfig
from cext.tls.handshake cimport Handshake
from cext.tls.messages cimport ClientHello
from cext.tls.session cimport Session, SessionState

cdef int find_session12(ServerConfig config, const ClientHello *ch, const uint8_t *message, size_t n, bytes server_name,
                        SessionState *state, Bytes *memory, const char **reason) noexcept
"""Whether the ClientHello in `message` brings a ticket by which its handshake is abbreviated. 1: the state is set, and
the caller's to forget; 0: there is none, or none that fits; -handshake_failure (RFC 7627, section 5.3)."""

cdef bint is_to_be_renewed(ServerConfig config, const SessionState *state) noexcept nogil
"""Whether a resumed session gets a new ticket: when half of the old one's lifetime is over."""

cdef int add_ticket12(Handshake h, ServerConfig config, const uint8_t *master_secret, uint64_t authenticated) noexcept
"""Puts the NewSessionTicket that was promised into the flight: with an empty ticket when none can be made (RFC 5077,
section 3.3). `authenticated`: when the full handshake was, milliseconds since 1970; 0: now."""

cdef Session make_session12(Handshake h, const uint8_t *master_secret, bytes ticket, unsigned int lifetime_hint,
                            bint verified)
"""A client's session by the ticket it was given."""
