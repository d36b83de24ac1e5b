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


def targets(settings: Iterable[Handoff]) -> dict[str, object]:
    """The receivers by name."""
    return {one.name: HandoffTarget(one.name, one.socket, one.otherwise == "serve") for one in settings}


def gate(
    proxy: ProxyProtocol | None, handoffs: Iterable[Handoff], made: dict[str, object], by_hook: bool
) -> object:
    """For a listener; None where connections begin with TLS and stay. `made`: the receivers; `by_hook`: a hook may
    hand over, too."""
    rules = [
        HandoffRule(
            made[one.name],
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
    return GateSettings(proxy=_proxies(proxy) if proxy else None, rules=rules, targets=made if keep else {})


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


def senders(settings: HandoffSocket, own: int, at: Place) -> object:
    """Who may hand over; `own` is the id of the user that workers run as. Raises ConfigError."""
    named = [user_id(name, at.key("users").item(i)) for i, name in enumerate(settings.users)]
    return Senders({0, own, *named})
