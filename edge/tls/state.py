"""What a connection has negotiated."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConnectionState:
    """A snapshot; "" , () or False where something is not known yet, or is not."""

    version: str = ""
    """"TLSv1.3" or "TLSv1.2"."""
    cipher_suite: str = ""
    group: str = ""
    signature_scheme: str = ""
    alpn: str = ""
    server_name: str = ""
    """What the client asked for (SNI)."""
    handshake_complete: bool = False
    """Application data may be read and written."""
    handshake_confirmed: bool = False
    """The peer's Finished has come: what is read from now on is no replay, and what was read was none."""
    peer_certificates: tuple[bytes, ...] = dataclasses.field(default=(), repr=False)
    """The DER chain that the peer has shown, leaf first; in a resumed session, when that began."""
    ocsp_response: bytes = dataclasses.field(default=b"", repr=False)
    """Of a client that asked: the OCSP response that came with the server's certificate, DER; unverified: its
    signature, its times and the certificate that it is for are the program's to check."""
    signed_certificate_timestamps: tuple[bytes, ...] = dataclasses.field(default=(), repr=False)
    """Likewise the timestamps of Certificate Transparency logs, unverified (RFC 6962, section 3.2)."""
    hello_retried: bool = False
    resumed: bool = False
    early_data_used: bool = False
    """A server has taken early data, or a client has had it taken."""
    fingerprint: str = ""
    """Of a server's connection that took early data: 64 hex digits, the same for a replay of it and for no other, by
    which a backend can tell replays."""
    unique: bytes = b""
    """A channel binding of a confirmed handshake, the same at both ends of this connection and nowhere else: in TLS 1.3
    tls-exporter (RFC 9266), 32 bytes; in TLS 1.2 with the extended master secret tls-unique (RFC 5929), 12 bytes."""
