"""The handshake's hooks: what they are given, what they may answer, and what the data plane makes of it.

A policy's `client_hello`, `get_config` and `get_certificate` get a ClientHello each, and its `session_ticket_wrapper`
keeps sessions where it likes. docs/hooks.md is the guide.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from cext.proxy.handshake_hooks import Drop, HandOver, HandshakeHooks, Wrapping
from cext.tls.config import ServerConfig
from cext.tls.session import AwaitedTickets, TicketKeys

from edge.certificates import certs
from edge.clients import ClientTrust
from edge.errors import ConfigError
from edge.schema import Boolean, Choice, Kind, ListOf, Named, Place
from edge.settings import CIPHER_SUITES, GROUPS, VERSIONS
from edge.tls.certificate import Certificate
from edge.tls.errors import Refuse
from edge.tls.hello import ClientHelloInfo
from edge.tls.tickets import SessionTicketWrapper, session_state

__all__ = [
    "HOOKS",
    "Certificate",
    "ClientHello",
    "Config",
    "Drop",
    "HandOver",
    "Handshakes",
    "Refuse",
    "SessionTicketWrapper",
    "asks",
    "seal",
    "unseal",
]

HOOKS: Final = {
    "client_hello": ("hello",),
    "get_config": ("hello",),
    "get_certificate": ("hello",),
}
WRAPPER: Final = "session_ticket_wrapper"
FINGERPRINTS: Final = "fingerprints"

CONFIGS_MAX: Final = 64
"""Different answers of get_config that are kept built; of more, the oldest is built anew when it comes again."""

_SEALED: Final = b"sealed by a policy"
_KINDS: Final[dict[str, Kind[Any]]] = {
    "alpn": ListOf(Choice("h2", "http/1.1", "http/1.0")),
    "client_auth": Choice("none", "request", "require"),
    "min_version": Named("TLS version", VERSIONS),
    "max_version": Named("TLS version", VERSIONS),
    "groups": ListOf(Named("group", GROUPS, any_case=True)),
    "cipher_suites": ListOf(Named("cipher suite", CIPHER_SUITES)),
    "early_data": Boolean(),
    "tickets": Boolean(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientHello(ClientHelloInfo):
    """A ClientHello, and the connection that it came by."""

    client: str = ""
    """The client's address; that of the PROXY header where the listener takes one."""
    client_port: int = 0
    local: str = ""
    """Our end's address."""
    local_port: int = 0
    proxy: Any = None
    """Of a connection with a PROXY header: `proxy_address`, `local_address` and `local_port` as the client called them,
    `tlvs` and `tlv(type)`. None without one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """What a client gets in the place of the configured settings; what is left out, or None, stays as it is.

    Values are those of the configuration file: names of versions, groups, cipher suites. Equal ones are built once.
    Raises ValueError for what cannot be.
    """

    alpn: Sequence[str] | None = None
    """Protocols, preferred first: "h2", "http/1.1", "http/1.0"."""
    client_auth: str | None = None
    """"none", "request" or "require"."""
    client_ca: str | Path | None = None
    """PEM file of the authorities for it, instead of the configured ones; each worker reads it once."""
    min_version: str | None = None
    max_version: str | None = None
    groups: Sequence[str] | None = None
    cipher_suites: Sequence[str] | None = None
    early_data: bool | None = None
    """False: none is taken. True is for listeners that take it already."""
    tickets: bool | None = None
    """False: no session is resumed, or can be later."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        self.values()

    def values(self) -> dict[str, Any]:
        """What is not None, as the engine has it."""
        return {
            name: _read(name, kind, getattr(self, name))
            for name, kind in _KINDS.items()
            if getattr(self, name) is not None
        }


def _read(name: str, kind: Kind[Any], value: object) -> Any:
    try:
        return kind.read(list(value) if isinstance(value, tuple) else value, Place("", name))
    except ConfigError as e:
        raise ValueError(f"{name}: {e.problem}; {e.remedy}") from None


def asks(cls: type) -> bool:
    """Whether a policy's handshakes stop at the ClientHello."""
    return any(hasattr(cls, name) for name in (*HOOKS, WRAPPER)) or bool(getattr(cls, FINGERPRINTS, False))


class Handshakes:
    """What the handshakes of a configuration are made of: told in the master, used in workers.

    `options`: of each listener's ServerConfig, all but the credentials; they differ in their `alpn`. `directory`: where
    relative paths begin. `keys`: what seals.
    """

    def __init__(
        self,
        options: Iterable[Mapping[str, Any]],
        *,
        directory: Path,
        keys: TicketKeys | None = None,
    ) -> None:
        self._options = tuple(options)
        self._variants = {tuple(of["alpn"]): Variants(of, directory) for of in self._options}
        self._keys = keys

    def hooks(self, policy: object, failed: Callable[[str, BaseException], None]) -> Any:
        """The hooks of a policy's object, as the data plane calls them; None when it has none of them. Raises what its
        session_ticket_wrapper raises."""
        if not asks(type(policy)):
            return None
        wrapper = _wrapper(policy)
        hooks = HandshakeHooks(
            **{name: getattr(policy, name) for name in HOOKS if hasattr(policy, name)},
            wrapper=wrapper,
            fingerprints=bool(getattr(policy, FINGERPRINTS, False)),
            describe=describe,
            read_config=self.read_config,
            read_certificate=read_certificate,
            read_session=session_state,
            refuse=Refuse,
            failed=failed,
        )
        if wrapper is not None:
            for of in self._options:
                of["tickets"].bind(Wrapping(hooks, wrapper))
            for variants in self._variants.values():
                variants.tickets = lambda: _cloned(hooks, wrapper)
        return hooks

    def use(self) -> None:
        """This configuration's keys are those that seal() seals by."""
        global _keys  # noqa: PLW0603 - seal() is a function, and a worker has one configuration
        _keys = self._keys

    def read_config(self, base: Any, answer: object) -> Any:
        """The ServerConfig that a get_config means by its answer, for a client of `base`. Raises TypeError and
        ValueError."""
        if not isinstance(answer, Config):
            raise TypeError(f"it gave {type(answer).__name__}, which is neither None nor edge.policy.Config")
        return self._variants[base.alpn].get(base, answer)


class Variants:
    """What get_config makes of a listener's ServerConfig."""

    def __init__(self, options: Mapping[str, Any], directory: Path) -> None:
        self._options = options
        self._directory = directory
        self._base: Any = None
        self._made: dict[Config, Any] = {}
        self.tickets: Callable[[], AwaitedTickets] | None = None
        """Makes those of another configuration, where there is a wrapper."""

    def get(self, base: Any, config: Config) -> Any:
        if base is not self._base:  # its certificates were replaced
            self._base = base
            self._made.clear()
        made = self._made.get(config)
        if made is None:
            made = self._make(config)
            if len(self._made) >= CONFIGS_MAX:
                del self._made[next(iter(self._made))]
            self._made[config] = made
        return made

    def _make(self, config: Config) -> Any:
        options = dict(self._options)
        changes = config.values()
        early_data, tickets = changes.pop("early_data", None), changes.pop("tickets", None)
        if "alpn" in changes:
            changes["alpn"] = [protocol.encode() for protocol in changes["alpn"]]
        if early_data and not options["max_early_data"]:
            raise ValueError("early_data: none is taken by the configuration, which has no [tls] early_data")
        if tickets and options["tickets"] is None:
            raise ValueError("tickets: they are off in the configuration ([tls] tickets)")
        if tickets is False:
            options["tickets"] = None
        elif self.tickets is not None:
            options["tickets"] = self.tickets()
        if early_data is False or options["tickets"] is None:
            options["max_early_data"] = 0
        self._authenticate(config, changes, options)
        return ServerConfig(self._base.credentials, **{**options, **changes})

    def _authenticate(self, config: Config, changes: dict[str, Any], options: dict[str, Any]) -> None:
        mode = changes.get("client_auth", options.get("client_auth", "none"))
        if mode == "none":
            if config.client_ca is not None:
                raise ValueError('client_ca: needs client_auth = "request" or "require"')
            options.update(verify_client=None, client_authorities=())
        elif config.client_ca is not None:
            try:
                authorities = certs.load_authorities(self._directory / config.client_ca, Place("", "client_ca"))
            except ConfigError as e:
                raise ValueError(f"client_ca: {e.problem}; {e.remedy}") from None
            options.update(
                verify_client=ClientTrust(authorities),
                client_authorities=dict.fromkeys(one.subject.public_bytes() for one in authorities),
            )
        elif options.get("verify_client") is None:
            raise ValueError("client_auth: whose certificates are good is said by client_ca, or [tls] client_auth")


def describe(client_hello: bytes, connection: dict[str, Any]) -> ClientHello:
    """What hooks get; the connection's facts by their names. Raises ValueError."""
    return ClientHello.parse(client_hello, **connection)


def read_certificate(answer: object) -> Any:
    """The Credential that a get_certificate means by its answer. Raises TypeError."""
    if not isinstance(answer, Certificate):
        raise TypeError(f"it gave {type(answer).__name__}, which is neither None nor edge.policy.Certificate")
    return answer.credential


def _wrapper(policy: object) -> SessionTicketWrapper | None:
    make = getattr(policy, WRAPPER, None)
    return None if make is None else _checked(make())


def _checked(wrapper: Any) -> SessionTicketWrapper:
    for method in ("wrap", "unwrap", "clone"):
        if not callable(getattr(wrapper, method, None)):
            raise TypeError(f"{WRAPPER} gave {type(wrapper).__name__}, which has no {method}()")
    return wrapper  # type: ignore[no-any-return]


def _cloned(hooks: Any, wrapper: SessionTicketWrapper) -> AwaitedTickets:
    tickets = AwaitedTickets()
    tickets.bind(Wrapping(hooks, _checked(wrapper.clone())))
    return tickets


# What is kept elsewhere, sealed.

_keys: TicketKeys | None = None


def seal(content: bytes) -> bytes:
    """The content, readable by unseal() alone: under the keys of `[tls] tickets`, which all workers have, and with
    `secret_file` all hosts that have that file. RuntimeError where there are none: outside of a worker, or with tickets
    off."""
    return cast(bytes, _require().seal_other(content, _SEALED))


def unseal(sealed: bytes) -> bytes | None:
    """What was sealed; None when it was not, has been changed, or was sealed under a key that is gone."""
    return cast(bytes | None, _require().open_other(sealed, _SEALED))


def _require() -> TicketKeys:
    if _keys is None:
        raise RuntimeError("there are no keys to seal by: this is no worker of edge, or [tls] tickets are off")
    return _keys
