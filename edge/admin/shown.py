"""What a configuration amounts to, as JSON has it: for `edge check` and `edge show` (docs/admin.md). Never a secret."""

from collections.abc import Iterator, Sequence
from typing import Any

from edge import config
from edge.certificates import inventory
from edge.hostport import join
from edge.plane import Prepared
from edge.schema import knobs, write_table
from edge.settings import Certificate, Settings
from edge.signers import KeylessKey, Pkcs11Key

Item = dict[str, Any]


def configuration(settings: Settings) -> Iterator[Item]:
    """Each table with all its defaults, as a user could have written it: `table` names it, `array` tells whether it is
    one of several, `values` has its keys."""
    for name, _ in knobs(Settings):
        content = getattr(settings, name)
        if content is None:
            continue
        array = isinstance(content, tuple)
        if content is None:
            continue
        for item in content if array else (content,):
            yield {"table": name, "array": array, "values": write_table(item)}


def listeners(settings: Settings) -> Iterator[Item]:
    for listener in settings.listener:
        for bind in listener.bind:
            yield {
                "bind": str(bind),
                "kind": listener.kind,
                "http2": listener.http2.enabled,
                "proxy_protocol": listener.proxy_protocol is not None,
                "users": list(listener.handoff.users),
            }


def routes(settings: Settings) -> Iterator[Item]:
    for i, route in enumerate(settings.route):
        yield {
            "index": i,
            "name": getattr(route, "name", None),
            "hosts": list(route.match.host or ()),
            "path": route.match.path,
            "methods": list(route.match.method or ()),
            "upstream": route.upstream,
            "early_data": route.early_data,
            "upgrade": list(route.upgrade),
            "hooks": route.hooks,
        }


def upstreams(settings: Settings) -> Iterator[Item]:
    for upstream, addresses in zip(settings.upstream, settings.addresses, strict=True):
        tls = config.tls_of(upstream)
        yield {
            "name": upstream.name,
            "protocol": upstream.protocol,
            "tls": None if tls is None else {"name": tls.name, "verify": tls.verify},
            "servers": list(map(str, upstream.servers)),
            "addresses": [f"unix:{a[1]}" if a[0] == "unix" else join(*a[1:]) for a in addresses],
        }


def certificates(certificates: Sequence[Certificate], entries: list[inventory.Entry]) -> Iterator[Item]:
    """`entries`: of all of them, in order."""
    for certificate, entry in zip(certificates, entries, strict=True):
        yield {
            "path": entry.path,
            "names": list(entry.names),
            "kind": entry.kind,
            "serial": entry.serial,
            "expires": entry.expires.timestamp(),
            "must_staple": entry.must_staple,
            "ocsp": entry.ocsp,
            "ocsp_expires": entry.ocsp_expires and entry.ocsp_expires.timestamp(),
            "timestamps": entry.timestamps,
            "delegated": entry.delegated and entry.delegated.timestamp(),
            "chain": str(certificate.chain),
            "key": where(certificate),
        }


def where(certificate: Certificate) -> str:
    """Where a certificate's key is."""
    match certificate.key:
        case KeylessKey() as key:
            return f"key server {', '.join(join(*server) for server in key.servers)}"
        case Pkcs11Key() as key:
            named = f'"{key.label}"' if key.label is not None else f"id {(key.id or b'').hex()}"
            return f'token "{key.token}", {named}'
        case file:
            return f"file {file}"


def handoffs(settings: Settings) -> Iterator[Item]:
    for handoff in settings.handoff:
        yield write_table(handoff)


def hooks(prepared: Prepared) -> Iterator[Item]:
    """Each policy: `where` the configuration names it, its name (`policy`), its `hooks`, and in `routes` how
    many are its own; null: it is asked about all requests."""
    server = prepared.policy
    if server is not None:
        yield {"where": server.at.path, "policy": prepared.settings.server.hooks, "hooks": server.hooks, "routes": None}
    for policy, routes in prepared.route_policies:
        named = {f"route[{i}].hooks": route.hooks for i, route in enumerate(prepared.settings.route)}
        yield {
            "where": policy.at.path,
            "policy": named[policy.at.path],
            "hooks": policy.hooks,
            "routes": len(routes),
        }
