"""The certificates that listeners serve with: made when a configuration is prepared, and replaced while they serve.

What replaces some of them is prepared first and put to use later, at once for all listeners of the process: connections
that are accepted from then on get the new ones, those that are there go on with theirs. The same happens in the master
(so that later workers inherit it) and in each worker.
"""

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from edge.certificates.certs import Identity
from edge.change.material import Progress, untold

CERTIFICATES: Final = "certificates"
"""The kind of rollout that replaces some: {index: Identity}, for `Serving.prepare`."""

Credentials = tuple[Any, ...]
"""The engine's, of one identity: the first that its client takes is shown, and all take the last."""
MakeCredentials = Callable[[Identity, Credentials], Credentials]
"""The second are those before, whose keys go on where none are given; () when there are none."""
MakeConfigs = Callable[[Sequence[Any]], Mapping[Any, Any]]
"""All ServerConfigs of a configuration, by what tells them apart, from its credentials."""


class Serving:
    """All of a configuration's identities, credentials and ServerConfigs. Raises what `make_credentials` does.

    `before`: those of the configuration whose place this one takes; what is the same goes on. `options`: what decides,
    beside the credentials, what configs there are. `progress` is told of each identity that is looked at.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        make_credentials: MakeCredentials,
        make_configs: MakeConfigs,
        *,
        options: object = None,
        before: "Serving | None" = None,
        progress: Progress = untold,
    ) -> None:
        self._make_credentials = make_credentials
        self._make_configs = make_configs
        self._listeners: list[tuple[Any, Any]] = []
        self.replaced: Callable[[], None] | None = None
        """Called after each replacement."""
        self.new = 0
        """How many were not there before."""
        self.identities: tuple[Identity, ...]
        self._credentials: list[Credentials]
        self.few: _Few
        self._options = options
        if before is not None and identities is before.identities:
            # Nothing is looked at: what is touched becomes this process's own memory, which was all processes'.
            self.identities, self._credentials, same = before.identities, before._credentials, True
        else:
            known = _Known(before)
            found = [known.find(identity) for identity in identities]
            self._credentials = []
            for i, (identity, credentials, like) in enumerate(found):
                progress("makes certificates ready", i, len(found))
                self._credentials.append(credentials or make_credentials(identity, like))
            self.new = sum(not kept for _, kept, _ in found)
            self.identities = tuple(_without_keys(identity) for identity, _, _ in found)
            same = before is not None and _same(before._credentials, self._credentials)
        self.few = before.few if before is not None and same else _Few.among(self.identities, self._credentials)
        self.configs: Mapping[Any, Any] = (
            before.configs
            if before is not None and same and before._options == options
            else make_configs(_flat(self._credentials))
        )

    def attach(self, listener: Any, which: Any) -> None:
        """`listener.tls` is configs[which], whatever that becomes."""
        listener.tls = self.configs[which]
        self._listeners.append((listener, which))

    def reattach(self, made: Any, living: Any) -> None:
        """`living` is what was attached as `made`: it goes on in its place."""
        self._listeners = [(living if one is made else one, which) for one, which in self._listeners]
        living.tls = made.tls

    def prepare(self, changed: Mapping[int, Identity]) -> "Replacement":
        """Other certificates for some of the identities, by their index. Raises what makes them unusable."""
        credentials, identities = list(self._credentials), list(self.identities)
        for i, identity in changed.items():
            credentials[i] = self._make_credentials(identity, self._credentials[i])
            identities[i] = _without_keys(identity)
        few = _Few.among(identities, credentials)
        return Replacement(self, tuple(identities), credentials, few, self._make_configs(_flat(credentials)))

    def use(self, replacement: "Replacement") -> None:
        self.identities, self._credentials = replacement.identities, replacement.credentials
        self.few, self.configs = replacement.few, replacement.configs
        for listener, which in self._listeners:
            listener.tls = self.configs[which]
        if self.replaced is not None:
            self.replaced()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Few:
    """Of many certificates those that something is done about again and again."""

    signers: tuple[Any, ...]
    """What signs for keys that are somewhere else."""
    fetched: tuple[int, ...]
    """The indices of those whose OCSP responses are fetched."""

    @classmethod
    def among(cls, identities: Sequence[Identity], credentials: Sequence[Credentials]) -> "_Few":
        return cls(
            signers=tuple(one.signer for one in _flat(credentials) if one.signer is not None),
            fetched=tuple(i for i, identity in enumerate(identities) if identity.responders),
        )


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """Certificates that are ready to be used."""

    serving: Serving
    identities: tuple[Identity, ...]
    credentials: list[Credentials]
    few: "_Few"
    configs: Mapping[Any, Any]

    def commit(self) -> None:
        self.serving.use(self)


class _Known:
    """What there was before, by certificate and by key."""

    def __init__(self, before: Serving | None) -> None:
        self._chains: dict[tuple[bytes, ...], list[tuple[Identity, Credentials]]] = {}
        self._keys: dict[bytes, Credentials] = {}
        for identity, credentials in zip(before.identities, before._credentials, strict=True) if before else ():
            self._chains.setdefault(identity.chain, []).append((identity, credentials))
            self._keys[identity.public_key] = credentials[-1:]

    def find(self, identity: Identity) -> tuple[Identity, Credentials, Credentials]:
        """The identity, its credentials if they are there, else those of the same key; () for none."""
        for known, credentials in self._chains.get(identity.chain, ()):
            if identity is known:
                return known, credentials, ()
            if _is_same(identity, known):
                kept = known
                if (identity.at, identity.asked, identity.warnings) != (known.at, known.asked, known.warnings):
                    kept = dataclasses.replace(known, at=identity.at, asked=identity.asked, warnings=identity.warnings)
                return kept, credentials, ()
        return identity, (), self._keys.get(identity.public_key, ())


def _is_same(new: Identity, known: Identity) -> bool:
    """Whether clients see no difference. A response that is fetched is the workers' to find."""
    if known.delegation is not None and known.delegation.has_expired():
        return False
    if new.responders:
        new = dataclasses.replace(new, ocsp_response=known.ocsp_response, ocsp_expires=known.ocsp_expires)
    new = dataclasses.replace(new, at=known.at, asked=known.asked, warnings=known.warnings)
    return _without_keys(new) == known


def _same(one: Sequence[Credentials], other: Sequence[Credentials]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, _flat(one), _flat(other)))


def _flat(credentials: Sequence[Credentials]) -> list[Any]:
    return [credential for of_one in credentials for credential in of_one]


def _without_keys(identity: Identity) -> Identity:
    """The keys are with the engine then; their text is not kept."""
    if not identity.key_pem and identity.delegation is None:
        return identity
    delegation = identity.delegation and dataclasses.replace(identity.delegation, key_pem=b"")
    return dataclasses.replace(identity, key_pem=b"", delegation=delegation)
