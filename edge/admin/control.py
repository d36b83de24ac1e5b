"""The admin socket: a JSON object per line asks for something, one or more lines answer it (docs/admin.md).

It lives in the master's loop and never makes it wait: `Control.fileno` is readable whenever `turn` has something to do.
Whoever may connect is trusted with what the commands do, but not with the master's time and memory: clients, the
length of a line, how many lines come in a second, what waits to be read by a client, and how long a client may take for
any of it are bounded. What an answer is long is made piece by piece, as its client reads.
"""

import dataclasses
import json
import math
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

from edge.admin.socketfile import AdminSocket
from edge.errors import EdgeError
from edge.logs.errorlog import one_line
from edge.logs.logline import Log

CLIENTS_MOST: Final = 32
ACCEPTED_AT_ONCE: Final = 16
LINE_MOST: Final = 64 << 10
"""Bytes of a line from a client."""
LINE_SECONDS: Final = 10.0
"""For the rest of a line once it has begun."""
IDLE_SECONDS: Final = 300.0
"""That a client may ask nothing."""
READ_SECONDS: Final = 30.0
"""That it may read nothing of what it is answered."""
LINES_PER_SECOND: Final = 500
"""Commands of one client, as well as those it may have saved up."""
WAITING_MOST: Final = 256 << 10
"""Bytes of an answer that wait for its client: then no more is made of it."""
PAUSE_SECONDS: Final = 1.0
"""For which nobody is accepted when there are no descriptors."""
COMPLAINT_SECONDS: Final = 60.0
"""Between two lines of the log about that."""
PIECE_SECONDS: Final = 0.005
"""For which an answer is made in one go."""

_READ: Final = 64 << 10
_CREDENTIALS: Final = struct.Struct("iII")

Command = Callable[[Any, Mapping[str, Any], "Answer"], None]
"""What is done for a command: with the master, the arguments and the answer. It may end the answer later. EdgeError, or
ValueError for arguments, is answered with what it says."""
Lines = Iterator[Mapping[str, object] | None]
"""None: a piece of work is done, and there is no line of it."""


class Source(Protocol):
    """What makes a long answer, piece by piece."""

    def more(self) -> bool:
        """The client has taken what there was: add to the answer, or end it. False: it is not to be asked again before
        it says so (`Answer.again`)."""

    def gone(self) -> None:
        """The client has gone: nothing more is wanted."""


class Answer:
    """What goes back to a client for one command. Once it has gone, nothing that is called here has an effect."""

    def __init__(self, client: "_Client") -> None:
        self._client = client
        self._source: Source | None = None
        self._over = False
        self.gone = False
        """The client has left."""
        self.asked_by = client.name
        """Who asks, in words,"""
        self.uid = client.uid
        """and the user."""
        self.notes = client.notes
        """What commands keep for the client's next ones."""
        self.when_gone: Callable[[], None] | None = None
        """Called when the client leaves before the answer is over."""

    def line(self, **fields: object) -> None:
        """A line that is not the last one."""
        if not self._over:
            self._client.put(fields)

    def done(self, **fields: object) -> None:
        """The last line: it was done."""
        self._end({"ok": True, **fields})

    def fail(self, error: str, **fields: object) -> None:
        """The last line: it was not, and why."""
        self._end({"ok": False, "error": error, **fields})

    def each(self, lines: "Lines", **fields: object) -> None:
        """A line for each of these but None, made as the client reads, then the last one with their `count`."""
        self.draw_from(_Lines(self, lines, fields))

    def draw_from(self, source: Source) -> None:
        """The source is asked for more whenever the client has taken what there was, until it ends the answer."""
        self._source = source
        self.again()

    def again(self) -> None:
        """The source has more to give."""
        if not self._over:
            self._client.draw_again()

    def _end(self, fields: Mapping[str, object]) -> None:
        if self._over:
            return
        self._over, self._source = True, None
        self._client.put(fields)
        self._client.answered()

    def more(self) -> bool:
        return self._source.more() if self._source else False

    def client_gone(self) -> None:
        if self._over:
            return
        self._over = self.gone = True
        source, self._source = self._source, None
        if source:
            source.gone()
        if self.when_gone:
            self.when_gone()


@dataclasses.dataclass(slots=True)
class _Lines:
    """A source that makes lines out of an iterator."""

    answer: Answer
    lines: "Lines"
    last: Mapping[str, object]
    count: int = 0

    def more(self) -> bool:
        until = time.monotonic() + PIECE_SECONDS
        for line in self.lines:
            if line is not None:
                self.count += 1
                self.answer.line(**line)
            if time.monotonic() > until:
                return True
        self.answer.done(count=self.count, **self.last)
        return False

    def gone(self) -> None:
        self.lines = iter(())


class _Client:
    """A connection. One command at a time; what is asked meanwhile waits in the socket."""

    def __init__(self, control: "Control", own: socket.socket, now: float) -> None:
        own.setblocking(False)
        self.socket = own
        pid, uid, _ = _CREDENTIALS.unpack(own.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        self.notes: dict[str, Any] = {}
        self.uid = uid
        self.name = f"process {pid} of user {uid}"
        self._control = control
        self._come = bytearray()
        self._going = bytearray()
        self._answer: Answer | None = None
        self._draws = False
        """Its source has more to give."""
        self._ended = False
        """It will ask nothing more,"""
        self._closing = False
        """or we will hear nothing more."""
        self._paid_until = now - 1.0
        """By what its lines cost: a second behind at most, and while it is ahead of now the client is not heard."""
        self._held_up = False
        """It is ahead."""
        self.heard_at = now
        """When it asked last, or a line of it began."""
        self._took_at = now
        """When it read something of its answer last, or had none to read."""
        self.events = select.EPOLLIN

    @property
    def busy(self) -> bool:
        return self._answer is not None or bool(self._going)

    # What comes.

    def turn(self, events: int, now: float) -> None:
        if events & select.EPOLLIN:
            self._read(now)
        if events & select.EPOLLOUT:
            self.flush(now)
            self._draw()
        self._ask(now)
        if events & (select.EPOLLERR | select.EPOLLHUP):
            self.close()  # after what it asked last, which it need not wait for
        self.settle(now)

    def _read(self, now: float) -> None:
        try:
            piece = self.socket.recv(_READ)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if not self._come:
            self.heard_at = now
        self._come += piece
        self._ended = not piece

    def _ask(self, now: float) -> None:
        """The next command, if none is under way."""
        until = time.monotonic() + PIECE_SECONDS
        while self._answer is None and not self._closing and self._paid_until <= now and time.monotonic() < until:
            end = self._come.find(b"\n")
            if end < 0 and self._ended and self._come:
                end = len(self._come)  # the last line may lack its end
            if end > LINE_MOST or (end < 0 and len(self._come) > LINE_MOST):
                self.part(f"a line is longer than {LINE_MOST} bytes")
                return
            if end < 0:
                return
            line = bytes(self._come[:end])
            del self._come[: end + 1]
            self.heard_at = now
            self._paid_until = max(self._paid_until, now - 1.0) + 1 / LINES_PER_SECOND
            if line.strip():
                self._answer = Answer(self)
                self._control.do(line, self._answer)
            if len(self._going) > WAITING_MOST:
                return

    # What goes.

    def put(self, fields: Mapping[str, object]) -> None:
        if self.socket.fileno() < 0:
            return
        if not (self._going or self._draws):
            self._took_at = self._control.clock()
        self._going += json.dumps(fields, separators=(",", ":")).encode() + b"\n"
        self._control.woken(self)

    def answered(self) -> None:
        self._answer, self._draws = None, False
        self.heard_at = self._control.clock()
        self._control.woken(self)

    def draw_again(self) -> None:
        if not (self._going or self._draws):
            self._took_at = self._control.clock()
        self._draws = True
        self._control.woken(self)

    def _draw(self) -> None:
        """Has the answer go on while its client reads."""
        until = time.monotonic() + PIECE_SECONDS
        while self._answer is not None and self._draws and len(self._going) < WAITING_MOST:
            self._draws = self._answer.more()
            if time.monotonic() > until:
                return

    def flush(self, now: float) -> None:
        if not self._going or self.socket.fileno() < 0:
            return
        try:
            sent = self.socket.send(self._going)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close()
            return
        if sent:
            self._took_at = now
        del self._going[:sent]

    def part(self, error: str) -> None:
        """The last line, whatever else was to come."""
        self.put({"ok": False, "error": error})
        self._closing = True

    # Its state.

    def settle(self, now: float) -> None:
        """After anything has changed: what is waited for next."""
        if self.socket.fileno() < 0:
            return
        self.flush(now)
        if self.socket.fileno() < 0:
            return
        if (self._closing or (self._ended and not self._come)) and not self.busy:
            self.close()
            return
        waits = self._answer is None and not self._closing
        self._held_up = waits and self._paid_until > now
        hears = waits and not self._held_up
        events = 0
        if hears and not self._ended and len(self._come) <= LINE_MOST:
            events |= select.EPOLLIN
        if self._going or self._draws or (hears and b"\n" in self._come):
            events |= select.EPOLLOUT
        if events != self.events:
            self.events = events
            self._control.epoll.modify(self.socket, events)

    def due(self) -> float:
        """When `late` is to be asked again."""
        if self._going or self._draws:
            return self._took_at + READ_SECONDS
        if self._answer is not None:
            return math.inf
        if self._held_up:
            return self._paid_until
        if self._come and b"\n" not in self._come:
            return self.heard_at + LINE_SECONDS
        return self.heard_at + IDLE_SECONDS

    def late(self, now: float) -> None:
        """Ends what has taken too long."""
        if self._going or self._draws:
            if now >= self._took_at + READ_SECONDS:
                self.close()
        elif self._answer is not None:
            return  # the command's own business
        elif self._come and self._come.find(b"\n") < 0 and now >= self.heard_at + LINE_SECONDS:
            self.part("a line was not finished in time")
        elif now >= self.heard_at + IDLE_SECONDS:
            self.part("nothing was asked for long")

    def close(self) -> None:
        if self.socket.fileno() < 0:
            return
        self._control.forget(self)
        self.socket.close()
        answer, self._answer = self._answer, None
        if answer:
            answer.client_gone()


class Control:
    """The server. `commands` may be added to at any time; `log` gets what goes wrong here."""

    def __init__(
        self, master: object, commands: dict[str, Command], log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.commands = commands
        self.epoll = select.epoll()
        self.clock = clock
        self._master = master
        self._log = log
        self._listening: AdminSocket | None = None
        self._clients: dict[int, _Client] = {}
        self._woken: set[_Client] = set()
        self._pauses_until = 0.0
        """Nobody is accepted till then; 0: they are."""
        self._complained_at = -math.inf

    def fileno(self) -> int:
        return self.epoll.fileno()

    def listen(self, own: AdminSocket | None) -> None:
        """Takes clients there from now on, and nowhere else. Those that are there stay until they have their answer."""
        if own is self._listening:
            return
        if self._listening is not None:
            self.epoll.unregister(self._listening)
            self._listening.close()
        if own is not None:
            self.epoll.register(own, select.EPOLLIN)
        self._listening, self._pauses_until = own, 0.0

    @property
    def listening(self) -> AdminSocket | None:
        return self._listening

    def turn(self) -> float:
        """Does what there is to do now, and returns when it is to be called at the latest (monotonic), whether or not
        `fileno` is readable then."""
        now = self.clock()
        accepts = False
        for fd, events in self.epoll.poll(0):
            if fd in self._clients:
                self._clients[fd].turn(events, now)
            else:
                accepts = True
        # Last: a new client may have the descriptor of one that gave way, about which there may have been news, too.
        if accepts and self._listening is not None:
            for _ in range(ACCEPTED_AT_ONCE):
                if not self._accept(self._listening, now):
                    break
        return self.step()

    def step(self) -> float:
        """Sends what was answered since, and ends what takes too long; see `turn`."""
        now = self.clock()
        for client in list(self._clients.values()):
            if client.due() <= now:
                client.late(now)
                client.turn(0, now)
        while self._woken:
            self._woken.pop().settle(now)
        if self._pauses_until and now >= self._pauses_until and self._listening is not None:
            self._pauses_until = 0.0
            self.epoll.modify(self._listening, select.EPOLLIN)
        due = min((client.due() for client in self._clients.values()), default=now + IDLE_SECONDS)
        return min(due, self._pauses_until or math.inf)

    def _accept(self, listening: AdminSocket, now: float) -> bool:
        """Whether there was somebody."""
        try:
            own, _ = listening.accept()
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as e:
            self._pause(listening, now, e)
            return False
        client = _Client(self, own, now)
        if len(self._clients) >= CLIENTS_MOST and not self._make_room():
            client.put({"ok": False, "error": f"{CLIENTS_MOST} others wait for their answers"})
            client.flush(now)
            own.close()
            return True
        self._clients[own.fileno()] = client
        self.epoll.register(own, client.events)
        return True

    def _pause(self, listening: AdminSocket, now: float, why: OSError) -> None:
        """Who waits there would keep the master busy."""
        self.epoll.modify(listening, 0)
        self._pauses_until = now + PAUSE_SECONDS
        if now > self._complained_at + COMPLAINT_SECONDS:
            self._complained_at = now
            self._log("error", f"{listening}: a client cannot be accepted: {why.strerror}")

    def _make_room(self) -> bool:
        """Who has asked nothing for longest gives way."""
        idle = [client for client in self._clients.values() if not client.busy]
        if not idle:
            return False
        min(idle, key=lambda client: client.heard_at).close()
        return True

    def do(self, line: bytes, answer: Answer) -> None:
        """What a line asks for."""
        try:
            asked = json.loads(line)
        except (ValueError, RecursionError):
            answer.fail('a line is no JSON; write {"command": "status"}')
            return
        name = asked.pop("command", None) if isinstance(asked, dict) else None
        if not isinstance(name, str):
            answer.fail('no command is named; write {"command": "status"}')
            return
        if name not in self.commands:
            answer.fail(f"there is no command {json.dumps(name[:60])}; there are: {', '.join(sorted(self.commands))}")
            return
        try:
            self.commands[name](self._master, asked, answer)
        except (EdgeError, ValueError) as e:
            answer.fail(str(e))
        except Exception as e:
            self._log("error", one_line(f"command {name}: {type(e).__name__}: {e}"))
            answer.fail("it failed for a fault of edge's own, which its error log tells")

    def woken(self, client: _Client) -> None:
        self._woken.add(client)

    def forget(self, client: _Client) -> None:
        self._clients.pop(client.socket.fileno(), None)
        self._woken.discard(client)
        # Before it is closed: a process that was forked off may still have the descriptor.
        self.epoll.unregister(client.socket)

    def leave(self) -> None:
        """In a process that was forked off: all of it is the master's."""
        self.epoll.close()
        for client in self._clients.values():
            client.socket.close()
        if self._listening is not None:
            self._listening.leave()

    def close(self) -> None:
        """The end: what is answered and not taken yet is lost."""
        now = self.clock()
        for client in list(self._clients.values()):
            client.flush(now)
            client.close()
        self.listen(None)
        self.epoll.close()
