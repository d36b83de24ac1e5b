"""From settings to data-plane objects. Only this file touches `cext`.

`prepare` runs in the master, before a configuration is accepted: whatever the data plane refuses shows there,
and the workers inherit the result (keys included) by the fork. `open_plane` runs in a worker.
"""

import asyncio
import contextlib
import dataclasses
import functools
import importlib
import operator
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar, cast

from cext.base.stats import StatsTable
from cext.crypto.sign import PrivateKey
from cext.proxy.address_table import AddressTable
from cext.proxy.early_rules import EarlyRules
from cext.proxy.hints import EarlyHints, HintTable
from cext.proxy.listener_settings import ListenerSettings, Quota
from cext.proxy.router import HookedRoute, Route, Router
from cext.proxy.trace import TraceSettings
from cext.tls.config import ServerConfig
from cext.tls.credential import Credential
from cext.tls.replay import AwaitedRegister
from cext.tls.session import AwaitedTickets
from cext.worker import DataPlane
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge import config, gates, hook_modules, policy, tcp, timeouts, upstreams
from edge.certificates import certs, compression
from edge.certificates.delegated import REMEDY, Delegation
from edge.certificates.kept import Kept
from edge.certificates.serving import CERTIFICATES, MakeConfigs, Serving
from edge.change.material import Material
from edge.clients import ClientTrust
from edge.early_data.registers import Registers
from edge.early_data.settings import EarlyData
from edge.fleet import link as links
from edge.fleet import settings as fleets
from edge.fleet.link import Link
from edge.fleet.settings import EARLY_DATA
from edge.handshake import WRAPPER, Handshakes
from edge.logs.logline import Log
from edge.observe import traces
from edge.observe.labels import ROUTE, Labels, route_label
from edge.observe.traces import Traces
from edge.schema import Place
from edge.settings import Bind, Listener, Settings
from edge.settings import EarlyHints as HintSettings
from edge.tickets.rotations import Rotation, Rotations, lifetime

# ALPN names that the HTTP/1 session answers to. A client that speaks 1.0 alone says so (curl --http1.0 does).
HTTP1: Final = (b"http/1.1", b"http/1.0")


T = TypeVar("T")


class Loop(Protocol):
    """`cext.net.loop.Loop`, likewise."""

    def call_soon(self, callback: Callable[[], None]) -> None: ...
    def call_soon_from_thread(self, callback: Callable[[], None]) -> None: ...


class Watched(Protocol):
    """`cext.net.readable.Readable`, likewise."""

    def close(self) -> None: ...


class Door(Protocol):
    """`cext.proxy.frontend.Frontend`, likewise."""

    settings: object


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
    register_up: bool
    """Whether the fleet's register answers, for metrics."""

    @property
    def loop(self) -> Loop: ...
    @property
    def guest(self) -> Guest: ...
    memory_limit: int
    hook_timeout: int
    def listen(self, fd: int, settings: object) -> Door: ...
    def become(self, frontend: Door, settings: object) -> None: ...
    def leave(self, frontend: Door) -> None: ...
    def every(self, ms: int, callback: Callable[[], None]) -> None: ...
    def watch(self, fd: int, callback: Callable[[], None]) -> Watched: ...
    def run(self) -> None: ...
    def drain(self, deadline_ms: int) -> None: ...
    def stop(self) -> None: ...
    def log_to(self, sink: Callable[[bytes], int] | None, **form: Any) -> None: ...
    def counters(self) -> dict[str, int]: ...
    def connections(self, place: int, filters: Mapping[str, Any]) -> tuple[int, list[tuple[int, dict[str, Any]]]]: ...
    def upstreams(self) -> list[dict[str, Any]]: ...
    def trace(self, settings: object, sink: Callable[[bytes], bool] | None = None) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that is ready to serve."""

    settings: Settings
    serving: Serving
    """The certificates, which change while the configuration stays."""
    listeners: dict[Bind, object]
    """The data plane's settings for each address."""
    route_policies: tuple[tuple[policy.Policy, tuple[Any, ...]], ...]
    """Those of routes, each with its Routes."""
    policy: policy.Policy | None
    rotation: Rotation | None
    """The ticket keys, which each process turns on its own."""
    handshakes: Handshakes
    """What the policy's hooks of the handshake choose from."""
    traces: object | None
    """The data plane's settings of traces; None: there are none."""
    modules: hook_modules.Modules | None
    """The policies'."""
    router: Any
    groups: dict[str, upstreams.Group]
    targets: gates.Targets
    trust: tuple[tuple[bytes, ...], ClientTrust] | None
    """Whose certificates clients may show: DER, and who verifies them."""
    learned: Any
    """Early hints."""
    link: Link | None
    """How the fleet's Redis is reached."""
    register: Any
    """The fleet's register of early data, which is to be asked; None without."""

    def use(self) -> None:
        """Holds in this process from now on."""
        if self.modules:
            self.modules.use()
        self.handshakes.use()


def prepare(
    settings: Settings,
    cookie_secret: bytes,
    rotations: Rotations | None = None,
    registers: Registers | None = None,
    labels: Labels | None = None,
    *,
    key_log: Callable[[str], None] | None = None,
    material: Material | None = None,
    before: Prepared | None = None,
) -> Prepared:
    """Loads what the settings name. `cookie_secret` is the same for all workers, `rotations`, `registers` and `labels`
    are what stays when settings change, `key_log` takes the key log's lines if there is to be one, `material` is what
    is read. What has not changed since `before` goes on: pools of upstreams, credentials, what routes have to do.
    Nothing of that changes yet, and nothing is used before use(). Raises ConfigError."""
    labels = labels or Labels()
    material = material or Material()
    traced = _traces(settings.server.traces, Place(settings.file).key("server").key("traces"), material)
    link = _link(settings, material)
    at = Place(settings.file).key("tls").key("tickets")
    tickets = settings.tls.tickets
    rotations = rotations or Rotations()
    rotation = rotations.rotation(tickets, at, material, settings.fleet) if tickets.enabled else None
    policies, modules = _policies(settings, material)
    chosen = policies.get(settings.server.hooks or "")
    trust = _trust(settings, material, before)
    early_data = settings.tls.early_data
    replay = _register(settings, registers or Registers(), link, material)
    options = _tls_options(
        settings,
        chosen,
        cookie_secret=cookie_secret,
        tickets=_sealer(settings, rotation, chosen),
        replay=replay,
        trust=trust,
        key_log=key_log if settings.tls.key_log else None,
    )
    serving = Serving(
        _identities(settings, material, before),
        _credentials,
        _server_configs(options),
        options=options,
        before=before.serving if before else None,
        progress=material.progress,
    )
    groups = upstreams.groups(settings, _credential, labels, material, before.groups if before else None)
    made = {name: group.made for name, group in groups.items()}
    learned = before.learned if before else HintTable()
    routes = _routes(settings, made, labels, learned, _loads(before))
    router = Router(routes, made)
    targets = gates.targets(settings.handoff, before.targets if before else None)
    listeners: dict[Bind, object] = {}
    logged = gates.networks(settings.tls.key_log.clients) if settings.tls.key_log else None
    for listener, before_tls in zip(settings.listener, _before_tls(settings, chosen, targets, material), strict=True):
        others = {**before_tls, "quota": Quota(), "key_logged": logged}
        for bind in listener.bind:
            listeners[bind] = _listener_settings(listener, serving, router, early_data, others)
    return Prepared(
        settings=settings,
        serving=serving,
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
        modules=modules,
        router=router,
        groups=groups,
        targets=targets,
        trust=trust,
        learned=learned,
        link=link,
        register=replay if isinstance(replay, AwaitedRegister) else None,
    )


def _link(settings: Settings, material: Material) -> Link | None:
    fleet = settings.fleet
    if fleet is None:
        return None
    return material.get("fleet", lambda: links.read(fleet, Place(settings.file).key("fleet")))


def _register(settings: Settings, registers: Registers, link: Link | None, material: Material) -> object | None:
    """What tells which early data has been taken: by this host, or by the fleet."""
    early_data, fleet = settings.tls.early_data, settings.fleet
    if early_data is None:
        return None
    if link is not None and fleet is not None and fleet.shares(EARLY_DATA):
        # What workers need of the redis package is in memory once, and they do not stop for it in the midst of serving.
        importlib.import_module("edge.fleet.connection")
        return cast(object, registers.of_fleet(early_data, fleet.deadline, link, material))
    at = Place(settings.file).key("tls").key("tickets")
    return cast(object, registers.of_host(early_data, settings.tls.tickets, at, material))


def _traces(wanted: Traces | None, at: Place, material: Material) -> object | None:
    if wanted is None:
        return None
    material.get("traces", lambda: traces.check(wanted, at))
    trust: object = wanted.trust
    if isinstance(wanted.trust, tuple):
        trust = [(str(network.network_address), network.prefixlen) for network in wanted.trust]
    return cast(object, TraceSettings(wanted.sample, trust, wanted.query != "none"))


def _identities(settings: Settings, material: Material, before: Prepared | None) -> tuple[certs.Identity, ...]:
    """Those that are kept are `before`'s; a worker is handed all of them settled, and nothing when all are kept."""
    served = before.serving.identities if before else ()
    if not material.reads:
        count: int | None = material.get(CERTIFICATES, lambda: None)
        if count is None:
            return served
        handed = [material.get((CERTIFICATES, i), lambda: None) for i in range(count)]
        return tuple(one.of(served) if isinstance(one, Kept) else cast(certs.Identity, one) for one in handed)
    places = range(len(settings.certificate))
    found: list[Kept | certs.Identity] = []
    for i in places:
        material.progress("reads certificates", i, len(places))
        load = functools.partial(certs.load_entry, settings, i)
        found.append(material.kept.get(i) or material.get((CERTIFICATES, i), load))
    settled = certs.settle(settings, [one.of(served) if isinstance(one, Kept) else one for one in found])
    if len(settled) == len(served) and all(map(operator.is_, settled, served)):
        material.put(CERTIFICATES, None)
        return served
    material.put(CERTIFICATES, len(settled))
    for i, one in zip(places, found, strict=True):
        names = settled[i].names
        material.put((CERTIFICATES, i), one.named(names) if isinstance(one, Kept) else settled[i])
    return settled


def _loads(before: Prepared | None) -> dict[object, Any]:
    """What the routes of a configuration have to do, by what they match."""
    return {(route.hosts, route.path, route.methods): route.load for route in before.router.routes} if before else {}


def _tls_options(
    settings: Settings,
    chosen: policy.Policy | None,
    *,
    cookie_secret: bytes,
    tickets: Any,
    replay: object,
    trust: tuple[tuple[bytes, ...], ClientTrust] | None,
    key_log: Callable[[str], None] | None,
) -> dict[bool, dict[str, Any]]:
    """What ServerConfigs are made with, beside credentials: of all listeners that offer the same protocols, by whether
    HTTP/2 is among them."""
    early_data = settings.tls.early_data
    options = {
        "cipher_suites": settings.tls.cipher_suites,
        "min_version": settings.tls.min_version,
        "max_version": settings.tls.max_version,
        "groups": settings.tls.groups,
        "cookie_secret": cookie_secret,
        "policy": chosen is not None and chosen.asked_by_handshakes,
        "tickets": tickets,
        "ticket_count": settings.tls.tickets.count,
        "ticket_lifetime": lifetime(settings.tls.tickets),
        "max_early_data": early_data.max_bytes if early_data else 0,
        "early_window": early_data.window if early_data else 1,
        "replay": replay,
        **_client_auth(settings, trust),
        "key_log": key_log,
    }
    offered = {listener.http2.enabled for listener in settings.listener}
    return {http2: {**options, "alpn": (b"h2", *HTTP1) if http2 else HTTP1} for http2 in offered}


def _sealer(settings: Settings, rotation: Rotation | None, chosen: policy.Policy | None) -> Any:
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


def _before_tls(
    settings: Settings, loaded: policy.Policy | None, targets: gates.Targets, material: Material
) -> Iterator[dict[str, object]]:
    """What each listener has before TLS: a gate, or those who may hand over to it."""
    by_hook = loaded is not None and hasattr(loaded.cls, "client_hello")
    for i, listener in enumerate(settings.listener):
        if listener.kind == "handoff":
            yield {"senders": gates.senders(material.get(("senders", i), functools.partial(_sender_ids, settings, i)))}
        else:
            yield {"gate": gates.gate(listener.proxy_protocol, settings.handoff, targets, by_hook)}


def _sender_ids(settings: Settings, index: int) -> frozenset[int]:
    """Of the users who may hand over to a listener."""
    own, _ = config.owner(settings.server, Place(settings.file).key("server"))
    at = Place(settings.file).key("listener").item(index).key("handoff")
    return gates.sender_ids(settings.listener[index].handoff, own, at)


def _policies(
    settings: Settings, material: Material
) -> tuple[dict[str, policy.Policy], hook_modules.Modules | None]:
    """Every policy by its name, and what they were imported through; a route's has one object for all routes that name
    it."""
    root = Place(settings.file)
    wanted: dict[str, tuple[str, Place, bool]] = {}
    if name := settings.server.hooks:
        wanted[name] = (name, root.key("server").key("hooks"), False)
    for i, route in enumerate(settings.route):
        if not route.hooks:
            continue
        at = root.key("route").item(i).key("hooks")
        if route.hooks == settings.server.hooks:
            raise at.error(f'"{route.hooks}" is asked about every request already', "remove it here, or from [server]")
        wanted.setdefault(route.hooks, (route.hooks, at, True))
    if not wanted:
        return {}, None
    modules = policy.modules_of(list(wanted.values()), material)
    with modules.importing():
        found = policy.import_all(list(wanted.values()))
    return dict(zip(wanted, found, strict=True)), modules


def _by_policy(
    settings: Settings, policies: dict[str, policy.Policy], routes: list[Any]
) -> tuple[tuple[policy.Policy, tuple[Any, ...]], ...]:
    found: dict[str, list[Any]] = {}
    for route, made in zip(settings.route, routes, strict=True):
        if route.hooks:
            found.setdefault(route.hooks, []).append(made)
    return tuple((policies[name], tuple(of_policy)) for name, of_policy in found.items())


def make_hooks(prepared: Prepared, log: Log) -> object:
    """Makes the policies' objects, in a worker: routes have theirs then, the server's is returned; None without one."""
    with prepared.modules.importing() if prepared.modules else contextlib.nullcontext():
        for of_routes, routes in prepared.route_policies:
            hooks = of_routes.start(log)
            for route in routes:
                route.hooks = hooks
        return prepared.policy.start(log, prepared.handshakes) if prepared.policy else None


def _trust(
    settings: Settings, material: Material, before: Prepared | None
) -> tuple[tuple[bytes, ...], ClientTrust] | None:
    asked = settings.tls.client_auth
    if asked is None:
        return None
    at = Place(settings.file).key("tls").key("client_auth").key("ca")
    authorities = material.get(
        "client authorities",
        lambda: tuple(one.public_bytes(Encoding.DER) for one in certs.load_authorities(asked.ca, at)),
    )
    if before and before.trust and before.trust[0] == authorities:
        return before.trust
    return authorities, ClientTrust([x509.load_der_x509_certificate(one) for one in authorities])


def _client_auth(
    settings: Settings, trust: tuple[tuple[bytes, ...], ClientTrust] | None
) -> dict[str, object]:
    asked = settings.tls.client_auth
    if asked is None or trust is None:
        return {}
    subjects = [x509.load_der_x509_certificate(one).subject.public_bytes() for one in trust[0]]
    return {
        "client_auth": asked.mode,
        "verify_client": trust[1],
        "certificate_compression": compression.AVAILABLE,
        "client_authorities": dict.fromkeys(subjects),
    }


class Signers:
    """In a worker: what signs by asking others, started with report(level, message) for its troubles."""

    def __init__(self, plane: Plane, report: Log) -> None:
        self._plane = plane
        self._report = report
        self._started: list[Any] = []

    def follow(self, serving: Serving) -> None:
        """Before they serve: theirs begin, and so does what later certificates bring; what they no longer need, or
        only those before did, ends."""
        serving.replaced = lambda: self._begin(serving)
        self._begin(serving)

    def _begin(self, serving: Serving) -> None:
        if self._started or any(hasattr(s, "start") for s in serving.few.signers):
            self._plane.guest.run_coroutine(self._exchange(serving), lambda task: task.result())

    async def _exchange(self, serving: Serving) -> None:
        now = [s for s in serving.few.signers if hasattr(s, "start")]
        before, self._started = self._started, now
        for signer in now:
            if not any(signer is one for one in before):
                signer.start(asyncio.get_running_loop(), self._report)
        for signer in before:
            if not any(signer is one for one in now):
                signer.stop()


def open_plane(
    error_log: Log,
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


def _routes(
    settings: Settings, groups: dict[str, Any], labels: Labels, learned: Any, loads: dict[object, Any]
) -> list[Any]:
    return [
        (HookedRoute if route.hooks else Route)(
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
            hints=_early_hints(route.early_hints, learned, settings.file, i),
            load=loads.get((route.match.host or (), route.match.path, route.match.method or ())),
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


def _early_hints(wanted: HintSettings | None, learned: object, file: str, index: int) -> object:
    if wanted is None:
        return None
    at = Place(file).key("route").item(index).key("early_hints")
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
    if settings.fleet and settings.fleet.password_file and (plain := fleets.in_the_clear(settings.fleet)):
        found.append(f"{settings.file}: fleet.redis: the password goes to {', '.join(plain)} in the clear; use rediss://")
    if settings.fleet and not settings.fleet.shares(fleets.TICKETS) and (own := fleets.each_to_himself(settings.fleet)):
        found.append(
            f"{settings.file}: fleet.redis: {', '.join(own)} has to be the same Redis on all hosts with these ticket "
            "keys: of several each takes early data once more"
        )
    return found
