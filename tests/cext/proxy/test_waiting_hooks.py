"""Async hooks: who asked waits, everybody else goes on; whoever leaves takes the hook along."""

import asyncio
import threading
import time

import pytest
from cext.proxy.hooks import AbortRequest, RequestOver
from cext.proxy.router import HookedRoute

from tests.cext.proxy.harness import Client, H2Client, get, post, reply, until
from tests.cext.proxy.hooked import Gate, directed, hooks, recording
from tests.cext.proxy.test_directing import Each
from tests.cext.proxy.test_h2_tunnel import connect, got, opened
from tests.cext.proxy.test_tunnel import echoing, websocket
from tests.h2_peer import reset


@pytest.fixture(params=["1.1", "2"])
def protocol(request):
    return request.param


@pytest.fixture
def gate():
    return Gate()


def waiting(gate, *, then=lambda request: None):
    """A director that waits where the path begins with /wait."""

    async def director(request):
        if request.path.startswith("/wait"):
            await gate()
            then(request)

    return director


# ---- a director ----


def test_one_that_awaits_nothing_is_done_at_once(protocol):
    async def director(request):
        request.headers["x"] = "y"
        if request.path == "/answer":
            request.respond(201)
        if request.path == "/raise":
            raise ValueError("no")

    heads, failures = [], []
    with directed(director, recording(heads), failures=failures) as edge, Each(edge, protocol) as client:
        assert [client.ask(path)[0] for path in ("/", "/answer", "/raise", "/")] == [200, 201, 500, 200]
    assert [head.fields["x"] for head in heads] == ["y", "y"]
    assert failures == [("director", "ValueError('no')")]


def test_a_pause_ends_in_time_however_many_other_hooks_are_called():
    slept, flooding = [], threading.Event()

    async def director(request):
        if request.path == "/pause":
            loop = asyncio.get_running_loop()
            began = loop.time()
            await asyncio.sleep(0.005)
            slept.append(loop.time() - began)
        request.respond(204)

    with directed(director) as edge, Client(edge) as busy, Client(edge) as waiter:
        flood = threading.Thread(target=lambda: [flooding.set(), busy.send(get("/") * 40_000)])
        reader = threading.Thread(target=lambda: [busy.response() for _ in range(40_000)])
        flood.start()
        reader.start()
        flooding.wait()
        began = time.monotonic()
        assert waiter.ask(get("/pause")).status == 204
        answered_within = reader.is_alive()
        flood.join()
        reader.join()
        flooded = time.monotonic() - began
    assert answered_within
    # Once: for as long as requests came faster than one in a millisecond.
    assert 0.005 <= slept[0] < max(0.2, flooded / 2)


def test_one_that_waits_sees_and_changes_the_same_request(protocol, gate):
    async def director(request):
        before = (dict(request.headers), request.method, request.target, request.host, request.route.path)
        headers = request.headers
        await gate()
        assert before == (dict(request.headers), request.method, request.target, request.host, request.route.path)
        headers["x-late"] = headers["x-early"] + "!"
        await gate()
        request.query = "waited"
        request.timeouts.total = 9000

    heads, failures = [], []
    body = bytes(range(256)) * 1000
    with directed(director, recording(heads), failures=failures) as edge, Each(edge, protocol) as client:
        for _ in range(2):
            asking = threading.Thread(target=client.ask, args=("/p", [("x-early", "e")], "POST", body))
            asking.start()
            gate.open()
            gate.open()
            asking.join()
    assert failures == []
    found = [(head.start, head.fields["x-late"], head.body == body) for head in heads]
    assert found == [("POST /p?waited HTTP/1.1", "e!", True)] * 2


def test_requests_behind_one_that_waits_stay_in_order(gate):
    with directed(waiting(gate)) as edge, Client(edge) as client, Client(edge) as other:
        client.send(get("/wait") + get("/next") + post(b"abc", "/wait") + get("/last"))
        opening = gate.reached()
        assert other.ask(get("/other")).body == b"GET /other "
        assert client.buffer == b""
        opening()
        assert [client.response().body for _ in range(2)] == [b"GET /wait ", b"GET /next "]
        gate.open()
        assert [client.response().body for _ in range(2)] == [b"POST /wait abc", b"GET /last "]


def test_other_streams_go_on_while_one_waits(gate):
    with directed(waiting(gate)) as edge, H2Client(edge) as client:
        held = client.get("/wait")
        upload = client.post(b"x" * 30_000, "/wait/up")
        openings = [gate.reached(), gate.reached()]
        assert [bytes(client.ask(f"/{n}").body) for n in range(3)] == [b"GET /0 ", b"GET /1 ", b"GET /2 "]
        assert client.responses[held].fields is client.responses[upload].fields is None
        for opening in openings:
            opening()
        assert bytes(client.response(held).body) == b"GET /wait "
        assert bytes(client.response(upload).body) == b"POST /wait/up " + b"x" * 30_000


def test_content_waits_with_its_request_and_no_more_of_it_than_there_is_room_for(protocol, gate):
    body = bytes(range(256)) * 8000
    with directed(waiting(gate)) as edge, Each(edge, protocol) as client:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.ask("/wait", (), "POST", body)))
        asking.start()
        opening = gate.reached()
        assert edge.backends[0].accepted == 0
        opening()
        asking.join()
        assert answers[0][2] == b"POST /wait " + body


def test_a_client_that_leaves_takes_its_hook_along(protocol, gate):
    with directed(waiting(gate)) as edge:
        with Each(edge, protocol) as client:
            if protocol == "2":
                client.client.get("/wait")
            else:
                client.client.send(get("/wait"))
            opening = gate.reached()
        assert gate.left()
        opening()                                   # too late
        edge.until_idle()
        assert edge.counters()["client_aborts"] == 1
        assert edge.counters()["requests"] == edge.counters()["hook_failures"] == edge.backends[0].accepted == 0
    (line,) = edge.log()
    assert (line["held"], line["path"]) == ("director", "/wait")


def test_a_stream_that_is_reset_takes_its_hook_along(gate):
    with directed(waiting(gate)) as edge, H2Client(edge) as client:
        stream = client.get("/wait")
        gate.reached()
        client.send(reset(stream))
        assert gate.left()
        assert client.ask("/on").status == 200


def test_the_total_limit_holds_while_a_hook_waits(protocol, gate):
    with directed(waiting(gate), total_ms=60) as edge, Each(edge, protocol) as client:
        assert client.ask("/wait")[0] == 504
        assert gate.left()
        assert client.ask("/on")[0] == 200
        assert edge.counters()["timeouts"] == 1
        assert edge.counters()["upstream_failures"] == 0
    line = edge.log()[0]
    assert (line["error"], line["held"], line["status"]) == ("timeout: total", "director", 504)


def test_a_hook_has_its_time_and_then_the_request_fails(protocol, gate):
    failures = []
    ways = {"plane": {"hook_timeout_ms": 60}, "failures": failures}
    with directed(waiting(gate), **ways) as edge, Each(edge, protocol) as client:
        assert client.ask("/wait")[0] == 504
        assert gate.left()
        assert client.ask("/on")[0] == 200
        assert edge.counters()["hook_failures"] == 1
    assert edge.log()[0]["error"] == "the director took too long"
    assert failures[0][0] == "director"
    assert "HookTimeout" in failures[0][1]


def test_one_that_does_not_end_by_itself_is_ended(protocol):
    async def director(request):
        while request.path == "/forever":
            pass

    def plainly(request):
        while request.path == "/forever":
            pass

    for hook in (director, plainly):
        with directed(hook, plane={"hook_timeout_ms": 60}) as edge, Each(edge, protocol) as client:
            assert client.ask("/forever")[0] == 504
            assert client.ask("/on")[0] == 200
        assert edge.log()[0]["error"] == "the director took too long"


def test_what_comes_of_one_that_has_waited(protocol, gate):
    def then(request):
        what = request.path.removeprefix("/wait/")
        if what == "raise":
            raise OSError("gone")
        if what == "abort":
            request.abort()
        if what == "abort-by-raising":
            raise AbortRequest
        if what == "exit":
            raise SystemExit(1)
        if what == "answer":
            request.respond(418, {"x": "y"}, "tea")

    failures = []
    with directed(waiting(gate, then=then), failures=failures) as edge:
        threading.Thread(target=lambda: [gate.open() for _ in range(6)], daemon=True).start()
        with Each(edge, protocol) as client:
            assert client.ask("/wait/raise")[0] == 500
            assert client.ask("/wait/answer")[::2] == (418, b"tea")
            assert client.ask("/wait/nothing")[2] == b"GET /wait/nothing "
            assert client.ask("/wait/exit")[0] == 500
        for path in ("/wait/abort", "/wait/abort-by-raising"):
            with Each(edge, protocol) as client, pytest.raises((EOFError, OSError, TypeError)):
                client.ask(path)
        edge.until_idle()
        assert edge.counters()["aborts"] == 2
    assert [hook for hook, _ in failures] == ["director"] * 2


def test_a_request_that_waits_is_served_while_the_worker_drains(protocol, gate):
    with directed(waiting(gate)) as edge, Each(edge, protocol) as client:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(client.ask("/wait")))
        asking.start()
        opening = gate.reached()
        edge.call(lambda: edge.plane.drain(20_000))
        opening()
        asking.join()
        assert answers[0][::2] == (200, b"GET /wait ")
        assert edge.ended.wait(20)


def test_a_worker_that_ends_leaves_no_hook_behind(protocol, gate):
    with directed(waiting(gate)) as edge, Each(edge, protocol) as client:
        (client.client.get if protocol == "2" else lambda path: client.client.send(get(path)))("/wait")
        gate.reached()
        edge.stop()
        assert gate.left()


def test_a_request_that_was_given_up_cannot_be_changed(gate):
    found = []

    async def director(request):
        try:
            await gate()
        except asyncio.CancelledError:
            for use in (
                lambda: request.headers.add("a", "b"),
                lambda: setattr(request, "path", "/x"),
                lambda: request.respond(200),
                request.abort,
            ):
                try:
                    use()
                except RequestOver:
                    found.append(request.over)
            raise

    with directed(director) as edge:
        with Client(edge) as client:
            client.send(get("/wait"))
            gate.reached()
        assert gate.left()
        until(lambda: len(found) == 4)
    assert found == [True] * 4


def test_websockets_wait_too(gate):
    with directed(waiting(gate), echoing, echoing) as edge:
        with Client(edge) as client:
            client.send(websocket(path="/wait") + b"early")
            gate.open()
            assert client.response().status == 101
            client.send(b"late")
            assert client.exactly(9) == b"earlylate"
        with H2Client(edge) as client:
            stream = connect(client, "/wait", fields=[("sec-websocket-version", "13")])
            gate.open()
            assert opened(client, stream).status == 200
            client.upload(stream, b"abc", end=False)
            assert got(client, stream, 3) == b"abc"
        edge.until_idle()


def test_pushed_requests_wait_too(gate):
    def script(conn):
        while True:
            page = conn.request().start.startswith("GET /page")
            conn.send(reply(fields=["Link: </wait.css>; rel=preload"] if page else ()))

    with directed(waiting(gate), script, push=True) as edge, H2Client(edge) as client:
        ((stream, _),) = client.ask("/page").promises
        gate.open()
        assert client.response(stream).status == 200


def test_limits_count_requests_that_wait(protocol, gate):
    with directed(waiting(gate), max_running=1) as edge, Each(edge, protocol) as client:
        with Client(edge) as other:
            other.send(get("/wait"))
            opening = gate.reached()
            assert client.ask("/")[0] == 503
            opening()
            assert other.response().status == 200
        assert client.ask("/")[0] == 200


def test_policy_and_route_wait_one_after_the_other(protocol, gate):
    async def policy(request):
        await gate()
        request.headers["x-one"] = "1"

    async def of_route(request):
        one = request.headers["x-one"]
        await gate()
        request.headers["x-two"] = one + "2"

    def routes(group):
        found = [HookedRoute(group)]
        found[0].hooks = hooks(of_route)
        return found

    heads = []
    with directed(policy, recording(heads), routes=routes) as edge, Each(edge, protocol) as client:
        threading.Thread(target=lambda: [gate.open() for _ in range(2)], daemon=True).start()
        assert client.ask()[0] == 200
    assert heads[0].fields["x-two"] == "12"


# ---- of a response ----

CONTENTS = {
    "length": reply,
    "chunked": lambda body: (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\nX-T: t\r\n\r\n" % (len(body), body)
    ),
    "until closed": lambda body: b"HTTP/1.1 200 OK\r\n\r\n" + body,
    "none": lambda _: b"HTTP/1.1 304 Not Modified\r\n\r\n",
}


def answering(content, body):
    def script(conn):
        while True:
            method = conn.request().start.split()[0]
            answer = CONTENTS[content](body)
            conn.send(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == "HEAD" else answer)
            if content == "until closed":
                return

    return script


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("size", [3, 500_000])
def test_a_response_waits_whole(protocol, gate, content, size):
    async def response(request, response):
        before = dict(response.headers)
        await gate()
        assert before == dict(response.headers)
        response.headers["x-late"] = str(response.status)

    body = bytes(range(256))[:size] * max(size // 256, 1)
    failures = []
    ways = {"response": response, "failures": failures}
    with directed(None, answering(content, body), **ways) as edge, Each(edge, protocol) as client:
        for method in ("GET", "HEAD", "GET"):
            answers = []
            asking = threading.Thread(target=lambda m=method, a=answers: a.append(client.ask(method=m)))
            asking.start()
            opening = gate.reached()
            assert edge.counters()["connections_active"] == 1     # who asked for this goes on meanwhile
            opening()
            asking.join()
            ((status, fields, got),) = answers
            assert fields["x-late"] == str(status)
            assert got == (body if method == "GET" and content != "none" else b"")
    assert failures == []
