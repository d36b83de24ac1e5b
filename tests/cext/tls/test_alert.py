"""TlsAlert: what a caller can rely on."""

import pickle

from cext.tls.alert import NAMES, TlsAlert

# IANA's registry of TLS alerts, those RFC 8446 section 6 and RFC 5246 section 7.2 list and this engine has use for.
REGISTERED = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow", 40: "handshake_failure",
    42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired",
    46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error",
    51: "decrypt_error", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 90: "user_canceled", 100: "no_renegotiation", 109: "missing_extension",
    110: "unsupported_extension", 112: "unrecognized_name",
    113: "bad_certificate_status_response", 115: "unknown_psk_identity",
    116: "certificate_required", 120: "no_application_protocol",
}  # fmt: skip


def test_names_are_the_registry():
    assert NAMES == REGISTERED


def test_fields_and_text():
    ours = TlsAlert(50, "cut short")
    assert (ours.description, ours.name, ours.reason, ours.sent) == (50, "decode_error", "cut short", True)
    assert str(ours) == "decode_error: cut short"
    assert str(TlsAlert(48, sent=False)) == "peer's alert: unknown_ca"
    assert TlsAlert(200).name == "unknown(200)"


def test_survives_pickling():
    copy = pickle.loads(pickle.dumps(TlsAlert(51, "why", sent=False)))
    assert (copy.description, copy.reason, copy.sent) == (51, "why", False)
