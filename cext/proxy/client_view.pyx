"""Connections for hooks (see the .pxd)."""

from cext.net.address cimport ADDRESS_TEXT, peer_text
from cext.proxy.context cimport Context
from cext.proxy.early_data cimport when_confirmed
from cext.tls.connection cimport EARLY_ACCEPTED, EARLY_READING, Connection
from cext.tls.names cimport cipher_suite_name, group_name, version_name


cdef str address_of(Downstream client):
    cdef char text[ADDRESS_TEXT]
    return text[:peer_text(&client.peer, text)].decode("ascii")


cdef class TlsState:
    @property
    def handshake_confirmed(self):
        """Whether the client's Finished has come: before that, what it has sent may be a replay of what somebody else has
        recorded. False of a connection that ended before."""
        return self.downstream.session is not None and self.downstream.tls is not None and self.downstream.tls.established

    def confirm(self):
        """To be awaited: until handshake_confirmed. ConnectionError when the connection ends before."""
        cdef Context ctx = self.downstream.ctx
        cdef object future = ctx.need_guest().aio.create_future()
        if self.handshake_confirmed:
            future.set_result(None)
        else:
            when_confirmed(self.downstream, confirmation(ctx, future))
        return future

    @property
    def early_data_used(self):
        """Whether the client sent something before the handshake was done, and it was taken."""
        cdef Connection tls = self.downstream.tls
        return tls is not None and (tls.early_data_state == EARLY_ACCEPTED or tls.early_data_state == EARLY_READING)

    @property
    def peer_certificate(self):
        """The certificate that the client has shown, or had shown when its session began: cryptography's
        x509.Certificate; None without one."""
        from cryptography import x509

        return x509.load_der_x509_certificate(self.peer_certificates[0]) if self.peer_certificates else None

    @property
    def peer_subject(self):
        """Its subject as RFC 4514 writes it, "CN=alice,O=Example"; "" without one."""
        return self.peer_certificate.subject.rfc4514_string() if self.peer_certificates else ""

    @property
    def peer_fingerprint(self):
        """The SHA-256 of it, 64 hex digits; "" without one."""
        import hashlib

        return hashlib.sha256(self.peer_certificates[0]).hexdigest() if self.peer_certificates else ""

    def __repr__(self):
        return f"<TlsState {self.version} {self.cipher_suite}>"


def confirmation(Context ctx, future):
    """What is to be called, outside of asyncio, with whether the handshake was confirmed."""
    def told(bint yes):
        if ctx.guest is None or future.done():
            return
        if yes:
            future.set_result(None)
        else:
            future.set_exception(ConnectionAbortedError("the connection has ended before its handshake"))
        ctx.guest.poke()

    return told


cdef TlsState tls_state(Downstream client):
    cdef Connection tls = client.tls
    cdef TlsState state = TlsState.__new__(TlsState)
    state.downstream = client
    state.version = version_name(tls.version).decode("ascii")
    state.cipher_suite = cipher_suite_name(tls.cipher_suite).decode("ascii")
    state.group = group_name(tls.group).decode("ascii")
    state.server_name = (tls.server_name or b"").decode("latin-1")
    state.alpn = (tls.alpn or b"").decode("latin-1")
    state.resumed = bool(tls.resumed)
    state.peer_certificates = tls.peer_certificates or ()
    state.ja3, state.ja4 = ("", "") if client.ctx.fingerprints is None else client.ctx.fingerprints.get(client, ("", ""))
    return state


cdef class ClientConnection:
    @property
    def client(self):
        """The client's IP address."""
        return address_of(self.downstream) if self.downstream is not None else self.address

    @property
    def client_port(self):
        return self.downstream.peer.port if self.downstream is not None else self.port

    @property
    def tls(self):
        """TlsState, of a closed connection too; None before the handshake is done."""
        cdef Downstream downstream = self.downstream
        if self.facts is None and downstream is not None and downstream.tls is not None and downstream.tls.established:
            self.facts = tls_state(downstream)
        return self.facts

    cdef void close(self):
        """Keeps what can be asked for, and lets go of the connection."""
        self.tls
        self.address = self.client
        self.port = self.client_port
        self.downstream = None

    def __repr__(self):
        return f"<ClientConnection {self.client}:{self.client_port} {self.state}>"
