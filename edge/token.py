"""Keys in PKCS #11 tokens: smart cards, HSMs, TPMs (by tpm2-pkcs11), SoftHSM.

    Token          a token as a process has it
    TokenSigner    a certificate's key, as the engine knows it: sign(message, scheme)
    TokenKey       the same for a key server

A module keeps state that does not survive a fork, and a wrong PIN, tried by every worker, locks a token. So the master
loads no module: `check` tries key and PIN in a process of its own, once, before a configuration is accepted.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from cext.crypto.sign import PublicKey
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edge.seldom import Seldom
from edge.shared import Shared
from edge.tls.certificate import digest

CHECK_SECONDS: Final = 30

_ECDSA: Final = (0x0403, 0x0503, 0x0603)
_PKCS1: Final = {0x0401: "sha256", 0x0501: "sha384", 0x0601: "sha512"}
_PSS: Final = {
    **dict.fromkeys((0x0804, 0x0809), ("SHA256", 32)),
    **dict.fromkeys((0x0805, 0x080A), ("SHA384", 48)),
    **dict.fromkeys((0x0806, 0x080B), ("SHA512", 64)),
}
_ED25519: Final = 0x0807
_DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
"""What stands before a digest that is signed by RSASSA-PKCS1-v1_5 (RFC 8017, section 9.2)."""
_ORDERS: Final = {"ecdsa-p256": 32, "ecdsa-p384": 48}
"""Bytes of a digest that ECDSA makes use of, by the kind of key."""

Report = Callable[[str, str], None]
T = TypeVar("T")


class TokenError(Exception):
    """A token gives no signature."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """A token, and how it is opened."""

    module: str
    """The shared library's path."""
    label: str
    pin: str | None = dataclasses.field(repr=False)
    """The user's; None: nobody logs in."""

    def __str__(self) -> str:
        return f'token "{self.label}"'


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """Of a key in its token: one of the two at least."""

    label: str | None
    id: bytes | None

    def __str__(self) -> str:
        parts = [f'"{self.label}"'] if self.label is not None else []
        return f"key {' '.join([*parts, *([self.id.hex()] if self.id is not None else [])])}"


_SETTLING_SECONDS: Final = 0.1
_REFRESH_SECONDS: Final = 1.0


class _Module:
    """What all tokens of a module share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        """python-pkcs11 does not tell a module that there are threads (C_Initialize), so no two may be in it."""
        self.generation = 0
        """Sessions of an earlier one have ended; their handles may be others' by now."""
        self._refreshed = -_REFRESH_SECONDS

    def refresh(self, path: str) -> None:
        """Has the module look again which tokens there are: SoftHSM, for one, does so in C_Initialize alone, and misses
        a token that another process is just logging in to."""
        import pkcs11  # noqa: PLC0415

        if time.monotonic() - self._refreshed < _REFRESH_SECONDS:
            return
        time.sleep(_SETTLING_SECONDS)
        self.generation += 1
        self._refreshed = time.monotonic()
        pkcs11.lib(path).reinitialize()


_modules: Final[dict[str, _Module]] = {}


class Token:
    """Blocking, for any number of threads, one at a time. Opened when it is first needed, and again when it has gone
    away."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._module = _modules.setdefault(place.module, _Module())
        self._generation = 0
        self._session: Any = None
        self._keys: dict[Name, Any] = {}
        self._refused = ""  # why it is never tried again

    def sign(self, name: Name, kind: str, scheme: int, value: bytes) -> bytes:
        """By a key of this kind (cext.crypto.sign's word), of a digest, or for Ed25519 of a message. Raises TokenError,
        and ValueError for a scheme that tokens are not asked for."""
        return self._call(lambda: _sign(self._key(name), kind, scheme, value), name)

    def check(self, name: Name, public_key: bytes) -> None:
        """Raises TokenError unless the key is the other half of a SubjectPublicKeyInfo, and signs."""
        public = PublicKey.from_spki(public_key)
        scheme = public.schemes[0]
        probe = b"a signature of this by the token's key verifies by the certificate's"
        try:
            signature = self.sign(name, public.kind, scheme, digest(probe, scheme))
            fits = public.verify_bytes(scheme, probe, signature)
        except ValueError:
            fits = False
        if not fits:
            raise TokenError(f"{self.place}, {name}: is not the key of the certificate")

    def keys(self) -> list["TokenKey"]:
        """Those private keys whose public half is there, too. Raises TokenError."""
        return self._call(self._find_keys)

    def _call(self, function: Callable[[], T], name: Name | None = None) -> T:
        """function(), and once more in a new session if it fails: the token may have been away."""
        from pkcs11.exceptions import GeneralError, NoSuchToken, PKCS11Error  # noqa: PLC0415 - it may not be installed

        what = f"{self.place}, {name}" if name is not None else str(self.place)
        with self._module.lock:
            for again in (False, True):
                if self._generation != self._module.generation:
                    self._session, self._keys, self._generation = None, {}, self._module.generation
                try:
                    return function()
                except PKCS11Error as error:
                    self._session, self._keys = None, {}
                    if again or self._refused:
                        raise TokenError(f"{what}: {self._refused or _words(error)}") from None
                    if isinstance(error, (NoSuchToken, GeneralError)):
                        with contextlib.suppress(PKCS11Error):
                            self._module.refresh(self.place.module)
        raise AssertionError

    def _open(self) -> Any:
        import pkcs11  # noqa: PLC0415

        if self._refused:
            raise pkcs11.PinLocked
        if self._session is None:
            token = pkcs11.lib(self.place.module).get_token(token_label=self.place.label)
            try:
                self._session = token.open(user_pin=self.place.pin)
            except pkcs11.UserAlreadyLoggedIn:  # by another session of this process
                self._session = token.open()
            except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked) as error:
                # Each further attempt brings the token nearer to locking itself.
                self._refused = f"{_words(error)}: it is not tried again"
                raise
        return self._session

    def _key(self, name: Name) -> Any:
        from pkcs11 import ObjectClass  # noqa: PLC0415

        session = self._open()
        if name not in self._keys:
            self._keys[name] = session.get_key(object_class=ObjectClass.PRIVATE_KEY, label=name.label, id=name.id)
        return self._keys[name]

    def _find_keys(self) -> list["TokenKey"]:
        from pkcs11 import Attribute, ObjectClass  # noqa: PLC0415

        session, found = self._open(), []
        for private in list(session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})):
            name = Name(private.label or None, private.id or None)
            publics = list(session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.ID: private.id}))
            spki = _public(publics[0]) if publics else None
            if spki is not None:
                found.append(TokenKey(self, name, spki))
        return found


class TokenKey:
    """A key as a key server has it (edge.keyless.server.Key)."""

    def __init__(self, token: Token, name: Name, public_key: bytes) -> None:
        self.kind = PublicKey.from_spki(public_key).kind
        self.name = name
        self._token = token
        self._public_key = public_key

    def sign_digest(self, scheme: int, digest: bytes) -> bytes:
        return self._token.sign(self.name, self.kind, scheme, digest)

    def public_spki(self) -> bytes:
        return self._public_key


def _sign(key: Any, kind: str, scheme: int, value: bytes) -> bytes:
    from pkcs11 import MGF, KeyType, Mechanism  # noqa: PLC0415

    types = {"ecdsa-p256": KeyType.EC, "ecdsa-p384": KeyType.EC, "ed25519": KeyType.EC_EDWARDS}
    if key.key_type != types.get(kind, KeyType.RSA):
        raise ValueError(f"the token's key is {key.key_type.name}, and the certificate's {kind}")
    if scheme in _ECDSA and kind in _ORDERS:
        raw = key.sign(value[: _ORDERS[kind]], mechanism=Mechanism.ECDSA)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
    if scheme in _PSS and kind.startswith("rsa"):
        name, length = _PSS[scheme]
        parameters = (Mechanism[name], MGF[name], length)
        return bytes(key.sign(value, mechanism=Mechanism.RSA_PKCS_PSS, mechanism_param=parameters))
    if scheme in _PKCS1 and kind == "rsa":
        return bytes(key.sign(_DIGEST_INFO[_PKCS1[scheme]] + value, mechanism=Mechanism.RSA_PKCS))
    if scheme == _ED25519 and kind == "ed25519":
        return bytes(key.sign(value, mechanism=Mechanism.EDDSA))
    raise ValueError(f"a key of kind {kind} cannot sign by scheme {scheme:#06x}")


def _public(key: Any) -> bytes | None:
    """A public key object's SubjectPublicKeyInfo; None when TLS has no use for it."""
    from pkcs11 import Attribute, KeyType  # noqa: PLC0415

    made: Any = None
    if key.key_type == KeyType.RSA:
        numbers = (int.from_bytes(key[name], "big") for name in (Attribute.PUBLIC_EXPONENT, Attribute.MODULUS))
        made = rsa.RSAPublicNumbers(*numbers).public_key()
    elif key.key_type in (KeyType.EC, KeyType.EC_EDWARDS):
        point = key[Attribute.EC_POINT]
        if len(point) > 2 and point[0] == 4 and point[1] == len(point) - 2:  # within an OCTET STRING
            point = point[2:]
        with contextlib.suppress(ValueError):
            if key.key_type == KeyType.EC_EDWARDS:
                made = ed25519.Ed25519PublicKey.from_public_bytes(point)
            elif len(point) in (65, 97):
                curve = ec.SECP256R1() if len(point) == 65 else ec.SECP384R1()
                made = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    return made and bytes(made.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _words(error: Exception) -> str:
    """What a PKCS #11 exception is about: its name, in words."""
    name = type(error).__name__
    if name == "PKCS11Error":  # of no kind of its own
        return str(error) or "the module fails"
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()
    return f"{words} ({error})" if str(error) else words


# In a worker


Job = tuple[Callable[[], Any], "asyncio.Future[Any] | None"]


class Caller:
    """A thread that calls a token for an event loop, which goes on meanwhile."""

    def __init__(self, place: Place, aio: asyncio.AbstractEventLoop, report: Report, *, pending: int) -> None:
        self.token = Token(place)
        self.loop = aio
        self._report = Seldom(report)
        self._pending = pending
        self._waiting = 0
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # No pool of the library's: that one waits for its threads when the process ends, and a token may hang.
        threading.Thread(target=self._work, name=str(place), daemon=True).start()

    async def call(self, function: Callable[[], T], seconds: float) -> T:
        """function() in the thread. Raises TokenError when that takes longer, or too many wait already."""
        if self._waiting >= self._pending:
            raise TokenError(f"{self.token.place}: {self._pending} signatures are being waited for already (pending)")
        self._waiting += 1
        done: asyncio.Future[Any] = self.loop.create_future()
        self._jobs.put((function, done))
        try:
            async with asyncio.timeout(seconds):
                return cast(T, await done)
        except TimeoutError:
            raise TokenError(f"{self.token.place}: no signature within {seconds:g} s") from None
        finally:
            self._waiting -= 1

    def check(self, name: Name, public_key: bytes) -> None:
        """Opens the token, and reports when it has not the certificate's key."""

        def check() -> None:
            try:
                self.token.check(name, public_key)
            except Exception as error:
                self._tell(functools.partial(self._report, "error", str(error)))

        self._jobs.put((check, None))

    def stop(self) -> None:
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, done = job
            if done is not None and done.done():  # who asked has gone, or has lost patience
                continue
            result, error = None, None
            try:
                result = function()
            except Exception as failed:
                error = failed
            if done is not None:
                self._tell(functools.partial(_settle, done, result, error))

    def _tell(self, act: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self.loop.call_soon_threadsafe(act)


def _settle(done: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is not None:
        done.set_exception(error)
    else:
        done.set_result(result)


_callers: Final[Shared[tuple[Place, int], Caller]] = Shared()
"""Certificates of one token share its session."""


class TokenSigner:
    """A private key in a token. It can be pickled, and is equal to one of the same key and settings."""

    def __init__(self, place: Place, name: Name, public_key: bytes, *, timeout: float, pending: int) -> None:
        """`public_key`: the certificate's SubjectPublicKeyInfo; `timeout`: seconds for a signature."""
        self.place = place
        self.name = name
        self.public_key = public_key
        self.timeout = timeout
        self.pending = pending
        self._kind = PublicKey.from_spki(public_key).kind
        self._caller: Caller | None = None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TokenSigner) and self._what() == other._what()

    def __hash__(self) -> int:
        return hash(self._what())

    def __reduce__(self) -> tuple[Any, ...]:
        return _signer, self._what()

    def _what(self) -> tuple[Any, ...]:
        return self.place, self.name, self.public_key, self.timeout, self.pending

    def start(self, aio: asyncio.AbstractEventLoop, report: Report) -> None:
        """In a worker: opens the token, and reports troubles by report(level, message). More than once is once."""
        if self._caller is not None:
            return
        made = functools.partial(Caller, self.place, aio, report, pending=self.pending)
        self._caller = _callers.join(aio, (self.place, self.pending), made)
        self._caller.check(self.name, self.public_key)

    def stop(self) -> None:
        """The key is not needed any more."""
        caller, self._caller = self._caller, None
        if caller is not None and _callers.leave(caller.loop, (self.place, self.pending)):
            caller.stop()

    async def sign(self, message: bytes, scheme: int) -> bytes:
        """See edge.tls.Signer. Raises TokenError."""
        if self._caller is None:
            raise TokenError(f"{self.place}: has not been opened")
        value, token = digest(message, scheme), self._caller.token
        return await self._caller.call(lambda: token.sign(self.name, self._kind, scheme, value), self.timeout)


def _signer(*what: Any) -> TokenSigner:
    place, name, public_key, timeout, pending = what
    return TokenSigner(place, name, public_key, timeout=timeout, pending=pending)


# In the master


def check(place: Place, name: Name, public_key: bytes) -> str:
    """What is wrong with a key in a token, found out in another process; "" when nothing is."""
    told = {
        "module": place.module,
        "token": place.label,
        "pin": place.pin,
        "label": name.label,
        "id": name.id.hex() if name.id is not None else None,
        "public_key": public_key.hex(),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edge.token"],
            input=json.dumps(told).encode(),
            capture_output=True,
            timeout=CHECK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"{place}: no answer within {CHECK_SECONDS} s"
    try:
        return str(json.loads(done.stdout)["fault"])
    except (ValueError, KeyError, TypeError):
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        return f"{place}: the module {place.module} ends the process that loads it ({' '.join(last) or 'no word'})"


def _main() -> None:
    told = json.load(sys.stdin)
    place = Place(told["module"], told["token"], told["pin"])
    name = Name(told["label"], bytes.fromhex(told["id"]) if told["id"] is not None else None)
    fault = ""
    try:
        Token(place).check(name, bytes.fromhex(told["public_key"]))
    except ImportError:
        fault = 'the package python-pkcs11 is not installed; install edge with the extra "pkcs11"'
    except Exception as error:
        fault = str(error) or type(error).__name__
    json.dump({"fault": fault}, sys.stdout)


if __name__ == "__main__":
    _main()
