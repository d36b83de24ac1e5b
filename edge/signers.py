"""Where a certificate's private key is, if it is not in a file: the tables that `key` may be."""

from pathlib import Path
from typing import Final

from edge.hostport import host_and_port, peer_name
from edge.schema import (
    Choice,
    Duration,
    File,
    Integer,
    Kind,
    ListOf,
    Milliseconds,
    Parsed,
    Variants,
    knob,
    table,
)

KeyServer = tuple[str, int]
"""Host (literal address or name) and port."""

_PENDING_DOC: Final = (
    "Signatures that a worker may be waiting for; the handshakes of further clients fail at once, which is better than "
    "to make all of them wait."
)


@table
class KeylessKey:
    signer: str = knob(Choice("keyless"), "The key is on key servers, which speak gokeyless's protocol.")
    servers: tuple[KeyServer, ...] = knob(
        ListOf(
            Parsed("key server", host_and_port, 'write "10.0.0.5:2407", "[2001:db8::5]:2407" or "keys.internal:2407"')
        ),
        "The key servers: each is to have the key. Who answers fastest is asked, and another one when it is late or "
        "fails. Each address of a name is a server; the name is looked up again every minute.",
    )
    ca: Path = knob(File(), "PEM file: the authorities that may have issued the key servers' certificates.")
    name: str | None = knob(
        Parsed("host name or IP address", peer_name, 'write "keys.internal" or "10.0.0.7", without a port'),
        "Whom the key servers' certificates are to be for. Without it, the host that stands in `servers`.",
        default=None,
    )
    chain: Path = knob(File(), "PEM file: the certificate by which key servers know us, then each issuer's.")
    key: Path = knob(File(), "PEM file: its private key, not encrypted.")
    timeout: Milliseconds = knob(
        Duration("50ms", "1m"), "For a signature, with all attempts at it; then the handshake fails.", default="1s"
    )
    connections: int = knob(
        Integer(1, 32), "Connections of a worker to each server; one, when nothing is signed for a minute.", default=2
    )
    pending: int = knob(Integer(1, 100_000), _PENDING_DOC, default=1000)


KEY: Final[Kind[Path | KeylessKey]] = Variants(
    File(), "signer", {"keyless": KeylessKey}
)


def key_files(key: Path | KeylessKey) -> tuple[Path, ...]:
    """All files that a key is made of."""
    return (key,) if isinstance(key, Path) else (key.ca, key.chain, key.key)
