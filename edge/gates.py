"""What listeners have before TLS, for the data plane: PROXY headers, rules of handing over, and who hands over here."""

import fnmatch
import re
from collections.abc import Callable, Iterable

from cext.net.networks import Networks
from cext.proxy.gate import GateSettings, HandoffRule, ProxySettings
from cext.proxy.handoff_door import Senders
from cext.proxy.handover import HandoffTarget

from edge.handovers import Handoff, HandoffSocket, user_id
from edge.proxy_protocol import Network, ProxyProtocol
from edge.schema import Place
from edge.tls.hello import ClientHelloInfo

Targets = dict[str, tuple[tuple[str, bool], object]]
"""The receivers by name, each with what it was made of."""


def targets(settings: Iterable[Handoff], before: Targets | None = None) -> Targets:
    """Those of `before` go on that have not changed."""
    found: Targets = {}
    for one in settings:
        of = (one.socket, one.otherwise == "serve")
        kept = before.get(one.name) if before else None
        found[one.name] = kept if kept and kept[0] == of else (of, HandoffTarget(one.name, *of))
    return found


def gate(
    proxy: ProxyProtocol | None, handoffs: Iterable[Handoff], made: Targets, by_hook: bool
) -> object:
    """For a listener; None where connections begin with TLS and stay. `made`: the receivers; `by_hook`: a hook may
    hand over, too."""
    rules = [
        HandoffRule(
            made[one.name][1],
            names=[name.encode() for name in one.match.sni] if one.match.sni else None,
            versions=one.match.version,
            protocols=[name.encode() for name in one.match.alpn] if one.match.alpn else None,
            fingerprints=_fingerprints(one.match.ja4) if one.match.ja4 else None,
        )
        for one in handoffs
        if one.match is not None
    ]
    keep = by_hook and bool(made)
    if proxy is None and not rules and not keep:
        return None
    by_name = {name: target for name, (_, target) in made.items()} if keep else {}
    return GateSettings(proxy=_proxies(proxy) if proxy else None, rules=rules, targets=by_name)


def _fingerprints(patterns: Iterable[str]) -> Callable[[bytes], bool]:
    wanted = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))
    return lambda message: wanted.fullmatch(ClientHelloInfo.parse(message).ja4) is not None


def _proxies(settings: ProxyProtocol) -> object:
    return ProxySettings(_networks(settings.proxies), settings.others == "serve", settings.timeout)


def networks(found: Iterable[Network]) -> object:
    """For the data plane to compare addresses with."""
    return Networks(_networks(found))


def _networks(found: Iterable[Network]) -> list[tuple[str, int]]:
    return [(str(network.network_address), network.prefixlen) for network in found]


def sender_ids(settings: HandoffSocket, own: int, at: Place) -> frozenset[int]:
    """Who may hand over; `own` is the id of the user that workers run as. Raises ConfigError."""
    named = [user_id(name, at.key("users").item(i)) for i, name in enumerate(settings.users)]
    return frozenset({0, own, *named})


def senders(ids: frozenset[int]) -> object:
    """The same, as a listener has it."""
    return Senders(ids)
