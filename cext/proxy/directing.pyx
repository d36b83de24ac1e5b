"""Asking hooks (see the .pxd).

A hook that is `async` and has to wait holds its exchange up (Exchange.hold), with a copy of the head: nothing of a request
goes to an upstream meanwhile, and nothing of a response is read. Whoever is not there any more when the hook is done has
told it before (HookCall.cancel).
"""

import inspect

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from cext.http.h1_reader cimport parse_response
from cext.http.head_copy cimport HeadCopy
from cext.http.message cimport METHOD_HEAD, Limits
from cext.proxy.exchange cimport Holder
from cext.proxy.header_view cimport HeadView
from cext.proxy.hook_call cimport HookCall
from cext.proxy.hooks cimport Hooks
from cext.proxy.request_view cimport Answer, RequestView
from cext.proxy.response_view cimport ResponseView
from cext.proxy.router cimport hooks_of
from cext.proxy.timeouts cimport Timeouts
from cext.proxy.upstream cimport UpstreamRequest

from cext.proxy.context import HookTimeout
from cext.proxy.hooks import AbortRequest

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *o)

cdef const char *NOT_SERVED = b"The request could not be served."
cdef const char *NOT_IN_TIME = b"The service did not answer in time."

cdef Limits WIDE
WIDE.line, WIDE.head, WIDE.fields = 1 << 20, 1 << 20, 256

cdef Head own_head

cdef class Request(RequestView)

cdef Request spare = None               # the last one that nobody has kept: most are just looked at


cdef bint direct(Downstream client, Exchange x, const Head *h) noexcept:
    global spare
    cdef Hooks hooks = <Hooks> x.ctx.request_hooks
    cdef Request request = request_of(client, x, h)
    request.policy = hooks
    if hooks.director is None:
        return True
    if not request.ask_director(hooks, h, False):
        return False
    if hooks.response is None and request.untouched() and (x.route is None or not x.route.hooked):
        x.overseer = None                       # nobody asks for it any more
        if Py_REFCNT(<PyObject *> request) == 1:
            request.x = None
            request.client = None
            spare = request
    return True


cdef bint direct_on_route(Downstream client, Exchange x, const Head *h) noexcept:
    cdef Request request = request_of(client, x, h)
    cdef Hooks hooks = <Hooks> hooks_of(x.route)
    if hooks is request.policy:                 # which has been asked
        return True
    request.of_route = hooks
    return request.of_route.director is None or request.ask_director(request.of_route, h, True)


cdef Request request_of(Downstream client, Exchange x, const Head *h):
    cdef Request request
    global spare
    if x.overseer is not None:
        return <Request> x.overseer
    request = spare
    spare = None
    if request is None:
        request = Request.__new__(Request)
    request.x = x
    request.client = client
    request.http2 = client.tls is not None and client.tls.alpn == b"h2"
    request.minor = h.minor
    request.of_request = True
    request.forwards = client.settings.x_forwarded
    request.forwards_standard = client.settings.forwarded
    x.overseer = request
    return request


cdef class Request(RequestView):
    """See RequestView. It is also who its exchange asks about the response."""
    cdef Hooks policy                   # those that have been asked about it; None: there are none
    cdef Hooks of_route
    cdef bint routed                    # those of the route are being asked, or were

    cdef bint untouched(self) noexcept:
        """Whether it says no more than its exchange does."""
        return self.own is None and self.own_notes is None and not self.limits_set

    # ---- before it goes on

    cdef bint ask_director(self, Hooks hooks, const Head *h, bint routed) noexcept:
        """-> whether x goes on as it is."""
        cdef DirectorCall call
        cdef object error = None
        self.begin(hooks)
        self.head = h
        self.routed = routed
        if not hooks.director_waits:
            self.x.ctx.watchdog.enter()
            try:
                outcome = hooks.director(self)
                if outcome is not None:
                    must_be_over(outcome)
            except BaseException as e:
                error = e
            finally:
                self.x.ctx.watchdog.leave()
            return self.directed(error, False)
        call = DirectorCall.__new__(DirectorCall)
        call.request = self
        if call.run(self.x.ctx, hooks.director, (self,), self.x.ctx.hook_timeout_ms):
            return self.directed(call.error, False)
        if self.keep() < 0:
            call.cancel()
            return self.directed(MemoryError(), False)
        self.x.hold(holder(call, self, b"director"))
        return False

    cdef void begin(self, Hooks hooks) noexcept:
        if self.x.ctx.watchdog is None:
            self.x.ctx.watch_hooks()
        self.hooks = hooks
        self.asking = True
        self.aborted = self.retimed = self.changed = False
        self.given = None

    cdef bint directed(self, object error, bint waited) noexcept:
        """The director is done. -> whether x goes on as it is: if not, or if it has waited, it is seen to here."""
        cdef Exchange x = self.x
        cdef HeadCopy own = self.own
        cdef const Head *h = self.head
        self.asking = False
        self.end()
        if x.sink is None:
            return False
        if error is not None and not isinstance(error, AbortRequest):
            fail(x, self.hooks, False, error)
            return False
        if error is not None or self.aborted:
            x.abort(b"aborted by the director")
            return False
        if self.given is not None:
            give(x, self.given)
            return False
        if self.changed:
            x = self.change_exchange(h)
        elif self.retimed:
            x.sink.retimed(x)
        if x is None or x.sink is None:
            return False
        if not (self.changed or waited):
            return True
        x.sink.request_directed(x, h, self.routed)      # `own` holds it
        return False

    cdef Exchange change_exchange(self, const Head *h):
        """x with what the director has changed -> the one in its place, or None."""
        cdef Exchange before = self.x
        cdef Exchange x = before.sink.request_changed(before, h, before.route if self.routed else None, self.group)
        cdef int i
        if x is None:
            return None
        self.x = x
        if self.before is None:
            self.before = before
        x.overseer = self
        for i in range(<int> (sizeof(Timeouts) // sizeof(int))):
            if self.limits_set >> i & 1:
                (<int *> &x.timeouts)[i] = (<int *> &before.timeouts)[i]
        x.sink.retimed(x)
        return x

    # ---- before its response does

    cdef bint sees_head(self, Exchange x, const Head *h) noexcept:
        cdef ResponseView response
        if ((self.policy is None or self.policy.response is None)
                and (self.of_route is None or self.of_route.response is None)):
            return True
        response = ResponseView.__new__(ResponseView)
        response.asked = self
        response.head = h
        return self.ask_about(response, self.of_route if self.of_route is not None else self.policy, False)

    cdef bint ask_about(self, ResponseView response, Hooks hooks, bint waited) noexcept:
        """Asks `hooks`, and the policy's after the route's. -> whether the head goes on as it is."""
        cdef ResponseCall call
        cdef Exchange x = self.x
        cdef object error
        while hooks is not None:
            if hooks.response is not None:
                self.begin(hooks)
                error = None
                if not hooks.response_waits:
                    x.ctx.watchdog.enter()
                    try:
                        outcome = hooks.response(self, response)
                        if outcome is not None:
                            must_be_over(outcome)
                    except BaseException as e:
                        error = e
                    finally:
                        x.ctx.watchdog.leave()
                else:
                    call = ResponseCall.__new__(ResponseCall)
                    call.response = response
                    if not call.run(x.ctx, hooks.response, (self, response), x.ctx.hook_timeout_ms):
                        if response.keep() == 0:
                            x.upstream.pause()
                            x.hold(holder(call, response, b"response hook"))
                            return False
                        call.cancel()
                        error = MemoryError()
                    else:
                        error = call.error
                if not self.answered(response, error):
                    return False
            hooks = self.next_of(hooks)
        return self.pass_on(response, waited)

    cdef Hooks next_of(self, Hooks hooks):
        return self.policy if hooks is self.of_route else None

    cdef bint answered(self, ResponseView response, object error) noexcept:
        """A response hook is done. -> whether the response goes on; otherwise it is seen to here."""
        cdef Exchange x = self.x
        self.asking = False
        if x.sink is None:
            response.end()
            return False
        if error is None and not self.aborted and response.given is None:
            return True
        response.end()
        if error is not None and not isinstance(error, AbortRequest):
            x.drop_upstream()
            fail(x, self.hooks, True, error)
        elif error is not None or self.aborted:
            x.abort(b"aborted by the response hook")
        else:
            give(x, response.given)
        return False

    cdef bint pass_on(self, ResponseView response, bint waited) noexcept:
        cdef Exchange x = self.x
        cdef HeadCopy own = response.own
        cdef const Head *h = response.head
        cdef UpstreamRequest u = x.upstream
        response.end()
        if not (waited or response.changed):
            return True
        x.pass_head(h)                          # `own` holds it
        if waited and x.sink is not None:
            x.sink.response_flush(x)
            if x.upstream is u:
                u.resume()
        return False


# ---- what comes of a hook ----

cdef int must_be_over(object outcome) except -1:
    """A hook that is not `async` gave something. To await that may be all that it does: a decorator hides who is `async`."""
    if not inspect.isawaitable(outcome):
        return 0
    if inspect.iscoroutine(outcome):
        outcome.close()
    raise TypeError("it gave something to await, and is not `async` itself: make what decorates it `async`, too")


cdef void give(Exchange x, Answer answer) noexcept:
    cdef const uint8_t *p = <const uint8_t *> <const char *> answer.head
    cdef size_t n = len(answer.body) if x.method != METHOD_HEAD else 0
    if parse_response(p, len(answer.head), &WIDE, x.method, &own_head) < 0:
        x.abort(b"no response")                 # it was looked at when it was made
        return
    x.answer(&own_head, <const uint8_t *> <const char *> answer.body, n)


cdef void fail(Exchange x, Hooks hooks, bint of_response, object error) noexcept:
    """What docs/hooks.md promises: nothing goes on that its hook has not seen to the end."""
    cdef bint late = isinstance(error, HookTimeout)
    cdef const char *fault
    if of_response:
        fault = b"the response hook took too long" if late else b"the response hook failed"
    else:
        fault = b"the director took too long" if late else b"the director failed"
    hooks.report(x.ctx, "response" if of_response else "director", error)
    x.ctx.counters.responses_5xx += 1
    x.refuse(504 if late else 500, NOT_IN_TIME if late else NOT_SERVED, fault)


# ---- hooks that wait ----

cdef class DirectorCall(HookCall):
    cdef Request request

    cdef void settled(self) noexcept:
        self.request.x.held = None
        self.request.directed(self.error, True)


cdef class ResponseCall(HookCall):
    cdef ResponseView response

    cdef void settled(self) noexcept:
        cdef Request request = <Request> self.response.asked
        cdef Hooks hooks = request.hooks
        request.x.held = None
        if request.answered(self.response, self.error):
            request.ask_about(self.response, request.next_of(hooks), True)


cdef class HeldByHook(Holder):
    cdef HookCall call
    cdef HeadView view

    cdef void abandoned(self) noexcept:
        self.call.cancel()
        self.view.end()


cdef HeldByHook holder(HookCall call, HeadView view, const char *name):
    cdef HeldByHook held = HeldByHook.__new__(HeldByHook)
    held.call = call
    held.view = view
    held.name = name
    return held
