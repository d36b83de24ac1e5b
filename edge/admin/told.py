"""What a worker tells when the master asks it (`edge.admin.questions`): its connections, and what it has open to
servers."""

import ipaddress
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from edge.admin.questions import PIECE_MOST, Answerer

if TYPE_CHECKING:
    from edge.plane import Plane

STATES: Final = ("handshake", "new", "active", "idle", "hijacked", "closing")
"""Of clients' connections."""


def answers(plane: "Plane") -> dict[str, Answerer]:
    """By what is asked for."""

    def connections(place: int, asked: Mapping[str, Any]) -> tuple[int, int, bytes]:
        after, found = plane.connections(place, asked)
        most = asked["most"]
        if len(found) > most:
            after, found = found[most][0], found[:most]
        return _packed(found, after)

    def upstreams(place: int, _: Mapping[str, Any]) -> tuple[int, int, bytes]:
        found = list(enumerate(plane.upstreams()))[place:]
        return _packed(found, 0)

    return {"connections": connections, "upstreams": upstreams}


def _packed(found: Iterable[tuple[int, Mapping[str, Any]]], after: int) -> tuple[int, int, bytes]:
    """As many as fit, a line for each; `after` is where to go on after all of them."""
    said = bytearray()
    count = 0
    for place, item in found:
        line = json.dumps(item, separators=(",", ":")).encode() + b"\n"
        if len(said) + len(line) > PIECE_MOST:
            return place, count, bytes(said)
        said += line
        count += 1
    return after, count, bytes(said)


def filters(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Which connections are meant, as the data plane has it. Raises ValueError with what is wrong."""
    state, name, client = (arguments.get(key) or "" for key in ("state", "server_name", "client"))
    if not all(isinstance(value, str) for value in (state, name, client)):
        raise ValueError("client, state and server_name are strings")
    if state and state not in STATES:
        raise ValueError(f'there is no state "{state[:20]}"; there are: {", ".join(STATES)}')
    found: dict[str, Any] = {"state": state, "server_name": name.removeprefix("*")}
    if client:
        try:
            network = ipaddress.ip_network(client, strict=False)
        except ValueError:
            raise ValueError(f'"{client[:50]}" is no address; write 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32') from None
        found["networks"] = [(str(network.network_address), network.prefixlen)]
    return found
