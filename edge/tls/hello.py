"""What a ClientHello says, for the hooks that choose by it, and its fingerprints: JA4, and the older JA3."""

import dataclasses
import functools
import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Final, Self

_SERVER_NAME: Final = 0x0000
_SUPPORTED_GROUPS: Final = 0x000A
_POINT_FORMATS: Final = 0x000B
_SIGNATURE_ALGORITHMS: Final = 0x000D
_ALPN: Final = 0x0010
_SUPPORTED_VERSIONS: Final = 0x002B

_JA4_VERSIONS: Final = {0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3", 0x0002: "s2"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientHelloInfo:
    """A ClientHello (RFC 8446, section 4.1.2), decoded; numbers are in the client's order, GREASE included."""

    cipher_suites: tuple[int, ...]
    server_name: str = ""
    """"" when the client sent none."""
    supported_groups: tuple[int, ...] = ()
    point_formats: tuple[int, ...] = ()
    signature_schemes: tuple[int, ...] = ()
    alpn_protocols: tuple[str, ...] = ()
    """A protocol that is not ASCII keeps its bytes as surrogate escapes."""
    supported_versions: tuple[int, ...] = ()
    """Of the extension; the one of the old field when there is none."""
    extensions: tuple[int, ...] = ()
    raw: bytes = dataclasses.field(default=b"", repr=False)
    """The whole handshake message, its four-byte header included."""
    legacy_version: int = 0x0303
    conn: Any = None
    """The transport under the connection, for its address; reading or writing it would break the handshake."""

    @classmethod
    def parse(cls, raw: bytes, conn: Any = None, **more: Any) -> Self:
        """From a whole handshake message. ValueError when it is not a well-formed ClientHello."""
        try:
            return cls._parse(raw, conn, more)
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise ValueError(f"not a ClientHello: {error}") from None

    @classmethod
    def _parse(cls, raw: bytes, conn: Any, more: dict[str, Any]) -> Self:
        if len(raw) < 4 or raw[0] != 1 or int.from_bytes(raw[1:4], "big") != len(raw) - 4:
            raise ValueError("not one whole ClientHello message")
        body = _Fields(raw[4:])
        version = body.number(2)
        body.take(32)
        body.vector(1)
        suites = _numbers(body.vector(2), 2)
        body.vector(1)
        extensions: dict[int, bytes] = {}
        if body.rest:
            listed = _Fields(body.vector(2))
            body.end()
            while listed.rest:
                kind = listed.number(2)
                if kind in extensions:
                    raise ValueError(f"extension {kind} appears twice")
                extensions[kind] = listed.vector(2)
        versions = _list(extensions.get(_SUPPORTED_VERSIONS), 1, 2)
        return cls(
            cipher_suites=suites,
            server_name=_host_name(extensions.get(_SERVER_NAME)),
            supported_groups=_list(extensions.get(_SUPPORTED_GROUPS), 2, 2),
            point_formats=_list(extensions.get(_POINT_FORMATS), 1, 1),
            signature_schemes=_list(extensions.get(_SIGNATURE_ALGORITHMS), 2, 2),
            alpn_protocols=_protocols(extensions.get(_ALPN)),
            supported_versions=versions or (version,),
            extensions=tuple(extensions),
            raw=raw,
            legacy_version=version,
            conn=conn,
            **more,
        )

    @functools.cached_property
    def ja3(self) -> str:
        """The JA3 fingerprint, as Salesforce published it: 32 hex digits. Clients that shuffle their extensions have
        another one each time, which JA4 does not."""
        return hashlib.md5(self.ja3_raw.encode(), usedforsecurity=False).hexdigest()

    @property
    def ja3_raw(self) -> str:
        """The lists themselves: version, suites, extensions, groups, point formats."""
        lists = (self.cipher_suites, self.extensions, self.supported_groups)
        parts = ["-".join(map(str, _without_grease(numbers))) for numbers in lists]
        return ",".join([str(self.legacy_version), *parts, "-".join(map(str, self.point_formats))])

    @functools.cached_property
    def ja4(self) -> str:
        """The JA4 fingerprint for TLS over TCP, as FoxIO published it: "t13d1516h2_8daaf6152771_e5627efa2ab1".

        Suites and extensions are counted and hashed in ascending order, the signature schemes as they stand; GREASE
        values (RFC 8701) are passed over everywhere.
        """
        suites, extensions, schemes = self._ja4_parts()
        signed = f"{extensions}_{schemes}" if schemes else extensions
        return f"{self._ja4_a()}_{_hash12(suites)}_{_hash12(signed) if extensions else _hash12('')}"

    @property
    def ja4_raw(self) -> str:
        """JA4_r: the lists themselves instead of their hashes, for people."""
        suites, extensions, schemes = self._ja4_parts()
        return "_".join(part for part in (self._ja4_a(), suites, extensions, schemes) if part)

    def _ja4_parts(self) -> tuple[str, str, str]:
        known = [kind for kind in _without_grease(self.extensions) if kind not in (_SERVER_NAME, _ALPN)]
        suites = sorted(_without_grease(self.cipher_suites))
        return _hex_list(suites), _hex_list(sorted(known)), _hex_list(_without_grease(self.signature_schemes))

    def _ja4_a(self) -> str:
        versions = _without_grease(self.supported_versions)
        version = _JA4_VERSIONS.get(max(versions, default=0), "00")
        sni = "d" if _SERVER_NAME in self.extensions else "i"
        suites = min(len(_without_grease(self.cipher_suites)), 99)
        extensions = min(len(_without_grease(self.extensions)), 99)
        return f"t{version}{sni}{suites:02d}{extensions:02d}{self._ja4_alpn()}"

    def _ja4_alpn(self) -> str:
        """First and last character of the first protocol; of its hex form when either is no ASCII letter or digit."""
        first = self.alpn_protocols[0].encode("ascii", "surrogateescape") if self.alpn_protocols else b""
        if not first:
            return "00"
        ends = first[:1] + first[-1:]
        if ends.isalnum():
            return ends.decode("ascii")
        digits = first.hex()
        return digits[0] + digits[-1]


class _Fields:
    """A bounded reader: IndexError where the bytes end too early."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def take(self, n: int) -> bytes:
        if len(self.rest) < n:
            raise IndexError("cut short")
        taken, self.rest = self.rest[:n], self.rest[n:]
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))

    def end(self) -> None:
        if self.rest:
            raise IndexError("bytes follow its end")


def _numbers(data: bytes, width: int) -> tuple[int, ...]:
    if len(data) % width:
        raise IndexError("a list of odd length")
    return tuple(data) if width == 1 else struct.unpack(f">{len(data) // 2}H", data)


def _list(body: bytes | None, prefix: int, width: int) -> tuple[int, ...]:
    """An extension's body that is one vector of numbers; () without it."""
    if body is None:
        return ()
    fields = _Fields(body)
    content = fields.vector(prefix)
    fields.end()
    return _numbers(content, width)


def _host_name(body: bytes | None) -> str:
    """ServerNameList (RFC 6066, section 3): one entry of type host_name."""
    if body is None:
        return ""
    fields = _Fields(body)
    names = _Fields(fields.vector(2))
    fields.end()
    name = ""
    while names.rest:
        kind, value = names.number(1), names.vector(2)
        if kind == 0:
            name = value.decode("ascii")
    return name


def _protocols(body: bytes | None) -> tuple[str, ...]:
    if body is None:
        return ()
    fields = _Fields(body)
    names = _Fields(fields.vector(2))
    fields.end()
    found = []
    while names.rest:
        found.append(names.vector(1).decode("ascii", "surrogateescape"))
    return tuple(found)


def _without_grease(values: Iterable[int]) -> list[int]:
    return [v for v in values if v & 0x0F0F != 0x0A0A or v >> 8 != v & 0xFF]


def _hex_list(values: Sequence[int]) -> str:
    return ",".join(f"{v:04x}" for v in values)


def _hash12(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else "0" * 12
