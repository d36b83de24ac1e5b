"""Hooks of the handshake: what they see and decide, at once or later, their faults, and clients that do not wait."""

import asyncio
import contextlib
import gc
import os
import queue
import random
import socket
import weakref

import pytest
from cext.proxy.handshake_hooks import Drop, HandOver, HandshakeHooks, Wrapping
from cext.proxy.hooks import Hooks
from cext.tls.config import ServerConfig
from cext.tls.session import AwaitedTickets

from tests.cext.proxy.handing import gate, receiver
from tests.cext.proxy.harness import PROTOCOLS, RESET, Client, H2Client, echo, get, serving, until
from tests.cext.proxy.waiting import TLS12, TLS13, EngineClient, Held, alert_of, remote, signature
from tests.cext.tls.peer import CCS_RECORD, P256, P384, credential, server_config

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])
ASKED = ("client_hello", "get_config", "get_certificate")


class Refuse(Exception):    # noqa: N818 - as edge's
    def __init__(self, description, reason=""):
        super().__init__(description, reason)
        self.description = description
        self.reason = reason


class Hello:
    """What these hooks get: the message, the connection."""

    def __init__(self, raw, connection):
        self.raw = raw
        self.ja3, self.ja4 = f"ja3 of {len(raw)}", f"ja4 of {len(raw)}"
        vars(self).update(connection)


def read_certificate(answer):
    if not hasattr(answer, "chain"):
        raise TypeError(f"no certificate: {answer!r}")
    return answer


def read_config(base, answer):
    if not isinstance(answer, ServerConfig):
        raise TypeError(f"no configuration: {answer!r}")
    return answer


def hooks(failures=None, director=None, *, describe=Hello, **handshake):
    """Hooks of the handshake; their answers are the engine's own objects."""
    def failed(hook, error):
        if failures is not None:
            failures.append((hook, error))

    made = HandshakeHooks(describe=describe, read_config=read_config, read_certificate=read_certificate,
                          read_session=dict, refuse=Refuse, failed=failed, **handshake)
    return Hooks(director, None, names={}, read_limit=None, show_limit=None, failed=failed, handshake=made)


def config(*kinds, **options):
    options.setdefault("alpn", PROTOCOLS)
    return server_config(*kinds, policy=True, **options)


@contextlib.contextmanager
def asking(failures=None, *, tls=None, plane=None, listener=None, **handshake):
    with serving(echo, tls=tls or config(), plane=plane, listener=listener, hooks=hooks(failures, **handshake)) as edge:
        yield edge


def of_version(version):
    return {"min_version": version, "max_version": version}


def at_once(answer):
    return lambda hello: answer


def as_coroutine(answer):
    async def hook(hello):
        return answer
    return hook


def after_a_turn(answer):
    async def hook(hello):
        await asyncio.sleep(0)
        return answer
    return hook


WAYS = pytest.mark.parametrize("way", [at_once, as_coroutine, after_a_turn])


def served(edge, **options):
    """The client's engine after a request that was answered."""
    with EngineClient(edge, **options) as client:
        client.handshake()
        client.send(get("/"))
        assert client.response().status == 200
        return client.tls


# ---- what they see ----


def test_the_hello_and_its_connection():
    seen = []
    with asking(client_hello=seen.append) as edge, EngineClient(edge) as client:
        port = client.tcp.getsockname()[1]
        client.handshake()
        hello, = seen
        assert (hello.client, hello.client_port) == ("127.0.0.1", port)
        assert (hello.local, hello.local_port) == ("127.0.0.1", edge.port)
        assert hello.raw[0] == 1 and len(hello.raw) == 4 + int.from_bytes(hello.raw[1:4], "big")
        assert b"example.com" in hello.raw


@VERSIONS
@WAYS
def test_each_is_asked_once_in_this_order(way, version):
    order = []

    def noting(name):
        answer = way(None)

        def hook(hello):
            order.append((name, hello))
            return answer(hello)
        return hook

    with asking(**{name: noting(name) for name in ASKED}) as edge:
        served(edge, **of_version(version))
        assert [name for name, _ in order] == list(ASKED)
        assert len({id(hello) for _, hello in order}) == 1
        served(edge, **of_version(version))
        assert len(order) == 6
        assert edge.counters()["hook_failures"] == edge.counters()["handshakes_waiting"] == 0


def test_a_hello_in_pieces_is_shown_whole():
    seen = []
    with asking(client_hello=seen.append) as edge, EngineClient(edge) as client:
        hello = client.tls.take_output()
        fragments = b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part
                             for part in (hello[5 + i:5 + i + 50] for i in range(0, len(hello) - 5, 50)))
        for i in range(0, len(fragments), 33):
            client.tcp.sendall(fragments[i:i + 33])
        client.handshake()
        assert seen[0].raw == hello[5:]


def test_a_retry_does_not_ask_again():
    seen = []
    with asking(client_hello=seen.append, tls=config(groups=(P384,))) as edge:
        tls = served(edge, groups=(P256, P384), key_share_groups=(P256,))
        assert tls.hello_retried
        assert len(seen) == 1


def test_fingerprints_are_kept_while_the_connection_lasts():
    with asking(fingerprints=True) as edge, Client(edge) as client:
        assert client.ask(get("/")).status == 200
    with asking(fingerprints=True, describe=Malformed) as edge:
        assert alert_of(edge) == "decode_error"


class Malformed:
    def __init__(self, raw, connection):
        raise ValueError("an extension that nobody has looked at")


def test_a_hello_that_cannot_be_read_is_the_clients_fault():
    failures = []
    with asking(failures, client_hello=at_once(None), describe=Malformed) as edge:
        assert alert_of(edge) == "decode_error"
        edge.until_idle()
        assert edge.counters()["hook_failures"] == 0
    assert failures == []


# ---- what they decide ----


@VERSIONS
@WAYS
def test_another_certificate(way, version):
    chosen = credential("rsa", "other.example")
    with asking(get_certificate=way(chosen)) as edge:
        assert served(edge, **of_version(version)).peer_certificates[0] == chosen.chain[0]
    with asking(get_certificate=way(None)) as edge:
        assert served(edge, **of_version(version)).peer_certificates[0] == credential().chain[0]


def test_certificates_by_hooks_alone():
    tls = ServerConfig([], policy=True, alpn=PROTOCOLS)
    with asking(get_certificate=at_once(credential("ed25519")), tls=tls) as edge:
        served(edge)
    with asking(get_certificate=at_once(None), tls=tls) as edge:
        assert alert_of(edge) == "handshake_failure"


@VERSIONS
def test_a_certificate_whose_key_is_somewhere_else(version):
    held = Held()
    with asking(get_certificate=after_a_turn(remote(held))) as edge, EngineClient(
        edge, **of_version(version)
    ) as client:
        client.flush()
        (message, scheme), answer = held.next()
        answer(signature(message, scheme))
        client.handshake()


@VERSIONS
@WAYS
def test_another_configuration(way, version):
    other = config("rsa", alpn=(b"http/1.1",))
    with asking(get_config=way(other)) as edge:
        tls = served(edge, alpn=(b"h2", b"http/1.1"), **of_version(version))
        assert tls.alpn == b"http/1.1"
        assert tls.peer_certificates[0] == credential("rsa").chain[0]


def test_another_version():
    with asking(get_config=at_once(config(max_version=TLS12))) as edge:
        assert served(edge).version == TLS12
    with asking(get_config=at_once(config(min_version=TLS13))) as edge:
        assert alert_of(edge, max_version=TLS12) == "protocol_version"
        with H2Client(edge) as client:
            assert client.ask("/").status == 200


def raising(error):
    def hook(*arguments):
        raise error
    return hook


def raising_later(error):
    async def hook(*arguments):
        await asyncio.sleep(0)
        raise error
    return hook


RETURNED = [at_once(Drop), at_once(Drop()), as_coroutine(Drop), after_a_turn(Drop())]
RAISED = [raising(Drop()), raising_later(Drop())]


@VERSIONS
@pytest.mark.parametrize(("name", "drop"), [
    *(("client_hello", drop) for drop in RETURNED), *((name, drop) for name in ASKED for drop in RAISED)])
def test_dropped_without_a_word(name, drop, version):
    with asking(**{name: drop}) as edge, EngineClient(edge, **of_version(version)) as client:
        client.flush()
        assert client.tcp.recv(100) == b""
        edge.until_idle()
        counters = edge.counters()
    assert (counters["handshakes_dropped"], counters["hook_failures"], counters["handshake_failures"]) == (1, 0, 0)


@VERSIONS
@pytest.mark.parametrize("refuse", [raising(Refuse(112, "not here")), raising_later(Refuse(112))])
@pytest.mark.parametrize("name", ASKED)
def test_refused_with_an_alert(name, refuse, version):
    with asking(**{name: refuse}) as edge:
        assert alert_of(edge, **of_version(version)) == "unrecognized_name"
        edge.until_idle()
        assert edge.counters()["hook_failures"] == 0
    assert any("handshake failed: unrecognized_name" in text for _, text in edge.errors)


def test_refused_by_what_it_returns():
    with asking(client_hello=at_once(Refuse(49))) as edge:
        assert alert_of(edge) == "access_denied"


@pytest.mark.parametrize("way", [raising(HandOver("go")), raising_later(HandOver("go")), at_once(HandOver("go"))])
def test_handed_over_to_nobody(way):
    failures = []
    with asking(failures, client_hello=way) as edge:
        assert alert_of(edge) == "internal_error"
    (hook, error), = failures
    assert (hook, str(error)) == ("client_hello", "connections are not handed over to 'go'")


HAND_OVERS = pytest.mark.parametrize("way", [
    raising(HandOver("legacy")), raising_later(HandOver("legacy")), at_once(HandOver("legacy"))])
NOBODY = {"names": [b"nobody.example"]}


@pytest.mark.parametrize("pieces", [1, 3])
@HAND_OVERS
def test_handed_over_as_it_has_come(way, pieces, tmp_path):
    came = queue.SimpleQueue()

    def serve(connection):
        came.put(connection.data)
        connection.sock.sendall(b"from elsewhere")

    path = tmp_path / "receiver"
    with receiver(path, serve), asking(
        client_hello=way, listener=gate(path, targets=("legacy",), **NOBODY)
    ) as edge, EngineClient(edge) as client:
        hello = client.tls.take_output() + b"and more"
        for i in range(pieces):
            client.tcp.sendall(hello[i * len(hello) // pieces:(i + 1) * len(hello) // pieces])
        assert client.tcp.recv(100) == b"from elsewhere"
        assert came.get(timeout=8) == hello
        edge.until_idle()
        counters = edge.counters()
    assert (counters["handed_over"], counters["handshake_failures"], counters["handshakes_waiting"]) == (1, 0, 0)


@HAND_OVERS
@pytest.mark.parametrize("serve", [False, True])
def test_a_receiver_that_is_away(way, serve, tmp_path):
    asked = []
    with asking(client_hello=way, get_config=asked.append,
                listener=gate(tmp_path / "nobody", serve=serve, targets=("legacy",), **NOBODY)) as edge:
        if serve:
            served(edge)
        else:
            with EngineClient(edge) as client:
                client.flush()
                assert client.tcp.recv(100) == b""
        edge.until_idle()
        assert edge.counters()["handoff_failures"] == 1
    assert len(asked) == serve


@WAYS
def test_not_handed_over_after_all(way, tmp_path):
    with asking(client_hello=way(None), listener=gate(tmp_path / "nobody", targets=("legacy",), **NOBODY)) as edge:
        served(edge)
        with H2Client(edge) as client:
            assert client.ask("/").status == 200


# ---- faults ----


async def cancelled(*_):
    raise asyncio.CancelledError


class Odd:
    @property
    def __class__(self):
        raise RuntimeError("none of your business")


FAULTS = {
    "raises": raising(RuntimeError("broken")),
    "raises later": raising_later(RuntimeError("broken")),
    "exits": raising(SystemExit(3)),
    "exits later": raising_later(SystemExit(3)),
    "cancelled": cancelled,
    "nonsense": at_once(7),
    "nonsense later": after_a_turn("text"),
    "a class": at_once(dict),
    "hides what it is": at_once(Odd()),
    "half a refusal": raising(Refuse.__new__(Refuse)),
    "to no alert": raising_later(Refuse("none")),
    "to no name": raising(HandOver([])),
    "no hook": None,
}


@VERSIONS
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ASKED)
def test_a_fault_ends_the_handshake(name, fault, version):
    failures = []
    with asking(failures, **{name: FAULTS[fault] or (lambda: None)}) as edge:
        for _ in range(2):
            assert alert_of(edge, **of_version(version)) == "internal_error"
        edge.until_idle()
        counters = edge.counters()
    assert [hook for hook, _ in failures] == [name, name]
    assert counters["hook_failures"] == counters["handshake_failures"] == 2
    assert counters["handshakes_waiting"] == 0


@pytest.mark.parametrize("name", ASKED)
def test_one_that_is_late(name):
    failures = []
    held = Held()
    with asking(failures, plane={"hook_timeout_ms": 100}, **{name: held}) as edge:
        assert alert_of(edge) == "internal_error"
        held.cancelled.get(timeout=8)
        edge.until_idle()
    (hook, error), = failures
    assert (hook, type(error).__name__) == (name, "HookTimeout")


def test_one_that_does_not_end():
    failures = []

    def spin(hello):
        while True:
            pass

    with asking(failures, plane={"hook_timeout_ms": 100}, client_hello=spin) as edge:
        assert alert_of(edge) == "internal_error"
    assert [type(error).__name__ for _, error in failures] == ["HookTimeout"]


def test_a_report_that_fails():
    def director(request):
        pass

    with serving(echo, tls=config(), hooks=Hooks(
        director, None, names={}, read_limit=None, show_limit=None, failed=None,
        handshake=HandshakeHooks(raising(ValueError("broken")), describe=Hello, read_config=None, read_certificate=None,
                                 read_session=None, refuse=Refuse, failed=raising(OSError("no log"))),
    )) as edge:
        assert alert_of(edge) == "internal_error"
    assert ("error", "hook client_hello: ValueError, and its report failed: OSError") in edge.errors


def test_the_time_of_the_handshake_holds():
    held = Held()
    with asking(listener={"handshake_ms": 150}, get_config=held) as edge, EngineClient(edge) as client:
        client.flush()
        held.next()
        held.cancelled.get(timeout=8)
        edge.until_idle()
        assert edge.counters()["timeouts"] == 1


def test_a_policy_without_such_hooks_is_not_asked():
    with serving(echo, tls=config()) as edge:
        served(edge)


# ---- waiting ----


def test_others_go_on_meanwhile():
    held = Held()
    with asking(client_hello=held) as edge, EngineClient(edge) as first, EngineClient(edge) as second:
        first.flush()
        held.next()[1](None)
        first.handshake()
        second.flush()
        _, answer = held.next()
        first.send(get("/meanwhile"))
        assert first.response().status == 200
        assert edge.counters()["handshakes_waiting"] == 1
        second.tcp.sendall(CCS_RECORD)
        answer(None)
        second.handshake()
        second.send(get("/"))
        assert second.response().status == 200


@pytest.mark.parametrize("how", ["close", "reset", "half-close", "bytes and close"])
@pytest.mark.parametrize("name", ASKED)
def test_a_client_that_goes_cancels_the_hook(name, how):
    held = Held()
    with asking(**{name: held}) as edge, EngineClient(edge) as client:
        client.flush()
        held.next()
        if how == "reset":
            client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if how == "bytes and close":
            client.tcp.sendall(CCS_RECORD)
        if how == "half-close":
            client.tcp.shutdown(socket.SHUT_WR)
        else:
            client.close()
        held.cancelled.get(timeout=8)
        edge.until_idle()
        assert edge.counters()["handshakes_waiting"] == 0
        assert edge.counters()["handshake_failures"] == 1


def test_a_drain_waits_for_it():
    held = Held()
    with asking(get_certificate=held) as edge, EngineClient(edge) as client:
        client.flush()
        _, answer = held.next()
        edge.call(lambda: edge.plane.drain(8000))
        answer(None)
        client.handshake()
        client.send(get("/"))
        assert client.response().fields["connection"] == "close"
        assert edge.ended.wait(8)


def test_a_drain_ends_in_time():
    held = Held()
    with asking(get_certificate=held) as edge, EngineClient(edge) as client:
        client.flush()
        held.next()
        edge.call(lambda: edge.plane.drain(100))
        assert edge.ended.wait(8)


def test_nothing_is_left_of_a_handshake():
    """Neither of those that were served, nor refused, nor cancelled."""
    made = []

    class Watched(Hello):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    held = Held()
    with asking(describe=Watched, client_hello=held) as edge:
        for outcome in (None, Refuse(40), Drop(), ValueError(), "away"):
            with EngineClient(edge) as client:
                client.flush()
                _, answer = held.next()
                if outcome == "away":
                    client.close()
                    held.cancelled.get(timeout=8)
                else:
                    answer(outcome)
                del _, answer
                with contextlib.suppress(Exception):
                    client.handshake()
        edge.until_idle()
        edge.call(gc.collect)
        assert [ref() for ref in made] == [None] * 5


def test_clients_that_go_at_any_time_leave_nothing():
    rounds = 3000 if os.environ.get("EDGE_SLOW") else 150
    luck = random.Random(11)

    def hook(answers):
        async def asked(hello):
            for _ in range(luck.randrange(3)):
                await asyncio.sleep(luck.choice((0, 0.001, 0.003)))
            if luck.random() < 0.05:
                raise luck.choice((ValueError("broken"), Refuse(49), Drop()))
            return luck.choice(answers)
        return asked

    other = config("rsa", alpn=(b"http/1.1",))
    answered = 0
    with asking(client_hello=hook([None]), get_config=hook([None, other]),
                get_certificate=hook([None, credential("rsa")])) as edge:
        for _ in range(rounds):
            client = EngineClient(edge, **of_version(luck.choice((TLS12, TLS13))))
            client.flush()
            fate = luck.randrange(5)
            if fate == 1:
                client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if fate > 1:
                with contextlib.suppress(Exception):
                    client.handshake()
                    client.send(get("/"))
                    answered += client.response().status == 200
            client.close()
        edge.until_idle()
        counters = edge.counters()
    assert answered
    assert counters["handshakes_waiting"] == 0
    assert counters["handshakes"] + counters["handshake_failures"] + counters["handshakes_dropped"] == rounds


# ---- tickets ----


class Store:
    """Sessions by a random name, in memory; the test may make it slow, or let it fail."""

    def __init__(self):
        self.kept = {}
        self.wrapped = []
        self.asked = []
        self.before = None

    def wrap(self, state, content):
        name = os.urandom(16)
        self.wrapped.append(state)
        self.kept[name] = content
        return name

    async def unwrap(self, hello, ticket):
        self.asked.append(ticket)
        if self.before is not None:
            await self.before()
        return self.kept.get(ticket)

    def clone(self):
        return self


def wrapped(store, failures=None, **options):
    """(hooks, configuration) whose tickets the store keeps."""
    tickets = AwaitedTickets()
    policy = hooks(failures, wrapper=store)
    tickets.bind(Wrapping(policy.handshake, store))
    return policy, config(tickets=tickets, **options)


@contextlib.contextmanager
def storing(store, failures=None, *, plane=None, **options):
    policy, tls = wrapped(store, failures, **options)
    with serving(echo, tls=tls, hooks=policy, plane=plane) as edge:
        yield edge


def session_of(edge, **options):
    session = served(edge, **options).session
    assert session is not None
    return session


@VERSIONS
@pytest.mark.parametrize("slow", [False, True])
def test_a_session_that_is_kept_elsewhere(version, slow):
    store = Store()
    if slow:
        store.before = lambda: asyncio.sleep(0.001)
    with storing(store) as edge:
        session = session_of(edge, **of_version(version))
        assert store.wrapped[0]["version"] == version
        assert store.wrapped[0]["server_name"] == b"example.com"
        assert store.asked == []
        tls = served(edge, session=session, **of_version(version))
        assert tls.resumed
        assert store.asked == [session.ticket]


@VERSIONS
def test_a_ticket_that_nobody_knows(version):
    store = Store()
    with storing(store) as edge:
        session = session_of(edge, **of_version(version))
        store.kept.clear()
        assert not served(edge, session=session, **of_version(version)).resumed


def test_a_retry_resumes_too():
    store = Store()
    with storing(store, groups=(P384,)) as edge:
        how = {"groups": (P256, P384), "key_share_groups": (P256,)}
        session = session_of(edge, **how)
        tls = served(edge, session=session, **how)
        assert tls.hello_retried and tls.resumed
        assert store.asked == [session.ticket]


def raises(*_):
    raise ConnectionError("the store is away")


async def raises_later(*_):
    await asyncio.sleep(0)
    raise ConnectionError("the store is away")


async def text(*_):
    return "text"


async def nothing(*_):
    return None


UNWRAPS = {"raises": raises, "raises later": raises_later, "text": text, "garbage": lambda *_: b"\x01garbage",
           "empty": lambda *_: b"", "no": nothing}


@VERSIONS
@pytest.mark.parametrize("fault", UNWRAPS)
def test_an_unwrap_that_fails_costs_a_full_handshake(fault, version):
    store, failures = Store(), []
    with storing(store, failures) as edge:
        session = session_of(edge, **of_version(version))
        store.unwrap = UNWRAPS[fault]
        assert not served(edge, session=session, **of_version(version)).resumed
    assert [hook for hook, _ in failures] == (["unwrap"] if fault in ("raises", "raises later", "text") else [])


@VERSIONS
@pytest.mark.parametrize("wrap", [
    raises, raises_later, text, *(lambda *_, ticket=ticket: ticket for ticket in (
        "text", b"", bytes(70000), None, (b"a", b"b", b"c"), 10**12, (b"ticket", 7), (None, None)))])
def test_a_wrap_that_fails_costs_the_ticket(wrap, version):
    store, failures = Store(), []
    store.wrap = wrap
    with storing(store, failures) as edge:
        tls = served(edge, **of_version(version))
        assert tls.session is None
    assert failures and all(hook == "wrap" for hook, _ in failures)


def test_an_unwrap_that_is_late():
    store, failures, held = Store(), [], Held()
    with storing(store, failures, plane={"hook_timeout_ms": 150}) as edge:
        session = session_of(edge)
        store.unwrap = held
        assert not served(edge, session=session).resumed
        held.cancelled.get(timeout=8)
    assert [(hook, type(error).__name__) for hook, error in failures] == [("unwrap", "HookTimeout")]


@VERSIONS
def test_what_wrap_leaves_to_be_done_does_not_hold_the_handshake(version):
    store, held, failures = Store(), Held(), []
    plain = store.wrap
    store.wrap = lambda state, content: ((name := plain(state, content)), held(name))
    with storing(store, failures) as edge:
        session = session_of(edge, **of_version(version))
        assert served(edge, session=session, **of_version(version)).resumed
        held.next()[1](ConnectionError("the store is away"))
        until(lambda: failures)
    assert [(hook, str(error)) for hook, error in failures] == [("wrap", "the store is away")]


def test_what_wrap_leaves_to_be_done_is_bounded():
    """Each handshake leaves one or two; past the bound there are no tickets."""
    store, failures = Store(), []

    async def forever():
        await asyncio.Event().wait()

    store.wrap = lambda state, content: (b"ticket", forever())
    with storing(store, failures, ticket_count=4) as edge:
        for _ in range(257):
            with EngineClient(edge) as client:
                client.handshake()
    assert "1024 tickets are being stored" in str(failures[0][1])


@pytest.mark.parametrize("tls12_too", [False, True])
def test_no_ticket_no_question(tls12_too):
    store = Store()
    with storing(store) as edge, Client(edge) as client:
        assert client.ask(get("/")).status == 200
        if tls12_too:
            served(edge, max_version=TLS12)
        assert store.asked == []


def test_early_data_of_a_wrapped_ticket_is_taken_once():
    store = Store()
    store.before = lambda: asyncio.sleep(0)
    with storing(store, max_early_data=14336) as edge:
        session = session_of(edge)
        with EngineClient(edge, session, early_data=True) as client:
            client.tls.send(get("/early"))
            flight = client.tls.take_output()
            client.tcp.sendall(flight)
            client.handshake()
            assert client.tls.resumed and client.tls.early_data_state == 4
            assert client.response().body == b"GET /early "
        with socket.create_connection(("127.0.0.1", edge.port), timeout=8) as replay:
            replay.sendall(flight)
            replay.recv(65536)
        edge.until_idle()
        assert edge.call(edge.plane.counters)["requests"] == 2      # the first session's, and the early one
