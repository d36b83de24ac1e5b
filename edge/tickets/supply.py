"""The master's half of ticket keys that are delivered, by a fleet or in a directory: what is new is its own at once,
and every worker's.

Nothing is prepared or agreed upon among the workers: a key is known long before it seals, and until all know it, it
only opens.
"""

import dataclasses
import itertools
import json
import math
import pickle
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from edge.errors import EdgeError
from edge.fleet.link import Link
from edge.logs.errorlog import one_line
from edge.logs.logline import Log
from edge.processes import channel
from edge.processes.channel import ChannelError
from edge.processes.companion import Companion
from edge.processes.waiting import Waiting
from edge.tickets import directory, keeper
from edge.tickets.delivered import Delivered
from edge.tickets.directory import DirectoryError, Files, Stamp
from edge.tickets.document import Document
from edge.tickets.keeper import Keeping
from edge.tickets.rotations import TURN_MS, Rotation, Rotations

if TYPE_CHECKING:
    from edge.change.generation import Generation
    from edge.worker import EdgeWorker

LOOK_SECONDS: Final = 1.0
"""Between two looks at a directory. What is there has to be the same twice: files may be on their way."""
FAILURES_TO_LOSE: Final = 2
"""In a row: one may be a failover."""
SILENCE_SECONDS: Final = 30.0
"""Of the companion, beyond a poll: then it is ended, and another one started."""
STEP_SECONDS: Final = 0.1
BEGIN_SECONDS: Final = 5.0
"""For the first answer of Redis."""
ASKED_SECONDS: Final = 30.0
"""For a rotation to be in Redis."""
LATE_SECONDS: Final = 60.0
"""After the moment of a key: then something else has happened to it."""
CLOCK_SECONDS: Final = 5.0
"""A host whose clock is further off is told of."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a rotation by command."""

    reason: str
    """Why there is none; "" when there is."""
    key: str = ""
    """The beginning of the name of the key,"""
    seals: float = 0.0
    """and the moment from which it seals, in seconds since 1970."""


Told = Callable[[Outcome], None]


@dataclasses.dataclass(slots=True)
class _Asked:
    """A rotation that somebody waits for."""

    told: Told
    wait: bool
    until: float
    """Monotonic."""
    name: bytes = b""
    """Of the key, once it is in Redis."""
    outcome: Outcome = dataclasses.field(default_factory=lambda: Outcome(""))


@dataclasses.dataclass(slots=True)
class Contact:
    """What is known of the way to a fleet's Redis."""

    began: float
    """Monotonic."""
    spoke: float
    """When the companion has said something last (monotonic); it is waited for as long when it starts."""
    answered: int = 0
    failed: int = 0
    in_row: int = 0
    """Failures since the last answer,"""
    failing: float = 0.0
    """and when the first of them was (monotonic)."""
    heard: float | None = None
    """When Redis has answered last, in seconds since 1970."""
    lost: float | None = None
    """Since when it is taken for lost (monotonic)."""
    error: str = ""
    """Why."""
    offset: int = 0
    secret: int = -1
    deaf: str = ""
    """Why hosts do not tell each other at once of what they change."""

    @property
    def connected(self) -> bool:
        return self.heard is not None and self.lost is None


class Supply:
    """`companion` is the process that asks Redis, `rotations` have all keys; the next `step` comes when something is
    said that `waiting` watches."""

    def __init__(self, companion: Companion, rotations: Rotations, waiting: Waiting, log: Log) -> None:
        self._companion = companion
        self._rotations = rotations
        self._waiting = waiting
        self._watched = -1
        """The companion's line."""
        self._log = log
        self._number = -1
        """Of the generation that all this is about."""
        self._work: Keeping | None = None
        self.contact: Contact | None = None
        self._asked: dict[int, _Asked] = {}
        self._ids = itertools.count(1)
        self._changes = 0
        """How often there was something new for the workers."""
        self._sealing = b""
        self._used: Stamp | None = None
        """What the directory was like when it was read last,"""
        self._seen: Stamp | None = None
        """and when it was looked at last."""
        self._look_at = 0.0
        self._complaint = ""

    def step(self, generation: "Generation", workers: Iterable["EdgeWorker"]) -> float:
        """To be called on every turn -> when next, at the latest (monotonic)."""
        rotation = generation.prepared.rotation
        source = rotation.source if rotation else None
        if generation.number != self._number:
            self._follow(generation, source)
        self._companion.keep(self._work)
        if isinstance(source, Delivered) and self._work and self.contact:
            self._hear(source, self._work, self.contact)
        if isinstance(source, Files):
            self._look(source)
        if rotation is not None:
            rotation.turn()  # or secrets that every worker has forgotten would stay here
            if isinstance(source, Delivered | Files):
                self._tell(generation.number, rotation, source, workers)
        self._conclude(source)
        self._watch()
        return self._next()

    def _watch(self) -> None:
        """Called before anybody else may have a descriptor of the same number."""
        line = self._companion.channel
        descriptor = line.fileno() if line is not None else -1
        if descriptor != self._watched:
            self._waiting.unwatch(self._watched)
            if line is not None:
                self._waiting.watch(descriptor, lambda: None)
            self._watched = descriptor

    def _next(self) -> float:
        """Somebody waits, or tickets are given that other hosts do not open yet: look often."""
        now, contact = time.monotonic(), self.contact
        begins = contact is not None and contact.heard is None and now < contact.began + BEGIN_SECONDS
        return now + STEP_SECONDS if self._asked or begins else math.inf

    def stop(self) -> None:
        """The master ends, and so has the companion."""
        self._watch()
        for number in list(self._asked):
            self._end(number, Outcome("edge was stopped meanwhile"))

    def _follow(self, generation: "Generation", source: object) -> None:
        self._number = generation.number
        self._used = self._seen = None
        self._look_at, self._complaint = 0.0, ""
        fleet, link, before = generation.prepared.settings.fleet, generation.prepared.link, self._work
        self._work = None
        if isinstance(source, Delivered) and fleet and link:
            self._work = Keeping(
                link=link,
                rotate=source.rotate,
                keep=source.keep,
                poll=fleet.poll,
                settle=fleet.settle,
                owner=generation.owner,
                known=lambda: source.document,
            )
        if self._work is None:
            self.contact = None
        elif before is None or before.link.servers != self._work.link.servers or self.contact is None:
            self.contact = Contact(began=time.monotonic(), spoke=time.monotonic())

    # The fleet.

    def _hear(self, source: Delivered, work: Keeping, contact: Contact) -> None:
        line, now = self._companion.channel, time.monotonic()
        try:
            if line is not None:
                line.flush()
            for letter, body in line.receive() if line is not None else ():
                contact.spoke = now
                self._heard(letter, body, source, work, contact)
        except Exception as e:  # it reads what others have written: nothing that it says may end the master
            self._log("error", f"the process that keeps the fleet's keys is ended: it said {one_line(str(e))[:200]}")
            self._companion.stop()
        if now > contact.spoke + work.poll / 1000 + SILENCE_SECONDS:
            self._fail(contact)
            self._lose(source, work.link, contact, "the process that asks says nothing any more")
            self._companion.stop()
            contact.spoke = now

    def _heard(self, letter: bytes, body: bytes, source: Delivered, work: Keeping, contact: Contact) -> None:
        said = json.loads(body)
        if letter == keeper.HEARD:
            contact.answered, contact.in_row, contact.heard = contact.answered + 1, 0, time.time()
            contact.secret = int(said["secret"])
            self._learn(source, said, contact)
            self._listen(work, str(said["deaf"]), contact)
            self._regain(work.link, contact)
        elif letter == keeper.UNHEARD:
            self._fail(contact)
            error = one_line(str(said["error"]))[: keeper.ERROR_MOST]
            if contact.in_row >= FAILURES_TO_LOSE:
                self._lose(source, work.link, contact, error)
        elif letter == keeper.ROTATED:
            self._rotated(said, contact)
        else:
            raise ChannelError(f"a frame of kind {letter!r}")

    def _learn(self, source: Delivered, said: dict[str, Any], contact: Contact) -> None:
        offset = int(said["offset"])
        if said["document"] is None and offset == contact.offset:
            return
        if abs(offset) > CLOCK_SECONDS * 1000 >= abs(contact.offset):
            seconds = f"{-offset / 1000:+.1f} s"
            self._log("warning", f"fleet: the clock here is {seconds} off that of Redis, which ticket keys go by")
        contact.offset = offset
        document = said["document"] and Document.of_json(said["document"])
        self._rotations.deliver(source.name, source.heard(document, offset, time.time()))
        self._changes += 1

    def _listen(self, work: Keeping, deaf: str, contact: Contact) -> None:
        if deaf and not contact.deaf:
            late = f"of other ticket keys hosts learn up to {work.poll / 1000:g} s late"
            self._log("warning", f"fleet: {late}, as {work.link} tells them nothing: {deaf}; see docs/fleet.md")
        contact.deaf = deaf

    @staticmethod
    def _fail(contact: Contact) -> None:
        if not contact.in_row:
            contact.failing = time.monotonic()
        contact.failed, contact.in_row = contact.failed + 1, contact.in_row + 1

    def _lose(self, source: Delivered, link: Link, contact: Contact, error: str) -> None:
        contact.error = error
        if contact.lost is not None:
            return
        contact.lost = contact.failing if contact.heard else contact.began
        goes_on = "the last known ticket keys go on"
        if source.document is None:
            goes_on = "this host has ticket keys of its own until it is"
        self._log("error", f"fleet: {link} is not reached: {error}; {goes_on}")

    def _regain(self, link: Link, contact: Contact) -> None:
        if contact.lost is not None:
            seconds = time.monotonic() - contact.lost
            self._log("info", f"fleet: {link} is reached again, after {seconds:.1f} s")
        elif contact.answered == 1:
            self._log("info", f"fleet: ticket keys are those of {link}")
        contact.lost, contact.error = None, ""

    # A directory.

    def _look(self, source: Files) -> None:
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            stamp = directory.look(source.path)
            if stamp != self._used and stamp == self._seen:
                self._read(source)
                self._used = stamp
            self._seen = stamp
        except DirectoryError as e:
            self._complain(f"tls.tickets.directory: {e.problem}; {e.remedy}; the ticket keys before go on")
        else:
            if stamp == self._used:
                self._complaint = ""

    def _read(self, source: Files) -> None:
        before = source.state()[1]
        self._rotations.read_directory(source)
        if source.state()[1] != before:
            self._changes += 1

    def _complain(self, message: str) -> None:
        if message != self._complaint:
            self._complaint = message
            self._log("error", message)

    # The workers.

    def _tell(
        self, number: int, rotation: Rotation, source: Delivered | Files, workers: Iterable["EdgeWorker"]
    ) -> None:
        body = b""
        for worker in workers:
            if worker.serving and worker.keys_told != (number, self._changes):
                body = body or pickle.dumps((source.name, source.state()))
                worker.channel.send(channel.KEYS, body)
                worker.keys_told = number, self._changes
        if rotation.sealing != self._sealing:
            if self._sealing:
                self._log("info", f"ticket key {rotation.sealing.hex()[:8]} seals")
            self._sealing = rotation.sealing

    # Rotation by command.

    def rotate(self, told: Told, *, revoke: bool, wait: bool) -> None:
        """Has the next key seal soon, on all hosts; with `revoke` all keys are new ones, at once. told(outcome) when
        that is in Redis, with `wait` when the key seals here. Raises EdgeError."""
        line, contact = self._companion.channel, self.contact
        if self._work is None or contact is None:
            raise EdgeError("ticket keys are not a fleet's here: nobody rotates them by command; see docs/fleet.md")
        if line is None or not contact.connected:
            raise EdgeError(f"{self._work.link} is not reached: {contact.error or 'not yet'}; nothing has changed")
        number = next(self._ids)
        self._asked[number] = _Asked(told, wait, time.monotonic() + ASKED_SECONDS)
        line.send(keeper.ROTATE, json.dumps({"id": number, "revoke": revoke}).encode())

    def _rotated(self, said: dict[str, Any], contact: Contact) -> None:
        asked = self._asked.get(said["id"])
        if asked is None:
            return
        if error := said.get("error"):
            self._end(said["id"], Outcome(one_line(str(error))[: keeper.ERROR_MOST]))
            return
        asked.name = bytes.fromhex(said["key"])
        now = time.time()
        seals = max((int(said["seals_from"]) - contact.offset) / 1000, now)
        asked.outcome = Outcome("", asked.name.hex()[:8], seals)
        asked.until = time.monotonic() + seals - now + LATE_SECONDS
        if not asked.wait:
            self._end(said["id"], asked.outcome)

    def _conclude(self, source: object) -> None:
        for number, asked in list(self._asked.items()):
            if asked.name and isinstance(source, Delivered) and self._seals(asked, source):
                self._end(number, asked.outcome)
            elif time.monotonic() > asked.until:
                reason = "the key does not seal: others have changed the keys" if asked.name else "no answer in time"
                self._end(number, Outcome(f"{reason}; see edge fleet status"))

    def _seals(self, asked: _Asked, source: Delivered) -> bool:
        """Whether the key seals in all processes of this host: each of them looks by itself."""
        told = source.describe(time.time() - 1.5 * TURN_MS / 1000)
        return any(key["id"] == asked.outcome.key and key["state"] == "seals" for key in told)

    def _end(self, number: int, outcome: Outcome) -> None:
        self._asked.pop(number).told(outcome)

    # What is told.

    def describe(self, generation: "Generation") -> dict[str, Any] | None:
        """Of the fleet, as JSON has it; None: there is none."""
        fleet, contact = generation.prepared.settings.fleet, self.contact
        rotation = generation.prepared.rotation
        document = rotation.source.document if rotation and isinstance(rotation.source, Delivered) else None
        if fleet is None:
            return None
        return {
            "name": fleet.name,
            "mode": fleet.mode,
            "redis": [str(server) for server in fleet.redis],
            "share": list(fleet.share),
            "tickets": contact
            and {
                "connected": contact.connected,
                "heard": contact.heard,
                "lost": contact.lost and time.time() - (time.monotonic() - contact.lost),
                "error": contact.error,
                "polls": {"answered": contact.answered, "failed": contact.failed},
                "version": document and document.version,
                "secret": contact.secret if contact.secret >= 0 else None,
                "clock_offset": contact.offset / 1000,
                "told_at_once": not contact.deaf,
            },
        }
