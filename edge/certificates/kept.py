"""Certificates that a reload finds as they were: their files are not read again, nor sent to the workers, which have
them."""

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from edge.certificates.certs import Identity
from edge.certificates.expiry import DAYS
from edge.schema import Place

if TYPE_CHECKING:
    from edge.certificates.watch import Watch

_SOON: Final = DAYS[0] * 86400.0
"""Seconds before its end in which a reload warns of a certificate: it is read once more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """An identity of the configuration before, by its index there."""

    index: int
    at: Place
    """Where it stands now."""
    names: tuple[str, ...]
    """What it serves now."""

    def of(self, served: Sequence[Identity]) -> Identity:
        identity = served[self.index]
        if (identity.at, identity.names) == (self.at, self.names):
            return identity
        return dataclasses.replace(identity, at=self.at, names=self.names)

    def named(self, names: tuple[str, ...]) -> "Kept":
        return dataclasses.replace(self, names=names)


def find(watch: "Watch", before: "Watch", served: Sequence[Identity], file: str) -> dict[int, Kept]:
    """Which certificates of a configuration, whose files `watch` has seen, are as `before` has seen them and as they
    are `served`. Only what stands in files counts: keys that are elsewhere are asked again, and whatever there is to
    warn of is told again."""
    now = time.time()
    place = Place(file).key("certificate")
    found = {}
    for index, there in watch.unchanged(before):
        identity = served[there]
        plain = not (identity.signer or identity.delegation or (identity.ocsp_response and not identity.responders))
        if plain and not identity.warnings and identity.ends - now > _SOON:
            found[index] = Kept(there, place.item(index), identity.asked)
    return found
