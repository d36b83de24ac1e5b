"""The client of key servers, against our own server and against servers that are slow, dead, wrong or hostile."""

import asyncio
import socket
import time

import pytest

from edge.keyless import client, wire
from edge.keyless.client import SignError
from tests.edge.keyless.rig import (
    MESSAGE,
    Log,
    Scripted,
    identifier,
    key_server,
    keys,
    listening,
    scripted,
    server_config,
    servers,
    signer,
    until,
    unused_port,
    verifies,
)


def running(test):
    """A test that is a coroutine, run to its end within half a minute."""

    def run(*args, **kwargs):
        async def limited():
            async with asyncio.timeout(30):
                await test(*args, **kwargs)

        asyncio.run(limited())

    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    run.__signature__ = __import__("inspect").signature(test)
    return run


def all_up(sg):
    return all(server.up for server in sg._client.servers.values())


async def refusal(sg, scheme=0x0403):
    with pytest.raises(SignError) as caught:
        await sg.sign(MESSAGE, scheme)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["p256", "p384", "rsa", "ed25519"])
@running
async def test_every_scheme_of_a_key(kind):
    async with key_server() as ks:
        with signer(servers(ks.port), kind) as sg:
            for scheme in keys()[kind].schemes12:
                assert verifies(kind, await sg.sign(MESSAGE, scheme), scheme)


@running
async def test_a_scheme_without_an_operation():
    with signer(servers(unused_port())) as sg:
        assert "no operation for the signature scheme 0x0201" in await refusal(sg, 0x0201)


@running
async def test_what_is_not_started_signs_nothing():
    sg = client.KeylessSigner(servers(unused_port()), identifier("p256"))
    assert "has not been started" in await refusal(sg)


@running
async def test_answers_in_any_order():
    held = []

    def reverse(connection, packet):
        held.append((connection, packet))
        if len(held) == 20:
            for one in reversed(held):
                one[0].answer(one[1])

    async with scripted(reverse) as ks:
        with signer(servers(ks.port, connections=1)) as sg:
            messages = [b"message %d" % i for i in range(20)]
            found = await asyncio.gather(*(sg.sign(message, 0x0403) for message in messages))
            assert len({packet.id for packet in ks.requests}) == 20
            for message, signature in zip(messages, found, strict=True):
                assert client_verifies(message, signature)


def client_verifies(message, signature):
    from cext.crypto.sign import PublicKey

    return PublicKey.from_spki(keys()["p256"].public_spki()).verify_bytes(0x0403, message, signature)


@running
async def test_answers_that_come_together_are_passed_on_a_few_at_a_time():
    """Each of them is a handshake that goes on."""
    held, turns, passed = [], [0], []

    def all_at_once(connection, packet):
        held.append(packet)
        if len(held) == 100:
            for one in held:
                connection.answer(one)

    def count():
        turns[0] += 1
        asyncio.get_running_loop().call_soon(count)

    async def sign(sg):
        assert verifies("p256", await sg.sign(MESSAGE, 0x0403))
        passed.append(turns[0])

    async with scripted(all_at_once) as ks:
        with signer(servers(ks.port, connections=1)) as sg:
            count()
            await asyncio.gather(*(sign(sg) for _ in range(100)))
            assert len(passed) == 100
            assert max(passed.count(turn) for turn in passed) <= client.AT_A_TIME


@running
async def test_what_a_request_tells():
    async with scripted() as ks:
        with signer(servers(ks.port)) as sg:
            await sg.sign(MESSAGE, 0x0403)
            (packet,) = ks.requests
            assert packet.opcode == wire.Opcode.ECDSA_SHA256
            assert packet.items == {wire.Tag.SKI: sg.ski, wire.Tag.SERVER_NAME: b"a.example"}
            assert len(sg.ski) == 20


@running
async def test_certificates_with_the_same_servers_share_connections():
    async with key_server() as ks:
        configured = servers(ks.port)
        with signer(configured, "p256") as one, signer(configured, "rsa") as other:
            assert verifies("p256", await one.sign(MESSAGE, 0x0403))
            assert verifies("rsa", await other.sign(MESSAGE, 0x0804), 0x0804)
            await until(lambda: len(ks.open) == 2)
            one.stop()
            assert verifies("rsa", await other.sign(MESSAGE, 0x0804), 0x0804)
        await until(lambda: not ks.open)


@running
async def test_a_server_that_dies_in_the_middle_is_replaced_by_another():
    def die(connection, packet):
        connection.cut("as the test wants")

    async with scripted(die) as bad, key_server() as good:
        log = Log()
        with signer(servers(bad.port, good.port), log=log) as sg:
            await until(lambda: all_up(sg))
            found = await asyncio.gather(*(sg.sign(MESSAGE, 0x0403) for _ in range(50)))
            assert all(verifies("p256", signature) for signature in found)


@running
async def test_a_server_that_dies_alone_is_named():
    def die(connection, packet):
        connection.cut("as the test wants")

    async with scripted(die) as bad:
        with signer(servers(bad.port, timeout=0.5)) as sg:
            told = await refusal(sg)
            assert f"key server 127.0.0.1:{bad.port}: the connection was c" in told


@running
async def test_a_late_signature_is_asked_for_elsewhere():
    async with scripted(lambda connection, packet: None) as silent, key_server() as good:
        with signer(servers(silent.port, good.port)) as sg:
            await until(lambda: all_up(sg))
            begun = time.monotonic()
            found = await asyncio.gather(*(sg.sign(MESSAGE, 0x0403) for _ in range(20)))
            assert all(verifies("p256", signature) for signature in found)
            assert time.monotonic() - begun < 15  # of 20 s for each


@running
async def test_a_late_signature_is_asked_for_by_another_connection():
    stuck = []

    def first_connection_is_stuck(connection, packet):
        stuck.append(connection)
        if connection is not stuck[0]:
            connection.answer(packet)

    async with scripted(first_connection_is_stuck) as ks:
        with signer(servers(ks.port, connections=2)) as sg:
            await until(lambda: len(ks.open) == 2)
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))
            assert stuck[0] is not stuck[-1]


@running
async def test_time_runs_out():
    async with scripted(lambda connection, packet: None) as silent:
        with signer(servers(silent.port, timeout=0.2)) as sg:
            assert f"127.0.0.1:{silent.port}: no signature within 0.2 s" in await refusal(sg)


@running
async def test_late_ones_do_not_multiply():
    """A server that is overloaded is not asked three times as much."""
    async with scripted(lambda connection, packet: None) as silent:
        with signer(servers(silent.port, timeout=0.3)) as sg:
            await until(lambda: len(silent.open) == 2)
            await asyncio.gather(*(sg.sign(MESSAGE, 0x0403) for _ in range(500)), return_exceptions=True)
            assert 500 <= len(silent.requests) <= 500 + 20 + 50


@running
async def test_the_fastest_server_is_asked():
    def slowly(connection, packet):
        connection.loop.call_later(0.1, connection.answer, packet)

    async with scripted(slowly) as slow, scripted() as fast:
        with signer(servers(slow.port, fast.port)) as sg:
            await until(lambda: all_up(sg))
            for _ in range(100):
                await sg.sign(MESSAGE, 0x0403)
            assert len(fast.requests) > 90
            # and when it is lost, the other is there
            for connection in list(fast.open):
                connection.cut("gone")
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))


@running
async def test_one_that_became_fast_is_found_out(monkeypatch):
    monkeypatch.setattr(client, "PROBE_SECONDS", 0.05)
    delays = {"slow": 0.02}

    def slowly(connection, packet):
        connection.loop.call_later(delays["slow"], connection.answer, packet)

    async with scripted(slowly) as slow, scripted(
        lambda connection, packet: connection.loop.call_later(0.005, connection.answer, packet)
    ) as fast:
        with signer(servers(slow.port, fast.port)) as sg:
            await until(lambda: all_up(sg))
            delays["slow"] = 0
            async with asyncio.timeout(30):
                while len(slow.requests) < 20:
                    await sg.sign(MESSAGE, 0x0403)


@running
async def test_load_is_spread_when_the_fastest_has_much_to_do():
    def together(connection, packet):
        connection.loop.call_later(0.05, connection.answer, packet)

    async with scripted(together) as one, scripted(together) as other:
        with signer(servers(one.port, other.port)) as sg:
            await until(lambda: all_up(sg))
            await asyncio.gather(*(sg.sign(MESSAGE, 0x0403) for _ in range(400)))
            assert min(len(one.requests), len(other.requests)) > 50


@pytest.mark.parametrize(
    ("tls", "certified", "why"),
    [
        ({"of": "wrong"}, "127.0.0.1", "unknown_ca"),
        ({"name": "127.0.0.9"}, "127.0.0.1", "bad_certificate"),
        ({"name": "keys.example"}, "others.example", "bad_certificate"),
        ({"clients_of": "wrong"}, "127.0.0.1", "unknown_ca"),
    ],
)
@running
async def test_certificates_that_are_not_right(tls, certified, why):
    async with key_server(tls=server_config(**tls)) as ks:
        log = Log()
        with signer(servers(ks.port, certified=certified, timeout=0.5), log=log) as sg:
            told = await refusal(sg)
            assert f"key server 127.0.0.1:{ks.port}: " in told
            assert why in told
            assert why in str(log)
            assert ks.signed == 0


@running
async def test_a_name_is_verified():
    async with key_server(tls=server_config(name="keys.example")) as ks:
        with signer(servers(ks.port, certified="keys.example")) as sg:
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))


GARBAGE = {
    "plain text": lambda c, p: c.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "another version": lambda c, p: c.send(b"\x02\0\0\0" + p.id.to_bytes(4, "big")),
    "zeros": lambda c, p: c.send(bytes(100_000)),
    "an id that nobody has": lambda c, p: c.send(wire.build(p.id ^ 0x80000000, wire.Opcode.RESPONSE, b"x")),
    "an answer twice": lambda c, p: (c.answer(p), c.answer(p)),
    "no signature": lambda c, p: c.send(wire.build(p.id, wire.Opcode.RESPONSE)),
    "a signature of 60,000 bytes": lambda c, p: c.send(wire.build(p.id, wire.Opcode.RESPONSE, bytes(60_000))),
    "a pong": lambda c, p: c.send(wire.build(p.id, wire.Opcode.PONG, b"x")),
    "a request": lambda c, p: c.send(wire.build(p.id, wire.Opcode.ED25519, b"x")),
    "an unknown opcode": lambda c, p: c.send(wire.build(p.id, 0x99, b"x")),
    "an item that is too long": lambda c, p: c.send(b"\1\0\0\4" + p.id.to_bytes(4, "big") + b"\x11\xff\xff\xf0"),
    "a tag twice": lambda c, p: c.send(b"\1\0\0\x08" + p.id.to_bytes(4, "big") + b"\x11\0\1\xf0" * 2),
    "no opcode": lambda c, p: c.send(b"\1\0\0\0" + p.id.to_bytes(4, "big")),
    "a length and nothing more": lambda c, p: c.send(b"\1\0\xff\xff" + p.id.to_bytes(4, "big")),
    "an error without a number": lambda c, p: c.send(wire.build(p.id, wire.Opcode.ERROR)),
    "an error with a long one": lambda c, p: c.send(wire.build(p.id, wire.Opcode.ERROR, b"\xff" * 900)),
    "a torn record": lambda c, p: c.transport.write(b"\x17\x03\x03\x00\x30" + bytes(48)),
    "a flood of pongs": lambda c, p: [c.send(wire.build(i, wire.Opcode.PONG)) for i in range(1000)],
    "its end": lambda c, p: c.end("enough"),
}


@pytest.mark.parametrize("what", GARBAGE)
@running
async def test_a_hostile_server_ends_its_connection_and_nothing_else(what):
    async with scripted(GARBAGE[what]) as bad, key_server() as good:
        alone, log = servers(bad.port, timeout=0.4), Log()
        with signer(alone, log=log) as sg, signer(servers(good.port)) as other:
            await until(lambda: bad.open)
            if what == "an answer twice":
                assert verifies("p256", await sg.sign(MESSAGE, 0x0403))
            else:
                assert f"key server 127.0.0.1:{bad.port}: " in await refusal(sg)
            assert verifies("p256", await other.sign(MESSAGE, 0x0403))
        with signer(servers(bad.port, good.port)) as sg:  # and with another it does no harm
            await until(lambda: bad.open)
            for _ in range(5):
                assert verifies("p256", await sg.sign(MESSAGE, 0x0403))


@running
async def test_what_is_behind_the_port_speaks_no_tls():
    async def talk(reader, writer):
        writer.write(b"220 mail.example ESMTP\r\n" * 100)
        writer.close()

    plain = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = plain.sockets[0].getsockname()[1]
    with signer(servers(port, timeout=0.3)) as sg:
        assert f"key server 127.0.0.1:{port}: " in await refusal(sg)
    plain.close()


@running
async def test_what_is_behind_the_port_says_nothing(monkeypatch):
    monkeypatch.setattr(client, "CONNECT_SECONDS", 0.1)
    with listening() as sock:
        port = sock.getsockname()[1]
        log = Log()
        with signer(servers(port, timeout=1.0), log=log) as sg:
            assert f"key server 127.0.0.1:{port}: no connection within 0.1 s" in await refusal(sg)


@running
async def test_all_servers_are_down():
    ports = [unused_port(), unused_port()]
    with signer(servers(*ports, timeout=1.0)) as sg:
        told = await refusal(sg)
        for port in ports:
            assert f"key server 127.0.0.1:{port}: connection refused" in told


@running
async def test_it_connects_again_when_a_server_is_back():
    port = unused_port()
    with signer(servers(port, timeout=20.0)) as sg:
        async with key_server(port=port):
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))
        for _ in range(2):
            waiting = asyncio.ensure_future(sg.sign(MESSAGE, 0x0403))
            await asyncio.sleep(0.02)
            async with key_server(port=port):
                assert verifies("p256", await waiting)


@running
async def test_errors_by_their_numbers():
    def refuse(connection, packet):
        code = 2 if len(connection.owner.requests) == 1 else 42
        connection.send(wire.build(packet.id, wire.Opcode.ERROR, bytes([code])))

    async with scripted(refuse) as ks:
        with signer(servers(ks.port)) as sg:
            assert "answers key not found" in await refusal(sg)
            assert "answers error 2a" in await refusal(sg)
            assert len(ks.requests) == 2  # nobody else could know better


@running
async def test_a_server_without_the_key_is_no_obstacle():
    async with key_server(kinds=["rsa"]) as without, key_server() as having:
        with signer(servers(without.port, having.port)) as sg:
            await until(lambda: all_up(sg))
            for _ in range(10):
                assert verifies("p256", await sg.sign(MESSAGE, 0x0403))


@running
async def test_no_more_may_wait_than_pending():
    async with scripted(lambda connection, packet: None) as silent:
        with signer(servers(silent.port, timeout=0.5, pending=3)) as sg:
            waiting = [asyncio.ensure_future(sg.sign(MESSAGE, 0x0403)) for _ in range(3)]
            await asyncio.sleep(0)
            assert "3 signatures are being waited for already" in await refusal(sg)
            assert all(isinstance(e, SignError) for e in await asyncio.gather(*waiting, return_exceptions=True))
            assert "no signature within" in await refusal(sg)  # there is room again


@running
async def test_who_no_longer_waits_is_forgotten():
    held = []

    async with scripted(lambda connection, packet: held.append((connection, packet))) as ks:
        with signer(servers(ks.port, connections=1, pending=1)) as sg:
            for _ in range(3):
                waiting = asyncio.ensure_future(sg.sign(MESSAGE, 0x0403))
                count = len(held)
                await until(lambda count=count: len(held) > count)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            for connection, packet in held:  # answers that nobody waits for any more are no fault
                connection.answer(packet)
            ks.do = Scripted.answer
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))
            assert len(ks.open) == 1


@running
async def test_a_silent_connection_is_asked_whether_it_lives(monkeypatch):
    monkeypatch.setattr(client, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(client, "PING_SECONDS", 0.02)
    monkeypatch.setattr(client, "DEAD_SECONDS", 0.3)
    async with scripted() as ks:
        log = Log()
        with signer(servers(ks.port, connections=1), log=log) as sg:
            await until(lambda: ks.pings > 5)
            (before,) = ks.open
            ks.pongs = False
            await until(lambda: "no answer for" in str(log))
            ks.pongs = True
            await until(lambda: ks.open and before not in ks.open)
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))


@running
async def test_one_connection_is_enough_while_nothing_is_signed(monkeypatch):
    monkeypatch.setattr(client, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(client, "IDLE_SECONDS", 0.3)
    async with key_server() as ks:
        with signer(servers(ks.port, connections=4)) as sg:
            await sg.sign(MESSAGE, 0x0403)
            await until(lambda: len(ks.open) == 4)
            await until(lambda: len(ks.open) == 1)
            await sg.sign(MESSAGE, 0x0403)
            await until(lambda: len(ks.open) == 4)


@running
async def test_a_name_with_several_addresses():
    async with key_server(host="127.0.0.1") as one, key_server(host="127.0.0.2", port=one.port):
        async with asyncio.timeout(30):
            configured = servers(one.port, addresses=("localhost", "127.0.0.2"))
            assert not configured.hosts[0].is_literal
        configured = servers(one.port, addresses=("127.0.0.1", "127.0.0.2"))
        with signer(configured) as sg:
            await until(lambda: one.open)
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))


@running
async def test_addresses_of_a_name_come_and_go(monkeypatch):
    monkeypatch.setattr(client, "RESOLVE_SECONDS", 0.01)
    answers = ["127.0.0.1"]
    loop = asyncio.get_running_loop()

    async def getaddrinfo(host, port, **_):
        if host != "keys.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        if not answers:
            raise OSError("no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in answers]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    tls = server_config(name="keys.example")
    async with key_server(tls=tls) as one, key_server(host="127.0.0.2", port=one.port, tls=tls) as other:
        configured = servers(one.port, certified="keys.example")
        (host,) = configured.hosts
        host = client.Host("keys.example", host.port, ("127.0.0.1",), "keys.example")
        log = Log()
        with signer(client.dataclasses.replace(configured, hosts=(host,)), log=log) as sg:
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))
            answers[:] = ["127.0.0.2"]
            await until(lambda: other.open and not one.open)
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))
            answers.clear()
            await until(lambda: "keys.example: cannot be resolved" in str(log))
            assert verifies("p256", await sg.sign(MESSAGE, 0x0403))


@running
async def test_stopping_ends_what_waits():
    async with scripted(lambda connection, packet: None) as silent:
        with signer(servers(silent.port)) as sg:
            waiting = asyncio.ensure_future(sg.sign(MESSAGE, 0x0403))
            await until(lambda: silent.requests)
            sg.stop()
            with pytest.raises(SignError):
                await waiting
        await until(lambda: not silent.open)


@running
async def test_a_fault_that_repeats_is_told_of_once():
    log = Log()
    with signer(servers(unused_port(), timeout=0.3), log=log) as sg:
        await asyncio.gather(*(sg.sign(MESSAGE, 0x0403) for _ in range(50)), return_exceptions=True)
    assert len(log.lines) == 1
