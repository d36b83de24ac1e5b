"""A delegated credential (RFC 9345) in a configuration: read and held against its certificate and its own key.

It never stands in the way of its certificate: one that has expired, or that an earlier certificate has signed, is left
out with a warning, and clients get the certificate itself.
"""

import dataclasses
import datetime
from pathlib import Path
from typing import Any, Final

from cext.crypto.sign import PrivateKey
from cext.tls.delegated import DelegatedCredential
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge.config import read_file
from edge.schema import Place
from edge.settings import Delegated
from edge.tls.certificate import may_delegate

NEEDED: Final = (
    "have it issued with the extension DelegationUsage (1.3.6.1.4.1.44363.44) and the key usage digitalSignature"
)
REMEDY: Final = 'have it made by "edge delegate"'


@dataclasses.dataclass(frozen=True, slots=True)
class Delegation:
    """One that can be shown."""

    credential: bytes
    key_pem: bytes = dataclasses.field(repr=False)
    """b"": the key that is loaded already."""
    expires: datetime.datetime

    def has_expired(self) -> bool:
        return self.expires <= datetime.datetime.now(datetime.UTC)


def load(entry: Delegated, leaf: x509.Certificate, at: Place) -> tuple[Delegation | None, tuple[str, ...]]:
    """The delegation, or None, and warnings. Raises ConfigError for what can never be one."""
    if not may_delegate(leaf):
        raise at.error(
            "the certificate may not delegate",
            f"{NEEDED}, or remove `delegated`",
        )
    credential, pem = read_file(entry.credential, at.key("credential")), read_file(entry.key, at.key("key"))
    der = leaf.public_bytes(Encoding.DER)
    where = f"{at.file}: {at.key('credential').path}: {entry.credential}"
    try:
        made = DelegatedCredential(credential, der)
    except ValueError as e:
        if "expired" in str(e) or "seven days" in str(e):
            return None, (f"{where}: {e}, and is not shown",)
        raise at.key("credential").error(f"{entry.credential}: {e}", REMEDY) from None
    if not _key(entry.key, pem, at.key("key")).matches(made.public_key):
        raise at.key("key").error(f"{entry.key} is not the key of the delegated credential", REMEDY)
    if not made.is_signed_by(der):
        return None, (f"{where}: the delegated credential is another certificate's, and is not shown",)
    expires = datetime.datetime.fromtimestamp(made.expires / 1000, datetime.UTC)
    return Delegation(credential, pem, expires), ()


def _key(path: Path, pem: bytes, at: Place) -> Any:
    try:
        return PrivateKey.from_pem(pem)
    except ValueError as e:
        raise at.error(f"{path}: {e}", REMEDY) from None
