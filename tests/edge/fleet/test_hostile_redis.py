"""A Redis that is none, or is somebody else's: nothing that it says is kept without bounds, ends a process, or stands
in a worker's way; and nothing is ever taken for it."""

import asyncio
import os
import resource
import time

import pytest
from cext.tls.replay import DOWN

from edge.fleet import link as links
from edge.fleet import news, register
from edge.fleet.settings import Fleet
from edge.schema import Place, read_table
from edge.tickets.keeper import FleetError, Keeper, Keeping
from tests.edge.fleet.test_register import SECONDS, Host

ROTATE = 3_600_000
STALL = 0.15
"""Seconds of CPU that one turn of the loop may take."""

HOSTILE = {
    "a string without end": b"$99999999999\r\n",
    "strings that are kept": b"$30000000\r\n",
    "an array without end": b"*1000000000\r\n",
    "arrays in arrays": b"*1\r\n" * 16_000,
    "a line without end": b"+",
    "an error without end": b"-ERR ",
    "negative": b"$-7\r\n",
    "no number": b"*x\r\n",
    "RESP3": b">2\r\n+invalidate\r\n*0\r\n",
    "a push, and an answer": b">1\r\n+x\r\n+OK\r\n",
    "not Redis": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "numbers": b":1\r\n" * 100,
    "a long number": b":" + b"9" * 6000 + b"\r\n",
    "nothing": b"$-1\r\n" * 100,
    "OK": b"+OK\r\n" * 100,
    "lists": b"*2\r\n*0\r\n*-1\r\n" * 100,
    "three numbers": b"*3\r\n:1\r\n:2\r\n:3\r\n" * 100,
    "a list for a document": b"*3\r\n*1\r\n:1\r\n$1\r\n1\r\n$1\r\n1\r\n" * 100,
    "a time before all": b"*3\r\n$-1\r\n$4\r\n-999\r\n$1\r\n0\r\n" * 100,
    "a time after all": b"*3\r\n$-1\r\n$20\r\n99999999999999999999\r\n$1\r\n0\r\n" * 100,
}
GOES_ON = {
    "a string without end": b"x" * (1 << 18),
    "strings that are kept": b"x" * (1 << 18),
    "an array without end": b":1\r\n" * (1 << 16),
    "a line without end": b"x" * (1 << 18),
    "an error without end": b"x" * (1 << 18),
}


class Liar:
    """Says one thing to whoever asks anything, and more of it for as long as it is read."""

    def __init__(self, what):
        self.what = what
        self.connections = 0

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            while await reader.read(1 << 16):
                writer.write(HOSTILE[self.what])
                while more := GOES_ON.get(self.what):
                    writer.write(more)
                    await writer.drain()
                    await asyncio.sleep(0)
        except OSError:
            pass
        finally:
            writer.close()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_):
        self._server.close()


async def commands(reader):
    while head := await reader.readline():
        parts = []
        for _ in range(int(head[1:])):
            length = int((await reader.readline())[1:])
            parts.append((await reader.readexactly(length + 2))[:-2])
        yield parts


@pytest.fixture
def make(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(range(48)))

    def made(url, **values):
        at = Place(str(tmp_path / "edge.toml")).key("fleet")
        fleet = read_table(Fleet, {"secret_files": ["secret"], "redis": [url], **values}, at)
        return links.read(fleet, at), fleet

    return made


def run(go):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    asyncio.run(asyncio.wait_for(go(), 2 * SECONDS))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 64 * 1024, "KiB more"


async def longest_turn(until):
    longest, last = 0.0, time.process_time()
    while not until():
        await asyncio.sleep(0)
        longest, last = max(longest, time.process_time() - last), time.process_time()
    return longest


@pytest.mark.parametrize("what", HOSTILE)
def test_the_register(make, monkeypatch, what):
    monkeypatch.setattr(register, "PROBE_SECONDS", 0.05)

    async def go():
        async with Liar(what) as liar:
            host = Host(*make(liar.url), deadline=5000)
            try:
                end = time.monotonic() + SECONDS
                assert await longest_turn(lambda: liar.connections >= 4 or time.monotonic() > end) < STALL
                assert liar.connections >= 4, "each is given up at once, and another one made"
                assert not host.awaited.up
                assert await host.answers("a") == [DOWN]
                [(level, message)] = host.said
                assert level == "warning" and len(message) < 1000
            finally:
                await host.close()

    run(go)


class Turncoat(Liar):
    """Answers as Redis does, but for one command, once an entry has been written: that one gets `said`."""

    def __init__(self, command, said):
        self._command, self._said = command, said
        self._turned = False
        self._mark = b""

    async def _serve(self, reader, writer):
        try:
            async for command in commands(reader):
                self._turned = self._turned or b"PX" in command
                lies = self._turned and command[0] == self._command
                writer.write(self._said if lies else self._answer(*command))
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, name, *arguments):
        if name == b"INFO":
            facts = b"run_id:1\r\nmaster_replid:2\r\nrole:master\r\nmaxmemory:0\r\nconnected_slaves:1\r\n"
            return b"$%d\r\n%s\r\n" % (len(facts), facts)
        if name == b"TIME":
            return b"*2\r\n$%d\r\n%d\r\n$6\r\n%06d\r\n" % (10, *divmod(time.time_ns() // 1000, 1_000_000))
        if name == b"WAIT":
            return b":1\r\n"
        if name == b"GET":
            return b"$%d\r\n%s\r\n" % (len(self._mark), self._mark) if self._mark else b"$-1\r\n"
        if name == b"SET" and b"PX" not in arguments:
            self._mark = arguments[1]
        return b"+OK\r\n"


LIES = {
    "a time of another kind": (b"TIME", b":1\r\n"),
    "no time": (b"TIME", b"$-1\r\n"),
    "a time in three parts": (b"TIME", b"*3\r\n:1\r\n:2\r\n:3\r\n"),
    "a time in no parts": (b"TIME", b"*2\r\n*0\r\n*0\r\n"),
    "a time that no clock has": (b"TIME", b"*2\r\n$4000\r\n" + b"9" * 4000 + b"\r\n$1\r\n0\r\n"),
    "a time long ago": (b"TIME", b"*2\r\n$4000\r\n-" + b"9" * 3999 + b"\r\n$1\r\n0\r\n"),
    "micros that no clock has": (b"TIME", b"*2\r\n$1\r\n0\r\n$4000\r\n" + b"9" * 4000 + b"\r\n"),
    "no number of replicas": (b"WAIT", b"$1\r\n1\r\n"),
    "nothing of replicas": (b"WAIT", b"$-1\r\n"),
    "a list of replicas": (b"WAIT", b"*1\r\n:1\r\n"),
    "a number for a mark": (b"GET", b":1\r\n"),
    "a list for a mark": (b"GET", b"*1\r\n:1\r\n"),
    "a fault": (b"GET", b"-ERR no\r\n"),
    "a list for an entry": (b"SET", b"*1\r\n+OK\r\n"),
    "a number for an entry": (b"SET", b":1\r\n"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_register_that_has_been_relied_on(make, what):
    """Whoever asks hears at once that it cannot be told; the log, why."""

    async def go():
        async with Turncoat(*LIES[what]) as liar:
            host = Host(*make(liar.url, replicas=1), deadline=60_000)
            try:
                await host.up()
                assert await host.answers("a", "b") == [DOWN, DOWN]
                await host.until(lambda: host.said or what.endswith("an entry"), "a word")
                assert "unforeseen" not in str(host.said)
            finally:
                await host.close()

    run(go)


@pytest.mark.parametrize("mode", ["server", "cluster", "sentinel"])
@pytest.mark.parametrize("what", HOSTILE)
def test_ticket_keys(make, what, mode):
    async def go():
        async with Liar(what) as liar:
            link, fleet = make(liar.url, mode=mode)
            owner = os.geteuid(), os.getegid()
            keeper = Keeper(Keeping(link, ROTATE, 3, fleet.poll, fleet.settle, owner, lambda: None))
            with pytest.raises(FleetError):
                await keeper.poll()
            assert keeper.agreement.known is None
            await keeper.close()

    run(go)


@pytest.mark.parametrize("what", HOSTILE)
def test_news(make, monkeypatch, what):
    """What is no news is not heard; it listens again, and not without a pause."""
    monkeypatch.setattr(news, "AGAIN_SECONDS", (0.05, 0.05))
    monkeypatch.setattr(news, "REFUSED_SECONDS", 0.05)
    monkeypatch.setattr(news, "ANSWER_SECONDS", 0.5)

    async def go():
        async with Liar(what) as liar:
            heard = []
            link, _ = make(liar.url)
            listening = news.News(link, link.key("tickets"), lambda: heard.append(1))
            end = time.monotonic() + SECONDS
            assert await longest_turn(lambda: liar.connections >= 4 or time.monotonic() > end) < STALL
            assert liar.connections >= 4
            assert not heard
            await listening.close()

    run(go)


class Flood(Liar):
    """Confirms, and then has news and no end of it."""

    async def _serve(self, reader, writer):
        self.connections += 1
        try:
            async for command in commands(reader):
                if command[0] == b"SUBSCRIBE":
                    break
                writer.write(b"+OK\r\n")
            parts = [b"$%d\r\n%s\r\n" % (len(part), part) for part in (b"edge:edge:tickets", b"")]
            writer.write(b"*3\r\n$9\r\nsubscribe\r\n%s:1\r\n" % parts[0])
            while True:
                writer.write(b"*3\r\n$7\r\nmessage\r\n%s%s" % tuple(parts) * 500)
                await writer.drain()
                await asyncio.sleep(0)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def test_news_without_end(make, monkeypatch):
    """They are heard, but the process has a rest from each to the next; where the connection is not confirmed any more,
    as all that comes before, it is another one's turn."""
    monkeypatch.setattr(news, "SURE_SECONDS", 0.3)
    monkeypatch.setattr(news, "ANSWER_SECONDS", 0.3)

    async def go():
        async with Flood("") as flood:
            heard = []
            link, _ = make(flood.url)
            listening = news.News(link, link.key("tickets"), lambda: heard.append(time.monotonic()))
            end = time.monotonic() + SECONDS
            assert await longest_turn(lambda: flood.connections >= 3 or time.monotonic() > end) < STALL
            assert flood.connections >= 3
            assert len(heard) > flood.connections
            assert len(heard) <= (heard[-1] - heard[0]) / news.REST_SECONDS + 2 * flood.connections
            await listening.close()

    run(go)
