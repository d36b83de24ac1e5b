"""What certificates there are, until when, and what stands beside them: for people, and for whatever watches."""

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509

from edge.certificates import ocsp, sct
from edge.certificates.certs import Identity
from edge.certificates.ocsp_fetch import Cache


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A certificate that is served."""

    path: str
    """Where the configuration has it."""
    names: tuple[str, ...]
    kind: str
    serial: str
    """Hexadecimal."""
    expires: datetime.datetime
    must_staple: bool
    ocsp: str
    """Where its OCSP response is from: "none", "file" or "fetched"."""
    ocsp_expires: datetime.datetime | None
    """Until when there is one; None: there is none, or it does not say."""
    timestamps: int
    """Signed Certificate Timestamps, within it and beside it."""
    delegated: datetime.datetime | None
    """Until when there is a delegated credential."""

    def beside(self) -> str:
        """What stands beside it, in words; "" for nothing."""
        words = []
        if self.must_staple:
            words.append("must-staple")
        if self.ocsp != "none":
            without = "without an end" if self.ocsp == "file" else "not there yet"
            words.append(f"OCSP response ({self.ocsp}) {_until(self.ocsp_expires) or without}")
        elif self.must_staple:
            words.append("no OCSP response")
        if self.timestamps:
            words.append(f"{self.timestamps} SCT{'s' if self.timestamps > 1 else ''}")
        if self.delegated:
            words.append(f"delegated credential {_until(self.delegated)}")
        return ", ".join(words)


def entries(identities: Sequence[Identity], staples: Path | None) -> list[Entry]:
    """All of them. `staples`: the directory of responses that were fetched, where there is one."""
    return [_entry(identity, staples) for identity in identities]


class Inventory:
    """All of them again and again, for the master, which reads no response that came from somewhere else."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Identity, Entry]] = {}
        self._identities: Sequence[Identity] = ()
        self._entries: list[Entry] = []
        self._fetched = False
        """Whether for any of these responses are fetched."""

    def entries(self, identities: Sequence[Identity], staples: Path) -> list[Entry]:
        """`ocsp` is "missing" where a response is to be fetched and is not there; when one that was fetched ends is not
        told. The same list as long as there is nothing new."""
        if identities is not self._identities:
            self._identities, self._fetched = identities, any(identity.responders for identity in identities)
            before, self._known = self._known, {}
            for identity in identities:
                known = before.get(id(identity))
                self._known[id(identity)] = known or (identity, _entry(identity, None))
            self._entries = [self._known[id(identity)][1] for identity in identities]
        if self._fetched:
            entries = [self._with_staple(*self._known[id(identity)], staples) for identity in identities]
            if entries != self._entries:
                self._entries = entries
        return self._entries

    @staticmethod
    def _with_staple(identity: Identity, entry: Entry, staples: Path) -> Entry:
        if entry.ocsp != "fetched" or Cache(staples).path(identity.chain[0]).exists():
            return entry
        return dataclasses.replace(entry, ocsp="missing")


def _entry(identity: Identity, staples: Path | None) -> Entry:
    leaf = x509.load_der_x509_certificate(identity.chain[0])
    source, until = "none", None
    if identity.ocsp_response:
        source = "file"
        ends = identity.ocsp_expires
        until = datetime.datetime.fromtimestamp(ends, datetime.UTC) if ends else None
    elif identity.responders:
        source = "fetched"
        answer = Cache(staples).load(identity.chain[0], ocsp.issuer_of(identity.chain)) if staples else None
        until = answer.expires if answer else None
    return Entry(
        path=identity.at.path,
        names=identity.names,
        kind=identity.kind,
        serial=f"{leaf.serial_number:x}",
        expires=identity.expires,
        must_staple=identity.must_staple,
        ocsp=source,
        ocsp_expires=until,
        timestamps=sct.embedded(leaf) + len(identity.timestamps),
        delegated=identity.delegation.expires if identity.delegation else None,
    )


def _until(time: datetime.datetime | None) -> str:
    return f"until {time:%Y-%m-%d %H:%M} UTC" if time else ""
