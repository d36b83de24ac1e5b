"""Trust in the certificates that clients show."""

import hashlib
import time
from collections.abc import Sequence
from typing import Final

from cryptography import x509

from edge.tls.verify import store, verify_client

_REMEMBERED: Final = 4096
_REMEMBER_SECONDS: Final = 300


class ClientTrust:
    """Verifies chains against authorities, and remembers for a while what it has trusted: a client comes again, and a
    resumed session should not cost a path validation (which is asked for, lest it outlive its certificates)."""

    def __init__(self, authorities: Sequence[x509.Certificate]) -> None:
        self._authorities = store(authorities)
        self._trusted: dict[bytes, float] = {}

    def __call__(self, chain: Sequence[bytes]) -> None:
        """Raises Refuse unless the chain (DER, leaf first) leads to an authority, is valid now, and may authenticate a
        client."""
        # Each certificate by its own hash: where one ends and the next begins is part of the key.
        key = b"".join(hashlib.sha256(der).digest() for der in chain)
        now = time.time()
        if now < self._trusted.get(key, 0.0):
            return
        verify_client(self._authorities, chain)
        if len(self._trusted) >= _REMEMBERED:
            self._trusted.clear()
        ends = min(x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp() for der in chain)
        self._trusted[key] = min(now + _REMEMBER_SECONDS, ends)
