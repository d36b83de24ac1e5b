"""Hooks (see the .pxd): who they are and how their faults are told. client_view, request_view and response_view have what
they are called with, directing when."""

import inspect

from cext.proxy.client_view cimport ClientConnection
from cext.proxy.downstream cimport Downstream

from cext.proxy.timeouts import NAMES


class AbortRequest(Exception):
    """For a director or a response hook to raise: ends the request without an answer, as request.abort() does."""


class RequestOver(RuntimeError):
    """A request, or a part of it, is not there any more, or has gone too far to be changed."""


cdef class Hooks:
    """Hooks(director=None, connection_state=None, response=None, *, names={}, read_limit, show_limit, failed, handshake=None):
    see the .pxd.

    `names`: those of the timeouts, each with that of the data plane.
    """

    def __init__(self, director=None, connection_state=None, response=None, *, names, read_limit, show_limit, failed,
                 handshake=None):
        self.handshake = handshake
        self.director = director
        self.response = response
        self.connection_state = connection_state
        self.director_waits = inspect.iscoroutinefunction(director)
        self.response_waits = inspect.iscoroutinefunction(response)
        self.limits = {name: NAMES.index(of_plane) for name, of_plane in names.items()}
        self.read_limit = read_limit
        self.show_limit = show_limit
        self.failed = failed
        self.connections = {}

    def follow(self, Hooks before):
        """They take the place of others, and hear of the connections that these know."""
        if self.connection_state is not None:
            self.connections = before.connections

    def observe(self, Downstream client, old, str new):
        """A connection's step from state to state, for Context.state_observer."""
        cdef ClientConnection connection = self.connections.get(client)
        if connection is None:
            connection = ClientConnection.__new__(ClientConnection)
            connection.downstream = client
            self.connections[client] = connection
        connection.state = new
        if new == "closed":
            connection.close()
            del self.connections[client]
        client.ctx.watchdog.enter()
        try:
            self.connection_state(connection, old, new)
        except BaseException as e:
            self.report(client.ctx, "connection_state", e)
        finally:
            client.ctx.watchdog.leave()

    cdef void report(self, Context ctx, str hook, object error) noexcept:
        ctx.counters.hook_failures += 1
        try:
            self.failed(hook, error)
        except BaseException as e:
            ctx.log("error", f"hook {hook}: {type(error).__name__}, and its report failed: {type(e).__name__}")
