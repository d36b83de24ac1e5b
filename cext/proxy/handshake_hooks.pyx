"""Handshakes that wait (see the .pxd).

A hook's outcome takes one of two ways to the engine: at once, within the reading that brought the ClientHello, or from
the loop (`settled`). Both end in decide(), since one decision may lead to the next.
"""

import inspect

from cext.base.buffer cimport bytes_free
from cext.base.stats cimport observe
from cext.base.timers cimport timer_init
from cext.net.address cimport ADDRESS_TEXT, Peer, local_peer, peer_text
from cext.proxy.downstream cimport Opening
from cext.proxy.gate cimport Gate
from cext.proxy.handover cimport hand_over
from cext.proxy.hook_call import settling
from cext.tls.connection cimport TLS_FAILED, TLS_PROGRESS, TLS_WAIT_POLICY, TLS_WAIT_REGISTER, TLS_WAIT_SIGN
from cext.tls.constants cimport decode_error, internal_error
from cext.tls.handshake cimport Handshake
from cext.tls.psk cimport offered_tickets
from cext.tls.replay cimport REGISTER_DOWN, REGISTER_FRESH, REGISTER_LATE, REGISTER_SEEN

cdef enum:
    TICKET_MAX = 0xFFFF
    STORING_MAX = 1024          # tickets that are being stored at once

NAMES = ("client_hello", "get_config", "get_certificate", "unwrap")
"""Of the hooks, by Stage."""


class Drop(Exception):
    """For a hook of the handshake to raise, or for client_hello to return: the connection is closed without a word."""


class HandOver(Exception):
    """HandOver(name), likewise: the connection, as it has come, goes to the receiver of that name."""

    def __init__(self, name):
        super().__init__(name)
        self.name = name


cdef int decide(Downstream client, int event) noexcept:
    cdef Decision decision
    while event == TLS_WAIT_SIGN or event == TLS_WAIT_POLICY or event == TLS_WAIT_REGISTER:
        if event == TLS_WAIT_SIGN:
            event = sign(client)
        elif event == TLS_WAIT_REGISTER:
            event = ask_register(client)
        elif client.ctx.handshake is None or client.refused:    # who is over a limit is told so, and nobody is asked
            event = client.tls.resume_policy(None, None)
        else:
            decision = Decision.__new__(Decision)
            decision.hooks = client.ctx.handshake
            decision.client = client
            decision.client_hello = client.tls.client_hello
            event = decision.go_on()
    return event


# ---- by the ClientHello ----

cdef class HandshakeHooks:
    """HandshakeHooks(client_hello=None, get_config=None, get_certificate=None, wrapper=None, ...): see the .pxd."""

    def __init__(self, client_hello=None, get_config=None, get_certificate=None, *, wrapper=None, fingerprints=False,
                 describe, read_config, read_certificate, read_session, refuse, failed):
        self.hooks = (client_hello, get_config, get_certificate)
        self.wrapper = wrapper
        self.fingerprints = fingerprints
        self.describe = describe
        self.read_config = read_config
        self.read_certificate = read_certificate
        self.read_session = read_session
        self.verdicts = (Drop, HandOver, refuse)
        self.failed = failed
        self.storing = set()

    cdef void join(self, Context ctx) noexcept:
        """They are a worker's from now on."""
        self.ctx = ctx
        ctx.handshake = self
        if self.fingerprints and ctx.fingerprints is None:
            ctx.fingerprints = {}

    cdef void report(self, str hook, object error) noexcept:
        self.ctx.counters.hook_failures += 1
        try:
            self.failed(hook, error)
        except BaseException as e:
            self.ctx.log("error", f"hook {hook}: {type(error).__name__}, and its report failed: {type(e).__name__}")

    cdef bytes make_ticket(self, object wrapper, dict info, bytes content):
        cdef HookCall call = HookCall.__new__(HookCall)
        if not call.run(self.ctx, wrapper.wrap, (self.read_session(info), content), self.ctx.hook_timeout_ms):
            call.cancel()
            raise TypeError("it waits; but the ticket must be there at once, with what takes time beside it")
        if call.error is not None:
            raise call.error
        ticket, rest = call.value if isinstance(call.value, tuple) and len(call.value) == 2 else (call.value, None)
        if not isinstance(ticket, bytes) or not 0 < len(ticket) <= TICKET_MAX:
            raise TypeError(f"it gave {type(ticket).__name__} in the place of 1 to {TICKET_MAX} bytes")
        if rest is not None:
            self.store(rest)
        return ticket

    cdef int store(self, object rest) except -1:
        """Runs what is to be awaited for a ticket."""
        cdef Storing call = Storing.__new__(Storing)
        if not inspect.isawaitable(rest):
            raise TypeError(f"it gave {type(rest).__name__} beside the ticket, which is nothing to await")
        if len(self.storing) >= STORING_MAX:
            if inspect.iscoroutine(rest):
                rest.close()
            raise RuntimeError(f"{STORING_MAX} tickets are being stored, and no more are given until some are")
        call.hooks = self
        if not call.run(self.ctx, itself, (rest,), self.ctx.hook_timeout_ms):
            self.storing.add(call)
        elif call.error is not None:
            raise call.error
        return 0


def itself(o):
    return o


cdef class Storing(HookCall):
    cdef void settled(self) noexcept:
        self.hooks.storing.discard(self)
        if self.error is not None:
            self.hooks.report("wrap", self.error)


cdef class Wrapping:
    def __init__(self, HandshakeHooks hooks not None, wrapper):
        self.hooks = hooks
        self.wrapper = wrapper

    def wrap(self, dict info, bytes content):
        """For the engine. What it raises has been told of."""
        try:
            return self.hooks.make_ticket(self.wrapper, info, content)
        except BaseException as e:
            self.hooks.report("wrap", e)
            raise ValueError("no ticket") from None

    def unwrap(self, client_hello, ticket):
        """Never called: a Decision asks the wrapper, where it may wait."""
        return None


cdef class Decision:
    cdef int go_on(self) noexcept:
        """Asks what is still to be asked -> as decide()."""
        cdef Downstream client = self.client
        cdef Asking call
        try:
            while self.stage < DECIDED:
                call = self.question()
                if call is None:
                    self.stage += 1
                    continue
                call.decision = self
                if not call.run(client.ctx, call.hook, call.arguments, client.ctx.hook_timeout_ms):
                    client.begin_deciding(call)
                    return TLS_PROGRESS
                error = self.take(call)
                if error is not None:
                    return self.fail(error)
        except BaseException as e:
            return self.fail(e)
        return self.finish()

    cdef Asking question(self):
        """Of this stage; None: there is none, or no other."""
        cdef Asking call
        cdef AwaitedTickets tickets
        hook = None
        if self.stage < ASK_TICKETS:
            if self.stage == ASK_CLIENT_HELLO and self.hooks.fingerprints and self.hello is None:
                self.describe()
                self.client.ctx.fingerprints[self.client] = (self.hello.ja3, self.hello.ja4)
            hook = self.hooks.hooks[self.stage]
            if hook is None:
                return None
        else:
            tickets = self.awaited()
            if tickets is None:
                return None
            if self.tickets is None:
                self.tickets = offered_tickets(self.client_hello)
                self.tickets.reverse()
            if not self.tickets:
                return None
            self.ticket = self.tickets.pop()
            hook = (<Wrapping> tickets.wrapper).wrapper.unwrap
        if self.hello is None:
            self.describe()
        call = Asking.__new__(Asking)
        call.hook = hook
        call.arguments = (self.hello,) if self.stage < ASK_TICKETS else (self.hello, self.ticket)
        return call

    def describe(self):
        """Makes `hello`. ValueError for what the engine has no use for, and has not looked at."""
        cdef Downstream client = self.client
        cdef char text[ADDRESS_TEXT]
        cdef Peer local
        cdef size_t n = peer_text(&client.peer, text)
        cdef dict connection = {"client": text[:n].decode("ascii"), "client_port": client.peer.port if n else 0}
        local_peer(client.fd, &local)
        if client.opening is not None and client.opening.proxied is not None:
            connection["proxy"] = client.opening.proxied
            if client.opening.proxied.local.known:
                local = client.opening.proxied.local
        n = peer_text(&local, text)
        connection |= {"local": text[:n].decode("ascii"), "local_port": local.port if n else 0}
        try:
            self.hello = self.hooks.describe(self.client_hello, connection)
        except ValueError as e:
            raise Malformed(str(e)) from None

    cdef object take(self, Asking call):
        """What came of a question -> None, or the exception that ends the handshake."""
        error, value = call.error, call.value
        if error is not None:
            if self.stage != ASK_TICKETS or isinstance(error, self.hooks.verdicts):
                return error
            self.hooks.report("unwrap", error)
            return None
        try:
            self.read(value)
        except BaseException as e:
            return e
        return None

    cdef int read(self, object value) except -1:
        """A hook's answer. Raises for one that is none."""
        if self.stage == ASK_TICKETS:
            if value is None:
                return 0                # the next ticket may be known
            if not isinstance(value, bytes):
                self.hooks.report("unwrap", TypeError(f"it gave {type(value).__name__} in the place of bytes"))
                return 0
            self.opened = value
        elif value is None:
            pass
        elif self.stage == ASK_CONFIG:
            self.config = self.hooks.read_config(self.client.tls.config, value)
        elif self.stage == ASK_CERTIFICATE:
            self.credential = self.hooks.read_certificate(value)
        elif value is Drop or isinstance(value, self.hooks.verdicts):
            raise value
        else:
            raise TypeError(f"it gave {type(value).__name__}, which is neither None nor Drop, Refuse or HandOver")
        self.stage += 1
        return 0

    cdef AwaitedTickets awaited(self):
        """Those of the configuration that was chosen, where a wrapper makes them."""
        cdef ServerConfig config = self.client.tls.config if self.config is None else self.config
        if not isinstance(config.tickets, AwaitedTickets) or (<AwaitedTickets> config.tickets).wrapper is None:
            return None
        return config.tickets

    cdef int finish(self) noexcept:
        """All is decided."""
        cdef Downstream client = self.client
        cdef AwaitedTickets tickets = self.awaited()
        cdef int event
        self.forget_raw()
        if tickets is not None and self.opened is not None:
            tickets.tell(self.ticket, self.opened)
        event = client.tls.resume_policy(self.config, self.credential)
        if tickets is not None:
            tickets.settle(event == TLS_PROGRESS and client.tls.handshake is not None
                           and client.tls.handshake.hello_retried)
        return event

    cdef int fail(self, object error) noexcept:
        """The handshake ends: as a hook says, or because it has failed."""
        try:
            return self.end_by(error)
        except BaseException as e:          # a verdict that does not say what such a one does
            error = e
        return self.end_for(error)

    cdef int end_by(self, object error) except? -1:
        cdef Downstream client = self.client
        if isinstance(error, Drop):
            client.ctx.counters.handshakes_dropped += 1
            client.tell(b"dropped by a hook")
            client.abort(b"dropped by a hook")
            return TLS_PROGRESS
        if isinstance(error, HandOver):
            return self.give_away(error.name)
        self.forget_raw()
        if isinstance(error, Malformed):
            return client.tls.refuse_to_resume(decode_error, str(error))
        if isinstance(error, self.hooks.verdicts):
            return client.tls.refuse_to_resume(error.description, str(error.reason) or "refused by a hook")
        return self.end_for(error)

    cdef int end_for(self, object fault) noexcept:
        """A hook has failed."""
        self.hooks.report(NAMES[self.stage], fault)
        return self.client.tls.refuse_to_resume(internal_error, f"{NAMES[self.stage]} failed")

    cdef int give_away(self, object name) except? -1:
        """To a receiver; what it does not take ends, or is served after all, as is configured."""
        cdef Downstream client = self.client
        cdef GivingAway call
        target = None
        if isinstance(client.opening, Gate):
            target = (<Gate> client.opening).settings.targets.get(name)
        if target is None:
            return self.fail(LookupError(f"connections are not handed over to {name!r}"))
        call = GivingAway.__new__(GivingAway)
        call.decision = self
        client.begin_deciding(call)
        if hand_over(client, target):
            return TLS_PROGRESS
        client.begin_deciding(None)
        self.stage += 1
        return self.go_on()

    cdef void forget_raw(self) noexcept:
        """Nobody else will get the connection."""
        cdef Opening opening = self.client.opening
        if opening is not None:
            bytes_free(&opening.raw)
            if opening.proxied is None:
                self.client.opening = None


cdef class GivingAway(HookCall):
    cdef void settled(self) noexcept:
        cdef Decision decision = self.decision
        cdef Downstream client = decision.client
        client.begin_deciding(None)
        decision.stage += 1
        client.handshake_went_on(decide(client, decision.go_on()))


class Malformed(Exception):
    """A ClientHello is."""


cdef class Asking(HookCall):
    cdef void settled(self) noexcept:
        cdef Decision decision = self.decision
        cdef Downstream client = decision.client
        client.begin_deciding(None)
        error = decision.take(self)
        client.handshake_went_on(decide(client, decision.go_on() if error is None else decision.fail(error)))


# ---- signatures ----

cdef int sign(Downstream client) noexcept:
    """By the credential's signer."""
    cdef Handshake handshake = client.tls.handshake
    cdef Signing call = Signing.__new__(Signing)
    call.client = client
    if not call.run(client.ctx, handshake.signer.sign, (handshake.to_sign, handshake.scheme), client.ctx.hook_timeout_ms):
        client.begin_deciding(call)
        return TLS_PROGRESS
    return call.conclude()


cdef class Signing(HookCall):
    cdef void settled(self) noexcept:
        cdef Downstream client = self.client
        client.begin_deciding(None)
        client.handshake_went_on(decide(client, self.conclude()))

    cdef int conclude(self) noexcept:
        """-> the TlsEvent that comes of the outcome."""
        cdef Downstream client = self.client
        cdef int event
        cdef tuple names = client.tls.handshake.credential.names
        if self.error is None and not isinstance(self.value, bytes):
            self.error = TypeError(f"sign gave {type(self.value).__name__} in the place of bytes")
        if self.error is None:
            event = client.tls.resume_sign(self.value)
            if event != TLS_FAILED:
                return event
            self.error = client.tls.failure
        else:
            event = client.tls.refuse_to_resume(internal_error, "there is no signature")
        client.ctx.counters.signer_failures += 1
        report(client.ctx, f"signer of {names[0]}" if names else "signer", self.error)
        return event


# ---- registers of early data ----

cdef int ask_register(Downstream client) noexcept:
    cdef RegisterCall call = RegisterCall.__new__(RegisterCall)
    call.ctx = client.ctx
    call.client = client
    if not call.begin():
        return client.tls.resume_register(REGISTER_DOWN)
    client.begin_deciding(call)
    return TLS_PROGRESS


cdef class RegisterCall(HookCall):
    cdef bint begin(self) noexcept:
        """Whether it is being asked."""
        cdef Context ctx = self.ctx
        cdef AwaitedRegister register = self.client.tls.register_asked()
        try:
            if register.asker is None:
                return False
            self.name = self.client.tls.asked_name
            if not register.asked:
                ctx.loop.call_soon(asking(ctx, register))
            register.asked.append(self)
        except Exception as e:
            report(ctx, "register of early data", e)
            return False
        self.register = register
        self.asked_us = ctx.loop.now_us
        self.waits = True
        register.waiting += 1
        ctx.counters.register_asked += 1
        timer_init(&self.timer, self, 0)
        ctx.loop.timers.arm(&self.timer, ctx.loop.now + register.deadline)
        return True

    def answer(self, int verdict):
        """One of cext.tls.replay's answers, from within the guest: the handshake goes on once that is over. One that comes
        too late, or twice, is nothing."""
        if not self.waits:
            return
        self.end(verdict)
        if not self.ctx.outcomes:
            self.ctx.loop.call_soon(settling(self.ctx))
        self.ctx.outcomes.append(self)

    cdef void end(self, int verdict) noexcept:
        """It is not waited for any more."""
        cdef Context ctx = self.ctx
        self.waits = False
        self.verdict = verdict
        self.register.waiting -= 1
        ctx.loop.timers.disarm(&self.timer)
        if verdict == REGISTER_LATE:
            ctx.counters.register_late += 1
            return
        observe(&ctx.row.register_answer, ctx.loop.now_us - self.asked_us)
        if verdict == REGISTER_FRESH:
            ctx.counters.register_taken += 1
        elif verdict == REGISTER_SEEN:
            ctx.counters.register_replayed += 1

    cdef void on_timer(self, int kind) noexcept:
        """The deadline."""
        if self.waits:
            self.end(REGISTER_LATE)
            self.settle()

    cdef void cancel(self) noexcept:
        """The client has gone. The question may have been asked: its answer concerns nobody."""
        if self.waits:
            self.waits = False
            self.register.waiting -= 1
            self.ctx.loop.timers.disarm(&self.timer)
        self.client = None

    cdef void settle(self) noexcept:
        cdef Downstream client = self.client
        if client is None:              # cancelled in between
            return
        self.client = None
        client.begin_deciding(None)
        client.handshake_went_on(decide(client, client.tls.resume_register(self.verdict)))


def asking(Context ctx, AwaitedRegister register):
    """What tells a register's asker of all that have asked in a turn."""
    def ask():
        cdef list asked = [call for call in register.asked if (<RegisterCall> call).waits]
        register.asked = []
        try:
            if register.asker is not None and asked:
                register.asker(asked)
        except Exception as e:          # they wait for their deadline
            report(ctx, "register of early data", e)
    return ask


cdef void report(Context ctx, str what, object error) noexcept:
    """Tells the operator."""
    try:
        if ctx.failed is not None:
            ctx.failed(what, error)
            return
    except Exception as e:
        ctx.log("error", f"{what}: the report of a failure failed: {type(e).__name__}")
    ctx.log("error", f"{what}: {type(error).__name__}: {error}")
