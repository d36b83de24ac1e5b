"""The admin socket's server, turned by hand: its protocol, and that no client can take more than its share of time and
memory."""

import contextlib
import gc
import json
import os
import resource
import select
import socket
import stat
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.admin import control
from edge.admin.control import Control
from edge.admin.settings import Admin
from edge.admin.socketfile import AdminSocket
from edge.errors import EdgeError, ListenError


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Bench:
    """A server with commands of the test's, on a socket in a directory."""

    def __init__(self, directory):
        self.clock = Clock()
        self.log = []
        self.settings = Admin(path=directory / "s")
        self.control = Control("the master", {}, lambda *said: self.log.append(said), self.clock)
        self.control.listen(AdminSocket(self.settings))
        self.answers = []
        self.control.commands.update(
            echo=lambda master, arguments, answer: answer.done(master=master, **arguments),
            wait=lambda _master, _arguments, answer: self.answers.append(answer),
            count=self.count,
            fault=self.fault,
        )
        self.clients = []

    def count(self, _master, arguments, answer):
        answer.each({"n": n, "filler": "x" * 1000} for n in range(arguments["to"]))

    def fault(self, _master, arguments, _answer):
        raise {"edge": EdgeError, "value": ValueError, "own": RuntimeError}[arguments["of"]]("it is so")

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(str(self.settings.path))
        self.clients.append(client)
        self.control.turn()
        return client

    def turn(self, times=3):
        for _ in range(times):
            self.control.turn()

    def ask(self, client, *lines, turns=10):
        """-> the lines that came back, as objects."""
        for line in lines:
            client.send(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        self.turn(turns)
        return read(client)

    def connected(self):
        return len(self.control._clients)

    def close(self):
        for client in self.clients:
            client.close()
        self.control.close()


def read(client):
    """All that has come; None at its end says that the server has closed."""
    came = b""
    ended = False
    with contextlib.suppress(BlockingIOError):
        while piece := client.recv(1 << 20):
            came += piece
        ended = True
    assert came == b"" or came.endswith(b"\n")
    return [json.loads(line) for line in came.splitlines()] + [None] * ended


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.close()


# The protocol.


def test_a_line_is_asked_and_a_line_answers(bench):
    client = bench.connect()
    (answer,) = bench.ask(client, {"command": "echo", "x": [1, None]})
    assert answer == {"ok": True, "master": "the master", "x": [1, None]}
    assert bench.ask(client, {"command": "echo"}) == [{"ok": True, "master": "the master"}]


def test_several_lines_at_once_are_answered_in_order(bench):
    client = bench.connect()
    answers = bench.ask(client, *({"command": "echo", "n": n} for n in range(50)))
    assert [answer["n"] for answer in answers] == list(range(50))


def test_what_comes_while_a_command_runs_waits(bench):
    client = bench.connect()
    assert bench.ask(client, {"command": "wait"}, {"command": "echo"}) == []
    bench.answers[0].line(half=True)
    bench.turn()
    assert read(client) == [{"half": True}]
    bench.answers[0].done(whole=True)
    bench.turn()
    assert read(client) == [{"ok": True, "whole": True}, {"ok": True, "master": "the master"}]


def test_who_has_said_all_gets_all_answers(bench):
    """As with socat or nc: the client's end is shut before it reads. The last line may lack its end."""
    client = bench.connect()
    client.send(b'{"command": "echo", "n": 1}\n{"command": "echo", "n": 2}')
    client.shutdown(socket.SHUT_WR)
    bench.turn(10)
    first, second, end = read(client)
    assert (first["n"], second["n"], end) == (1, 2, None)
    assert bench.connected() == 0


def test_what_was_asked_last_is_done_though_nobody_waits(bench):
    client = bench.connect()
    client.send(b'{"command": "wait"}\n')
    client.close()
    bench.turn()
    assert [answer.gone for answer in bench.answers] == [True]
    assert bench.connected() == 0


def test_who_asks_is_known(bench):
    bench.ask(bench.connect(), {"command": "wait"})
    assert bench.answers[0].asked_by == f"process {os.getpid()} of user {os.getuid()}"


def test_a_long_answer_is_made_as_it_is_read(bench):
    client = bench.connect()
    made = []

    def lines():
        for n in range(100_000):
            made.append(n)
            yield {"n": n, "filler": "x" * 100}

    bench.control.commands["many"] = lambda _master, _arguments, answer: answer.each(lines())
    bench.ask(client, {"command": "many"}, turns=0)
    bench.turn(50)
    stuck = len(made)
    bench.turn(50)
    assert len(made) == stuck < 10_000
    count, pieces = 0, b""
    while not pieces.endswith(b'{"ok":true,"count":100000}\n'):
        with contextlib.suppress(BlockingIOError):
            piece = client.recv(1 << 20)
            count += piece.count(b"\n")
            pieces = (pieces + piece)[-100:]
        bench.turn(1)
    assert count == 100_001


def test_a_source_is_asked_again_when_it_says_so(bench):
    class Source:
        def __init__(self, answer):
            self.answer, self.asked, self.left = answer, 0, False

        def more(self):
            self.asked += 1
            return False

        def gone(self):
            self.left = True

    sources = []

    def draw(_master, _arguments, answer):
        sources.append(Source(answer))
        answer.draw_from(sources[0])

    bench.control.commands["source"] = draw
    client = bench.connect()
    bench.ask(client, {"command": "source"})
    (source,) = sources
    assert source.asked == 1
    source.answer.line(n=1)
    source.answer.again()
    bench.turn()
    assert source.asked == 2
    assert read(client) == [{"n": 1}]
    client.close()
    bench.turn()
    assert source.left
    source.answer.line(n=2)
    source.answer.done()
    bench.turn()


# What is wrong is said.


@pytest.mark.parametrize("line", [b"nonsense\n", b"{\n", b"\xff\xfe\n", b"[" * 5000 + b"\n", b"\0\n"])
def test_no_json(bench, line):
    client = bench.connect()
    (answer,) = bench.ask(client, line)
    assert answer == {"ok": False, "error": 'a line is no JSON; write {"command": "status"}'}
    assert bench.ask(client, {"command": "echo"})[0]["ok"]


@pytest.mark.parametrize("line", [b"1\n", b"[]\n", b"null\n", b"{}\n", b'{"command": 7}\n', b'"x"\n'])
def test_no_command(bench, line):
    (answer,) = bench.ask(bench.connect(), line)
    assert answer["error"].startswith("no command is named")


def test_an_unknown_command_and_those_there_are(bench):
    (answer,) = bench.ask(bench.connect(), {"command": "x" * 1000})
    assert answer["error"] == f'there is no command "{"x" * 60}"; there are: count, echo, fault, wait'


@pytest.mark.parametrize("of", ["edge", "value"])
def test_a_fault_is_answered(bench, of):
    assert bench.ask(bench.connect(), {"command": "fault", "of": of}) == [{"ok": False, "error": "it is so"}]
    assert bench.log == []


def test_a_fault_of_ours_is_logged(bench):
    (answer,) = bench.ask(bench.connect(), {"command": "fault", "of": "own"})
    assert "its error log" in answer["error"]
    assert bench.log == [("error", "command fault: RuntimeError: it is so")]


def test_empty_lines_are_nothing(bench):
    assert bench.ask(bench.connect(), b"\n \n\r\n") == []


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=8), st.integers(1, 40))
def test_any_bytes_are_answered_or_nothing(tmp_path_factory, pieces, size):
    """Whatever comes, in whatever pieces: every line that is not empty is answered once."""
    bench = Bench(tmp_path_factory.mktemp("c"))
    try:
        client = bench.connect()
        text = b"\n".join(pieces) + b"\n"
        for start in range(0, len(text), size):
            client.send(text[start : start + size])
            bench.turn(1)
        bench.turn(20)
        answers = read(client)
        assert len(answers) == sum(bool(line.strip()) for line in text.split(b"\n"))
        assert all(set(answer) >= {"ok"} for answer in answers)
    finally:
        bench.close()


# Limits.


def test_too_long_a_line_ends_the_connection(bench):
    client = bench.connect()
    for _ in range(control.LINE_MOST // 32768 + 1):
        client.send(b"x" * 32768)
        bench.turn(1)
    bench.turn()
    assert read(client) == [{"ok": False, "error": "a line is longer than 65536 bytes"}, None]
    assert bench.connected() == 0


def test_the_longest_line(bench):
    client = bench.connect()
    line = b'{"command":"echo","x":"' + b"y" * (control.LINE_MOST - 25) + b'"}'
    assert len(line) == control.LINE_MOST
    client.send(line)
    bench.turn()
    (answer,) = bench.ask(client, b"\n")
    assert len(answer["x"]) == control.LINE_MOST - 25


def test_a_line_that_does_not_end_is_waited_for_for_a_while(bench):
    client = bench.connect()
    client.send(b'{"com')
    bench.turn()
    assert bench.control.step() <= bench.clock.now + control.LINE_SECONDS
    bench.clock.now += control.LINE_SECONDS - 1
    client.send(b"m")  # slowly does not help
    bench.turn()
    bench.clock.now += 1
    bench.turn()
    assert read(client) == [{"ok": False, "error": "a line was not finished in time"}, None]


def test_who_asks_nothing_is_let_go(bench):
    client = bench.connect()
    bench.clock.now += control.IDLE_SECONDS
    bench.turn()
    assert read(client) == [{"ok": False, "error": "nothing was asked for long"}, None]


def test_a_command_may_take_as_long_as_it_likes(bench):
    client = bench.connect()
    bench.ask(client, {"command": "wait"})
    bench.clock.now += 10 * control.IDLE_SECONDS
    assert bench.control.step() > bench.clock.now
    bench.answers[0].done()
    bench.turn()
    assert read(client) == [{"ok": True}]
    assert bench.connected() == 1


@pytest.mark.parametrize("seconds", [control.PIECE_SECONDS, 0.0], ids=["as fast as it goes", "a line at a time"])
def test_who_reads_nothing_is_let_go(bench, monkeypatch, seconds):
    """Also where all that was drawn has gone into the socket, and no more fits."""
    client = bench.connect()
    bench.ask(client, {"command": "count", "to": 10**9}, turns=1)
    monkeypatch.setattr(control, "PIECE_SECONDS", seconds)
    while bench.control.epoll.poll(0):
        bench.turn(1)
    bench.clock.now += control.READ_SECONDS - 1
    bench.turn()
    assert bench.connected() == 1
    bench.clock.now += 1
    bench.turn()
    assert bench.connected() == 0


def test_who_asks_without_pause_is_held_up(bench):
    client = bench.connect()
    for _ in range(200):
        with contextlib.suppress(BlockingIOError):
            client.send(b'{"command":"echo"}\n' * 20)
        bench.turn(2)
    saved = control.LINES_PER_SECOND + 1
    assert len(read(client)) <= saved
    due = bench.control.step()
    assert bench.clock.now < due <= bench.clock.now + 1 / control.LINES_PER_SECOND + 0.001
    bench.clock.now += 0.1
    bench.turn(50)
    assert 1 <= len(read(client)) <= control.LINES_PER_SECOND * 0.1 + 1


def test_more_clients_than_there_may_be(bench):
    """Who has been idle longest gives way; nobody does who waits for an answer."""
    first = bench.connect()
    clients = []
    for _ in range(control.CLIENTS_MOST - 1):
        bench.clock.now += 0.01
        clients.append(bench.connect())
    bench.clock.now += 0.01
    bench.ask(first, {"command": "wait"})
    last = bench.connect()
    assert read(clients[0]) == [None]
    for client in (*clients[1:], last):
        bench.ask(client, {"command": "wait"})
    late = bench.connect()
    assert read(late) == [{"ok": False, "error": "32 others wait for their answers"}, None]
    for answer in bench.answers:
        answer.done()
    bench.turn()
    assert read(first) == read(last) == [{"ok": True}]


def test_without_descriptors_it_waits_and_does_not_turn(bench):
    client = bench.connect()
    waiting = socket.socket(socket.AF_UNIX)
    waiting.setblocking(False)
    bench.clients.append(waiting)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        waiting.connect(str(bench.settings.path))
        assert select.select([bench.control], [], [], 5)[0]
        for _ in range(5):
            due = bench.control.turn()
            assert not select.select([bench.control], [], [], 0)[0]
            assert due == bench.clock.now + control.PAUSE_SECONDS
            assert bench.ask(client, {"command": "echo"}) == [{"ok": True, "master": "the master"}]
            bench.clock.now += control.PAUSE_SECONDS
            bench.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert len(bench.log) == 1
    assert "a client cannot be accepted: Too many open files" in bench.log[0][1]
    bench.clock.now += control.PAUSE_SECONDS
    bench.turn()
    assert bench.ask(waiting, {"command": "echo"}) == [{"ok": True, "master": "the master"}]


def test_nothing_is_left_of_a_thousand_clients(bench):
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for n in range(1000):
        client = bench.connect()
        if n % 3:
            client.send([b"{", b'{"command":"wait"}\n'][n % 2])
        client.close()
        bench.clients.clear()
        bench.turn(2)
    assert bench.connected() == 0
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_does_not_turn_for_nothing(bench):
    """With clients in every state of waiting, nothing is to be done before somebody moves."""
    client = bench.connect()
    bench.ask(client, {"command": "wait"}, {"command": "echo"})
    half = bench.connect()
    half.send(b"{")
    shut = bench.connect()
    shut.send(b'{"command": "wait"}\n')
    shut.shutdown(socket.SHUT_WR)
    bench.turn(5)
    assert bench.control.epoll.poll(0) == []
    assert bench.control.step() > bench.clock.now


def test_a_turn_is_short_whoever_asks(bench):
    for client in [bench.connect() for _ in range(control.CLIENTS_MOST)]:
        client.send(b'{"command":"count","to":1000000}\n')
    longest = 0.0
    for _ in range(20):
        begin = time.process_time()
        bench.control.turn()
        longest = max(longest, time.process_time() - begin)
    assert longest < 2 * control.CLIENTS_MOST * control.PIECE_SECONDS


# The socket in the file system.


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_permissions(tmp_path, monkeypatch):
    """They are there before anybody could connect."""
    seen = []

    class Looked(AdminSocket):
        def bind(self, address):
            super().bind(address)
            seen.append(mode(address))

        def listen(self, backlog):
            seen.append(mode(self.path))
            super().listen(backlog)

    before = os.umask(0)
    try:
        with Looked(Admin(path=tmp_path / "s", mode=0o660)) as own:
            assert seen == [0o600, 0o660]
            assert mode(own.path) == 0o660
            own.permit(Admin(path=tmp_path / "s", mode=0o640))
            assert mode(own.path) == 0o640
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert not own.path.exists()


def test_a_stale_one_is_replaced(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
        left.listen()
    with AdminSocket(Admin(path=path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_one_that_is_served_is_not_taken(tmp_path, kind):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, kind) as other:
        other.bind(str(path))
        if kind != socket.SOCK_DGRAM:
            other.listen()
        with pytest.raises(ListenError, match=f"unix:{path}: the path cannot be bound: somebody listens there; choose"):
            AdminSocket(Admin(path=path))
    assert path.exists()


def test_a_file_is_not_removed(tmp_path):
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(ListenError, match="is there already, and no socket"):
        AdminSocket(Admin(path=path))
    assert path.read_text() == "precious"


def test_a_link_is_not_followed(tmp_path):
    """Not when it is bound, and not when it takes the name's place later."""
    target, path = tmp_path / "target", tmp_path / "s"
    target.write_text("")
    target.chmod(0o600)
    path.symlink_to(target)
    with pytest.raises(ListenError, match="no socket"):
        AdminSocket(Admin(path=path))
    path.unlink()
    with AdminSocket(Admin(path=path)) as own:
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(OSError, match="another's"):
            own.permit(Admin(path=path, mode=0o666))
    assert mode(target) == 0o600
    assert path.is_symlink()


def test_no_directory(tmp_path):
    with pytest.raises(ListenError, match="no such file or directory"):
        AdminSocket(Admin(path=tmp_path / "none/s"))


def test_the_name_stays_when_it_is_anothers_by_now(tmp_path):
    own = AdminSocket(Admin(path=tmp_path / "s"))
    own.path.unlink()
    with AdminSocket(Admin(path=tmp_path / "s")):
        own.close()
        assert own.path.exists()
    assert not own.path.exists()


def test_a_process_that_is_forked_off_leaves_the_name_and_the_clients(bench):
    client = bench.connect()
    pid = os.fork()
    if pid == 0:
        bench.control.leave()
        os._exit(len(os.listdir("/proc/self/fd")) and 7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert bench.ask(client, {"command": "echo"})[0]["ok"]
    assert bench.settings.path.exists()


def test_another_socket_takes_its_place(bench, tmp_path):
    """Who is connected gets what it asked for; who comes later has to come to the other one."""
    client = bench.connect()
    bench.ask(client, {"command": "wait"})
    bench.control.listen(AdminSocket(Admin(path=tmp_path / "other")))
    assert not bench.settings.path.exists()
    bench.answers[0].done()
    bench.turn()
    assert read(client) == [{"ok": True}]
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(tmp_path / "other"))
        other.setblocking(False)
        bench.turn()
        assert bench.ask(other, {"command": "echo"})[0]["ok"]
    bench.control.listen(None)
    assert list(tmp_path.iterdir()) == []
