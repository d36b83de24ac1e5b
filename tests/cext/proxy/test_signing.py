"""Signatures by remote keys, while the worker goes on: at once, later, never, wrong, and clients that do not wait."""

import asyncio
import contextlib
import os
import queue
import random
import socket
import struct
import threading

import pytest
from cext.tls.config import ServerConfig
from cext.tls.session import TicketKeys

from tests.cext.proxy.harness import PROTOCOLS, RESET, H2Client, echo, get, serving, until
from tests.cext.proxy.waiting import TLS12, TLS13, EngineClient, Held, alert_of, remote, signature
from tests.cext.tls.peer import CCS_RECORD, P256, P384

VERSIONS = pytest.mark.parametrize("version", [TLS12, TLS13], ids=["1.2", "1.3"])


def config(*credentials, **options):
    return ServerConfig(credentials, alpn=PROTOCOLS, **options)


def signed_by(sign, *, kind="ecdsa-p256", plane=None, **options):
    """An edge whose one key is sign(message, scheme)."""
    listener = options.pop("listener", None)
    return serving(echo, tls=config(remote(sign, kind), **options), plane=plane, listener=listener)


def of_version(version):
    return {"min_version": version, "max_version": version}


async def signed_at_once(message, scheme):
    return signature(message, scheme)


async def signed_after_a_turn(message, scheme):
    await asyncio.sleep(0)
    return signature(message, scheme)


class Awaited:
    """An awaitable that is no coroutine."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return signature(*self.arguments)


@VERSIONS
@pytest.mark.parametrize("sign", [signature, signed_at_once, signed_after_a_turn, Awaited])
def test_a_remote_key_signs(sign, version):
    with signed_by(sign) as edge:
        for _ in range(3):
            with EngineClient(edge, **of_version(version)) as client:
                client.handshake()
                assert client.tls.version == version
                client.send(get("/signed"))
                assert client.response().body == b"GET /signed "
        assert edge.counters()["handshakes"] == 3
        assert edge.counters()["handshakes_waiting"] == 0


@VERSIONS
@pytest.mark.parametrize("kind", ["rsa", "ed25519", "ecdsa-p384"])
def test_keys_of_every_kind(kind, version):
    async def sign(message, scheme):
        await asyncio.sleep(0)
        return signature(message, scheme, kind)

    with signed_by(sign, kind=kind) as edge, EngineClient(edge, **of_version(version)) as client:
        client.handshake()


def test_http2_after_a_wait():
    with signed_by(signed_after_a_turn) as edge, H2Client(edge) as client:
        assert client.ask("/").status == 200


@VERSIONS
def test_what_comes_before_the_signature_does_not_wait_for_it_nor_does_anybody_else(version):
    held = Held()
    with signed_by(held) as edge, EngineClient(edge) as first, EngineClient(edge, **of_version(version)) as second:
        first.flush()
        (message, scheme), answer = held.next()
        answer(signature(message, scheme))
        first.handshake()
        second.flush()
        (message, scheme), answer = held.next()
        if version == TLS13:
            assert second.step(), "the ServerHello is there"
        first.send(get("/meanwhile"))
        assert first.response().status == 200
        assert edge.counters()["handshakes_waiting"] == 1
        answer(signature(message, scheme))
        second.handshake()
        second.send(get("/"))
        assert second.response().status == 200


@VERSIONS
def test_many_wait_at_once(version):
    held = Held()
    with signed_by(held) as edge, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(EngineClient(edge, **of_version(version))) for _ in range(50)]
        for client in clients:
            client.flush()
        calls = [held.next() for _ in clients]
        assert edge.counters()["handshakes_waiting"] == 50
        random.Random(5).shuffle(calls)
        for (message, scheme), answer in calls:
            answer(signature(message, scheme))
        for client in clients:
            client.handshake()
            client.send(get("/"))
            assert client.response().status == 200


# ---- when there is no signature ----


def raising(message, scheme):
    raise ConnectionError("the key server is away")


async def raising_later(message, scheme):
    await asyncio.sleep(0)
    raise ConnectionError("the key server is away")


async def cancelled(message, scheme):
    raise asyncio.CancelledError


FAULTS = {
    "raises": (raising, "ConnectionError: the key server is away"),
    "raises later": (raising_later, "ConnectionError: the key server is away"),
    "nothing": (lambda message, scheme: None, "TypeError: sign gave NoneType in the place of bytes"),
    "no bytes": (lambda message, scheme: "signature", "TypeError: sign gave str in the place of bytes"),
    "empty": (lambda message, scheme: b"", "the signer's signature does not verify"),
    "too long": (lambda message, scheme: bytes(5000), "the signer's signature does not verify"),
    "of something else": (lambda message, scheme: signature(b"else", scheme), "the signer's signature does not verify"),
    "cancelled": (cancelled, "HookTimeout"),
}


@VERSIONS
@pytest.mark.parametrize("fault", FAULTS)
def test_without_a_signature_the_handshake_ends(fault, version):
    sign, cause = FAULTS[fault]
    told = []
    with signed_by(sign) as edge:
        edge.call(lambda: setattr(edge.plane, "failed", lambda what, error: told.append(f"{what}: {error!r} {error}")))
        assert alert_of(edge, **of_version(version)) == "internal_error"
        assert alert_of(edge, **of_version(version)) == "internal_error"
        edge.until_idle()
        counters = edge.counters()
    assert counters["handshake_failures"] == counters["signer_failures"] == 2
    assert len(told) == 2 and told[0].startswith("signer of example.com: ")
    assert all(part in told[0] for part in cause.split(": "))


def test_a_failure_is_told_of_without_a_policy_too():
    with signed_by(raising) as edge:
        assert alert_of(edge) == "internal_error"
        edge.until_idle()
    assert ("error", "signer of example.com: ConnectionError: the key server is away") in edge.errors


@VERSIONS
def test_a_signer_that_is_late_is_cancelled(version):
    held = Held()
    with signed_by(held, plane={"hook_timeout_ms": 100}) as edge:
        assert alert_of(edge, **of_version(version)) == "internal_error"
        held.cancelled.get(timeout=8)
        edge.until_idle()
        assert edge.counters()["handshakes_waiting"] == 0
        (message, scheme), answer = held.next()
        answer(signature(message, scheme))          # to nobody
        assert edge.counters()["signer_failures"] == 1
    assert any("HookTimeout" in text for _, text in edge.errors)


def test_the_time_of_the_handshake_holds():
    held = Held()
    with signed_by(held, listener={"handshake_ms": 150}) as edge, EngineClient(edge) as client:
        client.flush()
        held.next()
        held.cancelled.get(timeout=8)
        edge.until_idle()
        assert edge.counters()["timeouts"] == 1
        assert edge.counters()["handshakes_waiting"] == 0


# ---- clients that do not wait ----


@VERSIONS
@pytest.mark.parametrize("how", ["close", "reset", "half-close", "alert", "bytes and close"])
def test_a_client_that_goes_cancels_the_call(how, version):
    held = Held()
    with signed_by(held) as edge, EngineClient(edge, **of_version(version)) as client:
        client.flush()
        held.next()
        if how == "reset":
            client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if how == "alert":
            client.tcp.sendall(bytes.fromhex("1503030002025a"))
        if how == "bytes and close":
            client.tcp.sendall(CCS_RECORD * 2)
        if how == "half-close":
            client.tcp.shutdown(socket.SHUT_WR)
        else:
            client.close()
        held.cancelled.get(timeout=8)
        edge.until_idle()
        counters = edge.counters()
        assert (counters["handshakes_waiting"], counters["signer_failures"]) == (0, 0)
        assert counters["handshake_failures"] == 1
    assert any("closed by the client" in text for _, text in edge.errors)


def test_a_client_that_had_gone_before_it_was_asked():
    """ClientHello and end are there before the connection is accepted."""
    held = Held()
    with signed_by(held) as edge:
        gate = threading.Event()
        edge.commands.put((gate.wait, queue.SimpleQueue()))
        client = EngineClient(edge)
        client.flush()
        client.close()
        gate.set()
        held.cancelled.get(timeout=8)
        edge.until_idle()


def test_what_a_client_sends_meanwhile_is_read_afterwards():
    held = Held()
    with signed_by(held) as edge, EngineClient(edge) as client:
        client.flush()
        (message, scheme), answer = held.next()
        client.tcp.sendall(CCS_RECORD)
        answer(signature(message, scheme))
        client.handshake()
        client.send(get("/"))
        assert client.response().status == 200


def test_what_a_client_sends_meanwhile_stays_in_the_kernel():
    held = Held()
    with signed_by(held) as edge, EngineClient(edge) as client:
        client.flush()
        (message, scheme), answer = held.next()
        client.tcp.setblocking(False)
        record = b"\x17\x03\x03" + struct.pack(">H", 16384) + bytes(16384)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 64 << 20:
                sent += client.tcp.send(record)
        assert sent < 32 << 20, "nobody reads"
        assert edge.chunks_in_use() == 0
        answer(signature(message, scheme))
        until(lambda: edge.counters()["handshake_failures"] == 1)
    assert any("unexpected_message" in text or "bad_record_mac" in text for _, text in edge.errors), edge.errors


def test_a_hello_in_pieces_and_a_retry():
    with signed_by(signed_after_a_turn, groups=(P384,)) as edge, EngineClient(
        edge, groups=(P256, P384), key_share_groups=(P256,)
    ) as client:
        hello = client.tls.take_output()
        for i in range(0, len(hello), 40):
            client.tcp.sendall(hello[i:i + 40])
        client.handshake()
        assert client.tls.hello_retried
        client.send(get("/"))
        assert client.response().status == 200


# ---- sessions ----


def counted(calls):
    async def sign(message, scheme):
        calls.append(scheme)
        await asyncio.sleep(0)
        return signature(message, scheme)
    return sign


@VERSIONS
def test_a_resumed_session_needs_no_signature(version):
    calls = []
    keys = TicketKeys([(b"n" * 16, os.urandom(32))])
    with signed_by(counted(calls), tickets=keys) as edge:
        with EngineClient(edge, **of_version(version)) as client:
            client.handshake()
            client.send(get("/"))
            client.response()
            session = client.tls.session
        assert session is not None
        with EngineClient(edge, session, **of_version(version)) as client:
            client.handshake()
            assert client.tls.resumed
        assert len(calls) == 1


def test_early_data_that_is_refused_is_passed_over_while_the_key_signs():
    """The ticket is of keys that are gone: the early data comes behind the ClientHello, and again afterwards."""
    held = Held()
    keys = TicketKeys([(b"n" * 16, os.urandom(32))])
    with signed_by(held, tickets=keys, max_early_data=14336) as edge:
        def answered():
            (message, scheme), answer = held.next()
            answer(signature(message, scheme))

        with EngineClient(edge) as client:
            client.flush()
            answered()
            client.handshake()
            client.send(get("/"))
            client.response()
            session = client.tls.session
        edge.call(lambda: keys.replace([(b"m" * 16, os.urandom(32))]))
        with EngineClient(edge, session, early_data=True) as client:
            client.send(get("/early"))              # with the ClientHello
            (message, scheme), answer = held.next()
            client.send(get("/early"))              # and once more while the key is waited for
            answer(signature(message, scheme))
            client.handshake()
            assert not client.tls.resumed
            client.send(get("/late"))
            assert client.response().body == b"GET /late "


# ---- the worker's end ----


def test_a_drain_waits_for_the_handshake():
    held = Held()
    with signed_by(held) as edge, EngineClient(edge) as client:
        client.flush()
        (message, scheme), answer = held.next()
        edge.call(lambda: edge.plane.drain(8000))
        answer(signature(message, scheme))
        client.handshake()
        client.send(get("/"))
        assert client.response().fields["connection"] == "close"
        assert edge.ended.wait(8)


def test_a_drain_ends_in_time():
    held = Held()
    with signed_by(held) as edge, EngineClient(edge) as client:
        client.flush()
        held.next()
        edge.call(lambda: edge.plane.drain(100))
        assert edge.ended.wait(8)
        held.cancelled.get(timeout=8)


# ---- chaos ----


def test_clients_that_go_at_any_time_leave_nothing():
    """Each of many goes: before its signature, with it, after it, or is served."""
    rounds = 3000 if os.environ.get("EDGE_SLOW") else 200
    luck = random.Random(8)

    async def sign(message, scheme):
        for _ in range(luck.randrange(4)):
            await asyncio.sleep(luck.choice((0, 0.001, 0.004)))
        if luck.random() < 0.1:
            raise ConnectionError
        return signature(message, scheme)

    served = refused = 0
    with signed_by(sign) as edge:
        for _ in range(rounds):
            version = luck.choice((TLS12, TLS13))
            client = EngineClient(edge, **of_version(version))
            client.flush()
            fate = luck.randrange(5)
            if fate == 1:
                client.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            if fate == 2:
                client.tcp.setblocking(False)
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    client.step()
            if fate > 2:
                try:
                    client.handshake()
                    client.send(get("/"))
                    served += client.response().status == 200
                except Exception as e:
                    assert getattr(e, "name", "") == "internal_error", e
                    refused += 1
            client.close()
        edge.until_idle()
        counters = edge.counters()
        assert counters["handshakes_waiting"] == 0
        assert counters["connections"] == rounds
        assert counters["handshakes"] + counters["handshake_failures"] == rounds
    assert served and refused
