"""Upstreams for the data plane: their servers, and the TLS that is spoken with them."""

from collections.abc import Callable
from typing import Final

from cext.proxy.pool import UpstreamGroup
from cext.tls.config import ClientConfig

from edge import certs, compression, tcp
from edge.config import tls_of
from edge.labels import SERVER, UPSTREAM, Labels, server_label
from edge.schema import Place
from edge.settings import Settings, Upstream, UpstreamTls
from edge.tls.verify import Store, store, system_store, verify_server
from edge.trust import Trust

MakeCredential = Callable[[certs.Identity], object]

_ALPN: Final = {"http/1.1": b"http/1.1", "h2": b"h2"}


def groups(settings: Settings, credential: MakeCredential, labels: Labels) -> dict[str, object]:
    """Each upstream by its name. `credential` makes one of the engine's, `labels` has where they count. Raises
    ConfigError."""
    found: dict[str, object] = {}
    for i, upstream in enumerate(settings.upstream):
        at = Place(settings.file).key("upstream").item(i)
        found[upstream.name] = UpstreamGroup(
            upstream.name,
            settings.addresses[i],
            protocol=upstream.protocol,
            tls=_client_configs(upstream, settings.server_names[i], at.key("tls"), credential),
            tcp=tcp.options(upstream.tcp),
            max_idle=upstream.pool.max_idle,
            idle_ms=upstream.pool.idle,
            max_connections=upstream.pool.max_connections,
            series=labels.index(UPSTREAM, upstream.name),
            server_series=[labels.index(SERVER, server_label(upstream.name, where)) for where in settings.addresses[i]],
        )
    return found


def _client_configs(upstream: Upstream, names: tuple[str, ...], at: Place, credential: MakeCredential) -> list[object]:
    """One for each server; none without TLS."""
    tls = tls_of(upstream)
    if tls is None:
        return []
    roots = _roots(tls, at) if tls.verify else None
    credentials = []
    if tls.chain is not None and tls.key is not None:
        credentials = [credential(certs.load_one(tls.chain, tls.key, at))]
    made: dict[str, object] = {}
    for name in names:
        if name not in made:
            made[name] = ClientConfig(
                server_name=name,
                alpn=(_ALPN[upstream.protocol],),
                verify=_trust(roots, name) if roots is not None else None,
                # A session must not outlive the certificate that it began with.
                verify_resumed=roots is not None,
                credentials=credentials,
                certificate_compression=compression.AVAILABLE,
            )
    return [made[name] for name in names]


def _roots(tls: UpstreamTls, at: Place) -> Store:
    if tls.ca is not None:
        return store(certs.load_authorities(tls.ca, at.key("ca")))
    try:
        return system_store()
    except (OSError, ValueError) as e:
        raise at.error(
            f"the system's authorities cannot be read: {e}", "name a file of authorities under `ca`"
        ) from None


def _trust(roots: Store, name: str) -> Trust:
    return Trust(lambda chain: verify_server(roots, chain, name))
