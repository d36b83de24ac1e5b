"""The logs on their way out: what is said without waiting, what the writing process makes of it, and what happens when
a file, a daemon or that process misbehaves."""

import contextlib
import errno
import json
import os
import re
import select
import signal
import socket
import struct
import threading
import time

import pytest
from gunicorn.config import Config

from edge import config
from edge.errors import ConfigError
from edge.logs import logline, logs, targets
from edge.logs.errorlog import ErrorLog, one_line
from edge.logs.logger import Logger, Output, Plan, Tally
from edge.logs.logline import Event
from edge.logs.logs import Logs, Sender
from edge.logs.settings import Syslog, SyslogAddress
from edge.logs.targets import FileTarget, JournalTarget, SyslogTarget, entry
from tests.e2e.processes import wait_until
from tests.edge.test_config import LEAST

SECONDS = 20


# One target.


@pytest.fixture
def lost():
    return []


def opened(path):
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)


def through(target):
    target.close()
    target.wait(time.monotonic() + SECONDS)


def test_lines_go_on_in_another_file_in_order(tmp_path, lost):
    target = FileTarget(opened(tmp_path / "1"), lambda *said: lost.append(said))
    target.put([b"a", b"b"])
    target.use(opened(tmp_path / "2"))
    target.put([b"c"])
    through(target)
    assert (tmp_path / "1").read_bytes() == b"a\nb\n"
    assert (tmp_path / "2").read_bytes() == b"c\n"
    assert lost == []


def test_what_a_full_disk_refuses_is_counted(lost):
    target = FileTarget(os.open("/dev/full", os.O_WRONLY), lambda *said: lost.append(said))
    target.put([b"a", b"b"])
    through(target)
    assert lost == [(2, os.strerror(errno.ENOSPC))]


def test_a_line_that_was_torn_ends_before_the_next(tmp_path, lost, monkeypatch):
    """A disk that fills up takes a piece of a line: what comes when there is room again begins a line of its own."""
    path = tmp_path / "log"
    target = FileTarget(opened(path), lambda *said: lost.append(said))
    pieces = iter([3, None])  # bytes written, then no room
    write = os.write

    def short(fd, text):
        piece = next(pieces, len(text))
        if piece is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, bytes(text[:piece]))

    monkeypatch.setattr(target, "_write", lambda text: short(target._fd, text))
    target.write([b"first", b"second"])
    target.write([b"third"])
    through(target)
    assert path.read_bytes() == b"fir\nthird\n"
    assert lost == [(2, os.strerror(errno.ENOSPC))]


def test_a_pipe_that_is_full_is_waited_for_and_what_is_too_much_is_refused(lost):
    read, write = os.pipe2(os.O_NONBLOCK)
    target = FileTarget(write, lambda *said: lost.append(said))
    line = b"x" * 99_999
    taken = 0
    while target.put([line]):  # nobody reads: the pipe fills, then the queue does
        taken += 1
    assert 200 < taken < 500
    came = 0
    while came < taken * 100_000:
        select.select([read], [], [], SECONDS)
        came += len(os.read(read, 1 << 20))
    through(target)
    os.close(read)
    assert lost == []


def test_one_that_hangs_keeps_few_files_and_ends_in_the_last(lost, tmp_path):
    read, write = os.pipe2(os.O_NONBLOCK)
    target = FileTarget(write, lambda *said: lost.append(said))
    target.put([b"x" * 99_999])  # more than the pipe takes
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        target.use(opened(tmp_path / str(number)))
        target.put([b"line %d" % number])
    assert len(os.listdir("/proc/self/fd")) <= before + targets.FILES_MOST
    came = 0
    while came < 100_000:
        select.select([read], [], [], SECONDS)
        came += len(os.read(read, 1 << 20))
    through(target)
    os.close(read)
    assert len(os.listdir("/proc/self/fd")) == before - 2
    assert (tmp_path / "0").read_bytes() == b"line 0\n"
    assert (tmp_path / "199").read_bytes().endswith(b"line 198\nline 199\n")
    assert lost == []


@pytest.fixture
def daemon(tmp_path):
    """A Unix socket that datagrams come to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.bind(str(tmp_path / "daemon"))
        s.settimeout(SECONDS)
        yield s


AT = 1_764_000_000.5  # Mon, 24 Nov 2025 16:00:00.5 UTC


def test_syslog_on_this_host(daemon, tmp_path, lost, monkeypatch):
    """The form of syslog(3), with local time (RFC 3164's, without a host)."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    syslog = Syslog(address=SyslogAddress(path=str(tmp_path / "daemon")), facility="local3", tag="edge-a")
    target = SyslogTarget(syslog, lambda *said: lost.append(said))
    target.put([Event(4, 77, AT, "one\ntwo ü").pack()])
    assert daemon.recv(4096).decode() == f"<{19 * 8 + 4}>Nov 24 16:00:00 edge-a[77]: one\\ntwo ü"
    through(target)
    assert lost == []


def test_syslog_over_udp(lost):
    """RFC 5424, section 6: PRI VERSION SP TIMESTAMP SP HOSTNAME SP APP-NAME SP PROCID SP MSGID SP SD MSG."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        s.settimeout(SECONDS)
        address = SyslogAddress(host="127.0.0.1", port=s.getsockname()[1])
        target = SyslogTarget(Syslog(address=address), lambda *said: lost.append(said))
        target.put([Event(6, 77, AT, "x" * 10_000).pack()])
        came = s.recv(65536)
        through(target)
    head, _, text = came.decode().partition(" - - ")
    assert re.fullmatch(r"<30>1 2025-11-24T16:00:00\.500Z \S+ edge 77", head)
    assert set(text) == {"x"}
    assert len(came) == 8192
    assert lost == []


def test_a_daemon_that_was_started_again_is_found(daemon, tmp_path, lost):
    path = str(tmp_path / "daemon")
    target = SyslogTarget(Syslog(address=SyslogAddress(path=path)), lambda *said: lost.append(said))
    target.put([Event(6, 1, AT, "one").pack()])
    assert daemon.recv(4096).endswith(b"one")
    os.unlink(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        daemon.close()
        again.bind(path)
        again.settimeout(SECONDS)
        target.put([Event(6, 1, AT, "two").pack()])
        assert again.recv(4096).endswith(b"two")
    through(target)
    assert lost == []


def test_a_daemon_that_is_not_there_costs_lines_and_is_not_asked_for_each(tmp_path, lost):
    target = SyslogTarget(Syslog(address=SyslogAddress(path=str(tmp_path / "none"))), lambda *said: lost.append(said))
    target.put([Event(6, 1, AT, str(i)).pack() for i in range(1000)])
    through(target)
    assert sum(lines for lines, _ in lost) == 1000
    assert "no such file" in lost[0][1]


def parsed(datagram):
    """An entry in the journal's own form, as systemd documents it."""
    found = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + length], rest[8 + length + 1 :]
        found[name.decode()] = value.decode()
        datagram = rest
    return found


def test_journal(daemon, tmp_path, lost):
    target = JournalTarget(lambda *said: lost.append(said), str(tmp_path / "daemon"))
    fields = {"MESSAGE": "one\ntwo ü", "PRIORITY": "3", "EMPTY": ""}
    target.put([entry(fields)])
    assert parsed(daemon.recv(4096)) == fields
    through(target)
    assert lost == []


def test_a_large_entry_goes_to_the_journal_as_a_sealed_file(daemon, tmp_path, lost):
    target = JournalTarget(lambda *said: lost.append(said), str(tmp_path / "daemon"))
    fields = {"MESSAGE": "x" * 300_000}
    target.put([entry(fields)])
    said, (fd,), _, _ = socket.recv_fds(daemon, 10, 1)
    assert said == b""
    with open(fd, "rb") as f:
        assert parsed(f.read()) == fields
        f.seek(0)
        with pytest.raises(PermissionError):
            os.truncate(f"/proc/self/fd/{fd}", 0)
    through(target)
    assert lost == []


# The process that writes, in a thread.


class Writing:
    def __init__(self, data=None):
        data, self.near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        control, self.control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sender = Sender(self.near)
        self.tally = Tally()
        self.logger = Logger(data, control, self.tally)
        self.thread = threading.Thread(target=self.logger.run, daemon=True)
        self.thread.start()

    def plan(self, **outputs):
        """Outputs by role: (target, path, form) and, of a file, an open descriptor."""
        import pickle

        fds = [fd for *_, fd in outputs.values() if fd is not None]
        made = {
            role: Output(target, str(path), form, Syslog(), fds.index(fd) if fd is not None else -1)
            for role, (target, path, form, fd) in outputs.items()
        }
        socket.send_fds(self.control, [pickle.dumps(Plan(made))], fds)
        for fd in fds:
            os.close(fd)

    def end(self):
        self.near.close()
        self.control.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def writing():
    made = Writing()
    yield made
    with contextlib.suppress(OSError):
        made.end()


def test_everything_goes_where_it_belongs(writing, tmp_path):
    access, error, keys = (tmp_path / name for name in ("access", "error", "keys"))
    writing.plan(
        access=("file", access, "json", opened(access)),
        error=("file", error, "text", opened(error)),
        keys=("file", keys, "", opened(keys)),
    )
    assert writing.sender.lines(logline.ACCESS, b'{"a":1}\n{"a":2}\n') == 16
    writing.sender.event(4, "careful", AT)
    writing.sender.keys("CLIENT_RANDOM 00 11")
    writing.end()
    assert access.read_bytes() == b'{"a":1}\n{"a":2}\n'
    assert error.read_text() == f"2025-11-24T16:00:00.500Z warning [{os.getpid()}] careful\n"
    assert keys.read_bytes() == b"CLIENT_RANDOM 00 11\n"
    assert writing.tally.read() == {"access": 0, "error": 0, "keys": 0}


def test_a_rotation_keeps_the_order(writing, tmp_path):
    path, old = tmp_path / "access", tmp_path / "old"
    writing.plan(access=("file", path, "json", opened(path)))
    writing.sender.lines(logline.ACCESS, b"1\n")
    path.rename(old)
    writing.sender.lines(logline.ACCESS, b"2\n")
    writing.plan(access=("file", path, "json", opened(path)))
    wait_until(path.exists)
    writing.sender.lines(logline.ACCESS, b"3\n")
    writing.end()
    assert (old.read_bytes() + path.read_bytes()).split() == [b"1", b"2", b"3"]
    assert path.read_bytes().endswith(b"3\n")


def test_json_for_the_error_log(writing, tmp_path):
    error = tmp_path / "error"
    writing.plan(error=("file", error, "json", opened(error)))
    writing.sender.event(3, 'a "quoted"\nline', AT)
    writing.end()
    assert json.loads(error.read_text()) == {
        "time": "2025-11-24T16:00:00.500Z",
        "level": "error",
        "pid": os.getpid(),
        "message": 'a "quoted"\nline',
    }


def test_a_full_disk_is_complained_of_once(writing, tmp_path):
    error = tmp_path / "error"
    writing.plan(
        access=("file", "/dev/full", "json", os.open("/dev/full", os.O_WRONLY)),
        error=("file", error, "text", opened(error)),
    )
    for _ in range(50):
        writing.sender.lines(logline.ACCESS, b"1\n2\n")
    writing.end()
    (line,) = error.read_text().splitlines()
    why = os.strerror(errno.ENOSPC)
    assert re.search(rf"error \[\d+\] access log /dev/full: {why}; \d+ lines dropped so far$", line)
    assert writing.tally.read() == {"access": 100, "error": 0, "keys": 0}


def test_lines_that_processes_had_to_drop_are_complained_of(writing, tmp_path):
    error = tmp_path / "error"
    writing.plan(
        access=("file", tmp_path / "access", "json", opened(tmp_path / "access")),
        error=("file", error, "text", opened(error)),
    )
    writing.sender.dropped(17)
    writing.sender.lines(logline.ACCESS, b"1\n")
    writing.end()
    assert "lines came faster than they could be taken; 17 lines dropped so far" in error.read_text()
    assert writing.tally.read()["access"] == 0  # they are counted where they were dropped


@pytest.mark.parametrize(
    "message",
    [b"?", b"E", b"E" + b"\0" * 5, b"D", b"D123", b"Dxxxxx", b"E" + b"\xff" * 13 + b"\xfftext", b"A", b"J", b"K"],
)
def test_messages_that_make_no_sense_end_nothing(writing, tmp_path, message):
    error = tmp_path / "error"
    writing.plan(error=("file", error, "text", opened(error)))
    writing.near.send(message)
    writing.near.send(b"")
    writing.sender.event(6, "still there", AT)
    writing.end()
    assert "still there" in error.read_text()


def test_entries_for_the_journal_are_lines_elsewhere(writing, tmp_path):
    """A target that has just changed: what was made for the one before loses no line."""
    access = tmp_path / "access"
    writing.plan(access=("file", access, "json", opened(access)))
    writing.sender.lines(logline.ENTRIES, b"MESSAGE={1}\nEDGE_STATUS=200\n\nMESSAGE={2}\nEDGE_STATUS=404\n\n")
    writing.end()
    assert access.read_bytes() == b"{1}\n{2}\n"


# Whoever logs never waits.


@pytest.fixture
def unread():
    """A sender whose other end nobody reads."""
    far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield Sender(near), far
    near.close()
    far.close()


def test_what_there_is_no_room_for_is_offered_again(unread):
    sender, far = unread
    line = b"x" * 1023 + b"\n"
    text = line * 2048
    begin = time.monotonic()
    taken = sender.lines(logline.ACCESS, text)
    assert time.monotonic() - begin < 5
    assert 0 < taken < len(text)
    assert taken % 1024 == 0
    came = b""
    while len(came) < taken:
        message = far.recv(1 << 20)
        assert message[:1] == logline.ACCESS
        assert len(message) <= logline.MESSAGE_MOST + 1
        assert message.endswith(b"\n")
        came += message[1:]
    assert came == text[:taken]
    assert sender.lines(logline.ACCESS, line) == 1024


def test_a_line_that_can_never_fit_stops_no_other(unread):
    sender, far = unread
    big = b"x" * 1_000_000 + b"\n"
    assert sender.lines(logline.ACCESS, b"1\n" + big + b"2\n") == len(big) + 4
    assert sender.lines(logline.ACCESS, b"3\n") == 2
    said = []
    while _readable(far):
        said.append(far.recv(1 << 20))
    assert said == [b"A1\n", b"A2\n", logline.DROPPED + logline.pack_number(1), b"A3\n"]


def test_events_that_were_lost_are_told_of(unread):
    sender, far = unread
    for _ in range(100):
        sender.event(6, "x" * 30_000)
    said = []
    while _readable(far):
        said.append(Event.unpack(far.recv(1 << 20)[1:]).text)
    sender.event(6, "next")
    while _readable(far):
        said.append(Event.unpack(far.recv(1 << 20)[1:]).text)
    whole = sum(text.startswith("x") for text in said)
    assert said[whole:] == [
        f"{100 - whole} messages of this process were lost: they came faster than they could be taken",
        "next",
    ]


def test_nobody_there_is_no_error(unread):
    sender, far = unread
    far.close()
    assert sender.lines(logline.ACCESS, b"1\n") == 0
    sender.event(6, "lost")
    sender.keys("lost")


def _readable(s):
    return bool(select.select([s], [], [], 0)[0])


# The master's half, with a real process.


def settings_of(tmp_path, server="", tls=""):
    return config.parse(f"[server]\n{server}\n[tls]\n{tls}\n{LEAST}", str(tmp_path / "edge.toml"))


@pytest.fixture
def started():
    made = []

    def start(settings):
        logs.check(settings)
        made.append(Logs(lambda uid, gid: None))
        made[-1].use(settings, (os.geteuid(), os.getegid()))
        return made[-1]

    yield start
    for one in made:
        with contextlib.suppress(OSError):
            one.end()


def test_what_has_been_said_is_written_when_the_master_ends(started, tmp_path):
    own = started(settings_of(tmp_path, 'error_log = { path = "e.log" }'))
    for i in range(1000):
        own.sender.event(6, str(i))
    own.end()
    lines = (tmp_path / "e.log").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == [str(i) for i in range(1000)]
    assert (tmp_path / "e.log").stat().st_mode & 0o777 == 0o640


def test_files_are_reopened(started, tmp_path):
    own = started(
        settings_of(
            tmp_path,
            'access_log = { path = "a.log" }\nerror_log = { path = "e.log" }',
            'key_log = { path = "k.log", clients = ["0.0.0.0/0"] }',
        )
    )
    for name in ("a", "e", "k"):
        (tmp_path / f"{name}.log").rename(tmp_path / f"{name}.old")
    own.reopen()
    own.sender.lines(logline.ACCESS, b"1\n")
    own.sender.event(6, "2")
    own.sender.keys("3")
    own.end()
    assert [(tmp_path / f"{name}.log").read_text()[-2:] for name in ("a", "e", "k")] == ["1\n", "2\n", "3\n"]
    assert (tmp_path / "k.log").stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_reopened_stays_in_use(started, tmp_path):
    (tmp_path / "logs").mkdir()
    own = started(settings_of(tmp_path, 'access_log = { path = "logs/a.log" }\nerror_log = { path = "e.log" }'))
    fd = os.open(tmp_path / "logs/a.log", os.O_RDONLY)
    (tmp_path / "logs/a.log").unlink()
    (tmp_path / "logs").rmdir()
    own.reopen()
    own.sender.lines(logline.ACCESS, b"1\n")
    own.end()
    assert "the old file stays in use" in (tmp_path / "e.log").read_text()
    assert os.read(fd, 10) == b"1\n"
    os.close(fd)


def test_the_writing_process_is_started_again(started, tmp_path):
    own = started(settings_of(tmp_path, 'error_log = { path = "e.log" }'))
    child = own.describe()["pid"]
    own.sender.event(6, "before")
    wait_until(lambda: "before" in (tmp_path / "e.log").read_text())
    os.kill(child, signal.SIGKILL)
    own.sender.event(6, "between")
    wait_until(lambda: own.keep() and own.describe()["pid"] not in (None, child))
    own.sender.event(6, "after")
    own.end()
    said = (tmp_path / "e.log").read_text()
    assert re.search(r"between\n(.*\n)*.*the process that writes the logs has ended; .*\n(.*\n)*.*after\n", said)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/null"), lambda path: path.mkdir()])
def test_files_that_cannot_be_written_are_refused_at_start(tmp_path, make):
    settings = settings_of(tmp_path, 'access_log = { path = "made" }')
    make(tmp_path / "made")
    with pytest.raises(ConfigError) as caught:
        logs.check(settings)
    assert caught.value.key == "server.access_log.path"


def test_groups_are_checked(tmp_path):
    with pytest.raises(ConfigError) as caught:
        logs.check(settings_of(tmp_path, 'error_log = { path = "e.log", group = "nobody-has-it" }'))
    assert caught.value.key == "server.error_log.group"


# The error log.


@pytest.fixture
def error_log(unread):
    sender, far = unread
    cfg = Config()
    cfg.sender = sender
    log = ErrorLog(cfg)
    yield log, lambda: Event.unpack(far.recv(1 << 20)[1:])
    for handler in list(log.error_log.handlers):
        log.error_log.removeHandler(handler)


def test_events_of_the_error_log(error_log):
    log, event = error_log
    log.info("generation %d serves", 2)
    log.log("warning", "%s", one_line("bad\nname \x1b[31m ü"))
    log.info("Starting gunicorn %s", "27")  # gunicorn's own chatter is for level debug
    try:
        raise OSError(2, "gone")
    except OSError:
        log.exception("unexpected")
    first, second, third = event(), event(), event()
    assert (first.level, first.text, first.pid) == ("info", "generation 2 serves", os.getpid())
    assert abs(first.at - time.time()) < SECONDS
    assert (second.level, second.text) == ("warning", "bad\\nname \\x1b[31m ü")
    assert third.text.startswith("unexpected\nTraceback")
    line = first.line("text").decode()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info \[\d+\] generation 2 serves", line)
