"""The PROXY protocol, as settings of a listener: whose word is taken for who the client is."""

import ipaddress

from edge.schema import Choice, Duration, ListOf, Milliseconds, Parsed, knob, table

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@table
class ProxyProtocol:
    proxies: tuple[Network, ...] = knob(
        ListOf(Parsed("network", ipaddress.ip_network, 'write "10.0.0.0/8", "192.0.2.7" or "2001:db8::/32"')),
        "The addresses of the proxies: who connects from there must begin with a PROXY header (version 1 or 2), and "
        "what that says of the client is believed. Nobody else's is.",
    )
    others: str = knob(
        Choice("close", "serve"),
        "What comes of connections from other addresses: they are closed, or served as clients that speak for "
        "themselves, without a header.",
        default="close",
    )
    timeout: Milliseconds = knob(
        Duration(none=True),
        "How long a proxy may take for its header; `timeouts.handshake` begins after it.",
        default="5s",
    )
