"""One hierarchy for all that ends a TLS connection: catch `TlsError`, or the kind that matters.

They are OSErrors, as a socket's errors are, so what handles a broken socket (http.client, socketserver, urllib)
handles these. A timeout is the socket's own TimeoutError and ends nothing by itself.
"""

from typing import Any


class TlsError(OSError):
    """A TLS connection cannot go on."""


class ClosedError(TlsError):
    """close() was called on this side, or the writing side was closed and is written to."""


class UnexpectedEOF(TlsError, EOFError):  # noqa: N818 - as its builtin base
    """The peer's stream ended without close_notify: what was read may have been cut short by anyone on the way
    (RFC 8446, section 6.1)."""


class AlertError(TlsError):
    """A fatal alert ended the connection.

    `description` is its number, `alert` its RFC name ("decode_error"), `reason` why, in words for this side's log.
    """

    def __init__(self, failure: Any) -> None:
        """`failure`: the engine's TlsAlert."""
        super().__init__(str(failure))
        self.description: int = failure.description
        self.alert: str = failure.name
        self.reason: str = failure.reason


class AlertSent(AlertError):  # noqa: N818 - what happened is its name
    """This side found a fault and sent the alert; `__cause__` is the exception of a hook, where one was to blame."""


class AlertReceived(AlertError):  # noqa: N818
    """The peer sent the alert."""


class CertificateError(AlertSent):
    """The peer's certificate is not trusted; `__cause__` says why."""


class Refuse(Exception):  # noqa: N818 - an instruction, not an error
    """For hooks and `verify` to raise: ends the handshake with this alert instead of internal_error.

    `alert` is an RFC name: "unrecognized_name", "access_denied", "certificate_unknown", ... ValueError for another.
    """

    def __init__(self, alert: str, reason: str = "") -> None:
        self.description = description_of(alert)
        self.alert = alert
        self.reason = reason
        super().__init__(f"{alert}: {reason}" if reason else alert)


def description_of(alert: str) -> int:
    """The number of an alert by its RFC name. ValueError when there is none of that name."""
    from cext.tls.alert import NAMES  # noqa: PLC0415 - only who refuses needs the table

    for number, name in NAMES.items():
        if name == alert:
            return int(number)
    raise ValueError(f"no alert is called {alert!r}")
