"""Policies of `edge run`: the examples of docs/hooks.md, what hooks do to requests of real clients, faults, reload."""

import contextlib
import itertools
import re
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import ROOT, peer, run, wait_until

GUIDE = Path(__file__).resolve().parents[2] / "docs/hooks.md"
EXAMPLES = dict(re.findall(r"```python\n# (\w+)\n(.*?)```", GUIDE.read_text(), re.DOTALL))

CURL_CUT = {"--http1.1": {52, 56}, "--http2": {92}}


@pytest.fixture
def policed(make_edge, tmp_path, backend):
    """policed(policy's text, **settings) -> an edge in front of `backend`."""

    def start(text, **settings):
        directory = tmp_path / "edge0"
        directory.mkdir()
        (directory / "rules.py").write_text(text)
        server = {"hooks": "rules:Policy", **settings.pop("server", {})}
        return make_edge({"app": [backend.server]}, server=server, **settings)

    return start


@pytest.fixture(params=["--http1.1", "--http2"])
def curl(request, pki):
    """curl(edge, path, ...) -> (exit code, status)."""

    def ask(edge, path, *arguments):
        command = [peer("curl"), "--silent", "--cacert", pki.ca.file, "--output", "/dev/null", request.param]
        command += ["--resolve", f"edge.test:{edge.port}:127.0.0.1", "--write-out", "%{http_code}"]
        done = run([*command, *arguments, edge.url(path)], seconds=20)
        return done.returncode, int(done.stdout or 0)

    ask.cut = CURL_CUT[request.param]
    return ask


def renew(edge, text):
    """Reloads with another policy."""
    (edge.directory / "rules.py").write_text(text)
    mark = edge.mark()
    edge.reload()
    edge.wait_error(r"generation \d+ serves", mark)


def slowly(seconds, *, head_first=False):
    def answer(connection, request):
        connection.body(request)
        if head_first:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        time.sleep(seconds)
        connection.send(b"cd" if head_first else b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    return answer


def test_every_example_is_tried_here():
    assert set(EXAMPLES) == {"uploads", "extended", "banned", "moved", "looked_up", "cors", "counting"}


def test_uploads(policed, backend, curl):
    backend.on("/slow", slowly(0.6))
    backend.on("/upload/slow", slowly(0.6))
    edge = policed(EXAMPLES["uploads"].replace("2.5", "0.2"), route_timeouts={"total": "300ms"})
    assert curl(edge, "/slow") == (0, 504)
    assert edge.wait_request(path="/slow")["error"] == "timeout: first_byte"
    assert curl(edge, "/upload/slow", "--data", "x") == (0, 200)
    assert curl(edge, "/slow", "--data", "x") == (0, 504)
    assert edge.wait_request(path="/slow", method="POST")["error"] == "timeout: total"


def test_extended(policed, backend, curl):
    backend.on("/long", slowly(1.2))
    edge = policed(EXAMPLES["extended"].replace("60", "0.6"))
    assert curl(edge, "/long") == (0, 504)
    with Client(edge) as client:
        client.send(b"GET /long HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        backend.wait_seen("/long", 2)
        assert curl(edge, "/extend")[0] == 0
        assert client.response().status == 200


def test_banned(policed, backend, curl):
    edge = policed(EXAMPLES["banned"])
    assert curl(edge, "/ok") == (0, 200)
    code, status = curl(edge, "/ok", "--user-agent", "BadBot/2")
    assert (code in curl.cut, status) == (True, 0)
    assert edge.wait_request(error="aborted by the director")["path"] == "/ok"
    assert curl(edge, "/ok") == (0, 200)
    renew(edge, EXAMPLES["banned"].replace("192.0.2.0/24", "127.0.0.0/8"))
    assert curl(edge, "/ok")[0] in curl.cut
    assert len(backend.seen("/ok")) == 2


def test_moved(policed, backend, curl):
    backend.on("/api/v1/users", slowly(0))
    edge = policed(EXAMPLES["moved"])
    with Client(edge) as client:
        robots = client.get("/robots.txt")
        assert (robots.status, robots.body) == (200, b"User-agent: *\nDisallow: /api/\n")
        moved = client.get("/a?b", host="old.example")
        assert (moved.status, moved.get("location")) == (308, "https://new.example/a?b")
    assert curl(edge, "/robots.txt") == (0, 200)
    assert curl(edge, "/v1/users?n=1") == (0, 200)
    (request,) = backend.seen("/api/v1/users")
    assert (request.target, request.all("x-api-version")) == ("/api/v1/users?n=1", ["1"])
    line = edge.wait_request(path="/v1/users?n=1")
    assert line["sent_path"] == "/api/v1/users?n=1"


def test_looked_up(policed, backend, curl):
    edge = policed(EXAMPLES["looked_up"])
    for _ in range(2):
        assert curl(edge, "/ok") == (0, 200)
    names = [request.all("x-client-name") for request in backend.seen("/ok")]
    assert names[0] == names[1]
    assert len(names[0]) == 1
    assert names[0][0]


def test_cors(policed, backend, curl):
    def failing(connection, request):
        connection.send(b"HTTP/1.1 500 No\r\nContent-Length: 9\r\nServer: s\r\n\r\ntraceback")
        return True

    backend.on("/failing", failing)
    edge = policed(EXAMPLES["cors"])
    with Client(edge) as client:
        answer = client.get("/ok", "Origin: https://app.example")
        assert (answer.status, answer.get("access-control-allow-origin")) == (200, "https://app.example")
        assert answer.get("strict-transport-security") == "max-age=31536000"
        assert client.get("/ok", "Origin: https://evil.example").get("access-control-allow-origin") is None
        sorry = client.get("/failing")
        assert (sorry.status, sorry.get("retry-after"), b"our side" in sorry.body) == (503, "10", True)
    assert curl(edge, "/ok") == (0, 200)
    assert curl(edge, "/failing") == (0, 503)
    assert edge.wait_request(path="/failing")["status"] == 503


OF_A_ROUTE = """
class Policy:
    def director(self, request):
        request.headers["X-Route"] = "mine"


class Fails:
    async def director(self, request):
        raise LookupError(request.path)
"""


def test_policies_of_routes(make_edge, tmp_path, backend, curl):
    directory = tmp_path / "edge0"
    directory.mkdir()
    (directory / "rules.py").write_text(OF_A_ROUTE)
    routes = [
        {"match": {"path": "/mine/*"}, "upstream": "app", "hooks": "rules:Policy"},
        {"match": {"path": "/fails/*"}, "upstream": "app", "hooks": "rules:Fails"},
        {"match": {}, "upstream": "app"},
    ]
    backend.on("/mine/*", slowly(0))
    edge = make_edge({"app": [backend.server]}, routes=routes)
    assert [curl(edge, path)[1] for path in ("/mine/x", "/ok", "/fails/x")] == [200, 200, 500]
    assert backend.seen("/mine/x")[0].all("x-route") == ["mine"]
    assert backend.seen("/ok")[0].all("x-route") == []
    edge.wait_error(r"hook director: LookupError: /fails/x; at .*rules.py:9 in director")


LENIENT = """
class Policy:
    def __init__(self):
        self._running = []

    def director(self, request):
        for other in self._running:
            other.timeouts.write_idle = None
        if request.path == "/large":
            self._running.append(request)
"""


def test_a_limit_that_was_taken_away_costs_nothing(policed, backend):
    """A client that takes nothing is not looked at any more."""

    def large(connection, request):
        with contextlib.suppress(OSError):
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n" + bytes(1 << 26))
        return False

    backend.on("/large", large)
    edge = policed(LENIENT, route_timeouts={"write_idle": "1s"})
    with Client(edge) as stuck, Client(edge) as other:
        stuck.send(b"GET /large HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        backend.wait_seen("/large", 1)
        time.sleep(0.5)  # the socket is full
        assert other.get("/ok").status == 200
        before = wakeups(edge)
        time.sleep(1.5)
        assert wakeups(edge) - before < 30
        assert not edge.requests(error="timeout: write_idle")


def wakeups(edge) -> int:
    (worker,) = edge.workers()
    status = Path(f"/proc/{worker}/status").read_text()
    return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE).group(1))


SHOWN = """

class Shown(Policy):
    def director(self, request):
        super().director(request)
        if request.path != "/show":
            return
        opened = {address: len(known) for address, known in self._open.items()}
        raise LookupError(opened, request.timeouts.keepalive)
"""


def test_counting(policed, curl):
    text = EXAMPLES["counting"].replace("> 100", "> 3") + SHOWN
    edge = policed(text, server={"hooks": "rules:Shown"}, listener={"timeouts": {"keepalive": "60s"}})
    assert curl(edge, "/show") == (0, 500)
    edge.wait_error(r"LookupError: \(\{'127.0.0.1': 1\}, 60.0\)")
    renew(edge, text)  # a new object, which has told of nothing yet, and may hear of the end of curl's connection
    with Client(edge) as one, Client(edge) as two, Client(edge) as three:
        assert [client.get("/ok").status for client in (one, two, three)] == [200, 200, 200]
        mark = edge.mark()
        assert curl(edge, "/show") == (0, 500)
        edge.wait_error(r"LookupError: \(\{'127.0.0.1': 4\}, 1.0\)", mark)


STATES = """
class Policy:
    def __init__(self):
        self._log = open("states.log", "a", buffering=1)

    def connection_state(self, connection, old, new):
        version = connection.tls.version if connection.tls else "-"
        self._log.write(f"{connection.client_port} {old} {new} {version}\\n")
"""


def test_the_steps_of_a_connection(policed, curl, tmp_path):
    log = tmp_path / "states.log"
    edge = policed(STATES.replace("states.log", str(log)))
    assert curl(edge, "/ok", "--output", "/dev/null", edge.url("/ok"))[0] == 0
    wait_until(lambda: " closed " in log.read_text(), 20, "closed")
    lines = [line.split() for line in log.read_text().splitlines()]
    assert len({port for port, *_ in lines}) == 1
    assert [(old, new) for _, old, new, _ in lines[:3]] == [("None", "new"), ("new", "active"), ("active", "idle")]
    assert lines[-1][1:] == ["idle", "closed", "TLSv1.3"]
    for (_, _, new, _), (_, old, _, _) in itertools.pairwise(lines):
        assert old == new


FAULTY = """
class Policy:
    def director(self, request):
        if request.path == "/fault":
            self._look_up(request.headers["x-missing"])

    def _look_up(self, key):
        pass
"""


def test_a_director_that_raises(policed, curl):
    edge = policed(FAULTY)
    assert [curl(edge, "/fault") for _ in range(3)] == [(0, 500)] * 3
    assert curl(edge, "/ok") == (0, 200)
    told = edge.wait_error("hook director")
    assert re.search(r"KeyError: 'x-missing'; at .*rules\.py:5 in director", told), told
    record = edge.wait_request(path="/fault", count=3)
    assert (record["status"], record["error"]) == (500, "the director failed")
    assert len([m for _, m in edge.errors() if "hook director" in m]) == 1
    assert len(edge.workers()) == 1


def test_reload_imports_afresh_or_changes_nothing(policed, curl):
    edge = policed(FAULTY)
    assert curl(edge, "/ok") == (0, 200)
    (edge.directory / "helper.py").write_text('PATH = "/ok"')
    renew(edge, "from helper import PATH\n" + FAULTY.replace('"/fault"', "PATH"))
    assert [curl(edge, path) for path in ("/ok", "/fault")] == [(0, 500), (0, 404)]
    (edge.directory / "helper.py").write_text('PATH = "/no"')
    renew(edge, (edge.directory / "rules.py").read_text())
    assert curl(edge, "/ok") == (0, 200)
    for text, problem in (
        ("class Policy:\n    def directr(self, request): pass", "Policy.directr is no hook; did you mean"),
        ("def", "cannot be imported: SyntaxError"),
        (FAULTY + "    def __init__(self): raise OSError('no database')", "worker 0 cannot: OSError: no database"),
    ):
        mark = edge.mark()
        (edge.directory / "rules.py").write_text(text)
        edge.reload()
        edge.wait_error(re.escape(problem), mark, seconds=15)
        assert curl(edge, "/ok") == (0, 200)
        assert curl(edge, "/no") == (0, 500)


def edge_command(edge, command):
    return run([sys.executable, "-m", "edge", command, "--config", edge.config], seconds=20, cwd=ROOT)


def test_a_faulty_policy_does_not_start(policed):
    edge = policed(FAULTY)
    (edge.directory / "rules.py").write_text("class Policy:\n    def director(self): pass")
    for command in ("check", "run"):
        done = edge_command(edge, command)
        assert done.returncode == 1
        assert "edge.toml: server.hooks: Policy.director takes other arguments; write it as def" in done.stdout
    (edge.directory / "rules.py").write_text("import nosuchmodule")
    done = edge_command(edge, "check")
    assert 'server.hooks: "rules" cannot be imported: ModuleNotFoundError' in done.stdout
    assert not list(edge.directory.rglob("*.pyc"))
