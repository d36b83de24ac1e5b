"""From settings to data-plane objects. Only this file touches `cext`.

`prepare` runs in the master, before a configuration is accepted: whatever the data plane refuses shows there,
and the workers inherit the result (keys included) by the fork. `open_plane` runs in a worker.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from cext.base.stats import StatsTable
from cext.crypto.sign import PrivateKey
from cext.proxy.address_table import AddressTable
from cext.proxy.early_rules import EarlyRules
from cext.proxy.hints import EarlyHints, HintTable
from cext.proxy.listener_settings import ListenerSettings, Quota
from cext.proxy.router import Route, Router
from cext.proxy.trace import TraceSettings
from cext.tls.config import ServerConfig
from cext.tls.credential import Credential
from cext.tls.session import AwaitedTickets
from cext.worker import DataPlane

from edge import certs, compression, config, gates, policy, tcp, ticket_keys, timeouts, traces, upstreams
from edge.certwatch import Watch
from edge.clients import ClientTrust
from edge.delegated import REMEDY, Delegation
from edge.early_data import EarlyData
from edge.handshake import WRAPPER, Handshakes
from edge.labels import ROUTE, Labels, route_label
from edge.schema import Place
from edge.serving import MakeConfigs, Serving
from edge.settings import Bind, Listener, Settings
from edge.settings import EarlyHints as HintSettings
from edge.traces import Traces

# ALPN names that the HTTP/1 session answers to. A client that speaks 1.0 alone says so (curl --http1.0 does).
HTTP1: Final = (b"http/1.1", b"http/1.0")


T = TypeVar("T")


class Loop(Protocol):
    """`cext.net.loop.Loop`, likewise."""

    def call_soon(self, callback: Callable[[], None]) -> None: ...


class Watched(Protocol):
    """`cext.net.readable.Readable`, likewise."""

    def close(self) -> None: ...


class Guest(Protocol):
    """`cext.net.guest.AsyncGuest`, likewise."""

    aio: asyncio.AbstractEventLoop

    def run_coroutine(
        self, coroutine: Coroutine[object, object, T], done: Callable[[asyncio.Task[T]], None]
    ) -> asyncio.Task[T]: ...


class Plane(Protocol):
    """`cext.worker.DataPlane`, as the worker uses it."""

    hooks: object
    """The policy's, or None."""
    failed: Callable[[str, BaseException], None]
    """Tells the operator of a signer's failure."""

    @property
    def loop(self) -> Loop: ...
    @property
    def guest(self) -> Guest: ...
    def listen(self, fd: int, settings: object) -> None: ...
    def every(self, ms: int, callback: Callable[[], None]) -> None: ...
    def watch(self, fd: int, callback: Callable[[], None]) -> Watched: ...
    def run(self) -> None: ...
    def drain(self, deadline_ms: int) -> None: ...
    def stop(self) -> None: ...
    def log_to(self, sink: Callable[[bytes], int] | None, **form: Any) -> None: ...
    def counters(self) -> dict[str, int]: ...
    def connections(self, place: int, filters: Mapping[str, Any]) -> tuple[int, list[tuple[int, dict[str, Any]]]]: ...
    def upstreams(self) -> list[dict[str, Any]]: ...
    def trace(self, settings: object, sink: Callable[[bytes], bool]) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that is ready to serve."""

    settings: Settings
    serving: Serving
    """The certificates, which change while the configuration stays."""
    watch: Watch
    """Their files."""
    listeners: dict[Bind, object]
    """The data plane's settings for each address."""
    route_policies: tuple[tuple[policy.Policy, tuple[Any, ...]], ...]
    """Those of routes, each with its Routes."""
    policy: policy.Policy | None
    rotation: ticket_keys.Rotation | None
    """The ticket keys, which each process turns on its own."""
    handshakes: Handshakes
    """What the policy's hooks of the handshake choose from."""
    traces: object | None
    """The data plane's settings of traces; None: there are none."""


def prepare(
    settings: Settings,
    cookie_secret: bytes,
    shared: ticket_keys.Shared | None = None,
    labels: Labels | None = None,
    *,
    key_log: Callable[[str], None] | None = None,
) -> Prepared:
    """Loads what the settings name. `cookie_secret` is the same for all workers, `shared` and `labels` are what stays
    when settings change, `key_log` takes the key log's lines if there is to be one. Raises ConfigError."""
    labels = labels or Labels()
    traced = _traces(settings.server.traces, Place(settings.file).key("server").key("traces"))
    watch = Watch(settings)
    shared = shared or ticket_keys.Shared()
    at = Place(settings.file).key("tls").key("tickets")
    rotation = shared.rotation(settings.tls.tickets, at) if settings.tls.tickets.enabled else None
    policies = _policies(settings)
    chosen = policies.get(settings.server.hooks or "")
    options = _tls_options(settings, cookie_secret, rotation, shared, chosen, key_log=key_log)
    serving = Serving(certs.load(settings), _credentials, _server_configs(options))
    groups = upstreams.groups(settings, _credential, labels)
    routes = _routes(settings, groups, labels)
    router = Router(routes, groups)
    listeners: dict[Bind, object] = {}
    logged = gates.networks(settings.tls.key_log.clients) if settings.tls.key_log else None
    for listener, before in zip(settings.listener, _before_tls(settings, chosen), strict=True):
        quota = Quota()
        for bind in listener.bind:
            listeners[bind] = _listener_settings(
                listener, serving, router, settings.tls.early_data, {**before, "quota": quota, "key_logged": logged}
            )
    return Prepared(
        settings=settings,
        serving=serving,
        watch=watch,
        listeners=listeners,
        route_policies=_by_policy(settings, policies, routes),
        policy=chosen,
        rotation=rotation,
        handshakes=Handshakes(
            options.values(),
            directory=Path(settings.file).parent.absolute(),
            keys=rotation.keys if rotation else None,
        ),
        traces=traced,
    )


def _traces(wanted: Traces | None, at: Place) -> object | None:
    if wanted is None:
        return None
    traces.check(wanted, at)
    trust: object = wanted.trust
    if isinstance(wanted.trust, tuple):
        trust = [(str(network.network_address), network.prefixlen) for network in wanted.trust]
    return cast(object, TraceSettings(wanted.sample, trust, wanted.query != "none"))


def _tls_options(
    settings: Settings,
    cookie_secret: bytes,
    rotation: ticket_keys.Rotation | None,
    shared: ticket_keys.Shared,
    chosen: policy.Policy | None,
    *,
    key_log: Callable[[str], None] | None,
) -> dict[bool, dict[str, Any]]:
    """What ServerConfigs are made with, beside credentials: of all listeners that offer the same protocols, by whether
    HTTP/2 is among them."""
    tickets, early_data = settings.tls.tickets, settings.tls.early_data
    options = {
        "cipher_suites": settings.tls.cipher_suites,
        "min_version": settings.tls.min_version,
        "max_version": settings.tls.max_version,
        "groups": settings.tls.groups,
        "cookie_secret": cookie_secret,
        "policy": chosen is not None and chosen.asked_by_handshakes,
        "tickets": _sealer(settings, rotation, chosen),
        "ticket_count": tickets.count,
        "ticket_lifetime": ticket_keys.lifetime(tickets),
        "max_early_data": early_data.max_bytes if early_data else 0,
        "early_window": early_data.window if early_data else 1,
        "replay": shared.register(early_data, tickets, Place(settings.file)) if early_data else None,
        **_client_auth(settings),
        "key_log": key_log if settings.tls.key_log else None,
    }
    offered = {listener.http2.enabled for listener in settings.listener}
    return {http2: {**options, "alpn": (b"h2", *HTTP1) if http2 else HTTP1} for http2 in offered}


def _sealer(settings: Settings, rotation: ticket_keys.Rotation | None, chosen: policy.Policy | None) -> Any:
    """What makes tickets, and opens them: the configured keys, or the policy's wrapper. None: nothing does."""
    if chosen is None or not chosen.wraps_tickets:
        return rotation.keys if rotation else None
    if rotation is None:
        raise chosen.at.error(
            f"{chosen.cls.__name__}.{WRAPPER} has nothing to do: tickets are off",
            "remove the method, or [tls] tickets.enabled = false",
        )
    return AwaitedTickets()


def _server_configs(options: Mapping[bool, Mapping[str, Any]]) -> MakeConfigs:
    def make(credentials: Sequence[Any]) -> dict[bool, Any]:
        return {http2: ServerConfig(credentials, **of) for http2, of in options.items()}

    return make


def _before_tls(settings: Settings, loaded: policy.Policy | None) -> Iterator[dict[str, object]]:
    """What each listener has before TLS: a gate, or those who may hand over to it."""
    targets = gates.targets(settings.handoff)
    by_hook = loaded is not None and hasattr(loaded.cls, "client_hello")
    own, _ = config.owner(settings.server, Place(settings.file).key("server"))
    for i, listener in enumerate(settings.listener):
        if listener.kind == "handoff":
            at = Place(settings.file).key("listener").item(i).key("handoff")
            yield {"senders": gates.senders(listener.handoff, own, at)}
        else:
            yield {"gate": gates.gate(listener.proxy_protocol, settings.handoff, targets, by_hook)}


def _policies(settings: Settings) -> dict[str, policy.Policy]:
    """Every policy by its name; a route's has one object for all routes that name it."""
    root = Place(settings.file)
    wanted: dict[str, tuple[str, Place, bool]] = {}
    if name := settings.server.hooks:
        wanted[name] = (name, root.key("server").key("hooks"), False)
    for i, route in enumerate(settings.route):
        at = root.key("route").item(i).key("hooks")
        if route.hooks and route.hooks == settings.server.hooks:
            raise at.error(f'"{route.hooks}" is asked about every request already', "remove it here, or from [server]")
        if route.hooks:
            wanted.setdefault(route.hooks, (route.hooks, at, True))
    return dict(zip(wanted, policy.load_all(list(wanted.values())), strict=True))


def _by_policy(
    settings: Settings, policies: dict[str, policy.Policy], routes: list[Any]
) -> tuple[tuple[policy.Policy, tuple[Any, ...]], ...]:
    found: dict[str, list[Any]] = {}
    for route, made in zip(settings.route, routes, strict=True):
        if route.hooks:
            found.setdefault(route.hooks, []).append(made)
    return tuple((policies[name], tuple(of_policy)) for name, of_policy in found.items())


def start_policies(prepared: Prepared, plane: Plane, log: policy.Log) -> None:
    """Makes the policies' objects, in a worker."""
    if prepared.policy:
        plane.hooks = prepared.policy.start(log, prepared.handshakes)
    for of_routes, routes in prepared.route_policies:
        hooks = of_routes.start(log)
        for route in routes:
            route.hooks = hooks


def _client_auth(settings: Settings) -> dict[str, object]:
    asked = settings.tls.client_auth
    if asked is None:
        return {}
    at = Place(settings.file).key("tls").key("client_auth")
    authorities = certs.load_authorities(asked.ca, at.key("ca"))
    return {
        "client_auth": asked.mode,
        "verify_client": ClientTrust(authorities),
        "certificate_compression": compression.AVAILABLE,
        "client_authorities": dict.fromkeys(certificate.subject.public_bytes() for certificate in authorities),
    }


def start_signers(prepared: Prepared, plane: Plane, report: Callable[[str, str], None]) -> None:
    """In a worker, before it serves: what signs by asking others begins, with report(level, message) for its
    troubles; and so does what later certificates bring, while what they no longer need ends."""
    started: list[Any] = []

    async def follow() -> None:
        now = [s for s in prepared.serving.signers() if hasattr(s, "start")]
        before = started[:]
        started[:] = now
        for signer in now:
            if not any(signer is one for one in before):
                signer.start(asyncio.get_running_loop(), report)
        for signer in before:
            if not any(signer is one for one in now):
                signer.stop()

    def begin() -> None:
        if started or any(hasattr(s, "start") for s in prepared.serving.signers()):
            plane.guest.run_coroutine(follow(), lambda task: task.result())

    prepared.serving.replaced = begin
    begin()


def open_plane(
    error_log: Callable[[str, str], None],
    *,
    addresses: AddressTable,
    memory_limit: int,
    hook_timeout: int,
    stats: StatsTable | None = None,
) -> Plane:
    return cast(
        Plane,
        DataPlane(
            error_log=error_log,
            addresses=addresses,
            memory_limit=memory_limit,
            hook_timeout_ms=hook_timeout,
            stats=stats,
        ),
    )


def _credentials(identity: certs.Identity, before: tuple[Any, ...]) -> tuple[Any, ...]:
    own = _credential(identity, before[-1] if before else None)
    delegation = identity.delegation
    # Where its key is not given, it is that of the delegated one before, unless that has expired meanwhile.
    if delegation is None or delegation.has_expired() or not (delegation.key_pem or len(before) > 1):
        return (own,)
    key = PrivateKey.from_pem(delegation.key_pem) if delegation.key_pem else before[0].key
    return _delegated(identity, delegation, key), own


def _delegated(identity: certs.Identity, delegation: Delegation, key: Any) -> Any:
    try:
        return _beside(identity, key, delegated_credential=delegation.credential)
    except ValueError as e:
        raise identity.at.key("delegated").error(f"cannot be used: {e}", REMEDY) from None


def _credential(identity: certs.Identity, before: Any = None) -> Any:
    try:
        return _beside(identity, _key(identity, before))
    except ValueError as e:
        raise identity.at.error(
            f"cannot be used: {e}", "write the names to serve under `names`, or use another certificate and key"
        ) from None


def _beside(identity: certs.Identity, key: Any, **named: Any) -> Any:
    return Credential(
        identity.chain,
        key,
        identity.names,
        ocsp_response=identity.ocsp_response,
        ocsp_expires=identity.ocsp_expires,
        signed_certificate_timestamps=identity.timestamps,
        certificate_compression=compression.AVAILABLE,
        **named,
    )


def _key(identity: certs.Identity, before: Any) -> Any:
    """What signs; what has signed before (and is connected) as long as it is no other."""
    if identity.signer is None:
        return PrivateKey.from_pem(identity.key_pem) if identity.key_pem else before.key
    return before.signer if before is not None and before.signer == identity.signer else identity.signer


def _routes(settings: Settings, groups: dict[str, object], labels: Labels) -> list[Any]:
    learned = HintTable()
    return [
        Route(
            groups[route.upstream],
            hosts=route.match.host or (),
            path=route.match.path,
            methods=route.match.method or (),
            timeouts=timeouts.limits(route.timeouts),
            push=route.push,
            upgrade=route.upgrade,
            max_head=route.limits.head,
            max_body=route.limits.body,
            max_running=route.limits.requests,
            series=labels.index(ROUTE, route_label(route)),
            early_data=_early_rules(route.early_data, settings.tls.early_data),
            hints=_early_hints(route.early_hints, learned, Place(settings.file).key("route").item(i)),
        )
        for i, route in enumerate(settings.route)
    ]


def _early_rules(mode: str, early_data: EarlyData | None) -> object:
    if mode == "confirm":
        return None
    if early_data is None:
        return EarlyRules(mode)
    safe = early_data.safe
    return EarlyRules(mode, methods=safe.methods, query=safe.query, content=safe.content)


def _early_hints(wanted: HintSettings | None, learned: object, at: Place) -> object:
    if wanted is None:
        return None
    at = at.key("early_hints")
    if not wanted.links and not wanted.learn:
        raise at.error("hints at nothing", "add links, or learn = true")
    for i, link in enumerate(wanted.links):
        try:
            EarlyHints([link.encode()])
        except ValueError:
            raise at.key("links").item(i).error(
                f'"{link}" is no hint',
                'write one link with a relation of preload, modulepreload or preconnect: "</style.css>; rel=preload"',
            ) from None
    try:
        return EarlyHints(
            [link.encode() for link in wanted.links],
            learned if wanted.learn else None,
            remember_ms=wanted.remember,
            http1=wanted.http1,
        )
    except ValueError as e:
        raise at.key("links").error(f"is too much: {e}", "keep to what every page needs first") from None


def _listener_settings(
    listener: Listener,
    serving: Serving,
    router: object,
    early_data: EarlyData | None,
    others: dict[str, object],
) -> object:
    made = ListenerSettings(
        serving.configs[listener.http2.enabled],
        router,
        handshake_ms=listener.timeouts.handshake,
        timeouts=timeouts.limits(listener.timeouts),
        tcp=tcp.options(listener.tcp),
        line_limit=listener.limits.line,
        head_limit=listener.limits.head,
        field_limit=listener.limits.fields,
        max_connections=listener.limits.connections,
        per_address=listener.limits.per_address,
        max_requests=listener.limits.requests_per_connection,
        requests_per_address=listener.limits.requests_per_address,
        answer_over=listener.limits.over_limit == "answer",
        h2_streams=listener.http2.max_streams,
        h2_stream_window=listener.http2.stream_window,
        h2_connection_window=listener.http2.connection_window,
        h2_connect_protocol=listener.http2.connect_protocol,
        first_record=listener.records.first,
        first_bytes=listener.records.until,
        record_idle_ms=listener.records.idle,
        x_forwarded=listener.forwarded in ("x-forwarded", "both"),
        forwarded=listener.forwarded in ("forwarded", "both"),
        unique_header=early_data.unique_header.encode() if early_data else b"",
        **others,
    )
    serving.attach(made, listener.http2.enabled)
    return made


def warnings(prepared: Prepared) -> Sequence[str]:
    settings = prepared.settings
    found = [*settings.warnings, *(w for identity in prepared.serving.identities for w in identity.warnings)]
    if settings.tls.key_log:
        log = settings.tls.key_log
        clients = ", ".join(map(str, log.clients))
        found.append(f"{settings.file}: tls.key_log: the secrets of connections from {clients} go to {log.path}")
    return found
