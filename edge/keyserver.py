"""`edge keyserver`: signs by keys that it holds, for edges (or other clients of gokeyless's protocol) that show a
certificate. `edge.keyless.server` does the work; here are the command, its files and its signals."""

import asyncio
import contextlib
import datetime
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import click
from cext.crypto.sign import PrivateKey
from cext.tls.config import ServerConfig
from cext.tls.credential import Credential

from edge.certificates import certs
from edge.clients import ClientTrust
from edge.errors import EdgeError
from edge.hostport import split_port
from edge.keyless import server
from edge.logs.errorlog import one_line
from edge.schema import Place
from edge.token import Place as TokenPlace
from edge.token import Token, TokenError

_FILE = click.Path(path_type=Path, dir_okay=False)
_DIRECTORY = click.Path(path_type=Path, file_okay=False)
_KEY_MOST: Final = 1 << 16
_SUFFIXES: Final = (".pem", ".key")

Keys = dict[bytes, server.Key]


class Files:
    """What the command was told, and what is read of it: everything at the start, and again at SIGHUP."""

    def __init__(self, chain: Path, key: Path, ca: Path, keys: Path | None, token: Token | None) -> None:
        self._chain = chain
        self._key = key
        self._ca = ca
        self._keys = keys
        self._token = token

    def read(self) -> tuple[object, Keys, list[str]]:
        """The engine's ServerConfig, the keys and warnings. Raises EdgeError."""
        at = Place("edge keyserver")
        own = certs.load_one(self._chain, self._key, at)
        authorities = certs.load_authorities(self._ca, at.key("ca"))
        tls = ServerConfig(
            [Credential(own.chain, PrivateKey.from_pem(own.key_pem))],
            alpn=(),
            client_auth="require",
            verify_client=ClientTrust(authorities),
            client_authorities=dict.fromkeys(one.subject.public_bytes() for one in authorities),
        )
        keys, warnings = read_keys(self._keys) if self._keys is not None else ({}, [])
        if self._token is not None:
            keys |= read_token(self._token)
        return tls, keys, [*own.warnings, *warnings]


def read_token(token: Token) -> Keys:
    """The keys of a token. Raises EdgeError when there is none."""
    try:
        keys = server.keys_by_identifier(token.keys())
    except ImportError:
        raise EdgeError('python-pkcs11 is not installed; install edge with the extra "pkcs11"') from None
    except TokenError as e:
        raise EdgeError(str(e)) from None
    if not keys:
        raise EdgeError(f"{token.place}: has no private key with its public key beside it")
    return keys


def read_keys(directory: Path) -> tuple[Keys, list[str]]:
    """The private keys in the files of a directory (`.pem`, `.key`), and warnings. Raises EdgeError when one cannot be
    used, or there is none."""
    keys, warnings = [], []
    try:
        found = sorted(path for path in directory.iterdir() if path.suffix in _SUFFIXES)
        for path in found:
            with path.open("rb") as file:
                pem = file.read(_KEY_MOST)
                mode = os.fstat(file.fileno()).st_mode
            if b"PRIVATE KEY-----" not in pem and path.suffix == ".pem":
                continue  # a certificate, say
            try:
                keys.append(server.load_pem(pem))
            except ValueError as e:
                raise EdgeError(f"{path}: {e}") from None
            if mode & (stat.S_IROTH | stat.S_IWOTH):
                warnings.append(f"{path}: every user may read or write this key; take that right away (chmod o=)")
    except OSError as e:
        raise EdgeError(f"{e.filename}: {(e.strerror or 'cannot be read').lower()}") from None
    if not keys:
        raise EdgeError(f"{directory}: holds no private key; put PEM files with the names *.key or *.pem there")
    return server.keys_by_identifier(keys), warnings


def _token(module: Path | None, label: str | None, pin_file: Path | None) -> Token | None:
    if (module is None) is not (label is None):
        raise click.UsageError("--module and --token go together")
    if module is None or label is None:
        return None
    pin = certs.read_pin(pin_file, Place("edge keyserver").key("pin-file")) if pin_file is not None else None
    return Token(TokenPlace(str(module), label, pin))


def _log(level: str, message: str) -> None:
    now = datetime.datetime.now(datetime.UTC)
    print(f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z {level} [{os.getpid()}] {one_line(message)}",
          file=sys.stderr, flush=True)  # fmt: skip


def _bound(address: str) -> socket.socket:
    try:
        host, port = split_port(address)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except ValueError as e:
        raise EdgeError(f'--listen "{address}": {e}; write "192.0.2.1:2407" or "[2001:db8::1]:2407"') from None
    except OSError as e:
        raise EdgeError(f'--listen "{address}": {(e.strerror or str(e)).lower()}') from None


@click.command(short_help="Sign for other hosts by keys that stay here.")
@click.option("--listen", "-l", "addresses", multiple=True, required=True, metavar="ADDRESS:PORT",
              help="Where to listen; may be given several times. gokeyless's port is 2407.")  # fmt: skip
@click.option("--chain", type=_FILE, required=True, help="PEM: the certificate that clients see, and its issuers.")
@click.option("--key", type=_FILE, required=True, help="PEM: the private key of that certificate.")
@click.option("--ca", type=_FILE, required=True,
              help="PEM: who may have issued clients' certificates. Each such client may use every key.")  # fmt: skip
@click.option("--keys", type=_DIRECTORY,
              help="A directory with keys to sign by: PEM, not encrypted, in files *.key and *.pem.")  # fmt: skip
@click.option("--module", type=_FILE, help="A PKCS #11 module, whose token has keys to sign by.")
@click.option("--token", metavar="LABEL", help="That token's label.")
@click.option("--pin-file", type=_FILE, help="A file with that token's PIN on its first line.")
@click.option("--threads", type=click.IntRange(1, 256), default=os.cpu_count() or 1, show_default="the CPUs",
              help="Threads that sign by RSA and P-384 keys.")  # fmt: skip
@click.option("--connections", type=click.IntRange(1, 100_000), default=1000, show_default=True,
              help="Connections at a time; further ones are refused.")  # fmt: skip
@click.option("--drain", type=click.FloatRange(0, 3600), default=10.0, show_default=True, metavar="SECONDS",
              help="How long requests may take that are under way at SIGTERM.")  # fmt: skip
def keyserver(
    *,
    addresses: Sequence[str],
    chain: Path,
    key: Path,
    ca: Path,
    keys: Path | None,
    module: Path | None,
    token: str | None,
    pin_file: Path | None,
    threads: int,
    connections: int,
    drain: float,
) -> None:
    """Sign for other hosts by private keys that stay here, in the foreground, until SIGTERM or Ctrl-C.

    Speaks gokeyless's protocol (docs/keys.md) over mutual TLS 1.2 or 1.3: ECDSA, RSA-PSS, RSA PKCS #1 and Ed25519
    signatures, with SHA-256 or better. It decrypts nothing. Errors go to standard error. It needs no privileges: run it
    as a user of its own, who alone may read the keys.

    \b
    SIGHUP           read keys and certificates again; with an error, change nothing
    SIGTERM, SIGINT  accept no more, answer what was asked, end
    """
    files = Files(chain, key, ca, keys, _token(module, token, pin_file))
    if keys is None and module is None:
        raise click.UsageError("--keys or --module: one of them is needed, or there is nothing to sign by")
    tls, held, warnings = files.read()
    for warning in warnings:
        _log("warning", warning)
    if os.geteuid() == 0:
        _log("warning", "runs as root, and need not: a user of its own who may read the keys is enough")
    sockets = [_bound(address) for address in addresses]
    asyncio.run(_serve(files, tls, held, sockets, threads=threads, connections=connections, drain=drain))


async def _serve(
    files: Files,
    tls: object,
    keys: Keys,
    sockets: Sequence[socket.socket],
    *,
    threads: int,
    connections: int,
    drain: float,
) -> None:
    loop = asyncio.get_running_loop()
    serving = server.Server(keys, tls, threads=threads, connections=connections, report=_log)
    ended: asyncio.Future[str] = loop.create_future()

    def end(name: str) -> Callable[[], None]:
        return lambda: None if ended.done() else ended.set_result(name)

    def reload() -> None:
        try:
            tls, keys, warnings = files.read()
        except (EdgeError, ValueError) as e:
            _log("error", f"nothing has changed: {e}")
            return
        serving.tls, serving.keys = tls, keys
        for warning in warnings:
            _log("warning", warning)
        _log("info", f"read again: {_count(keys)}")

    for number, act in (
        (signal.SIGHUP, reload),
        (signal.SIGTERM, end("SIGTERM")),
        (signal.SIGINT, end("SIGINT")),
    ):
        loop.add_signal_handler(number, act)
    for sock in sockets:
        await serving.listen(sock)
    where = ", ".join(_shown(sock.getsockname()) for sock in sockets)
    _log("info", f"signs on {where} by {_count(keys)}")
    why = await ended
    _log("info", f"{why}: ends")
    with contextlib.suppress(asyncio.CancelledError):
        await serving.drain(drain)
    _log("info", f"ended after {serving.signed} signatures and {serving.refused} requests that were refused")


def _count(keys: Keys) -> str:
    return "1 key" if len(keys) == 1 else f"{len(keys)} keys"


def _shown(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
