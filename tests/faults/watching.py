"""What a fault did: what clients saw of it, what the log said, and what was left behind.

    with Watch(edge) as watch, Crowd(edge) as crowd:
        ...
    crowd.expect(allowed={"cut"}, least=100)
    watch.expect(r"was sent SIGKILL")
"""

import collections
import contextlib
import functools
import glob
import os
import random
import re
import socket
import ssl
import tempfile
import threading
import time

from tests.e2e.processes import SANITIZED, descendants, open_files, rss, session, title, wait_until
from tests.e2e.server import Edge

SECONDS = 30
MINUTES = float(os.environ.get("EDGE_FAULT_MINUTES", "2"))
SETTLE_SECONDS = 20
GROWTH = 24 << 20
"""Bytes that a process may be larger than before: pools that have grown, pages that were shared."""


class LostError(Exception):
    """A request without a whole answer: `how` is what the client saw."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Connection:
    """A client that says exactly how it ended."""

    def __init__(self, edge: Edge, context: ssl.SSLContext, seconds: float = SECONDS) -> None:
        with _named("connect"):
            raw = socket.create_connection(("127.0.0.1", edge.port), seconds)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                self.sock = context.wrap_socket(raw, server_hostname="edge.test", suppress_ragged_eofs=False)
            except BaseException:
                raw.close()
                raise

    def ask(self, path: str) -> int:
        """A GET -> its status. Raises LostError."""
        with _named("request"):
            self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: edge.test\r\n\r\n".encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += self._more("closed")
            head, _, body = head.partition(b"\r\n\r\n")
            length = int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1])
            while len(body) < length:
                body += self._more("short")
            return int(head[9:12])

    def _more(self, how: str) -> bytes:
        piece = self.sock.recv(65536)
        if not piece:
            raise LostError(how)
        return piece

    def close(self) -> None:
        self.sock.close()


@contextlib.contextmanager
def _named(doing: str):
    try:
        yield
    except ConnectionRefusedError:
        raise LostError("refused") from None
    except (ConnectionResetError, BrokenPipeError):
        raise LostError("reset") from None
    except TimeoutError:
        raise LostError(f"timeout of a {doing}") from None
    except ssl.SSLError as e:  # of which SSLEOFError is one: an end without close_notify
        cut = isinstance(e, ssl.SSLEOFError) or e.reason == "UNEXPECTED_EOF_WHILE_READING"
        raise LostError("cut" if cut else f"TLS: {e.reason}") from None


class Crowd:
    """Clients that go on asking, on kept connections and new ones, and note what they see."""

    def __init__(self, edge: Edge, number: int = 8, path: str = "/1k", pause: float = 0.002) -> None:
        self.seen: collections.Counter[str] = collections.Counter()
        """Statuses, and how requests were lost."""
        self.longest = 0.0
        """Seconds that an answered request took."""
        self._edge = edge
        self._path = path
        self._pause = pause
        self._context = edge.tls_context()
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._live, args=(n,), daemon=True) for n in range(number)]

    def __enter__(self) -> "Crowd":
        for thread in self._threads:
            thread.start()
        self.wait(20)
        return self

    def __exit__(self, kind, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * SECONDS)
        assert kind or not any(thread.is_alive() for thread in self._threads)

    def count(self) -> int:
        return self.seen["200"]

    def wait(self, more: int, seconds: float = SECONDS) -> None:
        """Until so many more requests were answered with 200."""
        goal = self.count() + more
        wait_until(lambda: self.count() >= goal, seconds, f"{more} answers more; {dict(self.seen)}")

    def _live(self, number: int) -> None:
        rng = random.Random(number)
        while not self._over.is_set():
            try:
                connection = Connection(self._edge, self._context)
            except LostError as e:
                self._note(e.how)
                time.sleep(0.02)
                continue
            try:
                for _ in range(rng.choice((1, 5, 50))):
                    begin = time.monotonic()
                    self._note(str(connection.ask(self._path)))
                    self.longest = max(self.longest, time.monotonic() - begin)
                    time.sleep(self._pause)
                    if self._over.is_set():
                        break
            except LostError as e:
                self._note(e.how)
            finally:
                connection.close()

    def _note(self, what: str) -> None:
        with self._lock:
            self.seen[what] += 1

    def expect(self, allowed: dict[str, int] | None = None, least: int = 100) -> None:
        """At least so many answers, and of everything but 200 no more than is allowed."""
        print(f"    clients saw {dict(self.seen)}, the slowest answer took {self.longest:.2f} s")
        assert self.count() >= least, self.seen
        for what, times in self.seen.items():
            if what != "200":
                assert times <= (allowed or {}).get(what, 0), (what, dict(self.seen))


class Watch:
    """What a server had before, to be compared with what it has afterwards."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge

    def __enter__(self) -> "Watch":
        self.mark = self.edge.mark()
        self.kinds = self._kinds()
        self.files = {title: open_files(pid) for pid, title in self._processes().items()}
        self.memory = {title: rss(pid) for pid, title in self._processes().items()}
        self.temporary = _temporary()
        return self

    def __exit__(self, kind, *_: object) -> None:
        if kind is None:
            self._compare()

    def _processes(self) -> dict[int, str]:
        """Those of the server, by what they call themselves, without the number of their generation."""
        pids = [self.edge.pid, *descendants(self.edge.pid)]
        return {pid: re.sub(r" \(.*", "", title(pid)) for pid in pids if title(pid)}

    def _kinds(self) -> list[str]:
        return sorted(self._processes().values())

    def _compare(self) -> None:
        """As many processes, descriptors and temporary files as before, and about as much memory."""
        wait_until(lambda: self._kinds() == self.kinds, SETTLE_SECONDS, f"the processes {self.kinds}: {self._kinds()}")
        for what, before in self.files.items():
            few = functools.partial(self._has_at_most, what, before + 2)
            wait_until(few, SETTLE_SECONDS, f"descriptors of {what}")
        grown = {what: self._now(rss, what) - before for what, before in self.memory.items()}
        print(f"    processes {len(self.kinds)}, grown by KiB {({k: v >> 10 for k, v in grown.items()})}")
        if not SANITIZED:
            assert all(more < GROWTH for more in grown.values()), grown
        wait_until(lambda: _temporary() <= self.temporary, SETTLE_SECONDS, f"temporary files: {_temporary()}")

    def _has_at_most(self, what: str, number: int) -> bool:
        return self._now(open_files, what) <= number

    def _now(self, measure, what: str) -> int:
        try:
            return max(measure(pid) for pid, kind in self._processes().items() if kind == what)
        except (OSError, AssertionError, ValueError):
            return 1 << 60

    def expect(self, *patterns: str) -> None:
        """What the log must have said since."""
        for pattern in patterns:
            said = self.edge.wait_error(pattern, self.mark, SECONDS)
            print(f"    the log said: {said[:150]}")

    def never(self, *patterns: str) -> None:
        for pattern in patterns:
            assert not self.edge.in_error_log(pattern, self.mark), pattern


def _temporary() -> set[str]:
    """Files that a server may have made for itself."""
    places = (tempfile.gettempdir(), "/dev/shm")
    patterns = [f"{place}/{name}" for place in places for name in ("edge-*", "wgunicorn-*")]
    return {name for pattern in patterns for name in glob.glob(pattern)}


def ends_whole(edge: Edge) -> None:
    """The server ends when it is told to, and nothing of it is left."""
    pid = edge.pid
    edge.stop(20)
    wait_until(lambda: not session(pid), SETTLE_SECONDS, f"the end of {[title(p) for p in session(pid)]}")


def upstreams(backend) -> dict:
    """An upstream whose idle connections end soon, so that they are not taken for descriptors that leak."""
    return {"app": {"servers": [backend.server], "pool": {"idle": "300ms"}}}
