"""The process `edge: fleet`: asks Redis for the fleet's ticket keys every few seconds, and when another host has
changed them; has keys written that are to come; and tells the master, who tells the workers. It alone waits for Redis,
and never for long.

The document is one value, changed by compare-and-set: of two hosts that change it at once the second one reads again.
All moments in it are of Redis's clock, which is told to the master by how far it is ahead of the host's.

| from | letter | JSON | |
|---|---|---|---|
| keeper | H | `document` (null: as before), `offset`, `secret`, `deaf` | Redis was asked, and has answered |
| keeper | X | `error` | it was asked, and has not |
| master | R | `id`, `revoke` | have the next key seal soon; or make all keys anew |
| keeper | r | `id`, `error` or `key`, `seals_from`, `offset` | that is in Redis; or why not |
"""

import asyncio
import contextlib
import dataclasses
import json
import random
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from edge.backoff import spread
from edge.fleet.link import Client, Link
from edge.fleet.news import News
from edge.fleet.wrapping import unwrap, wrap
from edge.logs.errorlog import one_line
from edge.processes import channel
from edge.processes.channel import Channel
from edge.tickets.agreement import Agreement
from edge.tickets.document import DeliveredKey, Document

HEARD: Final = b"H"
UNHEARD: Final = b"X"
ROTATE: Final = b"R"
ROTATED: Final = b"r"

KEY: Final = "tickets"
"""What the document stands under."""
ANSWER_SECONDS: Final = 2.0
"""For a connection to be made, and for each answer."""
ATTEMPT_SECONDS: Final = 8.0
"""For all that is asked in one go."""
AGAIN_SECONDS: Final = 1.0
"""Until the next try after a failure, if hosts look less often."""
BREATH_SECONDS: Final = 0.05
"""Between two looks, whatever others publish."""
OFFSET_STEP: Final = 250
"""Milliseconds: what clocks differ less by is not worth telling."""
TRIES: Final = 8
"""When others change the document at the same time."""
ERROR_MOST: Final = 300
_SPREAD: Final = 0.1

READ: Final = "local t = redis.call('TIME') return {redis.call('GET', KEYS[1]), t[1], t[2]}"
CHANGE: Final = (
    "if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return 0 end redis.call('SET', KEYS[1], ARGV[2]) "
    "local told = redis.pcall('PUBLISH', KEYS[1], '') return type(told) == 'table' and told.err or 1"
)
"""The answer: 0, there is something else by now; 1; or why others cannot be told of it."""


class FleetError(Exception):
    """The fleet's keys cannot be had, or not be changed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Keeping:
    """The work of the companion (`edge.processes.companion.Work`). Durations in ms. `known()` is what the master knows
    when the process begins."""

    link: Link
    rotate: int
    keep: int
    poll: int
    settle: int
    owner: tuple[int, int]
    known: Callable[[], Document | None] = dataclasses.field(compare=False)

    def run(self, line: socket.socket) -> None:
        asyncio.run(_keep(self, Channel(line, channel.WORKER_SAYS_MOST)))


class Keeper:
    """Asks Redis, with a clock of its own in ms."""

    def __init__(self, keeping: Keeping, clock: Callable[[], float] = time.time) -> None:
        self._link = keeping.link
        self._key = keeping.link.key(KEY)
        self._clock = clock
        self.agreement = Agreement(keeping.rotate, keeping.keep, keeping.settle, keeping.known())
        self.offset = 0
        """Milliseconds that Redis's clock is ahead of the host's."""
        self.under = -1
        """Which of the secrets the value there is under; -1: not known."""
        self.mute = ""
        """Why others are not told of what was written here."""
        self._rewrapped = False
        self._client: Client | None = None

    async def poll(self) -> None:
        """Learns what is there, and sees to it that it is what should be there. Raises FleetError."""
        await self._change(self.agreement.wanted)

    async def rotate(self, revoke: bool) -> DeliveredKey:
        """-> the key that is to seal. Raises FleetError."""
        change = self.agreement.revoked if revoke else self.agreement.rotated
        found: list[DeliveredKey] = []

        def wanted(_: Document | None, now: int) -> Document:
            document, key = change(now)
            found.append(key)
            return document

        await self._change(wanted)
        return found[-1]

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(ANSWER_SECONDS):
                    await client.close()

    async def _change(self, change: Callable[[Document | None, int], Document | None]) -> None:
        from edge.fleet.connection import FAILURES  # noqa: PLC0415  # the redis package, which is not always there

        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                await self._try(change)
        except Exception as e:  # of a package that reads what others say: whatever it is, the next poll tries again
            await self.close()
            known = isinstance(e, (*FAILURES, FleetError, ValueError))
            text = str(e) if known else f"unforeseen: {type(e).__name__}: {e}"
            text = text or ("no answer in time" if isinstance(e, TimeoutError) else type(e).__name__)
            raise FleetError(one_line(text)[:ERROR_MOST].rstrip(".")) from None

    async def _try(self, change: Callable[[Document | None, int], Document | None]) -> None:
        for _ in range(TRIES):
            wrapped, there, now = await self._read()
            self.agreement.hear(there, now)
            wanted = change(there, now)
            if wanted is None and self._is_under_first(there):
                return
            if await self._write(wrapped, wanted or there, now):
                return
            await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311  # no secret
        raise FleetError("too many hosts change the ticket keys at the same time")

    def _is_under_first(self, there: Document | None) -> bool:
        """Or was brought under the first secret once: hosts that are told of secrets in another order would do the
        opposite again and again."""
        if there is None or self.under <= 0 or self._rewrapped:
            return True
        self._rewrapped = True
        return False

    async def _read(self) -> tuple[bytes, Document | None, int]:
        begun = self._clock()
        wrapped, seconds, micros = await self._ask(READ)
        ended = self._clock()
        now = int(seconds) * 1000 + int(micros) // 1000
        offset = now - int((begun + ended) * 500)
        if abs(offset - self.offset) > OFFSET_STEP and ended - begun < ANSWER_SECONDS / 4:
            self.offset = offset
        if not wrapped:
            return b"", None, now
        content, self.under = unwrap(self._link.secrets, self._key, wrapped)
        try:
            return wrapped, Document.of_json(json.loads(content)), now
        except ValueError as e:
            raise FleetError(f"{self._key} {e}") from None

    async def _write(self, before: bytes, document: Document | None, now: int) -> bool:
        """Whether there was still what was read."""
        if document is None:
            return True
        written = document.to_json()
        Document.of_json(written)  # what nobody could read, as moments were absurd, is not written: it would stay there
        content = json.dumps(written).encode()
        changed = await self._ask(CHANGE, before, wrap(self._link.secrets[0], self._key, content))
        if not changed:
            return False
        self.mute = changed.decode(errors="replace") if isinstance(changed, bytes) else ""
        self.under = 0
        self.agreement.written(document, now)
        return True

    async def _ask(self, script: str, *arguments: bytes) -> Any:
        if self._client is None:
            self._client = self._link.asyncio(connections=1, seconds=ANSWER_SECONDS)
        return await self._client.redis.eval(script, 1, self._key, *arguments)


async def _keep(keeping: Keeping, master: Channel) -> None:
    """Until the master has gone."""
    keeper = Keeper(keeping)
    asked: list[dict[str, Any]] = []
    wake = asyncio.Event()

    def hear() -> None:
        asked.extend(json.loads(body) for letter, body in master.receive() if letter == ROTATE)
        if asked or master.ended:
            wake.set()
        if master.ended:
            loop.remove_reader(master.fileno())

    loop = asyncio.get_running_loop()
    loop.add_reader(master.fileno(), hear)
    news = News(keeping.link, keeping.link.key(KEY), wake.set)
    told: Document | None = None
    while not master.ended:
        wake.clear()
        while asked:
            master.send(ROTATED, json.dumps(await _rotate(keeper, asked.pop(0))).encode())
        seconds = keeping.poll / 1000
        try:
            await keeper.poll()
        except FleetError as e:
            master.send(UNHEARD, json.dumps({"error": str(e)}).encode())
            seconds = min(seconds, AGAIN_SECONDS)
        else:
            document = keeper.agreement.known
            changed = document.to_json() if document and document != told else None
            told = document
            deaf = one_line(news.refused or keeper.mute)[:ERROR_MOST]
            said = {"document": changed, "offset": keeper.offset, "secret": keeper.under, "deaf": deaf}
            master.send(HEARD, json.dumps(said).encode())
        await asyncio.sleep(BREATH_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(spread(seconds, _SPREAD) - BREATH_SECONDS):
                await wake.wait()
    await news.close()
    await keeper.close()


async def _rotate(keeper: Keeper, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        key = await keeper.rotate(asked["revoke"])
    except FleetError as e:
        return {"id": asked["id"], "error": str(e)}
    return {"id": asked["id"], "key": key.name.hex(), "seals_from": key.seals_from}
