"""What will expire, told while the server runs: once at each of a few distances, for each certificate."""

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cryptography import x509

from edge.certificates.certs import Identity, subject
from edge.logs.logline import Log

DAYS: Final = (14, 7, 3, 1, 0)
"""Days before the end at which it is told; what has less than this left when it is loaded is told then."""
LOOK_SECONDS: Final = 60.0
_URGENT_DAYS: Final = 1


class Expiry:
    """`clock`: seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._next = 0.0
        self._known: dict[tuple[str, bytes], int] = {}
        """What has been told: the place in DAYS that comes next."""
        self._far: dict[int, Identity] = {}
        """By id(): of which there is nothing to be told yet,"""
        self._near: dict[int, Identity] = {}
        """and those that are read each time."""

    def look(self, identities: Sequence[Identity], log: Log) -> None:
        """Tells what has come near since the last time; to be called as often as one likes."""
        now = self._clock()
        if self._next - LOOK_SECONDS <= now < self._next:
            return
        self._next = now + LOOK_SECONDS
        known, self._known = self._known, {}
        far, near, self._far, self._near = self._far, self._near, {}, {}
        for identity in identities:
            if identity.first_end() - now > DAYS[0] * 86400 and id(identity) not in near:
                self._far[id(identity)] = identity
                continue
            was_far = id(identity) in far
            self._near[id(identity)] = identity
            for key, ends, tell in _ends(identity):
                step = sum(1 for days in DAYS if ends - now <= days * 86400)
                before = known.get(key, 0 if was_far else step)
                self._known[key] = max(step, before)
                if step > before:
                    log(*tell(step == len(DAYS), ends - now <= _URGENT_DAYS * 86400))


Tell = Callable[[bool, bool], tuple[str, str]]
"""Level and message, given whether it is over, and whether it is urgent."""


def _ends(identity: Identity) -> Iterator[tuple[tuple[str, bytes], float, Tell]]:
    """What has an end, with what it is known by."""
    for i, der in enumerate(identity.chain):
        certificate = x509.load_der_x509_certificate(der)
        end = certificate.not_valid_after_utc
        whose = subject(certificate) if i else ", ".join(identity.names) or "no names"
        yield (f"{identity.at.path} {i}", der), end.timestamp(), _certificate(identity, i, whose, end)
    if identity.delegation:
        end = identity.delegation.expires
        yield (f"{identity.at.path} delegated", identity.delegation.credential), end.timestamp(), _delegation(identity)
    if identity.ocsp_response and identity.ocsp_expires:
        yield (f"{identity.at.path} ocsp", identity.ocsp_response), identity.ocsp_expires, _staple(identity)


def _certificate(identity: Identity, number: int, whose: str, end: datetime.datetime) -> Tell:
    which = f"{identity.at.key('chain').path}: certificate number {number + 1} ({whose})"

    def tell(over: bool, urgent: bool) -> tuple[str, str]:
        word = "expired" if over else "expires"
        return "error" if over or urgent else "warning", f"{which} {word} on {end:%Y-%m-%d %H:%M} UTC"

    return tell


def _delegation(identity: Identity) -> Tell:
    where = f"{identity.at.key('delegated').path}: the delegated credential"

    def tell(over: bool, urgent: bool) -> tuple[str, str]:
        if over:
            return "warning", f'{where} has expired: clients get the certificate itself; does "edge delegate" run?'
        return "debug", f"{where} is still to be renewed"

    return tell


def _staple(identity: Identity) -> Tell:
    where = f"{identity.at.key('ocsp').path}: the OCSP response"

    def tell(over: bool, urgent: bool) -> tuple[str, str]:
        if over:
            return "error" if identity.must_staple else "warning", f"{where} has expired, and is not shown any more"
        return "debug", f"{where} is still to be renewed"

    return tell
