"""A fleet's register of early data, as one worker asks it (docs/fleet.md, "The register").

Handshakes wait for the answer, and nothing else does: this runs in the asyncio guest of the worker's loop. All that ask
in one turn are one write on one connection, and answers come in the order of questions; who has waited too long has
gone on without early data by then (cext.proxy.handshake_hooks).

An entry is what `SET ... NX` says of it. That Redis forgets nothing is looked at, on each connection and then once a
second: a Redis that may evict, that is no master or has too few replicas is not asked. Its time, and a mark, are read
with every answer. The mark says which life of which master the entries are from, and since when: whoever finds another
life, or no mark, leaves his own, and nothing that could have been taken before is fresh any more. So it is, too, when
Redis's clock has leapt, as entries expire by it.
"""

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

from cext.tls.replay import DOWN, FRESH, SEEN

from edge.fleet.link import Link
from edge.fleet.nodes import Nodes
from edge.fleet.settings import CLOCKS_MS, Fleet

PROBE_SECONDS: Final = 1.0
"""How often a connection is looked at, or tried anew."""
FAILURES: Final = 3
"""In a row: so many answers that come too late mean that it is down."""
SHARDS: Final = 8
"""Of a cluster: each a hash tag, which one of its nodes has."""

MOMENT_DIGITS: Final = 16
"""Milliseconds since 1970 have fewer."""
NO_MARK: Final = b"-"
"""In the mark's place: entries have expired too soon."""


class UnfitError(Exception):
    """It answers, but as it is nobody may rely on it."""


class ClockError(UnfitError):
    """Its clock, or ours, is wrong."""


class Call(Protocol):
    """`cext.proxy.handshake_hooks.RegisterCall`, as it is answered."""

    name: bytes

    def answer(self, verdict: int) -> None: ...


class Awaited(Protocol):
    """`cext.tls.replay.AwaitedRegister`, likewise."""

    up: bool
    asker: Callable[[Sequence[Call]], None] | None
    local: Any
    remembers: int
    deadline: int


class Guest(Protocol):
    aio: asyncio.AbstractEventLoop

    def run_coroutine(
        self, coroutine: Coroutine[Any, Any, None], done: Callable[[asyncio.Task[None]], None]
    ) -> asyncio.Task[None]: ...


class Plane(Protocol):
    """`cext.worker.DataPlane`, likewise."""

    register_up: bool

    @property
    def guest(self) -> Guest: ...


Report = Callable[[str, str], None]


class Asking:
    """A worker's: of whichever configuration it serves."""

    def __init__(self, plane: Plane, report: Report) -> None:
        self._plane = plane
        self._report = report
        self._register: Register | None = None

    def follow(self, awaited: Awaited | None, link: Link | None, fleet: Fleet | None) -> None:
        """From now on this one is asked; None: none is. One that has not changed goes on."""
        before = self._register
        if before is not None and before.is_for(awaited, link, fleet):
            return
        if before is not None:
            before.close()
        self._register = None
        if awaited is not None and link is not None and fleet is not None:
            self._register = Register(self._plane, awaited, link, fleet, self._report)

    def close(self) -> None:
        self.follow(None, None, None)


class Register:
    """One configuration's: a Line, or in a cluster one for each shard."""

    def __init__(self, plane: Plane, awaited: Awaited, link: Link, fleet: Fleet, report: Report) -> None:
        self._plane = plane
        self._awaited = awaited
        self._of = (awaited, link, fleet)
        self._report = report
        self._where = str(link)
        count = SHARDS if fleet.mode == "cluster" else 1
        nodes = self._nodes = Nodes(link)
        tags = [f":{{{i}}}" for i in range(count)] if count > 1 else [""]
        self._lines = [
            Line(nodes, awaited, fleet.replicas, link.key(f"early{tag}").encode(), self._changed) for tag in tags
        ]
        awaited.up = False
        awaited.asker = self.ask
        self._tasks = [plane.guest.run_coroutine(line.run(), _ended) for line in self._lines]

    def is_for(self, awaited: Awaited | None, link: Link | None, fleet: Fleet | None) -> bool:
        return self._of[0] is awaited and self._of[1:] == (link, fleet)

    def ask(self, calls: Sequence[Call]) -> None:
        """Of all that have come in a turn of the loop, from outside of the guest."""
        if len(self._lines) == 1:
            self._lines[0].ask(calls)
            return
        by_shard: dict[int, list[Call]] = {}
        for call in calls:
            by_shard.setdefault(int(call.name[:4], 16) % len(self._lines), []).append(call)
        for shard, some in by_shard.items():
            self._lines[shard].ask(some)

    def close(self) -> None:
        """Who waits goes on without."""
        if self._awaited.asker == self.ask:
            self._awaited.asker = None
        self._awaited.up = self._plane.register_up = False
        for line in self._lines:
            line.close()
        for task in self._tasks:
            task.cancel()
        self._plane.guest.run_coroutine(self._nodes.close(), _ended)

    def _changed(self, why: str) -> None:
        """A line has come up or gone down, or its second look has found it down still."""
        whole = all(line.up for line in self._lines)
        self._awaited.up = any(line.up for line in self._lines)
        self._plane.register_up = whole
        if whole and self._awaited.local.speak():
            self._report("info", f"the fleet's register of early data is back: {self._where}")
        elif not whole and self._awaited.local.fall_silent():
            self._report("warning", f"the fleet's register of early data is down, and early data refused: {why}")


def _ended(task: "asyncio.Task[None]") -> None:
    """What it raised has been looked at."""
    if not task.cancelled():
        task.exception()


@dataclasses.dataclass(slots=True)
class Batch:
    """Commands that were sent together."""

    replies: int
    take: Callable[["Batch", list[Any]], None]
    """Called with the replies, errors among them."""
    due: float
    """When the answer is late (monotonic)."""
    sent_at: tuple[int, int]
    """In ms since 1970, and monotonic."""
    calls: Sequence[Call] = ()
    late: bool = False


class Line:
    """A connection to who keeps (a part of) the record. `key`: what keys begin with; the mark's own."""

    def __init__(
        self, nodes: Nodes, awaited: Awaited, replicas: int, key: bytes, changed: Callable[[str], None]
    ) -> None:
        self.up = False
        self._nodes = nodes
        self._awaited = awaited
        self._replicas = replicas
        self._key = key
        self._changed = changed
        self._connection: Any = None
        self._reader: asyncio.Task[None] | None = None
        self._sent: collections.deque[Batch] = collections.deque()
        """What is not answered yet, in order."""
        self._failures = 0
        self._closed = False
        self._mark = b""
        self._clock_erred = False
        """Since the mark was left: entries may have expired too soon."""
        self._at = 0
        """Its time when it was last told,"""
        self._asked_at = self._heard_at = 0
        """and between which moments that was (monotonic, ms)."""
        self._remembers = b"%d" % awaited.remembers
        self._deadline = awaited.deadline / 1000

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while not self._closed:
                began = time.monotonic()
                await self._probe()
                await asyncio.sleep(max(began + PROBE_SECONDS - time.monotonic(), 0.0))
        finally:
            self.drop()

    def ask(self, calls: Sequence[Call]) -> None:
        self._notice_delays()
        if not self.up:
            _answer(calls, DOWN)
            return
        commands: list[tuple[Any, ...]] = [
            (b"SET", self._key + b":" + call.name, b"1", b"PX", self._remembers, b"NX") for call in calls
        ]
        if self._replicas:
            commands.append((b"WAIT", self._replicas, max(self._awaited.deadline * 3 // 4, 1)))
        commands += (b"TIME",), (b"GET", self._key)
        self._send(commands, self._judge, calls)

    def _notice_delays(self) -> None:
        """Of what is not answered yet. Whoever waited has gone on by himself."""
        now = time.monotonic()
        for batch in self._sent:
            if batch.late:
                continue
            if now < batch.due:
                return
            batch.late = True
            self._failures += 1
            if self._failures >= FAILURES:
                self.drop("it does not answer in time")
                return

    def close(self) -> None:
        """For good."""
        self._closed = True
        self.drop()

    def drop(self, why: str = "") -> None:
        """Nothing is asked here any more; with `why`, that is told."""
        reader, sent = self._reader, list(self._sent)
        self.up, self._connection, self._reader, self._failures = False, None, None, 0
        self._sent.clear()
        for batch in sent:
            _answer(batch.calls, DOWN)
        if reader is not None:
            reader.cancel()  # it ends the connection
        if why:
            self._changed(why)

    # ---- looking

    async def _probe(self) -> None:
        """Looks at the connection, of which there is one afterwards if that can be."""
        self._notice_delays()
        from edge.fleet.connection import FAILURES as FAILED  # noqa: PLC0415  # see edge.fleet.link

        try:
            if self._connection is None:
                async with asyncio.timeout(self._nodes.seconds):
                    connection = await self._nodes.connection(self._key)
                if self._closed:  # and the word of it has been swallowed on the way, as asyncio's wait_for may
                    await connection.disconnect(nowait=True)
                    return
                self._connection = connection
                self._reader = asyncio.get_running_loop().create_task(self._read(connection))
            await self._look()
        except UnfitError as e:
            self.drop(_said(e))
        except TimeoutError:
            if self.up:
                self._notice_delays()
            else:
                self.drop("it does not answer in time")
        except FAILED as e:
            self.drop(_said(e))
        except Exception as e:  # of a package: whatever it is, early data is refused and the next probe tries again
            self.drop(f"unforeseen: {type(e).__name__}: {e}")

    async def _look(self) -> None:
        """It is up if it can be relied on. Raises UnfitError, TimeoutError, or what the redis package does."""
        connection = self._connection
        looked: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        sections = [(b"INFO", section) for section in (b"server", b"memory", b"replication")]
        commands = [*sections, (b"TIME",), (b"GET", self._key)]
        self._send(commands, lambda batch, replies: self._inspect(replies, batch.sent_at, looked))
        async with asyncio.timeout(self._deadline):
            life = await looked
        if life:
            mark = await self._leave_mark(life)
            if connection is not self._connection:
                raise UnfitError("the connection has ended")
            self._adopt(mark)

    def _inspect(self, replies: list[Any], sent_at: tuple[int, int], looked: "asyncio.Future[bytes]") -> None:
        """At once, before answers to later questions are judged. The result: b"", or of which life the record is to be
        marked."""
        try:
            life, mark = self._read_facts(replies, sent_at)
            known = mark is not None and self._is_of(life, mark) and not self._clock_erred
            if mark is not None and known:
                self._adopt(mark)
            elif self.up:
                raise UnfitError("its entries have gone, or are another's")
        except Exception as e:
            if not looked.done():
                looked.set_exception(e)
            self.drop(_said(e))
            return
        if not looked.done():
            looked.set_result(b"" if known else life)

    def _read_facts(self, replies: list[Any], sent_at: tuple[int, int]) -> tuple[bytes, bytes | None]:
        """(which life of which server it is, the mark or None). Raises."""
        _raise_fault(replies)
        facts: dict[str, str] = {}
        for section in replies[:3]:
            facts |= _facts(section)
        check(facts, self._replicas)
        self._check_clock(replies[3], *sent_at)
        return f"{facts.get('run_id')} {facts.get('master_replid')} ".encode(), replies[4]

    def _check_clock(self, told: Any, sent_at: int, asked_at: int) -> None:
        """What TIME has said. Raises UnfitError, ClockError. One of both clocks is wrong then: if as much time has
        passed there as here, it is ours, of which entries know nothing. Else all hosts are to know at once."""
        at, heard_at, went_on = _moment(told), _monotonic(), False
        if self._at:
            passed = at - self._at
            went_on = asked_at - self._heard_at <= passed + CLOCKS_MS // 2
            went_on = went_on and passed - CLOCKS_MS // 2 <= heard_at - self._asked_at
        self._at, self._asked_at, self._heard_at = at, asked_at, heard_at
        try:
            check_clock(at, sent_at, _now())
        except ClockError:
            if not went_on and not self._clock_erred:
                self._clock_erred = True
                self._send([(b"SET", self._key, NO_MARK)], lambda *_: None)
            raise

    def _is_of(self, life: bytes, mark: bytes) -> bool:
        """Whether a mark is of that life, and of a moment that has been: one that has not would end early data until it
        comes."""
        since = mark.removeprefix(life)
        known = mark.startswith(life) and since.isdigit() and len(since) < MOMENT_DIGITS
        return known and int(since) <= self._at + CLOCKS_MS

    async def _leave_mark(self, life: bytes) -> bytes:
        """From now on; or since another host has found the same."""
        [before] = await self._query((b"GET", self._key))
        if before is None:
            await self._query((b"SET", self._key, life + b"%d" % self._at, b"NX"))
        elif self._clock_erred or not self._is_of(life, before):
            await self._query((b"SET", self._key, life + b"%d" % self._at))
        [mark] = await self._query((b"GET", self._key))
        if mark is None or not self._is_of(life, mark):
            raise UnfitError("it does not keep what it is told")
        self._clock_erred = False
        return bytes(mark)

    def _adopt(self, mark: bytes) -> None:
        self._mark = mark
        self._awaited.local.raise_barrier(int(mark.rpartition(b" ")[2]) + CLOCKS_MS)
        if not self.up:
            self.up, self._failures = True, 0
            self._changed("")

    async def _query(self, *commands: tuple[Any, ...]) -> list[Any]:
        """The replies, in time; one that is an error is raised."""
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

        def take(_: Batch, replies: list[Any]) -> None:
            if not answered.done():
                answered.set_result(replies)

        self._send(commands, take)
        async with asyncio.timeout(self._deadline):
            replies = await answered
        _raise_fault(replies)
        return replies

    # ---- asking

    def _send(
        self,
        commands: Sequence[tuple[Any, ...]],
        take: Callable[[Batch, list[Any]], None],
        calls: Sequence[Call] = (),
    ) -> None:
        """At once, be it in the guest or outside."""
        connection = self._connection
        if connection is None or not connection.is_connected:  # the package would make another
            self.drop("the connection has ended")
            _answer(calls, DOWN)
            return
        self._sent.append(Batch(len(commands), take, time.monotonic() + self._deadline, (_now(), _monotonic()), calls))
        sending = connection.send_packed_command(connection.pack_commands(commands), check_health=False)
        try:
            sending.send(None)
        except StopIteration:
            return
        except Exception as e:
            self.drop(_said(e))
        else:
            sending.close()
            self.drop("it does not take what it is sent")

    async def _read(self, connection: Any) -> None:
        from redis.exceptions import ResponseError  # noqa: PLC0415  # likewise

        from edge.fleet.connection import FAILURES as FAILED  # noqa: PLC0415

        try:
            while True:
                replies: list[Any] = []
                while not replies or len(replies) < self._sent[0].replies:
                    try:
                        replies.append(await connection.read_response(disable_decoding=True))
                    except ResponseError as e:
                        replies.append(e)
                    if not self._sent:
                        raise UnfitError("it says what it was not asked for")
                batch = self._sent.popleft()
                try:
                    batch.take(batch, replies)
                except Exception:
                    _answer(batch.calls, DOWN)  # those that have not been answered
                    raise
        except (*FAILED, UnfitError) as e:
            if connection is self._connection:
                self.drop(_said(e))
        except Exception as e:  # as in _probe
            if connection is self._connection:
                self.drop(f"unforeseen: {type(e).__name__}: {e}")
        finally:
            await connection.disconnect(nowait=True)

    def _judge(self, batch: Batch, replies: list[Any]) -> None:
        """What the record says of them; but of what is new only if it is sure to stay."""
        mark, acknowledged = replies[-1], replies[-3] if self._replicas else 0
        fault = next((reply for reply in replies if isinstance(reply, Exception)), None)
        fault = fault or self._clock_fault(batch, replies)
        if fault is None and not isinstance(acknowledged, int):
            fault = UnfitError("it does not say how many replicas have what was taken")
        sure = fault is None and mark == self._mark and acknowledged >= self._replicas
        for call, reply in zip(batch.calls, replies, strict=False):
            if reply is None:
                call.answer(SEEN)
            else:
                call.answer(FRESH if sure and reply == b"OK" else DOWN)
        if fault is not None:
            self.drop(_said(fault))
        elif mark != self._mark:
            self.drop("its entries have gone, or are another's")
        elif not sure:
            self._fail(f"only {acknowledged} of {self._replicas} replicas have what was taken")
        elif time.monotonic() < batch.due:
            self._failures = 0

    def _clock_fault(self, batch: Batch, replies: list[Any]) -> UnfitError | None:
        """A clock that has leapt before something was entered shows after it."""
        try:
            self._check_clock(replies[-2], *batch.sent_at)
        except UnfitError as e:
            return e
        return None

    def _fail(self, why: str) -> None:
        """Once is nothing, while it is up."""
        self._failures += 1
        if not self.up or self._failures >= FAILURES:
            self.drop(why)


def check(facts: dict[str, str], replicas: int) -> None:
    """By its INFO. Raises UnfitError."""
    role = facts.get("role")
    if role != "master":
        raise UnfitError(f"it is no master, but {role or 'unknown'}")
    policy = facts.get("maxmemory_policy", "unknown")
    if facts.get("maxmemory") != "0" and policy != "noeviction":
        raise UnfitError(f'it may forget what was taken: its maxmemory-policy is {policy}, and has to be "noeviction"')
    if int(facts.get("connected_slaves", "0")) < replicas:
        raise UnfitError(f"it has {facts.get('connected_slaves', '0')} replicas, and is to have {replicas}")


def check_clock(theirs: int, sent: int, received: int) -> None:
    """Its time, asked for and told between two of ours: milliseconds since 1970. Raises ClockError."""
    early, late = sent - theirs, theirs - received
    if max(early, late) > CLOCKS_MS // 2:
        raise ClockError(f"its clock and this host's differ by {max(early, late) / 1000:.1f} s")


def _moment(told: Any) -> int:
    """Of TIME's reply, in ms since 1970. Raises UnfitError."""
    try:
        seconds, microseconds = map(int, told)
    except (TypeError, ValueError):
        raise UnfitError("it does not know what time it is") from None
    moment = seconds * 1000 + microseconds // 1000
    if not 0 <= moment < 10 ** (MOMENT_DIGITS - 1):
        raise UnfitError("it is at a time that no clock tells")
    return moment


def _facts(info: bytes) -> dict[str, str]:
    """Of a section of INFO."""
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").splitlines())
    return {name: value.strip() for name, colon, value in lines if colon}


def _answer(calls: Sequence[Call], verdict: int) -> None:
    for call in calls:
        call.answer(verdict)


def _said(error: Exception) -> str:
    """For the log."""
    return str(error) if isinstance(error, UnfitError) else f"{type(error).__name__}: {error}"


def _raise_fault(replies: Sequence[Any]) -> None:
    """The first reply that is an error."""
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply


def _now() -> int:
    return int(time.time() * 1000)


def _monotonic() -> int:
    return int(time.monotonic() * 1000)
