"""TLS connections over blocking sockets: this project's engine for programs that are not its proxy.

    conn = edge.tls.client(socket.create_connection((host, 443)), edge.tls.Config(), server_name=host)
    conn = edge.tls.server(accepted, edge.tls.Config(certificates=[edge.tls.Certificate.load(chain, key)]))

conn         Conn: a connection, and the rules of its locks
config       Config: what it negotiates, whom it trusts, the hooks
certificate  Certificate, and Signer for keys that are elsewhere
hello        ClientHelloInfo: what a client offers, with its JA4 fingerprint
verify       trust in certificates
errors       TlsError and its kinds

`docs/tls.md` is the guide.
"""

from edge.tls.certificate import Certificate, Signer, digest
from edge.tls.config import GROUPS, VERSIONS, ClientAuth, Config, SessionTicketWrapper
from edge.tls.conn import Conn, ConnectionState, client, server
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

__all__ = [
    "GROUPS",
    "VERSIONS",
    "AlertError",
    "AlertReceived",
    "AlertSent",
    "Certificate",
    "CertificateError",
    "ClientAuth",
    "ClientHelloInfo",
    "ClosedError",
    "Config",
    "Conn",
    "ConnectionState",
    "Refuse",
    "SessionTicketWrapper",
    "Signer",
    "TlsError",
    "UnexpectedEOF",
    "client",
    "digest",
    "server",
]
