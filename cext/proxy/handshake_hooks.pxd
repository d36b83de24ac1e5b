"""Handshakes that wait for somebody: a policy that chooses by the ClientHello (TLS_WAIT_POLICY), a remote key that signs
(TLS_WAIT_SIGN), a register of early data elsewhere (TLS_WAIT_REGISTER). docs/hooks.md is the contract of the hooks.

Who waits is an object that exists only meanwhile. The connection reads nothing then: what its client sends stays in the
kernel, and its end, or the handshake's time limit, cancels what is waited for.
"""

from libc.stdint cimport uint64_t

from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream
from cext.proxy.hook_call cimport HookCall
from cext.tls.config cimport ServerConfig
from cext.tls.credential cimport Credential
from cext.tls.replay cimport AwaitedRegister
from cext.tls.session cimport AwaitedTickets

cdef int decide(Downstream client, int event) noexcept
# What the client's engine waits for is asked for, by its TLS_WAIT_* -> the TlsEvent that came of it; TLS_PROGRESS when it
# is waited for (client.handshake_went_on() is called later), or when the connection has gone (client.fd < 0).

cdef enum Stage:                            # of a decision, in this order
    ASK_CLIENT_HELLO = 0
    ASK_CONFIG = 1
    ASK_CERTIFICATE = 2
    ASK_TICKETS = 3
    DECIDED = 4

cdef class HandshakeHooks:
    """A policy's hooks of the handshake, as the data plane calls them; None for each that it does not have."""
    cdef readonly tuple hooks               # by Stage, but for the tickets'
    cdef readonly object wrapper            # SessionTicketWrapper
    cdef readonly bint fingerprints         # JA3 and JA4 are kept for each connection, in ctx.fingerprints
    cdef object describe                    # (client_hello, {client, client_port, local, local_port, proxy}) -> `hello`
    cdef object read_config                 # (ServerConfig, answer) -> ServerConfig
    cdef object read_certificate            # (answer) -> Credential
    cdef object read_session                # (info) -> what wrap is told of a session
    cdef tuple verdicts                     # what a hook may raise: Drop, HandOver, one with `description` and `reason`
    cdef object failed                      # (hook, exception): tells the operator
    cdef Context ctx
    cdef set storing                        # Storing, of tickets that were given
    cdef void join(self, Context ctx) noexcept
    cdef void report(self, str hook, object error) noexcept
    cdef bytes make_ticket(self, object wrapper, dict info, bytes content)
    cdef int store(self, object rest) except -1

cdef class Wrapping:
    """A SessionTicketWrapper as AwaitedTickets.bind() takes it: Wrapping(hooks, wrapper)."""
    cdef HandshakeHooks hooks
    cdef readonly object wrapper

cdef class Decision:
    """What a handshake goes on with, while it is being chosen."""
    cdef HandshakeHooks hooks
    cdef Downstream client
    cdef bytes client_hello
    cdef object hello                       # what the hooks get, made once
    cdef int stage
    cdef ServerConfig config                # None: the listener's
    cdef Credential credential              # None: the configuration's choice
    cdef list tickets                       # that are to be asked about, the next one last; None before ASK_TICKETS
    cdef bytes ticket                       # the one that is asked about
    cdef object opened                      # what came of it
    cdef int go_on(self) noexcept
    cdef Asking question(self)
    cdef object take(self, Asking call)
    cdef int read(self, object value) except -1
    cdef AwaitedTickets awaited(self)
    cdef int finish(self) noexcept
    cdef int fail(self, object error) noexcept
    cdef int end_by(self, object error) except? -1
    cdef int end_for(self, object fault) noexcept
    cdef int give_away(self, object name) except? -1
    cdef void forget_raw(self) noexcept

cdef class Asking(HookCall):
    """A hook that is asked."""
    cdef Decision decision
    cdef object hook
    cdef tuple arguments

cdef class GivingAway(HookCall):
    """A receiver that is slow to take the connection; `settled` when it has not."""
    cdef Decision decision

cdef class Signing(HookCall):
    """A signature that is asked for."""
    cdef Downstream client
    cdef int conclude(self) noexcept

cdef class RegisterCall(HookCall):
    """An answer of a register's that is waited for; its asker gets it with others, once a turn."""
    cdef Downstream client
    cdef AwaitedRegister register
    cdef readonly bytes name                # what is asked for
    cdef uint64_t asked_us
    cdef bint waits
    cdef int verdict
    cdef bint begin(self) noexcept
    cdef void end(self, int verdict) noexcept

cdef class Storing(HookCall):
    """What wrap has left to be done beside the handshake."""
    cdef HandshakeHooks hooks
