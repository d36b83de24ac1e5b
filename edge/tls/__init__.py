"""TLS connections over blocking sockets: this project's engine for programs that are not its proxy.

    conn = edge.tls.client(socket.create_connection((host, 443)), edge.tls.Config(), server_name=host)
    conn = edge.tls.server(accepted, edge.tls.Config(certificates=[edge.tls.Certificate.load(chain, key)]))

conn         Conn: a connection, and the rules of its locks
config       Config: what it negotiates, whom it trusts, the hooks
certificate  Certificate, and Signer for keys that are elsewhere
hello        ClientHelloInfo: what a client offers, with its JA4 fingerprint
state        ConnectionState: what was negotiated
tickets      sessions that are resumed: their keys, or a SessionTicketWrapper
binding      channel bindings
replay       early data once: the ReplayRegister's interface
verify       trust in certificates
errors       TlsError and its kinds

`docs/tls.md` is the guide.
"""

from cext.tls.replay import SharedRegister
from cext.tls.session import Session

from edge.tls.binding import CHANNEL_BINDINGS
from edge.tls.certificate import Certificate, Signer, digest
from edge.tls.config import GROUPS, VERSIONS, ClientAuth, Config
from edge.tls.conn import Conn, client, server
from edge.tls.delegated import issue_delegated_credential
from edge.tls.errors import (
    AlertError,
    AlertReceived,
    AlertSent,
    CertificateError,
    ClosedError,
    Refuse,
    TlsError,
    UnexpectedEOF,
)
from edge.tls.hello import ClientHelloInfo
from edge.tls.replay import REPLAY_WINDOW, ReplayRegister
from edge.tls.request import CertificateRequestInfo
from edge.tls.state import ConnectionState
from edge.tls.tickets import SessionTicketWrapper

__all__ = [
    "CHANNEL_BINDINGS",
    "GROUPS",
    "REPLAY_WINDOW",
    "VERSIONS",
    "AlertError",
    "AlertReceived",
    "AlertSent",
    "Certificate",
    "CertificateError",
    "CertificateRequestInfo",
    "ClientAuth",
    "ClientHelloInfo",
    "ClosedError",
    "Config",
    "Conn",
    "ConnectionState",
    "Refuse",
    "ReplayRegister",
    "Session",
    "SessionTicketWrapper",
    "SharedRegister",
    "Signer",
    "TlsError",
    "UnexpectedEOF",
    "client",
    "digest",
    "issue_delegated_credential",
    "server",
]
