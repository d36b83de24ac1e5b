"""The service manager: what it is told (sd_notify(3)), and the listening sockets that it hands over (sd_listen_fds(3)).

Both come by environment variables, which are taken out of the environment: what the master starts later is not to
speak in its name, nor to take its descriptors for its own. Without these variables nothing here does anything.
"""

import collections
import os
import socket
import time
from collections.abc import MutableMapping, Sequence
from typing import Final

from edge.errors import ListenError
from edge.processes.sockets import ListeningSocket, Name
from edge.settings import Bind

_FIRST_FD: Final = 3
_STATUS_MOST: Final = 400
"""Characters of a status: it is one line of `systemctl status`."""
_UNSENT_MOST: Final = 16
WORK_SECONDS: Final = 1.0
"""From one word about work that takes long to the next."""
_EXTEND_SECONDS: Final = 60
"""By which each of these words puts the end of the manager's patience off."""

Environment = MutableMapping[str, str]


class Notifier:
    """Tells the service manager in datagrams, never waiting: what its socket does not take now is told later.

    `address`: a path, or "@" and an abstract name; "" for nobody. `watchdog`: seconds within which it must hear of us,
    0 for no such demand.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self.address = address
        self.watchdog = watchdog
        self._unsent: collections.deque[bytes] = collections.deque(maxlen=_UNSENT_MOST)

    @classmethod
    def from_environment(cls, environ: Environment) -> "Notifier":
        address = environ.pop("NOTIFY_SOCKET", "")
        period, of = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        watchdog = int(period) / 1e6 if period.isdecimal() and of in ("", str(os.getpid())) else 0.0
        return cls(address if address.startswith(("/", "@")) else "", watchdog)

    def tell(self, **assignments: object) -> None:
        """Sends NAME=value lines, in one datagram."""
        if not self.address:
            return
        self._unsent.append("\n".join(f"{name}={_one_line(value)}" for name, value in assignments.items()).encode())
        self.flush()

    def flush(self) -> bool:
        """Sends what could not be sent before; whether nothing is left. Who has gone hears nothing."""
        if not self._unsent:
            return True
        address = self.address.encode(errors="surrogateescape")
        if address.startswith(b"@"):
            address = b"\0" + address[1:]
        try:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        except OSError:  # no descriptor is left
            return False
        with s:
            s.setblocking(False)
            while self._unsent:
                try:
                    s.sendto(self._unsent[0], address)
                except BlockingIOError:
                    return False
                except OSError:
                    self._unsent.clear()
                    return True
                self._unsent.popleft()
        return True


class Service:
    """What the manager believes of the service, kept at what is: `step` on every turn of the master's loop.

    It is READY when workers serve, no sooner, RELOADING while a change is under way, and says in STATUS what it does.
    WATCHDOG comes only from a master whose loop turns and that has a worker which shows signs of life.
    """

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._ready = False
        self._stopping = False
        self._reloading = False
        self._status = ""
        self._healthy_at = 0.0
        self._watchdog_at = 0.0
        self._work_at = time.monotonic() + WORK_SECONDS

    @property
    def notifier(self) -> Notifier:
        return self._notifier

    def speak_for(self, notifier: Notifier) -> None:
        """From now on it is this process that speaks: it has taken another one's place."""
        self._notifier = notifier

    def step(self, *, serving: bool, reloading: bool, status: str, healthy: bool) -> float | None:
        """-> the moment (monotonic) of the next step at the latest; None: no matter when."""
        if not self._notifier.address or self._stopping:
            return None
        if serving:
            self._tell_state(reloading, status)
        if status != self._status:
            self._notifier.tell(STATUS=status)
            self._status = status
        return self._keep_watch(healthy)

    def _tell_state(self, reloading: bool, status: str) -> None:
        if reloading and self._ready:
            self.reload_asked()
        elif self._reloading or not self._ready:
            self._notifier.tell(READY=1, STATUS=status)
            self._ready, self._reloading, self._status = True, False, status

    def _keep_watch(self, healthy: bool) -> float | None:
        now = time.monotonic()
        flushed = self._notifier.flush()
        period = self._notifier.watchdog / 3
        if period:
            if healthy:
                self._healthy_at = now
            if now >= self._watchdog_at and now - self._healthy_at <= period:
                self._notifier.tell(WATCHDOG=1)
                self._watchdog_at = now + period
        if not flushed:
            return now + 0.1
        return max(self._watchdog_at, now + period / 4) if period else None

    def at_work(self, what: str, done: int, of: int) -> None:
        """The master's loop does not turn, since it does what takes long; but it goes on. A start that does is not
        ended for being late, nor is a reload."""
        if not self._notifier.address or self._stopping:
            return
        now = time.monotonic()
        if self._notifier.watchdog and now >= self._watchdog_at:
            self._keep_watch(healthy=True)
        if now >= self._work_at:
            self._work_at = now + WORK_SECONDS
            self._status = f"{'reloads' if self._ready else 'starts'}: {what}, {done:,} of {of:,}"
            self._notifier.tell(STATUS=self._status, EXTEND_TIMEOUT_USEC=_EXTEND_SECONDS * 1_000_000)

    def reload_asked(self) -> None:
        """A change begins. It may be over before the next step: the manager, who has asked for it maybe, hears of it
        all the same."""
        if self._ready and not self._stopping and not self._reloading:
            self._reloading = True
            self._work_at = time.monotonic() + WORK_SECONDS
            self._notifier.tell(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def stopping(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._notifier.tell(STOPPING=1, STATUS="draining")

    def succeeded_by(self, pid: int) -> None:
        """Another process is the service's main process from now on."""
        self._notifier.tell(MAINPID=pid)

    def main_again(self) -> None:
        """After `succeeded_by`: it is this process still."""
        self._notifier.tell(MAINPID=os.getpid(), READY=1, STATUS=self._status)

    def handed_over(self) -> None:
        """Nothing is told any more: the successor speaks for the service."""
        self._stopping = True


def _one_line(value: object) -> str:
    return " ".join(str(value).split())[:_STATUS_MOST]


def given_sockets(environ: Environment) -> dict[Bind, list[ListeningSocket]]:
    """The listening sockets that the service manager has opened, by their address; several of one address are a
    group. Raises ListenError for what cannot be listened on."""
    count, of = environ.pop("LISTEN_FDS", "0"), environ.pop("LISTEN_PID", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if of != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[Bind, list[ListeningSocket]] = {}
    for i in range(int(count)):
        given = _adopt(_FIRST_FD + i, names[i] if i < len(names) else "")
        found.setdefault(bind_of(given), []).append(given)
    return found


def _adopt(fd: int, name: str) -> ListeningSocket:
    what = f"the socket unit's descriptor {fd}{name and f' ({name})'}"
    try:
        os.set_inheritable(fd, False)
        given = ListeningSocket(fileno=fd)
        listens = given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as e:
        raise ListenError(f"{what} is no socket: {e.strerror}; name it by ListenStream=") from None
    if given.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX) or not listens:
        raise ListenError(f"{what} cannot be accepted from; open it by ListenStream=, with Accept=no")
    if given.family == socket.AF_INET6 and not given.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise ListenError(
            f"{what} is for IPv4, too; write BindIPv6Only=ipv6-only, and one ListenStream= each for 0.0.0.0 and [::]"
        )
    path = bind_of(given).path
    if path:
        given.name = Name(path, (0, 0), owner=0)  # the manager's, never removed here
    given.setblocking(False)
    given.prepare()
    return given


def bind_of(s: socket.socket) -> Bind:
    """The address of a listening socket, as a configuration names it."""
    name = s.getsockname()
    if s.family == socket.AF_UNIX:
        return Bind(path=os.fsdecode(name))
    return Bind(name[0], name[1])


def check_given(given: Sequence[ListeningSocket], bind: Bind, workers: int) -> None:
    """ListenError when a socket of the group would have no worker."""
    if len(given) > workers:
        raise ListenError(
            f"{bind}: the socket unit opens {len(given)} sockets, but there are {workers} workers: what came to the "
            "others would wait for ever; write the ListenStream= once, or as often as there are workers"
        )
