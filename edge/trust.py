"""Trust in certificates that peers show again and again."""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from cryptography import x509

_REMEMBERED: Final = 4096
_REMEMBER_SECONDS: Final = 300


class Trust:
    """Verifies chains, and remembers for a while what it has trusted: a peer comes again, and a resumed session should
    not cost a path validation (which is asked for, lest it outlive its certificates)."""

    def __init__(self, verify: Callable[[Sequence[bytes]], None]) -> None:
        """`verify` gets a chain (DER, leaf first), and raises Refuse unless it is good now."""
        self._verify = verify
        self._trusted: dict[bytes, float] = {}

    def __call__(self, chain: Sequence[bytes], *_: object) -> None:
        """Raises what `verify` raises."""
        # Each certificate by its own hash: where one ends and the next begins is part of the key.
        key = b"".join(hashlib.sha256(der).digest() for der in chain)
        now = time.time()
        if now < self._trusted.get(key, 0.0):
            return
        self._verify(chain)
        if len(self._trusted) >= _REMEMBERED:
            self._trusted.clear()
        ends = min(x509.load_der_x509_certificate(der).not_valid_after_utc.timestamp() for der in chain)
        self._trusted[key] = min(now + _REMEMBER_SECONDS, ends)
