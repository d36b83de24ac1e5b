"""What is counted by itself, and where: each route, upstream and server has a *series*, by an index that it keeps for
as long as the master lives, whatever is reloaded in between."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edge.settings import Address, Route

ROUTE: Final = "route"
UPSTREAM: Final = "upstream"
SERVER: Final = "server"
KINDS: Final = (ROUTE, UPSTREAM, SERVER)

OTHER: Final = "other"
"""The label of what there was no room for, in each kind; of servers, the upstream's, too."""
NONE: Final = "none"
"""The label of requests that no route is for, or that could not be understood."""
SERIES_UNROUTED: Final = 3
"""Its index, as cext/proxy/counting has it."""
HOSTS_SHOWN: Final = 3
ROOM: Final = 8192


class Labels:
    """(kind, label) -> index, below `room`. The master makes one, which grows as configurations come; a copy (it can be
    pickled) goes along with each, so that workers find what the master has entered."""

    def __init__(self, room: int = ROOM) -> None:
        if room <= SERIES_UNROUTED:
            raise ValueError("there is room for each kind's others, and for no route")
        self._room = room
        others = (OTHER, OTHER, server_label(OTHER, OTHER))
        self._indices = {key: i for i, key in enumerate(zip(KINDS, others, strict=True))}
        self._indices[ROUTE, NONE] = SERIES_UNROUTED

    def index(self, kind: str, label: str) -> int:
        """That of a label, which it has from now on. Once all are taken, that of the kind's others."""
        found = self._indices.get((kind, label))
        if found is not None:
            return found
        if len(self._indices) >= self._room:
            return KINDS.index(kind)
        self._indices[kind, label] = len(self._indices)
        return self._indices[kind, label]

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """(kind, label), by index."""
        return iter(self._indices)

    def after(self, number: int) -> list[tuple[str, str]]:
        """Those from this index on."""
        return list(self._indices)[number:]


def route_label(route: "Route") -> str:
    """A route's name, or what it is for: hosts, path and methods. Routes of one label are counted together."""
    if route.name is not None:
        return route.name
    hosts = list(route.match.host or ("*",))
    shown = ",".join(hosts[:HOSTS_SHOWN]) + (f"+{len(hosts) - HOSTS_SHOWN}" if len(hosts) > HOSTS_SHOWN else "")
    methods = " " + ",".join(route.match.method) if route.match.method else ""
    return f"{shown}{route.match.path}{methods}"


def server_label(upstream: str, server: "Address | str") -> str:
    """As the data plane writes a server's address."""
    if isinstance(server, str):
        return f"{upstream}/{server}"
    if len(server) == 2:
        return f"{upstream}/unix:{server[1]}"
    host, port = server[1:]
    return f"{upstream}/[{host}]:{port}" if ":" in host else f"{upstream}/{host}:{port}"


def split_server(label: str) -> tuple[str, str]:
    """(upstream, server): no name of an upstream has a slash."""
    upstream, _, server = label.partition("/")
    return upstream, server
