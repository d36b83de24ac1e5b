"""Response hooks: what they see, change and put in a response's place, and that its content is what it was."""

import threading

import pytest
from cext.proxy.hooks import AbortRequest, RequestOver
from cext.proxy.router import HookedRoute, Route

from tests.cext.proxy.harness import Client, H2Client, get, reply, until
from tests.cext.proxy.hooked import Gate, directed, hooks
from tests.cext.proxy.test_directing import BAD_FIELDS, Each
from tests.cext.proxy.test_h2_tunnel import connect, opened
from tests.cext.proxy.test_tunnel import echoing, websocket


@pytest.fixture(params=["1.1", "2"])
def protocol(request):
    return request.param


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture(params=[False, True], ids=["plain", "async"])
def kind(request):
    """kind(hook): the same hook, async or not."""

    def made(hook):
        async def waits(*arguments):
            hook(*arguments)

        return waits if request.param else hook

    return made


def in_thread(call):
    """call() in a thread -> what joins it and gives its result."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()

    def joined():
        thread.join(20)
        return found[0]

    return joined


FIELDS = ["X-Old: 1", "X_Old: 2", "X-Gone: x", "Server: s", "Date: d"]
ANSWER = reply(b"content", status="203 Told By Another", fields=FIELDS)


def answers(answer=ANSWER):
    def script(conn):
        while True:
            head_only = conn.request().start.startswith("HEAD")
            conn.send(answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if head_only else answer)

    return script


def test_head_and_status_are_changed_and_the_content_is_not(protocol, kind):
    def response(request, response):
        assert (response.request, response.status, response.headers["x-old"]) == (request, 203, "1")
        response.status = 404
        headers = response.headers
        headers["X-Old"] = "new"
        headers.add("Set-Cookie", "a=b")
        headers.add("Set-Cookie", "c=d")
        del headers["x-gone"]
        headers.pop("date")
        assert (response.status, headers["x-old"]) == (404, "new")

    failures = []
    with directed(None, answers(), response=kind(response), failures=failures) as edge, Each(edge, protocol) as client:
        for method in ("GET", "HEAD", "GET"):
            status, fields, body = client.ask(method=method)
            assert (status, body) == (404, b"content" if method == "GET" else b"")
            assert fields["x-old"] == "new"
            assert fields["set-cookie"] == "c=d"
            assert "x-gone" not in fields
            assert fields["date"].endswith("GMT")          # edge's own
            assert fields["content-length"] == "7"
    assert failures == []
    assert [line["status"] for line in edge.log()] == [404] * 3


def test_what_cannot_stand_in_a_head_is_refused_where_it_is_written():
    tried = []
    only_of_requests = ("host", "x-forwarded", "x_forwarded", "x-real", "sec-websocket")

    def response(request, response):
        for name, value in BAD_FIELDS:
            if not name.lower().startswith(only_of_requests):
                with pytest.raises(ValueError, match=r"."):
                    response.headers[name] = value
        for status in (0, 99, 100, 101, 199, 204, 205, 304, 600, -1):
            with pytest.raises(ValueError, match=r"."):
                response.status = status
        for use in (lambda: response.replace(100), lambda: response.replace(204, (), b"x")):
            with pytest.raises(ValueError, match=r"."):
                use()
        for use in (
            lambda: request.respond(200),
            lambda: request.headers.add("a", "b"),
            lambda: setattr(request, "path", "/x"),
        ):
            with pytest.raises(RequestOver, match="too late"):
                use()
        assert request.headers["host"] == "example.com"
        tried.append((request, response, response.headers))

    failures = []
    with directed(None, response=response, failures=failures) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200
        _, seen, headers = tried[0]
        for use in (lambda: seen.status, lambda: setattr(seen, "status", 200), lambda: headers["x"],
                    lambda: seen.replace(200),
                    seen.abort, lambda: headers.add("a", "b")):
            assert edge.call(lambda use=use: is_too_late(use))
    assert failures == []


def is_too_late(use):
    try:
        use()
    except RequestOver:
        return True
    return False


def test_a_response_without_content_gets_none(protocol):
    def response(request, response):
        for status in (200, 204 if response.status == 304 else 304):
            with pytest.raises(ValueError, match="content"):
                response.status = status
        response.headers["x"] = "y"

    failures = []
    for answer in (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"):
        ways = {"response": response, "failures": failures}
        with directed(None, answers(answer), **ways) as edge, Each(edge, protocol) as client:
            assert [client.ask()[1]["x"] for _ in range(2)] == ["y", "y"]
    assert failures == []


def test_another_response_takes_its_place(protocol, kind):
    def response(request, response):
        if response.status == 203:
            response.replace(500, {"x-why": "hook"}, "sorry\n")

    big = reply(b"z" * 400_000, status="203 x")
    with directed(None, answers(big), response=kind(response)) as edge, Each(edge, protocol) as client:
        for method in ("GET", "HEAD", "POST"):
            status, fields, body = client.ask(method=method, body=b"abc" if method == "POST" else None)
            assert (status, fields["x-why"], fields["content-length"]) == (500, "hook", "6")
            assert body == (b"" if method == "HEAD" else b"sorry\n")
        assert edge.counters()["responses_5xx"] == 3


def test_a_response_is_cut(protocol, kind):
    def aborts(request, response):
        (response if request.path == "/response" else request).abort()

    def raises(request, response):
        raise AbortRequest

    for hook in (aborts, raises):
        for path in ("/response", "/request"):
            with directed(None, response=kind(hook)) as edge:
                with Each(edge, protocol) as client, pytest.raises((EOFError, OSError, TypeError)):
                    client.ask(path)
                edge.until_idle()
                assert edge.counters()["aborts"] == 1
            assert edge.log()[0]["error"] == "aborted by the response hook"


def test_one_that_fails_lets_nothing_of_the_response_through(protocol, kind):
    def response(request, response):
        if request.path == "/fail":
            response.headers["x"] = "y"
            raise KeyError("k")

    failures = []
    with directed(None, response=kind(response), failures=failures) as edge, Each(edge, protocol) as client:
        status, fields, _ = client.ask("/fail")
        assert (status, "x" in fields) == (500, False)
        assert client.ask("/on")[0] == 200
    assert failures == [("response", "KeyError('k')")]
    assert edge.log()[0]["error"] == "the response hook failed"


def test_it_has_its_time(protocol, gate):
    async def response(request, response):
        if request.path == "/wait":
            await gate()

    with directed(None, response=response, plane={"hook_timeout_ms": 60}) as edge, Each(edge, protocol) as client:
        assert client.ask("/wait")[0] == 504
        assert gate.left()
        assert client.ask("/on")[0] == 200
    assert edge.log()[0]["error"] == "the response hook took too long"


def test_the_total_limit_holds_while_it_waits(protocol, gate):
    async def response(request, response):
        if request.path == "/wait":
            await gate()

    with directed(None, response=response, total_ms=80) as edge, Each(edge, protocol) as client:
        assert client.ask("/wait")[0] == 504
        assert gate.left()
        assert client.ask("/on")[0] == 200
    line = edge.log()[0]
    assert (line["error"], line["held"]) == ("timeout: total", "response hook")


def test_the_upstreams_limits_do_not_hold_while_it_waits(protocol, gate):
    async def response(request, response):
        await gate()

    limits = {"first_byte_ms": 150, "response_idle_ms": 150}
    with directed(None, response=response, **limits) as edge, Each(edge, protocol) as client:
        asking = in_thread(client.ask)
        opening = gate.reached()
        ticks = []
        edge.call(lambda: ticks.append(edge.plane.every(1, lambda: ticks.append(1))))
        until(lambda: len(ticks) > 200)
        edge.call(ticks[0].cancel)
        opening()
        assert asking()[::2] == (200, b"GET / ")


def test_a_client_that_leaves_takes_the_hook_along(protocol, gate):
    async def response(request, response):
        await gate()

    with directed(None, response=response) as edge:
        with Each(edge, protocol) as client:
            client.client.get("/x") if protocol == "2" else client.client.send(get("/x"))
            opening = gate.reached()
        assert gate.left()
        opening()
        edge.until_idle()
    assert edge.log()[0]["held"] == "response hook"


def test_an_upstream_that_is_lost_before_its_response_is_whole_shows_afterwards(protocol, gate):
    """Nothing is read while the hook waits; the loss is told by a cut, as the head is out by then."""
    async def response(request, response):
        await gate()

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    def ask():
        try:
            return client.ask()
        except (EOFError, OSError, TypeError):      # the last: a stream reset before its head was sent
            return None, {}, b"cut"

    with directed(None, script, response=response) as edge, Each(edge, protocol) as client:
        asking = in_thread(ask)
        gate.open()
        assert len(asking()[2]) == 3
        edge.until_idle() if protocol == "1.1" else None
    assert edge.log()[0]["error"] == "upstream closed"


def test_only_final_responses_of_upstreams_are_seen():
    seen = []

    def script(conn):
        path = conn.request().start.split()[1]
        conn.send(b"HTTP/1.1 103 Early Hints\r\nX: 1\r\n\r\n" + reply(path.encode()))
        conn.request()                          # and closes: 502

    def response(request, response):
        seen.append((request.path, response.status, "x" in response.headers))

    ways = {"routes": lambda group: [Route(group, path="/a"), Route(group, path="/b")]}

    def own(request):
        if request.path == "/own":
            request.respond(204)

    with directed(own, script, response=response, **ways) as edge, Client(edge) as client:
        assert client.ask(get("/a")).status == 103
        assert client.response().status == 200
        assert client.ask(get("/own")).status == 204
        assert client.ask(get("/none")).status == 404
        edge.backends[0].close()
        assert client.ask(get("/b")).status in (502, 503)
    assert seen == [("/a", 200, False)]


def test_a_tunnels_switch_is_not_seen_and_a_refusal_is():
    seen = []

    def response(request, response):
        seen.append((request.http_version, request.path, response.status))
        if request.http_version == "2":
            with pytest.raises(ValueError, match="WebSocket"):
                response.replace(200)
            with pytest.raises(ValueError, match="WebSocket"):
                response.status = 200
        response.headers["x"] = "y"

    def script(conn):
        head = conn.request()
        if head.start.startswith("GET /no"):
            conn.send(reply(b"no", status="403 Forbidden"))
            return
        conn.buffer = "\r\n".join([head.start, *(f"{n}: {v}" for n, v in head.fields.items()), "", ""]).encode()
        echoing(conn)

    failures = []
    with directed(None, script, script, response=response, failures=failures) as edge:
        with Client(edge) as client:
            assert client.ask(websocket()).status == 101
        with Client(edge) as client:
            assert client.ask(websocket(path="/no")).fields["x"] == "y"
        with H2Client(edge) as client:
            assert opened(client, connect(client, fields=[("sec-websocket-version", "13")])).status == 200
            assert client.response(connect(client, "/no", fields=[("sec-websocket-version", "13")])).fields["x"] == "y"
        edge.until_idle()
    assert failures == []
    assert seen == [("1.1", "/no", 403), ("2", "/no", 403)]


def test_several_wait_one_after_the_other(protocol, gate):
    def appends(name):
        async def response(request, response):
            await gate()
            response.headers["x"] = response.headers.get("x", "") + name

        return response

    def routes(group):
        found = [HookedRoute(group)]
        found[0].hooks = hooks(None, appends("r"))
        return found

    body = bytes(range(256)) * 2000
    ways = {"response": appends("p"), "routes": routes}
    with directed(None, answers(reply(body)), **ways) as edge, Each(edge, protocol) as client:
        for _ in range(2):
            asking = in_thread(client.ask)
            gate.open()
            gate.open()
            _, fields, got = asking()
            assert (fields["x"], got == body) == ("rp", True)


def test_other_streams_go_on_while_one_response_waits(gate):
    async def response(request, response):
        if request.path == "/wait":
            await gate()

    with directed(None, response=response) as edge, H2Client(edge) as client:
        held = client.get("/wait")
        opening = gate.reached()
        assert [bytes(client.ask(f"/{n}").body) for n in range(3)] == [b"GET /0 ", b"GET /1 ", b"GET /2 "]
        opening()
        assert bytes(client.response(held).body) == b"GET /wait "
