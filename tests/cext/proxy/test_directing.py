"""What a director changes and answers: the head that goes upstream is as well formed as a client's, and nothing else
than it was told to be."""

import contextlib

import h11
import pytest
from cext.proxy.pool import UpstreamGroup
from cext.proxy.router import HookedRoute, Route
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.cext.proxy.harness import Backend, Client, H2Client, echo, get, post, reply, serving
from tests.cext.proxy.hooked import directed, hooks, recording
from tests.cext.proxy.test_h2_tunnel import connect, opened
from tests.cext.proxy.test_tunnel import echoing, websocket


class Each:
    """A client of either protocol, with one way to ask."""

    def __init__(self, edge, protocol):
        self.client = (H2Client if protocol == "2" else Client)(edge)
        self.protocol = protocol

    def __enter__(self):
        self.client.__enter__()
        return self

    def __exit__(self, *how):
        self.client.__exit__(*how)

    def ask(self, path="/", fields=(), method="GET", body=None):
        """(status, fields, content)."""
        if self.protocol == "2":
            if body is not None:
                stream = self.client.post(b"", path, method=method, fields=fields, end=False)
                self.client.upload(stream, body)
                answer = self.client.response(stream)
            else:
                answer = self.client.ask(path, method=method, fields=fields)
            found = dict(answer.fields)
            return int(found[":status"]), found, bytes(answer.body)
        lines = [f"{name}: {value}" for name, value in fields]
        request = post(body, path, *lines, method=method) if body is not None else get(path, *lines, method=method)
        answer = self.client.ask(request, head_only=method == "HEAD")
        return answer.status, answer.fields, answer.body


@pytest.fixture(params=["1.1", "2"])
def protocol(request):
    return request.param


# ---- changes ----


def test_what_is_changed_is_what_the_upstream_gets(protocol):
    def director(request):
        headers = request.headers
        headers["X-New"] = " one\t"
        headers["accept"] = "text/html"
        headers.add("X-List", "a")
        headers.add("X-List", "b")
        del headers["X-Gone"]
        assert headers.pop("x-none", "nothing") == "nothing"
        assert headers.pop("X-Taken") == "t"
        assert request.path == "/asked"
        request.path = "/sent"
        assert (request.target, request.query) == ("/sent?a=b", "a=b")
        request.query = "c=d?e"
        request.host = "inside.example:8080"
        assert (request.host, headers["x-new"], headers.get_all("x-list")) == ("inside.example:8080", "one", ["a", "b"])

    heads = []
    with directed(director, recording(heads)) as edge, Each(edge, protocol) as client:
        fields = [("accept", "*/*"), ("accept", "a/b"), ("x-gone", "1"), ("x-taken", "t"), ("x-stays", "s")]
        assert client.ask("/asked?a=b", fields)[0] == 200
        assert client.ask("/asked?a=b", fields)[0] == 200
    assert len(heads) == 2
    for request in heads:
        found = dict(request.fields)
        assert request.start == "GET /sent?c=d?e HTTP/1.1"
        assert found.pop("host") == "inside.example:8080"
        assert found.pop("x-forwarded-host") == "example.com"      # what the client asked for
        assert found.pop("x-forwarded-for") == "127.0.0.1"
        assert found.pop("x-forwarded-proto") == "https"
        assert found == {"accept": "text/html", "x-stays": "s", "x-new": "one", "x-list": "b"}
    line = edge.log()[0]
    assert (line["path"], line["host"]) == ("/asked?a=b", "example.com")
    assert (line["sent_path"], line["sent_host"]) == ("/sent?c=d?e", "inside.example:8080")


def test_a_name_that_cgi_cannot_tell_apart_goes_with_the_one_that_is_set(protocol):
    def director(request):
        request.headers["X-User"] = "alice"
        request.headers.pop("X-Role")

    heads = []
    with directed(director, recording(heads)) as edge, Each(edge, protocol) as client:
        client.ask("/", [("x_user", "root"), ("x-user", "root"), ("x_role", "admin"), ("x-rolex", "1")])
    found = {name: value for name, value in heads[0].fields.items() if "user" in name or "role" in name}
    assert found == {"x-user": "alice", "x-rolex": "1"}


BAD_FIELDS = [
    ("", "v"), ("a b", "v"), ("a:", "v"), ("a\r\nb", "v"), ("\xe4", "v"), ("a" * 300, "v"),
    ("a", "x\r\ny: z"), ("a", "x\n"), ("a", "\0"), ("a", "\x7f"), ("a", "\u20ac"), ("a", "x" * 40000),
    ("Content-Length", "5"), ("Transfer-Encoding", "chunked"), ("Connection", "close"), ("Keep-Alive", "x"),
    ("TE", "trailers"), ("Trailer", "x"),
    ("Upgrade", "h2c"), ("Expect", "100-continue"), ("Host", "x"), ("Proxy-Connection", "close"),
    ("Proxy-Authorization", "x"), ("Proxy", "x"), ("Max-Forwards", "1"), ("Early-Data", "1"), ("Content_Length", "5"),
    ("transfer_encoding", "chunked"), ("X-Forwarded-For", "1.2.3.4"), ("X_Forwarded_For", "1.2.3.4"),
    ("x-forwarded-port", "1"), ("X-Real-IP", "1"), ("Sec-WebSocket-Key", "x"),
]


def test_what_cannot_stand_in_a_head_is_refused_where_it_is_written():
    tried = []

    def director(request):
        headers = request.headers
        for name, value in BAD_FIELDS:
            for use in (headers.__setitem__, headers.add):
                with pytest.raises(ValueError, match=r"."):
                    use(name, value)
        for name in ("content-length", "host", "connection", "x-forwarded-for", "a b"):
            with pytest.raises(ValueError, match=r"."):
                del headers[name]
        for name, value in ((1, "x"), ("a", 1), ("a", b"x"), (b"a", "x"), ("a", None)):
            with pytest.raises(TypeError):
                headers[name] = value
        with pytest.raises(KeyError):
            del headers["x-none"]
        for part, values in {
            "path": ["", "x", "/ ", "/a?b", "/\r\n", "/#", "/\xe4", "*", "/" * 20000],
            "query": ["a b", "a#", "\n"],
            "target": ["", "http://x/", "/ HTTP/1.1", "/\0"],
            "host": ["", "a b", "a/b", "u@h", "h:0", "h:99999", "a,b", "\r\n"],
            "upstream": ["none", "", None],
        }.items():
            for value in values:
                with pytest.raises(ValueError, match=r"."):
                    setattr(request, part, value)
        for part in ("path", "query", "target", "host"):
            with pytest.raises(TypeError):
                setattr(request, part, b"/x")
        for part in ("method", "headers", "client", "tls"):
            with pytest.raises(AttributeError):
                setattr(request, part, "x")
        tried.append(request.path)

    heads, failures = [], []
    with directed(director, recording(heads), failures=failures) as edge, Client(edge) as client:
        assert client.ask(get("/x?y", "X-A: 1")).status == 200
    assert (tried, failures) == (["/x"], [])
    assert heads[0].start == "GET /x?y HTTP/1.1"
    assert set(heads[0].fields) == {"host", "x-a", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}


def test_forwarded_fields_may_be_written_where_edge_writes_none():
    def director(request):
        request.headers["X-Forwarded-For"] = "192.0.2.1"
        with pytest.raises(ValueError, match="listener"):
            request.headers["Forwarded"] = "for=x"

    heads = []
    way = {"x_forwarded": False, "forwarded": True}
    with directed(director, recording(heads), listener=way) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200
    assert heads[0].fields["x-forwarded-for"] == "192.0.2.1"


def test_a_head_has_room_for_so_much_and_no_more():
    def director(request):
        for i in range(200):
            request.headers.add(f"x-{i}", "v")
        with pytest.raises(ValueError, match="no room"):
            for i in range(200):
                request.headers.add(f"y-{i}", "v")
        with pytest.raises(ValueError, match="no room"):
            for _ in range(100):
                request.headers["x-1"] = "z" * 30000

    heads, failures = [], []
    with directed(director, recording(heads), failures=failures) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200
    assert failures == []
    assert heads[0].fields["x-199"] == "v"


def test_the_changed_request_decides_the_route(protocol):
    def director(request):
        assert request.route is None or request.path == "/one"
        if request.path == "/old":
            request.path = "/one"
        if request.host == "old.example":
            request.host = "new.example"

    one, two = [], []
    other = UpstreamGroup("two", [Backend(recording(two, b"two")).address])
    routes = {
        "routes": lambda group: [Route(group, path="/one"), Route(other, hosts=["new.example"], path="/two")],
        "upstreams": [other],
    }
    with directed(director, recording(one, b"one"), **routes) as edge, Each(edge, protocol) as client:
        assert client.ask("/old")[2] == b"one"
        assert client.ask("/one")[2] == b"one"
        assert client.ask("/none")[0] == 404
        assert client.ask("/two")[0] == 404


def test_a_director_chooses_the_upstream(protocol):
    def director(request):
        if request.path != "/one":
            before = request.upstream
            request.upstream = "two"
            assert (before, request.upstream) == ("app" if request.route else None, "two")

    other = UpstreamGroup("two", [Backend(recording([], b"two")).address])
    ways = {"routes": lambda group: [Route(group, path="/one"), Route(group, path="/two")], "upstreams": [other]}
    with directed(director, recording([], b"one"), **ways) as edge, Each(edge, protocol) as client:
        assert [client.ask(path)[2] for path in ("/one", "/two", "/no/route")] == [b"one", b"two", b"two"]


def test_limits_of_time_stay_with_a_changed_request(protocol):
    def director(request):
        request.timeouts.first_byte = 30
        request.path = "/changed"
        assert request.timeouts.first_byte == 30

    def silent(connection):
        return connection.sock.recv(9999) and connection.sock.recv(1)

    with directed(director, silent) as edge, Each(edge, protocol) as client:
        assert client.ask()[0] == 504
    assert edge.log()[0]["error"] == "timeout: first_byte"


def test_content_streams_through_a_changed_request(protocol):
    body = bytes(range(256)) * 2000
    with directed(lambda request: request.headers.__setitem__("x", "y")) as edge, Each(edge, protocol) as client:
        assert client.ask("/up", body=body, method="POST")[2] == b"POST /up " + body
        assert client.ask("/up")[2] == b"GET /up "


def test_limits_count_a_changed_request_once(protocol):
    def director(request):
        if request.path == "/a":
            request.path = "/b"

    ways = {"routes": lambda group: [Route(group, path="/a", max_running=1), Route(group, path="/b", max_running=1)]}
    listener = {"per_address": 9, "requests_per_address": 1}
    with directed(director, listener=listener, **ways) as edge, Each(edge, protocol) as client:
        for _ in range(3):
            assert client.ask("/a")[2] == b"GET /b "
            assert client.ask("/b")[2] == b"GET /b "


def test_a_websocket_is_what_the_director_makes_of_it():
    def director(request):
        if request.path == "/elsewhere":
            request.path = "/chat"
        request.headers["x-user"] = "me"
        if request.path == "/answered":
            if request.http_version == "2":
                with pytest.raises(ValueError, match="WebSocket"):
                    request.respond(200)
            request.respond(403, body="no")

    ways = {"routes": lambda group: [Route(group, path="/chat"), Route(group, path="/plain", upgrade=())]}
    failures = []
    with directed(director, echoing, echoing, failures=failures, **ways) as edge:
        with Client(edge) as client:
            assert client.ask(websocket(path="/elsewhere")).status == 101
            client.send(b"abc")
            assert client.exactly(3) == b"abc"
        with Client(edge) as client:
            assert client.ask(websocket(path="/answered")).status == 403
            assert client.ask(websocket(path="/answered")).status == 403
        with H2Client(edge) as client:
            stream = connect(client, "/elsewhere", fields=[("sec-websocket-version", "13")])
            assert opened(client, stream).status == 200
            assert client.response(connect(client, "/answered")).status == 403
        edge.until_idle()
    assert failures == []


# ---- answers ----


def test_a_director_answers_itself(protocol):
    def director(request):
        request.respond(503, {"Retry-After": "60", "Content-Type": "text/html"}, "<h1>sp\xe4ter</h1>")

    with directed(director) as edge, Each(edge, protocol) as client:
        for method in ("GET", "HEAD", "OPTIONS", "GET"):
            status, fields, body = client.ask("/none", method=method)
            assert (status, fields["retry-after"], fields["content-type"]) == (503, "60", "text/html")
            assert int(fields["content-length"]) == len("<h1>sp\xe4ter</h1>".encode())
            assert body == (b"" if method == "HEAD" else "<h1>sp\xe4ter</h1>".encode())
            assert "date" in fields
        assert edge.backends[0].accepted == 0
        assert edge.counters()["responses_5xx"] == 4
        assert edge.counters()["became_new"] == 1
    assert [line["status"] for line in edge.log()] == [503] * 4


@pytest.mark.parametrize("status", [200, 204, 205, 301, 304, 404, 599])
def test_answers_with_and_without_content(protocol, status):
    def director(request):
        request.respond(status, [("X-A", "1"), ("X-A", "2")])

    with directed(director) as edge, Each(edge, protocol) as client:
        for _ in range(2):
            got, fields, body = client.ask()
            assert (got, body) == (status, b"")
            assert ("content-length" in fields) == (status not in (204, 304))


def test_an_answer_ends_the_request_whatever_has_come_of_its_content(protocol):
    body = b"x" * 60_000
    with directed(lambda request: request.respond(413, (), b"y" * 300_000)) as edge, Each(edge, protocol) as client:
        assert client.ask("/up", body=body, method="POST")[::2] == (413, b"y" * 300_000)
        assert edge.backends[0].accepted == 0
        if protocol == "2":
            assert client.ask("/again")[0] == 413


def test_what_is_no_response_is_refused_where_it_is_written():
    tried = []

    def director(request):
        for wrong in (
            (100,), (101,), (199,), (600,), (-1,), (200, {"a b": "c"}), (200, {"a": "b\r\n"}),
            (200, {"Content-Length": "1"}),
            (200, {"Transfer-Encoding": "chunked"}), (200, {"Connection": "close"}), (204, (), b"x"), (304, (), "x"),
            (205, (), "x"), (200, [("x", "y")] * 300), (200, [("x", "y", "z")]),
        ):
            with pytest.raises(ValueError, match=r"."):
                request.respond(*wrong)
        for wrong in (("200",), (200, {1: "x"}), (200, {"x": 1}), (200, (), 7), (200, (), None)):
            with pytest.raises(TypeError):
                request.respond(*wrong)
        tried.append(1)

    with directed(director) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200
    assert tried == [1]


def test_what_was_decided_last_counts_and_a_fault_more():
    def director(request):
        request.respond(200, body="first")
        request.respond(201, body="second")
        if request.path == "/abort":
            request.abort()
        if request.path == "/raise":
            raise RuntimeError("no")

    failures = []
    with directed(director, failures=failures) as edge:
        with Client(edge) as client:
            assert client.ask(get()).body == b"second"
            assert client.ask(get("/raise")).status == 500
        with Client(edge) as client, pytest.raises((EOFError, OSError)):
            client.ask(get("/abort"))
    assert failures == [("director", "RuntimeError('no')")]


@pytest.mark.parametrize("name", ["director", "response"])
def test_one_whose_decorator_hides_that_it_is_async_is_a_fault(name):
    """It would never run, and what it was to keep out would pass."""
    async def hidden(*_):
        raise AssertionError

    def plain(*arguments):
        return hidden(*arguments)

    failures = []
    with directed(**{name: plain}, failures=failures) as edge, Client(edge) as client:
        assert client.ask(get()).status == 500
    (hook, error), = failures
    assert hook == name and error.startswith("TypeError('it gave something to await")


# ---- of a route ----


def test_a_routes_own_hooks_come_after_the_policys_and_see_what_it_has_made():
    order = []

    def policy(request):
        order.append("policy")
        request.headers["x-policy"] = "1"
        request.notes["who"] = "policy"

    def of_route(request):
        order.append(f"route {request.notes['who']} {request.path}")
        request.headers["x-route"] = request.headers["x-policy"] + "2"
        request.path = "/other"                 # which asks for no other route
        if request.query == "answer":
            request.respond(418)

    def answered(name):
        def response(request, response):
            response.headers["x-order"] = response.headers.get("x-order", "") + name

        return response

    heads = []

    def routes(group):
        found = [HookedRoute(group, path="/here", max_running=1)]
        found += [Route(group, path=path) for path in ("/there", "/other")]
        found[0].hooks = hooks(of_route, answered("r"))
        return found

    with serving(recording(heads), hooks=hooks(policy, answered("p")), routes=routes) as edge, Client(edge) as client:
        assert client.ask(get("/here")).fields["x-order"] == "rp"
        assert client.ask(get("/there")).fields["x-order"] == "p"
        answer = client.ask(get("/here?answer"))
        assert (answer.status, "x-order" in answer.fields) == (418, False)
        assert client.ask(get("/here")).fields["x-order"] == "rp"
    here = ["policy", "route policy /here"]
    assert order == [*here, "policy", *here, *here]
    assert [h.start.split()[1] for h in heads] == ["/other", "/there", "/other"]
    assert heads[0].fields["x-route"] == "12"


def test_a_route_has_hooks_where_the_policy_has_none(protocol):
    def routes(group):
        found = [HookedRoute(group, path="/here"), Route(group, path="/there")]
        found[0].hooks = hooks(lambda request: request.respond(204))
        return found

    with serving(echo, routes=routes) as edge, Each(edge, protocol) as client:
        assert [client.ask(path)[0] for path in ("/here", "/there", "/nowhere")] == [204, 200, 404]


# ---- whatever a hook writes ----

TEXT = st.text(st.characters(max_codepoint=0x17F), max_size=12) | st.sampled_from(["", "a", "\r\nX: y", "chunked", "0"])
NAME = TEXT | st.sampled_from(
    ["x-a", "X_A", "cookie", "host", "content-length", "transfer-encoding", "connection", "te", "via"]
)
EDITS = st.lists(
    st.tuples(st.sampled_from(["set", "add", "pop"]), NAME, TEXT)
    | st.tuples(st.sampled_from(["path", "query", "target", "host"]), TEXT | TEXT.map(lambda t: "/" + t)),
    max_size=8,
)


def apply(request, edit):
    what, *values = edit
    if what == "set":
        request.headers[values[0]] = values[1]
    elif what == "add":
        request.headers.add(*values)
    elif what == "pop":
        request.headers.pop(values[0])
    else:
        setattr(request, what, values[0])


def test_no_edit_makes_a_malformed_request():
    """Read by h11, which knows no leniency here: one request, its content, and nothing more."""
    edits, got = [], []

    def director(request):
        for edit in edits:
            with contextlib.suppress(ValueError):
                apply(request, edit)

    def script(conn):
        reader = h11.Connection(h11.SERVER)
        while True:
            event = reader.next_event()
            if event is h11.NEED_DATA:
                data = conn.sock.recv(65536)
                reader.receive_data(data)
                if not data:
                    return
            elif isinstance(event, h11.Request):
                got.append((event, bytearray()))
            elif isinstance(event, h11.Data):
                got[-1][1].extend(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert reader.trailing_data[0] == b""
                conn.send(reply())
                reader.send(h11.Response(status_code=200, headers=[("content-length", "2")]))
                reader.send(h11.Data(b"ok"))
                reader.send(h11.EndOfMessage())
                reader.start_next_cycle()
            else:
                return

    with directed(director, script) as edge, Client(edge) as client, H2Client(edge) as other:

        @hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(EDITS, st.binary(max_size=20))
        def check(some, body):
            edits[:] = some
            got.clear()
            assert client.ask(post(body, "/p?q", "X-A: 1", "x_a: 2")).status == 200
            assert other.response(other.post(body, "/p?q", fields=[("x-a", "1"), ("x_a", "2")])).status == 200
            assert len(got) == 2
            for request, content in got:
                assert (request.method, bytes(content)) == (b"POST", body)
                names = [name for name, _ in request.headers]
                assert names.count(b"host") == 1
                assert names.count(b"content-length") + names.count(b"transfer-encoding") == 1
                assert request.target.startswith(b"/")

        check()
