"""`edge run` under test: its configuration, its processes, its logs."""

import contextlib
import json
import os
import re
import signal
import ssl
import sys
import time
from pathlib import Path

from edge.commands.client import Admin, RefusedError
from tests.e2e.pki import Certificate, Pki
from tests.e2e.processes import ROOT, Process, free_port, rss, titled, wait_until

LOG_SECONDS = 20
"""Logs are written in batches, every half second."""
ADMIN_SECONDS = 60

_LINE = re.compile(r"(?P<time>\S+) (?P<level>\w+) \[(?P<pid>\d+)\] (?P<message>.*)")
_CRASH = ("Traceback (most recent call last)", "Fatal Python error", "Exception ignored", "AddressSanitizer")


def toml(value: object) -> str:
    """A value as TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value)


def document(tables: dict) -> str:
    """A configuration: dictionaries are tables, lists of them arrays of tables."""
    lines = []
    for name, content in tables.items():
        for table in content if isinstance(content, list) else [content]:
            lines.append(f"[[{name}]]" if isinstance(content, list) else f"[{name}]")
            lines += [f"{key} = {toml(value)}" for key, value in table.items()]
            lines.append("")
    return "\n".join(lines)


class Edge:
    """A running server. As a context manager it is stopped at the end, and must have ended well.

    `upstreams` maps names to lists of servers (or to whole tables), `routes` is a list of
    tables; without routes everything goes to the first upstream.
    """

    def __init__(
        self,
        directory: Path,
        pki: Pki,
        upstreams: dict[str, list[str] | dict],
        *,
        routes: list[dict] | None = None,
        certificates: list[Certificate] | None = None,
        server: dict | None = None,
        listener: dict | None = None,
        tls: dict | None = None,
        route_timeouts: dict | None = None,
        binds: list[str] | None = None,
        preexec=None,
        env: dict[str, str] | None = None,
        program: list[str | Path] | None = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.pki = pki
        self.port = free_port()
        self.config = directory / "edge.toml"
        self.access_log = directory / "access.log"
        self.error_log = directory / "error.log"
        self._records: list[dict] = []
        self._read_to = 0
        default_route = {"match": {}, "upstream": next(iter(upstreams))}
        if route_timeouts:
            default_route["timeouts"] = route_timeouts
        self.tables = {
            "server": {
                "workers": 1,
                "drain_timeout": "5s",
                "access_log": {"path": self.access_log},
                "error_log": {"path": self.error_log, "level": "debug"},
                **(server or {}),
            },
            "listener": [{"bind": [f"127.0.0.1:{self.port}", *(binds or [])], **(listener or {})}],
            "tls": tls or {},
            "certificate": [c.table() for c in certificates or [pki.default]],
            "upstream": [
                {"name": name, **(servers if isinstance(servers, dict) else {"servers": servers})}
                for name, servers in upstreams.items()
            ],
            "route": routes or [default_route],
        }
        for name in ("access_log", "error_log"):
            if path := (self.tables["server"].get(name) or {}).get("path"):
                setattr(self, name, Path(path))
        self._preexec = preexec
        self._env = env
        self._program = program or [sys.executable, "-X", "faulthandler", "-m", "edge"]
        self.process: Process | None = None

    # Its life.

    def start(self) -> "Edge":
        self.write()
        since = self.mark()  # one that ran before may have written there
        self.process = Process(
            [*self._program, "run", "--config", self.config],
            self.directory / "output.log",
            cwd=ROOT,
            preexec_fn=self._preexec,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(self._env or {})},
        )
        self.process.started(lambda: self.in_error_log(r"generation 1 serves", since), 15)
        return self

    def write(self) -> None:
        """As an editor does: a reload that is under way reads the old file or the new one, never half of it."""
        beside = self.config.with_suffix(".new")
        beside.write_text(document({k: v for k, v in self.tables.items() if v}))
        beside.replace(self.config)

    def stop(self, seconds: float = 12) -> None:
        """Drains it, and holds it to an end without a crash."""
        code = self.process.stop(seconds)
        said = self.everything_said()
        assert code == 0, f"exit code {code}:\n{said[-3000:]}"
        self.check_health(said)

    def check_health(self, said: str | None = None) -> None:
        said = self.everything_said() if said is None else said
        for sign in _CRASH:
            assert sign not in said, f"{sign}:\n{said[-6000:]}"
        assert not re.search(r"was sent SIG(SEGV|ABRT|BUS|ILL|FPE)", said), said[-3000:]

    def __enter__(self) -> "Edge":
        return self.start()

    def __exit__(self, kind, *_: object) -> None:
        if kind is None:
            self.stop()
        elif self.process:
            with contextlib.suppress(AssertionError):  # the first failure is the one to be told
                self.stop()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def reload(self) -> None:
        """SIGHUP, with whatever stands in the configuration's file now."""
        self.signal(signal.SIGHUP)

    def ask(self, command: str, **arguments: object) -> dict:
        """What the admin socket answers in the end, be it that it refuses."""
        path = str(self.tables["server"]["admin"]).removeprefix("unix:")
        with Admin(Path(path)) as admin:
            try:
                return admin.ask_one(command, ADMIN_SECONDS, **arguments)
            except RefusedError as e:
                return e.line

    # Its processes.

    @property
    def pid(self) -> int:
        return self.process.pid

    def titled(self, beginning: str) -> list[int]:
        """The master's children whose titles begin so."""
        return list(titled(self.pid, beginning))

    def workers(self) -> list[int]:
        return self.titled("edge: worker")

    def rss(self) -> dict[int, int]:
        return {pid: rss(pid) for pid in self.workers()}

    # Its logs.

    def everything_said(self) -> str:
        return (self.error_log.read_text(errors="replace") if self.error_log.exists() else "") + self.process.output()

    def errors(self, since: int = 0) -> list[tuple[str, str]]:
        """(level, message) of the error log's lines, from a `mark` on."""
        if not self.error_log.exists():
            return []
        lines = self.error_log.read_bytes()[since:].decode(errors="replace").splitlines()
        found = (_LINE.fullmatch(line) for line in lines)
        return [(m["level"], m["message"]) for m in found if m]

    def in_error_log(self, pattern: str, since: int = 0) -> str:
        """The first message that the pattern is found in, or ""."""
        return next((message for _, message in self.errors(since) if re.search(pattern, message)), "")

    def wait_error(self, pattern: str, since: int = 0, seconds: float = LOG_SECONDS) -> str:
        return wait_until(lambda: self.in_error_log(pattern, since), seconds, f"{pattern!r} in\n{self.errors(since)}")

    def mark(self) -> int:
        """A place in the error log: what comes later is read from there."""
        return self.error_log.stat().st_size if self.error_log.exists() else 0

    def requests(self, **wanted: object) -> list[dict]:
        """Records of the access log with these values."""
        if self.access_log.exists():
            with open(self.access_log, "rb") as f:
                f.seek(self._read_to)
                whole, newline, _ = f.read().rpartition(b"\n")
            self._read_to += len(whole + newline)
            self._records += [json.loads(line) for line in whole.splitlines()]
        return [r for r in self._records if all(r.get(key) == value for key, value in wanted.items())]

    def wait_request(self, count: int = 1, seconds: float = LOG_SECONDS, **wanted: object) -> dict:
        """The last of (at least) `count` records with these values."""
        found = wait_until(
            lambda: (r := self.requests(**wanted))[count - 1 :] and r, seconds, f"{wanted} in the access log"
        )
        return found[-1]

    # Clients' needs.

    def url(self, path: str = "/", host: str = "edge.test") -> str:
        return f"https://{host}:{self.port}{path}"

    def tls_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.pki.ca.file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Python's default hides a connection that ends without close_notify.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        return context


def settled(value, seconds: float = 5.0, step: float = 0.1):
    """What a function gives twice in a row: a figure that has come to rest."""
    end = time.monotonic() + seconds
    last = value()
    while time.monotonic() < end:
        time.sleep(step)
        now = value()
        if now == last:
            return now
        last = now
    return last
