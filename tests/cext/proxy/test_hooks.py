"""Hooks in the data plane: what a director sees and does, what connection_state is told, and what their faults cost."""

import gc
import itertools
import queue
import time
import weakref

import pytest
from cext.proxy.hooks import AbortRequest, Hooks, RequestOver
from cext.proxy.router import Route

from tests.cext.proxy.harness import SECONDS, BytesClient, Client, H2Client, echo, get, post, reply, serving, until
from tests.cext.proxy.test_h2_tunnel import connect, opened
from tests.cext.proxy.test_tunnel import echoing, websocket

NAMES = {name: name for name in ("connect", "first_byte", "total", "write_idle", "body_idle", "response_idle")}
NAMES["min_rate"] = "body_rate"


def hooks(director=None, connection_state=None, failures=None):
    """Hooks with limits in ms."""
    failures = [] if failures is None else failures
    return Hooks(
        director,
        connection_state,
        names=NAMES,
        read_limit=lambda name, value: int(value or 0),
        show_limit=lambda name, value: value or None,
        failed=lambda hook, error: failures.append((hook, repr(error))),
    )


def directed(director, *scripts, **settings):
    return serving(*(scripts or [echo]), hooks=hooks(director), **settings)


class Each:
    """A client per protocol, with one way to ask."""

    def __init__(self, protocol):
        self.protocol = protocol

    def ask(self, edge, path="/", fields=()):
        """(status, body), or None when there is a cut."""
        if self.protocol == "2":
            with H2Client(edge) as client:
                answer = client.ask(path, fields=fields)
                return None if answer.reset is not None else (answer.status, bytes(answer.body))
        with Client(edge) as client:
            try:
                answer = client.ask(get(path, *(f"{name}: {value}" for name, value in fields)))
            except (EOFError, OSError):
                return None
            return answer.status, answer.body


@pytest.fixture(params=["1.1", "2"])
def each(request):
    return Each(request.param)


# ---- what a director sees ----


SEEN = ("method", "target", "path", "query", "host", "http_version", "client", "client_port", "pushed", "upstream")


def test_a_request_is_seen_as_it_was_sent(each):
    seen = {}

    def director(request):
        for name in SEEN:
            seen[name] = getattr(request, name)
        seen["headers"] = dict(request.headers)
        seen["route"] = request.route.path
        tls = request.tls
        seen["tls"] = (tls.version, tls.server_name, tls.alpn, tls.resumed, tls.early_data_used)
        seen["cipher"] = tls.cipher_suite
        seen["repr"] = repr(request)

    with directed(director) as edge:
        assert each.ask(edge, "/a%20b?c=%FF?", [("x-one", "1"), ("cookie", "a=b")]) == (200, b"GET /a%20b?c=%FF? ")
    port = seen.pop("client_port")
    assert 0 < port < 65536
    headers = seen.pop("headers")
    assert (headers["x-one"], headers["cookie"]) == ("1", "a=b")
    assert headers.get("host") == "example.com"
    assert seen.pop("cipher").startswith("TLS_")
    assert seen == {
        "method": "GET",
        "target": "/a%20b?c=%FF?",
        "path": "/a%20b",
        "query": "c=%FF?",
        "host": "example.com",
        "http_version": each.protocol,
        "client": "127.0.0.1",
        "pushed": False,
        "upstream": "app",
        "route": "/*",
        "tls": ("TLSv1.3", "example.com", "h2" if each.protocol == "2" else "http/1.1", False, False),
        "repr": "<Request GET example.com/a%20b?c=%FF?>",
    }


def test_headers():
    seen = {}

    def director(request):
        headers = request.headers
        seen["get"] = (headers["ACCEPT"], headers.get("accept"), headers.get("none"), headers.get("none", 1))
        seen["all"] = (headers.get_all("accept"), headers.get_all("none"))
        seen["in"] = ("Accept" in headers, "none" in headers, "acceptx" in headers, "\N{SNOWMAN}" in headers)
        seen["names"] = (list(headers), headers.keys(), len(headers))
        seen["lines"] = headers.lines()
        seen["items"] = dict(headers.items()) == dict(headers)
        seen["latin"] = headers["x-latin"]
        for fault, raised in ((lambda: headers["none"], KeyError), (lambda: headers[1], TypeError)):
            with pytest.raises(raised):
                fault()

    with directed(director) as edge, Client(edge) as client:
        request = get("/", "Accept: a", "X-Latin: \xe4", "ACCEPT: b", "Cookie: c", "Cookie: d")
        assert client.ask(request.decode().encode("latin-1")).status == 200
    assert seen["get"] == ("a, b", "a, b", None, 1)
    assert seen["all"] == (["a", "b"], [])
    assert seen["in"] == (True, False, False, False)
    assert seen["names"] == (["host", "accept", "x-latin", "cookie"],) * 2 + (4,)
    assert ("accept", "b") in seen["lines"]
    assert seen["items"]
    assert seen["latin"] == "\xe4"


def test_what_is_kept_can_be_read_and_no_more():
    kept = []

    def director(request):
        kept.append((request, request.headers))

    with directed(director) as edge, Client(edge) as client:
        client.ask(get("/kept?q"))
        client.ask(get("/next", "X-Secret: 1"))     # where the first one's head was
        request, headers = kept[0]

        def look():
            found = [request.method, request.target, request.host, request.client, request.over, request.tls.version]
            assert dict(headers)["host"] == "example.com"
            assert headers["x-forwarded-for"] == "127.0.0.1"        # as they were sent
            assert "x-secret" not in request.headers
            for change in (
                lambda: headers.add("a", "b"),
                lambda: headers.pop("host2"),
                lambda: setattr(request, "path", "/x"),
                lambda: setattr(request, "host", "x"),
                lambda: setattr(request, "upstream", "app"),
                lambda: request.respond(200),
            ):
                with pytest.raises(RequestOver, match="too late"):
                    change()
            for use in (request.abort, lambda: setattr(request.timeouts, "total", 1)):
                with pytest.raises(RequestOver, match="has ended"):
                    use()
            return found

        assert edge.call(look) == ["GET", "/kept?q", "example.com", "127.0.0.1", True, "TLSv1.3"]
        client.close()
        edge.until_idle()

        def look_again():
            with pytest.raises(RequestOver, match="connection"):
                print(request.tls)
            return request.path

        assert edge.call(look_again) == "/kept"


def test_kept_or_not_nothing_leaks():
    made = []

    class WatchedError(Exception):
        pass

    def director(request):
        marker = WatchedError()
        marker.request = request
        made.append(weakref.ref(marker))
        raise marker

    with serving(echo, hooks=Hooks(
        director, None, names={}, read_limit=None, show_limit=None, failed=lambda hook, error: None
    )) as edge, Client(edge) as client:
        for _ in range(5):
            assert client.ask(get()).status == 500
        edge.call(gc.collect)
        assert [ref() for ref in made] == [None] * 5


def test_requests_without_a_route_are_directed_and_malformed_ones_are_not():
    seen = []
    here = {"routes": lambda group: [Route(group, path="/here")]}

    def director(request):
        seen.append((request.path, request.route and request.route.path, request.upstream))

    with directed(director, **here) as edge, Client(edge) as client:
        assert client.ask(get("/elsewhere")).status == 404
        assert client.ask(get("/here")).status == 200
        assert client.ask(b"BAD\r\n\r\n").status == 400
    assert seen == [("/elsewhere", None, None), ("/here", "/here", "app")]


def test_pushed_requests_are_directed_too():
    seen = []

    def script(conn):
        while True:
            page = conn.request().start.startswith("GET /page")
            conn.send(reply(fields=["Link: </s.css>; rel=preload"] if page else ()))

    with directed(lambda r: seen.append((r.path, r.pushed)), script, push=True) as edge, H2Client(edge) as client:
        ((stream, _),) = client.ask("/page").promises
        client.response(stream)
    assert seen == [("/page", False), ("/s.css", True)]


def test_a_websocket_is_a_get():
    seen = []

    def director(request):
        headers = request.headers
        seen.append((request.method, request.target, request.http_version, headers.get("sec-websocket-version")))
        if request.path == "/abort":
            request.abort()

    version = ("sec-websocket-version", "13")
    with directed(director, echoing, echoing) as edge:
        with Client(edge) as client:
            assert client.ask(websocket()).status == 101
            client.send(b"abc")
            assert client.exactly(3) == b"abc"
        with Client(edge) as client, pytest.raises((EOFError, OSError)):
            client.ask(websocket(path="/abort"))
        with H2Client(edge) as client:
            assert opened(client, connect(client, fields=[version])).status == 200
            assert opened(client, connect(client, "/abort", fields=[version])).reset == 8       # RFC 8441, section 5
        edge.until_idle()
    assert seen == [("GET", path, v, "13") for v in ("1.1", "2") for path in ("/chat", "/abort")]


def test_a_tunnel_is_aborted_and_its_limits_change(each):
    kept = queue.SimpleQueue()
    names = {"websocket_idle": "tunnel_idle"}
    limits = {"read_limit": lambda name, value: value, "show_limit": lambda name, value: value}
    of_policy = Hooks(kept.put, None, names=names, failed=print, **limits)
    for use in (lambda r: r.abort(), lambda r: setattr(r.timeouts, "websocket_idle", 50)):
        with serving(echoing, hooks=of_policy) as edge:
            client = H2Client(edge) if each.protocol == "2" else Client(edge)
            with client:
                if each.protocol == "2":
                    stream = connect(client)
                    assert opened(client, stream).status == 200
                else:
                    assert client.ask(websocket()).status == 101
                request = kept.get(timeout=SECONDS)
                edge.call(lambda use=use, request=request: use(request))
                until(lambda request=request: edge.call(lambda: request.over))
            edge.until_idle()


# ---- timeouts ----


def test_limits_are_seen_and_set():
    seen = []

    def director(request):
        timeouts = request.timeouts
        seen.append((timeouts.total, timeouts.first_byte, timeouts.min_rate))
        timeouts.total = 5000
        timeouts.min_rate = 10
        timeouts.first_byte = None
        seen.append((timeouts.total, timeouts.first_byte, timeouts.min_rate))
        with pytest.raises(AttributeError, match="no timeout 'totl': there are connect, first_byte"):
            timeouts.totl = 1
        with pytest.raises(AttributeError, match="no timeout"):
            print(timeouts.totl)
        assert "min_rate" in dir(timeouts)

    with directed(director, timeouts={"first_byte": 7000}) as edge, Client(edge) as client:
        for _ in range(2):          # each request has its own
            assert client.ask(get()).status == 200
    assert seen == [(None, 7000, None), (5000, None, 10)] * 2


@pytest.mark.parametrize("name", ["first_byte", "total"])
def test_a_limit_of_one_request(each, name):
    def director(request):
        if request.path == "/soon":
            setattr(request.timeouts, name, 60)

    def script(conn):
        while True:
            conn.request()
            time.sleep(0.3)
            conn.send(reply())

    with directed(director, script) as edge:
        assert each.ask(edge, "/soon")[0] == 504
        assert each.ask(edge, "/later")[0] == 200
        edge.stop()
        assert [entry.get("error") for entry in edge.log()] == [f"timeout: {name}", None]


def test_no_limit_where_the_route_has_one(each):
    def director(request):
        if request.path == "/slow":
            request.timeouts.first_byte = None

    def script(conn):
        while True:
            conn.request()
            time.sleep(0.3)
            conn.send(reply())

    with directed(director, script, timeouts={"first_byte": 60}) as edge:
        assert each.ask(edge, "/slow")[0] == 200
        assert each.ask(edge)[0] == 504


def test_limits_change_while_the_request_runs(each):
    kept = queue.SimpleQueue()

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        conn.sock.recv(1)

    with directed(kept.put, script) as edge:
        client = H2Client(edge) if each.protocol == "2" else Client(edge)
        with client:
            stream = client.get("/") if each.protocol == "2" else client.send(get())
            request = kept.get(timeout=SECONDS)
            if each.protocol == "2":
                client.until(lambda: client.responses[stream].body == b"ab")
            else:
                assert client.head().status == 200
            edge.call(lambda: setattr(request.timeouts, "response_idle", 50))
            if each.protocol == "2":
                assert client.response(stream).reset is not None
            else:
                with pytest.raises((EOFError, OSError)):
                    client.exactly(4)
            until(lambda: edge.call(lambda: request.over))
        edge.until_idle()
        edge.stop()
        assert edge.log()[0]["error"] == "timeout: response_idle"


def test_the_clients_side_follows_too():
    """body_idle and write_idle are watched by the session: it is told."""

    def director(request):
        request.timeouts.body_idle = 60

    with directed(director) as edge:
        with Client(edge) as client:
            client.send(post(b"x" * 10)[:-5])
            assert client.response().status == 408
        with H2Client(edge) as client:
            stream = client.post(b"x", end=False)
            assert client.response(stream).status == 408


# ---- aborts ----


def by_method(request):
    request.abort()


def by_exception(request):
    raise AbortRequest


@pytest.mark.parametrize("how", [by_method, by_exception])
def test_a_director_aborts(each, how):
    def director(request):
        if request.path == "/abort":
            how(request)

    with directed(director) as edge:
        assert each.ask(edge, "/abort") is None
        assert each.ask(edge) == (200, b"GET / ")
        assert edge.counters()["aborts"] == 1
        assert edge.counters()["hook_failures"] == 0
        edge.until_idle()
        edge.stop()
        assert [(e["path"], e.get("error")) for e in edge.log()] == [("/abort", "aborted by the director"), ("/", None)]
        assert [text for level, text in edge.errors if level == "error"] == []


def test_an_abort_leaves_the_other_streams_alone():
    def director(request):
        if request.path == "/abort":
            request.abort()

    with directed(director) as edge, H2Client(edge) as client:
        streams = [client.get(path) for path in ("/1", "/abort", "/2")]
        answers = [client.response(stream) for stream in streams]
        assert [a.reset for a in answers] == [None, 2, None]
        assert [bytes(a.body) for a in answers] == [b"GET /1 ", b"", b"GET /2 "]


def test_an_abort_while_it_runs(each):
    kept = queue.SimpleQueue()

    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        kept.put(conn.sock.recv(1))

    with directed(kept.put, script) as edge:
        client = H2Client(edge) if each.protocol == "2" else Client(edge)
        with client:
            stream = client.get("/") if each.protocol == "2" else client.send(get())
            request = kept.get(timeout=SECONDS)
            edge.call(request.abort)
            if each.protocol == "2":
                assert client.response(stream).reset == 2
                assert kept.get(timeout=SECONDS) == b""     # the upstream's connection is given up
                assert edge.call(lambda: request.over)
            else:
                with pytest.raises((EOFError, OSError)):
                    client.exactly(1000)
        edge.until_idle()
        edge.stop()
        assert edge.log()[0]["error"] == "aborted by a hook"


def test_twice_is_once():
    kept = []

    def director(request):
        kept.append(request)
        request.abort()
        request.abort()

    with directed(director) as edge, H2Client(edge) as client:
        assert client.ask("/").reset == 2

        def both():
            with pytest.raises(RequestOver):
                kept[0].abort()

        edge.call(both)
        assert edge.counters()["aborts"] == 1


def test_requests_abort_each_other():
    """In the middle of another connection's turn, and within one connection."""
    waiting = []

    def director(request):
        if request.path == "/wait":
            waiting.append(request)
        else:
            for other in waiting:
                other.abort()

    def script(conn):
        while conn.request().start.startswith("GET /end"):
            conn.send(reply())
        conn.sock.recv(1)

    with directed(director, script) as edge, H2Client(edge) as first, H2Client(edge) as second:
        streams = [first.get("/wait") for _ in range(3)]
        until(lambda: len(waiting) == 3)
        own = second.get("/wait")
        until(lambda: len(waiting) == 4)
        assert second.ask("/end").status == 200
        assert [first.response(s).reset for s in streams] == [2] * 3
        assert second.response(own).reset == 2


# ---- faults ----


FAULTS = [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_a_director_that_raises(each, fault):
    failures = []

    def director(request):
        if request.path == "/raise":
            request.timeouts.total = 1
            raise fault

    with serving(echo, hooks=hooks(director, failures=failures)) as edge:
        assert each.ask(edge, "/raise") == (500, b"The request could not be served.\n")
        assert each.ask(edge) == (200, b"GET / ")
        assert edge.counters()["hook_failures"] == 1
        assert edge.counters()["responses_5xx"] == 1
        edge.stop()
        assert [(e["status"], e.get("error")) for e in edge.log()] == [(500, "the director failed"), (200, None)]
    assert failures == [("director", repr(fault))]


def test_the_connection_goes_on_after_it():
    def director(request):
        1 / int(request.path[1:])

    with directed(director) as edge, Client(edge) as client:
        answers = [client.ask(get(path)) for path in ("/1", "/0", "/2")]
        assert [a.status for a in answers] == [200, 500, 200]
        client.send(get("/0") + get("/3"))              # pipelined
        assert [client.response().status for _ in range(2)] == [500, 200]
        assert client.ask(post(b"some content", "/0")).status == 500
        assert client.ended()                           # its content was not read


def test_a_report_that_fails_is_a_line_in_the_log():
    def failed(hook, error):
        raise OSError

    def director(request):
        raise ValueError

    broken = Hooks(director, None, names={}, read_limit=None, show_limit=None, failed=failed)
    with serving(echo, hooks=broken) as edge, Client(edge) as client:
        assert client.ask(get()).status == 500
        assert ("error", "hook director: ValueError, and its report failed: OSError") in edge.errors


# ---- connections ----


class Told:
    def __init__(self):
        self.steps = []
        self.connections = []

    def __call__(self, connection, old, new):
        assert connection.state == new
        if old is None:
            self.connections.append(connection)
        self.steps.append((self.connections.index(connection), old, new))

    def of(self, number):
        return [step[1:] for step in self.steps if step[0] == number]


LIFE = [None, "new", "active", "idle", "active", "idle", "closed"]
LIFE = list(itertools.pairwise(LIFE))


def test_the_steps_of_a_connection(each):
    told = Told()
    of_policy = hooks(connection_state=told)
    with serving(echo, hooks=of_policy) as edge:
        for _ in range(2):
            with H2Client(edge) if each.protocol == "2" else Client(edge) as client:
                for _ in range(2):
                    if each.protocol == "2":
                        assert client.ask("/").status == 200
                        time.sleep(0.05)
                    else:
                        assert client.ask(get()).status == 200
                port = client.sock.getsockname()[1]
            edge.until_idle()
        assert told.of(0) == told.of(1) == LIFE
        first, second = told.connections
        assert (second.client, second.client_port, second.state) == ("127.0.0.1", port, "closed")
        assert first.client_port != port
        assert (second.tls.version, second.tls.server_name) == ("TLSv1.3", "example.com")
        assert of_policy.connections == {}


def test_before_the_handshake_there_is_no_tls():
    seen = []

    def connection_state(connection, old, new):
        seen.append((new, connection.tls and connection.tls.version, repr(connection)))

    with serving(echo, hooks=hooks(connection_state=connection_state)) as edge:
        client = BytesClient(edge)
        client.tcp.sendall(client.records(get()))
        assert client.response().status == 200
        client.close()
        edge.until_idle()
    assert [(new, version) for new, version, _ in seen] == [
        ("new", None), ("active", "TLSv1.3"), ("idle", "TLSv1.3"), ("closed", "TLSv1.3"),
    ]
    assert seen[0][2].startswith("<ClientConnection 127.0.0.1:")


@pytest.mark.parametrize("fault", [ValueError("no"), SystemExit(3)])
def test_a_fault_in_it_harms_nobody(fault):
    failures = []

    def connection_state(connection, old, new):
        raise fault

    with serving(echo, hooks=hooks(connection_state=connection_state, failures=failures)) as edge:
        with Client(edge) as client:
            assert client.ask(get()).status == 200
        edge.until_idle()
        assert edge.counters()["hook_failures"] == 4
    assert failures == [("connection_state", repr(fault))] * 4
