"""`edge reload`: what it prints and how it ends, with a running edge, without one, and with others in its place."""

import contextlib
import json
import os
import socket
import threading

import pytest

from tests.edge.server import Origin
from tests.edge.test_main import one_line, run


@pytest.fixture
def administered(edge, origin):
    edge.configure(origin, server='workers = 1\nadmin = "admin.sock"')
    return edge


@contextlib.contextmanager
def somebody(path, *answers, then=lambda connection: None):
    """Somebody who listens there, and says these lines whatever is asked."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def serve():
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                for answer in answers:
                    connection.sendall(answer)
                then(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(20)


def test_accepted(administered):
    administered.start()
    done = run("reload", "--wait", "--config", administered.file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("accepted in ")
    assert ": generation 2\n" in done.stdout
    assert administered.stop() == 0


def test_rejected_with_the_reason(administered):
    administered.start()
    good = administered.file.read_text()
    administered.file.write_text(good.replace("workers", "wrokers"))
    done = run("reload", "--wait", "--config", administered.file)
    one_line(done, f"edge: rejected, nothing has changed: {administered.file}: server.wrokers: unknown key; did you")
    administered.file.write_text(good.replace("127.0.0.1:", "192.0.2.1:", 1))
    one_line(run("reload", "--wait", "--config", administered.file), "192.0.2.1")
    administered.file.write_text(good)
    assert run("reload", "--wait", "--config", administered.file).returncode == 0
    assert administered.stop() == 0


def test_told_alone(administered):
    administered.start()
    done = run("reload", "--config", administered.file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"process {administered.process.pid} reloads {administered.file}\n"
    administered.wait_generation(2)
    assert f"of user {os.getuid()}" in administered.log()
    assert administered.stop() == 0


def test_the_socket_is_named_in_three_ways(administered):
    administered.start()
    path = administered.directory / "admin.sock"
    assert run("reload", "--wait", "--admin", path).returncode == 0
    assert run("reload", "--wait", "--admin", f"unix:{path}").returncode == 0
    assert run("reload", "--wait", EDGE_ADMIN=str(path)).returncode == 0
    # what the command line says goes before the environment
    assert run("reload", "--wait", "--config", administered.file, EDGE_ADMIN="/none").returncode == 0
    assert administered.stop() == 0


def test_the_key_is_new(edge, origin):
    """The running edge does not listen there before it has read the file: it is signalled."""
    edge.configure(origin, server='workers = 1\npid_file = "edge.pid"')
    edge.start()
    edge.configure(origin, server='workers = 1\npid_file = "edge.pid"\nadmin = "admin.sock"')
    done = run("reload", "--wait", "--config", edge.file)
    assert done.returncode == 3
    assert "there is no admin socket to hear what comes of it" in done.stderr
    edge.wait_generation(2)
    assert run("reload", "--wait", "--config", edge.file).returncode == 0
    assert edge.stop() == 0


def test_nobody_is_there(administered, tmp_path):
    done = run("reload", "--wait", "--config", administered.file)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"edge: {tmp_path}/admin.sock: no edge listens there; is it running, with this [server] admin?\n"
    )
    done = run("reload", "--wait")
    assert done.returncode == 2
    assert "Give --config FILE or --admin PATH, or set $EDGE_ADMIN" in done.stderr


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_who_may_not_connect_is_told(administered, tmp_path):
    administered.start()
    pid = os.fork()
    if pid == 0:
        os.chmod(tmp_path, 0o755)
        os.setuid(65534)
        with socket.socket(socket.AF_UNIX) as client:
            os._exit(client.connect_ex(str(tmp_path / "admin.sock")))
    refused = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert refused == 13  # EACCES
    assert administered.stop() == 0


def test_one_that_is_something_else(administered, tmp_path):
    with somebody(tmp_path / "admin.sock", b"220 mail\r\n"):
        done = run("reload", "--wait", "--admin", tmp_path / "admin.sock")
    assert done.returncode == 3
    assert done.stderr.endswith("whoever listens there is not edge\n")


@pytest.mark.parametrize("half", [b"", b'{"ok": tr'])
def test_one_that_ends_before_it_has_answered(administered, tmp_path, half):
    with somebody(tmp_path / "admin.sock", half):
        done = run("reload", "--wait", "--admin", tmp_path / "admin.sock")
    assert done.returncode == 3
    assert "edge has closed the connection" in done.stderr


def test_one_that_does_not_answer_in_time(administered, tmp_path):
    over = threading.Event()
    with somebody(tmp_path / "admin.sock", then=lambda _: over.wait(20)):
        done = run("reload", "--wait", "--timeout", "1s", "--admin", tmp_path / "admin.sock")
        over.set()
    assert done.returncode == 4
    assert done.stderr == f"edge: {tmp_path}/admin.sock: no answer in 1 s\n"


def test_what_changed_is_shown(administered, tmp_path):
    line = {"ok": True, "changed": "one\ntwo", "seconds": 1.2, "generation": 7}
    with somebody(tmp_path / "admin.sock", json.dumps(line).encode() + b"\n"):
        done = run("reload", "--wait", "--admin", tmp_path / "admin.sock")
    assert (done.returncode, done.stdout) == (0, "accepted in 1.20 s: generation 7\n  one\n  two\n")


def test_a_second_change_that_is_rejected_says_so_to_who_asked(administered):
    """Two ask at once: each hears what became of the file that it had written."""
    second = Origin("second")
    administered.start()
    administered.configure(second, server='workers = 1\nadmin = "admin.sock"')
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(run("reload", "--wait", "--config", administered.file)))
        for _ in range(3)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join(40)
    assert [done.returncode for done in results] == [0, 0, 0]
    assert administered.get().headers["Origin"] == "second"
    assert administered.stop() == 0
    second.close()
