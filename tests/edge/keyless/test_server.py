"""The key server: what it permits, what it refuses, and that no client can hold it up."""

import asyncio
import contextlib

import pytest
from cext.crypto.sign import PrivateKey
from cext.tls.config import ClientConfig
from cext.tls.credential import Credential
from cext.tls.engine import Engine

from edge.keyless import server, wire
from edge.keyless.stream import TlsStream
from edge.keyless.wire import Code, Opcode
from edge.tls.certificate import digest
from tests.edge.keyless.rig import MESSAGE, Log, authority, identifier, key_server, keys, until, verifies


class Raw(TlsStream):
    """A client that sends what it is given, and keeps what comes."""

    def __init__(self, of="right", min_version=0x0303, max_version=0x0304):
        credentials = []
        if of is not None:
            chain, key = authority(of).issue("client.example")
            credentials = [Credential(chain, PrivateKey.from_pem(key))]
        super().__init__(
            Engine(ClientConfig(credentials=credentials, min_version=min_version, max_version=max_version))
        )
        self.ready = self.loop.create_future()
        self.over = ""
        self.came = []
        self.decoder = wire.Decoder()

    def established(self):
        self.ready.set_result(None)

    def data_came(self, data):
        self.came += self.decoder.feed(data)

    def ended(self, cause):
        self.over = cause
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(cause))

    async def answers(self, count):
        await until(lambda: len(self.came) >= count or self.over)
        return self.came


@contextlib.asynccontextmanager
async def connected(ks, **options):
    raw = Raw(**options)
    await asyncio.get_running_loop().create_connection(lambda: raw, "127.0.0.1", ks.port)
    try:
        await raw.ready
        yield raw
    finally:
        raw.cut("the test is over")


def request(packet_id, scheme, kind="p256"):
    value = digest(MESSAGE, scheme)
    return wire.build(packet_id, wire.OPCODES[scheme], value, ski=identifier(kind), server_name=b"a.example")


def run(test):
    async def limited():
        async with asyncio.timeout(60):
            await test

    asyncio.run(limited())


@pytest.mark.parametrize("version", [0x0303, 0x0304])
def test_it_signs_in_both_versions_of_tls(version):
    async def test():
        async with key_server() as ks, connected(ks, min_version=version, max_version=version) as raw:
            raw.send(request(5, 0x0403))
            (answer,) = await raw.answers(1)
            assert (answer.id, answer.opcode) == (5, Opcode.RESPONSE)
            assert verifies("p256", answer.value)
            assert ks.signed == 1

    run(test())


REFUSED = {
    "RSA decryption": (wire.build(7, Opcode.RSA_DECRYPT, bytes(256), ski=b"SKI"), Code.BAD_OPCODE),
    "SHA-1": (wire.build(7, 0x03, bytes(20), ski=b"SKI"), Code.BAD_OPCODE),
    "MD5 and SHA-1": (wire.build(7, 0x02, bytes(36), ski=b"SKI"), Code.BAD_OPCODE),
    "sealing": (wire.build(7, 0x21, b"x"), Code.BAD_OPCODE),
    "a remote procedure": (wire.build(7, 0x23, b"x"), Code.BAD_OPCODE),
    "a custom function": (wire.build(7, 0x24, b"x"), Code.BAD_OPCODE),
    "what nobody has": (wire.build(7, 0x99, b"x"), Code.BAD_OPCODE),
    "a response": (wire.build(7, Opcode.RESPONSE, b"x"), Code.UNEXPECTED_OPCODE),
    "a pong": (wire.build(7, Opcode.PONG, b"x"), Code.UNEXPECTED_OPCODE),
    "an error": (wire.build(7, Opcode.ERROR, b"x"), Code.UNEXPECTED_OPCODE),
    "another key": (wire.build(7, Opcode.ECDSA_SHA256, bytes(32), ski=bytes(20)), Code.KEY_NOT_FOUND),
    "no key": (wire.build(7, Opcode.ECDSA_SHA256, bytes(32)), Code.KEY_NOT_FOUND),
    "a short digest": (wire.build(7, Opcode.ECDSA_SHA256, bytes(31), ski=b"SKI"), Code.CRYPTO),
    "no digest": (wire.build(7, Opcode.ECDSA_SHA256, b"", ski=b"SKI"), Code.CRYPTO),
    "a message for a digest": (wire.build(7, Opcode.ECDSA_SHA256, bytes(4000), ski=b"SKI"), Code.CRYPTO),
    "an operation of other keys": (wire.build(7, Opcode.RSA_PSS_SHA256, bytes(32), ski=b"SKI"), Code.CRYPTO),
    "no opcode": (b"\1\0\0\0\0\0\0\7", Code.FORMAT),
    "an item twice": (b"\1\0\0\x08\0\0\0\7" + b"\x11\0\1\xf1" * 2, Code.FORMAT),
    "an item too long": (b"\1\0\0\4\0\0\0\7" + b"\x11\0\2\xf1", Code.FORMAT),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what):
    packet, code = REFUSED[what]
    packet = packet.replace(b"\x04\0\x03SKI", b"\x04\0\x14" + identifier("p256"))
    if b"SKI" in REFUSED[what][0]:  # seventeen bytes more: the packet's length, and its padding as it was
        packet = packet[:2] + (int.from_bytes(packet[2:4], "big") + 17).to_bytes(2, "big") + packet[4:]

    async def test():
        log = Log()
        async with key_server(log=log) as ks, connected(ks) as raw:
            raw.send(packet)
            raw.send(request(8, 0x0403))
            answers = {answer.id: answer for answer in await raw.answers(2)}
            assert (answers[7].opcode, answers[7].value) == (Opcode.ERROR, bytes([code]))
            assert verifies("p256", answers[8].value)  # and the connection goes on
            assert ks.refused == 1
            assert len(log.lines) == 1
            assert "warning: 127.0.0.1:" in str(log)

    run(test())


def test_another_version_of_the_protocol_ends_the_connection():
    async def test():
        async with key_server() as ks, connected(ks) as raw:
            raw.send(b"\x02\0\0\0\0\0\0\7" + request(8, 0x0403))
            (answer,) = await raw.answers(1)
            assert (answer.id, answer.opcode, answer.value) == (7, Opcode.ERROR, bytes([Code.VERSION]))
            await until(lambda: raw.over)
            assert ks.signed == 0

    run(test())


def test_pings_are_echoed():
    async def test():
        async with key_server() as ks, connected(ks) as raw:
            for i, value in enumerate((b"", b"x", bytes(2000))):
                raw.send(wire.build(i, Opcode.PING, value))
            found = await raw.answers(3)
            assert [(a.id, a.opcode, len(a.value)) for a in found] == [
                (0, Opcode.PONG, 0), (1, Opcode.PONG, 1), (2, Opcode.PONG, 2000)]  # fmt: skip

    run(test())


@pytest.mark.parametrize(("of", "why"), [(None, "certificate_required"), ("wrong", "unknown_ca")])
@pytest.mark.parametrize("version", [0x0303, 0x0304])
def test_strangers_are_refused(of, why, version):
    async def test():
        log = Log()
        async with key_server(log=log) as ks:
            with contextlib.suppress(ConnectionError):
                async with connected(ks, of=of, min_version=version, max_version=version) as raw:
                    raw.send(request(1, 0x0403))
                    await until(lambda: raw.over)
                    assert raw.came == []
            await until(lambda: not ks.open)
            assert ks.signed == 0
            assert why in str(log) or "handshake_failure" in str(log)

    run(test())


def test_more_connections_than_it_takes():
    async def test():
        log = Log()
        async with key_server(connections=2, log=log) as ks, connected(ks) as one, connected(ks):
            with pytest.raises(ConnectionError):
                async with connected(ks):
                    pass
            assert "there are connections enough" in str(log)
            one.cut("gone")
            await until(lambda: len(ks.open) < 2)
            async with connected(ks) as third:
                third.send(request(1, 0x0403))
                assert verifies("p256", (await third.answers(1))[0].value)

    run(test())


def test_a_thousand_requests_at_once():
    """More than it signs at a time for one connection."""

    async def test():
        async with key_server() as ks, connected(ks) as raw:
            for i in range(1000):
                raw.send(request(i, 0x0804, "rsa"))
            peak = 0
            while len(raw.came) < 1000:
                peak = max(peak, *(one._running for one in ks.open))
                await asyncio.sleep(0)
            assert {answer.id for answer in raw.came} == set(range(1000))
            assert all(answer.opcode == Opcode.RESPONSE for answer in raw.came)
            assert 0 < peak <= server.REQUESTS_MOST

    run(test())


def test_quick_keys_do_not_wait_for_slow_ones():
    async def test():
        async with key_server(threads=1) as ks, connected(ks) as raw:
            for i in range(20):
                raw.send(request(i, 0x0806, "rsa"))
            raw.send(request(99, 0x0403))
            found = await raw.answers(21)
            assert found[0].id == 99

    run(test())


def test_a_client_that_reads_nothing_is_not_read_from(monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 1.0)
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 1.0)

    async def test():
        log = Log()
        async with key_server(log=log) as ks, connected(ks) as raw:
            raw.transport.pause_reading()
            while ks.open and ks.signed < 200_000:
                for i in range(200):
                    raw.send(wire.build(i, Opcode.PING, bytes(8000)))
                await asyncio.sleep(0.001)
                if raw.unsent > 1 << 22:
                    break
            await until(lambda: not ks.open)
            assert "takes no answers" in str(log)

    run(test())


def test_who_does_not_finish_the_handshake_goes(monkeypatch):
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.1)

    async def test():
        log = Log()
        async with key_server(log=log) as ks:
            reader, writer = await asyncio.open_connection("127.0.0.1", ks.port)
            assert await reader.read() == b""
            writer.close()
            await until(lambda: not ks.open)
            assert "no handshake within 0.1 s" in str(log)

    run(test())


def test_an_idle_connection_is_closed(monkeypatch):
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 5)

    async def test():
        async with key_server() as ks, connected(ks) as raw:
            raw.send(request(1, 0x0403))
            await raw.answers(1)
            for one in ks.open:
                one._look()
            await until(lambda: raw.over)
            assert "closed" in raw.over

    run(test())


def test_draining_answers_what_was_asked():
    async def test():
        log = Log()
        async with key_server(threads=1, log=log) as ks, connected(ks) as raw, connected(ks) as idle:
            for i in range(30):
                raw.send(request(i, 0x0806, "rsa"))
            await until(lambda: ks.signed or any(one._running for one in ks.open))
            await ks.drain(30)
            await until(lambda: raw.over and idle.over)
            assert len(raw.came) == 30
            assert all(answer.opcode == Opcode.RESPONSE for answer in raw.came)
            with pytest.raises(OSError):
                async with connected(ks):
                    pass

    run(test())


def test_keys_are_exchanged_while_it_runs():
    async def test():
        async with key_server(kinds=["rsa"]) as ks, connected(ks) as raw:
            raw.send(request(1, 0x0403))
            await raw.answers(1)
            ks.keys = server.keys_by_identifier(list(keys().values()))
            raw.send(request(2, 0x0403))
            first, second = await raw.answers(2)
            assert first.opcode == Opcode.ERROR
            assert verifies("p256", second.value)

    run(test())


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", bytes(1000), b"\x16\x03\x01\xff\xff" + bytes(70000)])
def test_what_is_no_tls(junk):
    async def test():
        async with key_server() as ks:
            reader, writer = await asyncio.open_connection("127.0.0.1", ks.port)
            writer.write(junk)
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()
            await until(lambda: not ks.open)

    run(test())
