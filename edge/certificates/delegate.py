"""`edge delegate`: makes delegated credentials (RFC 9345), once or again and again, where a certificate's key may be
asked.

A new key is made for each, and the certificate's key signs it; that one signature is all that is asked of it until the
next. What is made is written so that a reader finds the old files or the new ones: the key first, then the credential
that goes with it.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from cext.tls.delegated import DelegatedCredential
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from edge import config
from edge.backoff import Backoff, spread
from edge.certificates import certs
from edge.certificates.delegated import NEEDED
from edge.errors import ConfigError, EdgeError
from edge.schema import Place
from edge.settings import Certificate
from edge.tls.certificate import Signer, may_delegate
from edge.tls.delegated import issue_delegated_credential

LIFETIME_MOST: Final = datetime.timedelta(days=7) - datetime.timedelta(hours=1)
"""Clients refuse one that holds for more than seven days from now (section 4.1.3), by their own clocks."""
RETRY_SECONDS: Final = (30.0, 3600.0)
LOOK_SECONDS: Final = 60.0
"""How often it is looked whether there is another certificate."""

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What is to be made: for which certificate, by whose key, and into which files."""

    entry: Certificate
    at: Place
    credential: Path
    key: Path

    def load(self) -> certs.Identity:
        """The certificate as it is now. Raises ConfigError."""
        return certs.load_for_delegation(self.entry, self.at)


def orders(file: Path) -> list[Order]:
    """All [[certificate]] of a configuration that have `delegated`. Raises ConfigError when none has."""
    settings = config.load(file)
    at = Place(str(file)).key("certificate")
    found = [
        Order(entry, at.item(i), entry.delegated.credential, entry.delegated.key)
        for i, entry in enumerate(settings.certificate)
        if entry.delegated
    ]
    if not found:
        raise ConfigError(
            str(file),
            "certificate",
            "has no `delegated`",
            'say where to: delegated = { credential = "dc.bin", key = "dc.key" }',
        )
    return found


def order(chain: Path, key: Path, credential: Path, delegated_key: Path) -> Order:
    """For a certificate and its key in files."""
    return Order(
        Certificate(names=(), chain=chain.absolute(), key=key.absolute(), ocsp="none"),
        Place("edge delegate"),
        credential.absolute(),
        delegated_key.absolute(),
    )


def make(what: Order, lifetime: datetime.timedelta) -> datetime.datetime:
    """Makes one that holds for `lifetime`, or as long as may be -> until when. Raises EdgeError."""
    identity = what.load()
    leaf = x509.load_der_x509_certificate(identity.chain[0])
    if not may_delegate(leaf):
        raise what.at.key("chain").error(
            f"{what.entry.chain}: the certificate may not delegate",
            NEEDED,
        )
    now = datetime.datetime.now(datetime.UTC)
    lifetime = min(lifetime, LIFETIME_MOST, leaf.not_valid_after_utc - now - datetime.timedelta(seconds=1))
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        made = issue_delegated_credential(leaf, _signer(identity), public, lifetime=lifetime)
    except Exception as e:
        raise EdgeError(f"{what.at.path or what.entry.chain}: {e}") from None
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        _write(((what.key, pem, 0o600), (what.credential, made, 0o644)))
    except OSError as e:
        raise EdgeError(f"{e.filename or what.key}: {(e.strerror or 'cannot be written').lower()}") from None
    return now + lifetime


def expires(what: Order) -> datetime.datetime | None:
    """Until when the one that is there holds; None: it is none of this certificate's."""
    try:
        leaf = what.load().chain[0]
        found = DelegatedCredential(what.credential.read_bytes(), leaf)
        if not what.key.exists() or not found.is_signed_by(leaf):
            return None
    except (OSError, ValueError, EdgeError):
        return None
    return datetime.datetime.fromtimestamp(found.expires / 1000, datetime.UTC)


class Keeper:
    """Makes new ones for all orders in time: `every` seconds after the last was made, a little earlier by chance, so
    that not all hosts ask for a signature at the same moment."""

    def __init__(self, what: list[Order], lifetime: datetime.timedelta, every: float, log: Log) -> None:
        self._orders = what
        self._lifetime = lifetime
        self._every = every
        self._log = log
        self._ended = threading.Event()

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._ended.set())
        plans = [Plan(what) for what in self._orders]
        while not self._ended.is_set():
            for plan in plans:
                self._step(plan)
            self._ended.wait(LOOK_SECONDS if plans else None)

    def _step(self, plan: "Plan") -> None:
        now = datetime.datetime.now(datetime.UTC)
        ends = expires(plan.order)
        if ends is not None and plan.due(ends, self._lifetime, self._every) > now:
            return
        if now < plan.retry_at:
            return
        try:
            ends = make(plan.order, self._lifetime)
        except EdgeError as e:
            wait = plan.failed(now)
            until = f"the one that is there holds until {ends:%Y-%m-%d %H:%M} UTC" if ends else "there is none"
            self._log(f"{e}; {until}; next try in {wait:.0f} s")
            return
        plan.made()
        self._log(f"{plan.order.credential}: delegated until {ends:%Y-%m-%d %H:%M} UTC")


class Plan:
    """When an order is due."""

    def __init__(self, what: Order) -> None:
        self.order = what
        self.retry_at = datetime.datetime.min.replace(tzinfo=datetime.UTC)
        self._backoff = Backoff(*RETRY_SECONDS, by=0.2)
        self.made()

    def made(self) -> None:
        self._backoff.succeeded()
        self._share = spread(0.95, by=0.05)

    def failed(self, now: datetime.datetime) -> float:
        """-> seconds until the next try."""
        wait = self._backoff.failed()
        self.retry_at = now + datetime.timedelta(seconds=wait)
        return wait

    def due(self, ends: datetime.datetime, lifetime: datetime.timedelta, every: float) -> datetime.datetime:
        """When what holds until `ends` is to be replaced."""
        return ends - min(lifetime, LIFETIME_MOST) + datetime.timedelta(seconds=every * self._share)


# Signing.


def _signer(identity: certs.Identity) -> Any:
    return identity.key_pem if identity.signer is None else _Remote(identity.signer)


class _Remote:
    """A signer that needs to be started, for one signature."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._troubles: list[str] = []

    async def sign(self, message: bytes, scheme: int) -> bytes:
        signer: Any = self._signer
        start = getattr(signer, "start", None)
        if start is not None:
            start(asyncio.get_running_loop(), lambda _level, text: self._troubles.append(text))
        try:
            made = signer.sign(message, scheme)
            return bytes(made if isinstance(made, bytes) else await made)
        except Exception as e:
            raise ValueError("; ".join([str(e) or type(e).__name__, *self._troubles[:3]])) from None
        finally:
            if start is not None:
                signer.stop()


# Writing.


def _write(files: tuple[tuple[Path, bytes, int], ...]) -> None:
    """All of them or none, as far as that goes: each is written whole before any takes its place. Raises OSError."""
    with contextlib.ExitStack() as stack:
        parts = [(stack.enter_context(_part(path, content, mode)), path) for path, content, mode in files]
        for part, path in parts:
            part.replace(path)


@contextlib.contextmanager
def _part(path: Path, content: bytes, mode: int) -> Iterator[Path]:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(content)
            file.flush()
            os.fsync(fd)
        yield part
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
