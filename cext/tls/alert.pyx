"""TlsAlert: the one exception of the engine, for every fault that ends a connection (RFC 9846, section 6)."""

from cext.tls cimport constants

NAMES = {
    constants.close_notify: "close_notify",
    constants.unexpected_message: "unexpected_message",
    constants.bad_record_mac: "bad_record_mac",
    constants.record_overflow: "record_overflow",
    constants.handshake_failure: "handshake_failure",
    constants.bad_certificate: "bad_certificate",
    constants.unsupported_certificate: "unsupported_certificate",
    constants.certificate_revoked: "certificate_revoked",
    constants.certificate_expired: "certificate_expired",
    constants.certificate_unknown: "certificate_unknown",
    constants.illegal_parameter: "illegal_parameter",
    constants.unknown_ca: "unknown_ca",
    constants.access_denied: "access_denied",
    constants.decode_error: "decode_error",
    constants.decrypt_error: "decrypt_error",
    constants.protocol_version: "protocol_version",
    constants.insufficient_security: "insufficient_security",
    constants.internal_error: "internal_error",
    constants.inappropriate_fallback: "inappropriate_fallback",
    constants.user_canceled: "user_canceled",
    constants.no_renegotiation: "no_renegotiation",
    constants.missing_extension: "missing_extension",
    constants.unsupported_extension: "unsupported_extension",
    constants.unrecognized_name: "unrecognized_name",
    constants.bad_certificate_status_response: "bad_certificate_status_response",
    constants.unknown_psk_identity: "unknown_psk_identity",
    constants.certificate_required: "certificate_required",
    constants.no_application_protocol: "no_application_protocol",
}


class TlsAlert(Exception):
    """A connection's end. `description` is the AlertDescription's number, `reason` says why in words for the
    operator's log (never for the peer), `sent` tells whose alert it is: ours (True) or the peer's (False)."""

    def __init__(self, description, reason="", sent=True):
        super().__init__(description, reason, sent)
        self.description = description
        self.reason = reason
        self.sent = sent

    @property
    def name(self):
        """The description's RFC name, "decode_error"; "unknown(200)" for a number without one."""
        return NAMES.get(self.description) or f"unknown({self.description})"

    def __str__(self):
        text = self.name if self.sent else f"peer's alert: {self.name}"
        return f"{text}: {self.reason}" if self.reason else text
