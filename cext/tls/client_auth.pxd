"""A client's proof of who it is (RFC 8446, sections 4.3.2 and 4.4.2 to 4.4.3): what both roles and both protocol
versions share of it. Trust in a chain is policy: a callable of the configuration decides."""

from cext.base.wire cimport Reader
from cext.crypto.sign cimport PublicKey
from cext.tls.config cimport ServerConfig
from cext.tls.handshake cimport Handshake

cdef int ask_trust(Handshake h, object verify, tuple arguments, int otherwise=*) except -1
"""0 when verify(*arguments) returns; what it raises is the failure: by the alert that its `description` numbers, else
`otherwise`, which is bad_certificate."""

cdef PublicKey read_key(Handshake h, bytes leaf)
"""The key of a certificate, or None with the failure noted: it is a bad_certificate."""

cdef bint admits_chain(ServerConfig config, tuple chain) noexcept
"""Whether a session whose client showed `chain` (empty: no certificate) may go on under `config`: to be asked before
it is resumed, since authorities, clocks and the configuration itself may have changed."""

cdef bytes state_of_chain(tuple chain)
"""As SessionState.peer_chain has it: each certificate behind its three-byte length."""
cdef tuple chain_of_state(Reader certificates)
