"""What is kept in Redis: under the fleet's secret, so that who reads Redis learns nothing, and who writes there is
found out.

A wrapped value is a mark of the form, the name of the secret (8 bytes), a nonce (12) and AES-256-GCM, with the name of
the Redis key and all before the nonce as associated data: a value that is copied to another key does not open there.
"""

import secrets
from collections.abc import Sequence
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edge.fleet.link import Secret

MARK: Final = b"EDG1"
WRAPPED_MOST: Final = 64 << 10
_NAME: Final = 8
_NONCE: Final = 12
_HEAD: Final = len(MARK) + _NAME


class WrappedError(ValueError):
    """It cannot be unwrapped."""


def wrap(secret: Secret, key: str, content: bytes) -> bytes:
    head, nonce = MARK + secret.name, secrets.token_bytes(_NONCE)
    return head + nonce + AESGCM(secret.wrap_key).encrypt(nonce, content, head + key.encode())


def unwrap(known: Sequence[Secret], key: str, wrapped: bytes) -> tuple[bytes, int]:
    """The content, and which of the secrets it is under. Raises WrappedError."""
    if len(wrapped) > WRAPPED_MOST or len(wrapped) < _HEAD + _NONCE or not wrapped.startswith(MARK):
        raise WrappedError("is nothing that edge has written")
    head, nonce, sealed = wrapped[:_HEAD], wrapped[_HEAD : _HEAD + _NONCE], wrapped[_HEAD + _NONCE :]
    for i, secret in enumerate(known):
        if secret.name == head[len(MARK) :]:
            try:
                return AESGCM(secret.wrap_key).decrypt(nonce, sealed, head + key.encode()), i
            except InvalidTag:
                raise WrappedError("has been changed, or copied from elsewhere") from None
    raise WrappedError("is under a secret that is not among secret_files")
