"""Upstreams for the data plane: their servers, and the TLS that is spoken with them."""

import dataclasses
import functools
import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

from cext.proxy.pool import UpstreamGroup
from cext.tls.config import ClientConfig
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from edge import tcp
from edge.certificates import certs, compression
from edge.change.material import Material
from edge.config import tls_of
from edge.observe.labels import SERVER, UPSTREAM, Labels, server_label
from edge.schema import Place
from edge.settings import Address, Settings, Upstream, UpstreamTls
from edge.tls.verify import Store, store, system_authorities, verify_server
from edge.trust import Trust

MakeCredential = Callable[[certs.Identity], object]

_ALPN: Final = {"http/1.1": b"http/1.1", "h2": b"h2"}


@dataclasses.dataclass(frozen=True, slots=True)
class Read:
    """What was read for a group's TLS."""

    authorities: tuple[bytes, ...] | None
    """DER; None: anybody is trusted."""
    identity: bytes
    """A hash of the certificate and the key that servers are shown; b"" without."""


@dataclasses.dataclass(frozen=True, slots=True)
class Group:
    """The data plane's group, with its pools, and what it was made of: it goes on for as long as that is the same."""

    made: Any
    upstream: Upstream
    addresses: tuple[Address, ...]
    names: tuple[str, ...]
    tls: Read | None


def groups(
    settings: Settings,
    credential: MakeCredential,
    labels: Labels,
    material: Material | None = None,
    before: Mapping[str, Group] | None = None,
) -> dict[str, Group]:
    """Each upstream by its name; those of `before` go on that have not changed. `credential` makes one of the engine's,
    `labels` has where they count. Raises ConfigError."""
    material = material or Material()
    found: dict[str, Group] = {}
    for i, upstream in enumerate(settings.upstream):
        at = Place(settings.file).key("upstream").item(i).key("tls")
        tls, identity = _read_tls(upstream, at, material)
        kept = before.get(upstream.name) if before else None
        new = Group(kept and kept.made, upstream, settings.addresses[i], settings.server_names[i], tls)
        if kept != new:
            new = dataclasses.replace(new, made=_group(new, [credential(identity)] if identity else [], labels))
        found[upstream.name] = new
    return found


def _group(group: Group, credentials: list[object], labels: Labels) -> Any:
    upstream = group.upstream
    return UpstreamGroup(
        upstream.name,
        group.addresses,
        protocol=upstream.protocol,
        tls=_client_configs(group, credentials),
        tcp=tcp.options(upstream.tcp),
        max_idle=upstream.pool.max_idle,
        idle_ms=upstream.pool.idle,
        max_connections=upstream.pool.max_connections,
        series=labels.index(UPSTREAM, upstream.name),
        server_series=[labels.index(SERVER, server_label(upstream.name, where)) for where in group.addresses],
    )


def _read_tls(upstream: Upstream, at: Place, material: Material) -> tuple[Read | None, certs.Identity | None]:
    tls = tls_of(upstream)
    if tls is None:
        return None, None
    authorities = material.get(("authorities", str(tls.ca)), lambda: _authorities(tls, at)) if tls.verify else None
    chain, key = tls.chain, tls.key
    if chain is None or key is None:
        return Read(authorities, b""), None
    identity = material.get(("identity", upstream.name), lambda: certs.load_one(chain, key, at))
    content = b"".join(hashlib.sha256(part).digest() for part in (*identity.chain, identity.key_pem))
    return Read(authorities, hashlib.sha256(content).digest()), identity


def _client_configs(group: Group, credentials: list[object]) -> list[object]:
    """One for each server; none without TLS."""
    if group.tls is None:
        return []
    roots = _store(group.tls.authorities) if group.tls.authorities is not None else None
    made: dict[str, object] = {}
    for name in group.names:
        if name not in made:
            made[name] = ClientConfig(
                server_name=name,
                alpn=(_ALPN[group.upstream.protocol],),
                verify=_trust(roots, name) if roots is not None else None,
                # A session must not outlive the certificate that it began with.
                verify_resumed=roots is not None,
                credentials=credentials,
                certificate_compression=compression.AVAILABLE,
            )
    return [made[name] for name in group.names]


def _authorities(tls: UpstreamTls, at: Place) -> tuple[bytes, ...]:
    if tls.ca is not None:
        return tuple(one.public_bytes(Encoding.DER) for one in certs.load_authorities(tls.ca, at.key("ca")))
    try:
        return tuple(one.public_bytes(Encoding.DER) for one in system_authorities())
    except (OSError, ValueError) as e:
        raise at.error(
            f"the system's authorities cannot be read: {e}", "name a file of authorities under `ca`"
        ) from None


@functools.lru_cache(maxsize=16)
def _store(authorities: tuple[bytes, ...]) -> Store:
    """Parsed once for all upstreams that trust the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        return store([x509.load_der_x509_certificate(one) for one in authorities])


def _trust(roots: Store, name: str) -> Trust:
    return Trust(lambda chain: verify_server(roots, chain, name))
