"""What a connection is configured with."""

import dataclasses
import enum
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from cext.tls import config as engine
from edge.certificates import compression
from edge.tls.certificate import Certificate
from edge.tls.hello import ClientHelloInfo
from edge.tls.replay import ReplayRegister, engine_register
from edge.tls.request import CertificateRequestInfo
from edge.tls.tickets import OwnTickets, SessionTicketWrapper, WrapperTickets
from edge.tls.verify import Roots, Store, asking, heed, load_roots, store, system_store, verify_client

VERSIONS: Final = {"1.2": 0x0303, "1.3": 0x0304}

GROUPS: Final = {
    "x25519mlkem768": 0x11EC,
    "secp256r1mlkem768": 0x11EB,
    "x25519": 0x001D,
    "secp256r1": 0x0017,
    "secp384r1": 0x0018,
    "secp521r1": 0x0019,
}
"""By the names of the IANA registry, in lower case; a configuration may write them in any."""


class ClientAuth(enum.Enum):
    """What a server asks of its clients (RFC 8446, section 4.3.2)."""

    NONE = "none"
    REQUEST = "request"
    """A certificate is asked for; one that comes is verified, and none is as good."""
    REQUIRE = "require"


GetCertificate = Callable[[ClientHelloInfo], Certificate | Awaitable[Certificate | None] | None]
GetClientCertificate = Callable[[CertificateRequestInfo], Certificate | Awaitable[Certificate | None] | None]
GetConfig = Callable[[ClientHelloInfo], "Config | Awaitable[Config | None] | None"]
Verify = Callable[[Sequence[bytes], str], object]

_EARLY_DATA: Final = 14336


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Config:
    """Settings of any number of connections, as server or client; never changed (`dataclasses.replace` makes another).

    Raises ValueError for what cannot work, and OSError for a file that cannot be read.
    """

    certificates: Sequence[Certificate] = ()
    """A server's: chosen by the client's server_name and signature algorithms, the first by default. A client shows the
    first that can sign as the server wants to a server that asks, and none when none can."""
    get_certificate: GetCertificate | None = None
    """Chooses the certificate by the ClientHello; None leaves it to `certificates`."""
    get_client_certificate: GetClientCertificate | None = None
    """Chooses what a client shows to a server that asks, which has proved by then who it is; None leaves it to
    `certificates`."""
    get_config_for_client: GetConfig | None = None
    """Chooses the whole configuration by the ClientHello; None keeps this one. It is called before get_certificate,
    which is then the chosen configuration's."""
    next_protos: Sequence[str] = ()
    """ALPN protocols (RFC 7301), preferred first. A server that has some refuses a client which offers none of them;
    without any it ignores the extension."""
    client_auth: ClientAuth = ClientAuth.NONE
    """What a server asks of its clients."""
    client_cas: Roots | None = None
    """Whose certificates a server takes from clients: a PEM file or certificates."""
    min_version: str = "1.2"
    max_version: str = "1.3"
    """"1.2" or "1.3"."""
    groups: Sequence[str] | None = None
    """Key exchange groups, preferred first: keys of GROUPS. None: the engine's choice, hybrids with ML-KEM first. A
    server prefers one that the client has sent a share of to one that it would have to ask for."""
    accept_early_data: bool = False
    """Whether a server takes 0-RTT data (RFC 8446, section 2.3), which may be a replay: see Conn.confirm_handshake."""
    max_early_data_size: int | None = None
    """Bytes of it, at most, of each connection. None: 14 KiB."""
    replay_register: ReplayRegister | None = None
    """Where it is remembered, so that it is taken once. None: shared memory of this configuration, which processes that
    are forked after it have in common."""
    session_tickets: bool = True
    """Whether a server gives its clients tickets, for a shorter handshake the next time, and a client takes them."""
    session_ticket_wrapper: SessionTicketWrapper | None = None
    """Makes them, so that other processes can take them; None: keys of this configuration, which it keeps to itself
    and replaces twice a day."""
    key_log: Callable[[str], None] | None = None
    """Gets each line of an NSS key log (SSLKEYLOGFILE): whoever reads them reads the connection. For debugging."""
    root_cas: Roots | None = None
    """Whom a client trusts: a PEM file or certificates; None: the system's store."""
    verify: bool | Verify = True
    """True: a server's chain must lead to one of `root_cas` and be for the name asked for, a client's to one of
    `client_cas`. A callable decides instead, and refuses by raising (`Refuse` names the alert) or returning False; it
    gets the DER chain, leaf first, and the name ("" for a client's). False: no trust is established, and anyone on the
    way may answer in the server's place."""
    request_ocsp_staple: bool = False
    """Whether a client asks for an OCSP response with the server's certificate: see ConnectionState.ocsp_response."""
    request_timestamps: bool = False
    """Whether it asks for timestamps of Certificate Transparency logs beside the certificate."""
    verify_staple: Callable[[Sequence[bytes], bytes], object] | None = None
    """Judges the OCSP response, in a client that asks for it: gets the DER chain and the response (DER; b"" when the
    server has none), and raises to refuse (`Refuse` names the alert, which else is bad_certificate_status_response), or
    returns False."""
    _made: dict[str, Any] = dataclasses.field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.next_protos, str) or not all(isinstance(p, str) for p in self.next_protos):
            raise ValueError("next_protos: a sequence of str")
        object.__setattr__(self, "certificates", tuple(self.certificates))
        object.__setattr__(self, "next_protos", tuple(self.next_protos))
        if not all(isinstance(certificate, Certificate) for certificate in self.certificates):
            raise ValueError("certificates: a sequence of edge.tls.Certificate")
        if not callable(self.verify) and not isinstance(self.verify, bool):
            raise ValueError("verify: True, False or a callable")
        self._check_groups()
        self._check_versions()
        self._check_tickets()
        self._check_client_auth()
        self._load("root_cas")
        if self.verify_staple is not None and not (self.request_ocsp_staple and callable(self.verify_staple)):
            raise ValueError("verify_staple: a callable, beside request_ocsp_staple")
        self.client_config("", None)  # what the engine finds wrong is told now, not at the first connection
        if self.certificates or self.has_hooks:
            self.server_config()

    def _check_groups(self) -> None:
        for group in self.groups or ():
            if group.lower() not in GROUPS:
                raise ValueError(f"groups: {group!r} is none of {', '.join(GROUPS)}")
            try:
                engine.known_groups([GROUPS[group.lower()]])
            except ValueError:
                raise ValueError(f"groups: this engine has no {group}") from None

    def _load(self, name: str) -> None:
        roots = getattr(self, name)
        if roots is None:
            return
        try:
            object.__setattr__(self, name, load_roots(roots))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None

    def _check_versions(self) -> None:
        for name, value in (("min_version", self.min_version), ("max_version", self.max_version)):
            if value not in VERSIONS:
                raise ValueError(f"{name}: {value!r} is none of {', '.join(VERSIONS)}")
        if self.min_version > self.max_version:
            raise ValueError("max_version: is below min_version")

    def _check_tickets(self) -> None:
        if self.session_ticket_wrapper is not None:
            if not self.session_tickets:
                raise ValueError("session_ticket_wrapper: has nothing to do with session_tickets off")
            self._made["tickets"] = WrapperTickets(self.session_ticket_wrapper)
        if not self.accept_early_data:
            if self.max_early_data_size is not None:
                raise ValueError("max_early_data_size: needs accept_early_data")
            if self.replay_register is not None:
                raise ValueError("replay_register: needs accept_early_data")
            return
        if not self.session_tickets:
            raise ValueError("accept_early_data: early data comes with a ticket, and session_tickets is off")
        if self.max_version == "1.2":
            raise ValueError("accept_early_data: TLS 1.2 has none")
        if self.max_early_data_size is not None and not 0 < self.max_early_data_size < 1 << 31:
            raise ValueError("max_early_data_size: is out of range")
        if self.replay_register is not None:
            self._made["replay"] = engine_register(self.replay_register)

    def _check_client_auth(self) -> None:
        if self.client_auth is ClientAuth.NONE:
            if self.client_cas is not None:
                raise ValueError("client_cas: needs a client_auth that asks for certificates")
            return
        if not isinstance(self.client_auth, ClientAuth):
            raise ValueError("client_auth: a ClientAuth")
        if (self.client_cas is None) is (self.verify is True):
            raise ValueError("client_cas: says whose certificates are good, unless verify is a callable or False")
        self._load("client_cas")

    def _verify_client(self) -> Callable[..., None] | None:
        if self.client_auth is ClientAuth.NONE or self.verify is False:
            return None
        if callable(self.verify):
            verify = self.verify
            return asking(lambda chain: heed(verify(chain, ""), "bad_certificate"))
        trusted = store(self.client_cas or ())
        return asking(lambda chain: verify_client(trusted, chain))

    def _verify_staple(self) -> Callable[[list[bytes], bytes], None] | None:
        if self.verify_staple is None:
            return None
        return lambda chain, response: asking(lambda der: self.judge_staple(der, response))(chain)

    def judge_staple(self, chain: Sequence[bytes], response: bytes) -> None:
        """Raises what verify_staple does, if there is one; Refuse where it returns False."""
        if self.verify_staple is not None:
            heed(self.verify_staple(chain, response), "bad_certificate_status_response")

    def _client_authorities(self) -> list[bytes]:
        if self.client_cas is None:
            return []
        return [root.subject.public_bytes() for root in load_roots(self.client_cas)]

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "alpn": [p.encode("ascii", "surrogateescape") for p in self.next_protos],
            "min_version": VERSIONS[self.min_version],
            "max_version": VERSIONS[self.max_version],
            "key_log": self.key_log,
            "certificate_compression": compression.AVAILABLE,
        }
        if self.groups is not None:
            options["groups"] = [GROUPS[name.lower()] for name in self.groups]
        return options

    @property
    def has_hooks(self) -> bool:
        """Whether a server stops at each ClientHello to ask."""
        return self.get_certificate is not None or self.get_config_for_client is not None

    def server_config(self) -> Any:
        """The engine's form of it for servers, made once. ValueError when there is no certificate, and no hook to
        bring one."""
        made = self._made.get("server")
        if made is None:
            if not self.certificates and not self.has_hooks:
                raise ValueError("certificates: a server needs at least one, or a hook")
            credentials = [certificate.credential for certificate in self.certificates]
            tickets = self._made.setdefault("tickets", OwnTickets()) if self.session_tickets else None
            fresh = engine.ServerConfig(
                credentials,
                policy=self.has_hooks,
                tickets=tickets and tickets.sealer,
                client_auth=self.client_auth.value,
                verify_client=self._verify_client(),
                client_authorities=self._client_authorities(),
                max_early_data=(self.max_early_data_size or _EARLY_DATA) if self.accept_early_data else 0,
                replay=self._made.get("replay"),
                **self._options(),
            )
            # Two threads may make it at once; all connections must use one, for its cookies and its replay register.
            made = self._made.setdefault("server", fresh)
        if self.session_tickets:
            self._made["tickets"].rotate()
        return made

    def client_config(
        self, server_name: str, verify: Callable[[list[bytes], bytes], None] | None, *, early_data: bool = False
    ) -> Any:
        """The engine's form of it for one client connection."""
        return engine.ClientConfig(
            server_name=server_name,
            verify=verify,
            early_data=early_data,
            # A delegated credential is a server's.
            credentials=[one.credential for one in self.certificates if one.delegated_credential is None],
            policy=self.get_client_certificate is not None,
            tickets=self.session_tickets,
            status_request=self.request_ocsp_staple,
            signed_certificate_timestamp=self.request_timestamps,
            verify_status=self._verify_staple(),
            **self._options(),
        )

    def clone(self, **changes: Any) -> "Config":
        """Another configuration with these changes, whose tickets a clone of the wrapper makes; without a wrapper it
        has keys of its own. (dataclasses.replace shares the wrapper.)"""
        if self.session_ticket_wrapper is not None:
            changes.setdefault("session_ticket_wrapper", self.session_ticket_wrapper.clone())
        return dataclasses.replace(self, **changes)

    def roots(self) -> Store:
        """Whom a client trusts, made once. Raises OSError, and ValueError when the system has no store."""
        made: Store | None = self._made.get("roots")
        if made is None:
            made = self._made["roots"] = store(self.root_cas) if self.root_cas is not None else system_store()
        return made
