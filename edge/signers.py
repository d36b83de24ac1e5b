"""Where a certificate's private key is, if it is not in a file: the tables that `key` may be."""

from pathlib import Path
from typing import Final

from edge.hostport import host_and_port, join, peer_name
from edge.schema import (
    Choice,
    Duration,
    File,
    Integer,
    Kind,
    ListOf,
    Milliseconds,
    Parsed,
    Text,
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


def _identifier(text: str) -> bytes:
    found = bytes.fromhex(text.replace(":", ""))
    if not found:
        raise ValueError("is empty")
    return found


@table
class KeylessKey:
    signer: str = knob(Choice("keyless"), "The key is on key servers, which speak gokeyless's protocol.")
    servers: tuple[KeyServer, ...] = knob(
        ListOf(
            Parsed(
                "key server",
                host_and_port,
                'write "10.0.0.5:2407", "[2001:db8::5]:2407" or "keys.internal:2407"',
                lambda server: join(*server),
            )
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


@table
class Pkcs11Key:
    signer: str = knob(
        Choice("pkcs11"), "The key is in a token that a PKCS #11 module reaches: a smart card, an HSM, a TPM."
    )
    module: Path = knob(File(), "The module, a shared library: `/usr/lib/softhsm/libsofthsm2.so`.")
    token: str = knob(Text("label"), "The token's label.")
    label: str | None = knob(Text("label"), "The key's label (CKA_LABEL).", default=None)
    id: bytes | None = knob(
        Parsed("identifier", _identifier, 'write it in hexadecimal digits: "01", "a1:b2:c3"', bytes.hex),
        "The key's identifier (CKA_ID), in hexadecimal digits. One of `label` and `id` is needed.",
        default=None,
    )
    pin_file: Path | None = knob(
        File(), "A file with the user's PIN on its first line. Without it nobody logs in.", default=None
    )
    timeout: Milliseconds = knob(Duration("50ms", "1m"), "For a signature; then the handshake fails.", default="5s")
    pending: int = knob(Integer(1, 100_000), _PENDING_DOC, default=1000)


KEY: Final[Kind[Path | KeylessKey | Pkcs11Key]] = Variants(
    File(), "signer", {"keyless": KeylessKey, "pkcs11": Pkcs11Key}
)


def key_files(key: Path | KeylessKey | Pkcs11Key) -> tuple[Path, ...]:
    """All files that a key is made of."""
    match key:
        case KeylessKey():
            return (key.ca, key.chain, key.key)
        case Pkcs11Key():
            return (key.pin_file,) if key.pin_file is not None else ()
    return (key,)
