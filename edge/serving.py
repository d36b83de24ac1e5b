"""The certificates that listeners serve with: made when a configuration is prepared, and replaced while they serve.

What replaces some of them is prepared first and put to use later, at once for all listeners of the process: connections
that are accepted from then on get the new ones, those that are there go on with theirs. The same happens in the master
(so that later workers inherit it) and in each worker.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from edge.certs import Identity

CERTIFICATES: Final = "certificates"
"""The kind of rollout that replaces some: {index: Identity}, for `Serving.prepare`."""

Credentials = tuple[Any, ...]
"""The engine's, of one identity: the first that its client takes is shown, and all take the last."""
MakeCredentials = Callable[[Identity, Credentials], Credentials]
"""The second are those before, whose keys go on where none are given; () when there are none."""
MakeConfigs = Callable[[Sequence[Any]], Mapping[Any, Any]]
"""All ServerConfigs of a configuration, by what tells them apart, from its credentials."""


class Serving:
    """All of a configuration's identities, credentials and ServerConfigs. Raises what `make_credentials` does."""

    def __init__(
        self, identities: Sequence[Identity], make_credentials: MakeCredentials, make_configs: MakeConfigs
    ) -> None:
        self._make_credentials = make_credentials
        self._make_configs = make_configs
        self._listeners: list[tuple[Any, Any]] = []
        self.replaced: Callable[[], None] | None = None
        """Called after each replacement."""
        self._credentials = [make_credentials(identity, ()) for identity in identities]
        self.configs = make_configs(_flat(self._credentials))
        self.identities = tuple(map(_without_keys, identities))

    def attach(self, listener: Any, which: Any) -> None:
        """`listener.tls` is configs[which], whatever that becomes."""
        listener.tls = self.configs[which]
        self._listeners.append((listener, which))

    def signers(self) -> list[Any]:
        """What signs for keys that are somewhere else."""
        return [credential.signer for credential in _flat(self._credentials) if credential.signer is not None]

    def prepare(self, changed: Mapping[int, Identity]) -> "Replacement":
        """Other certificates for some of the identities, by their index. Raises what makes them unusable."""
        credentials, identities = list(self._credentials), list(self.identities)
        for i, identity in changed.items():
            credentials[i] = self._make_credentials(identity, self._credentials[i])
            identities[i] = _without_keys(identity)
        return Replacement(self, tuple(identities), credentials, self._make_configs(_flat(credentials)))

    def use(self, replacement: "Replacement") -> None:
        self.identities, self._credentials = replacement.identities, replacement.credentials
        self.configs = replacement.configs
        for listener, which in self._listeners:
            listener.tls = self.configs[which]
        if self.replaced is not None:
            self.replaced()


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Replacement:
    """Certificates that are ready to be used."""

    serving: Serving
    identities: tuple[Identity, ...]
    credentials: list[Credentials]
    configs: Mapping[Any, Any]

    def commit(self) -> None:
        self.serving.use(self)


def _flat(credentials: Sequence[Credentials]) -> list[Any]:
    return [credential for of_one in credentials for credential in of_one]


def _without_keys(identity: Identity) -> Identity:
    """The keys are with the engine then; their text is not kept."""
    delegation = identity.delegation and dataclasses.replace(identity.delegation, key_pem=b"")
    return dataclasses.replace(identity, key_pem=b"", delegation=delegation)
