"""Early Hints of our own (RFC 8297): configured, and learned from what backends answered."""

import contextlib
import threading
import time

import pytest
from cext.http.links import links_of
from cext.proxy.hints import EarlyHints, HintTable, rest_of
from cext.proxy.router import Route
from hypothesis import given
from hypothesis import settings as bounded
from hypothesis import strategies as st

from tests.cext.proxy.harness import SECONDS, Client, H2Client, get, reply, serving

STYLE = b"</style.css>; rel=preload; as=style"
FONTS = b"<https://fonts.example>; rel=preconnect"


def early(*links):
    """A 103's text."""
    return b"HTTP/1.1 103 Early Hints\r\n" + b"".join(b"Link: %s\r\n" % link for link in links) + b"\r\n"


@contextlib.contextmanager
def hinting(script, *, table=True, **settings):
    """An edge with one route."""
    hints = EarlyHints(table=HintTable(8) if table else None, **settings)
    with serving(script, routes=lambda group: [Route(group, hints=hints)]) as edge:
        yield edge


def links(answer):
    """The Links of each interim response that came on a stream of HTTP/2."""
    assert all(fields[":status"] == "103" for fields in answer.interim)
    return [fields["link"] for fields in answer.interim]


# ---- configured ----


def test_they_come_before_the_backend_answers():
    seen = threading.Event()

    def script(conn):
        conn.request()
        if seen.wait(SECONDS):
            conn.send(reply())

    with hinting(script, links=[STYLE], table=False) as edge, H2Client(edge) as client:
        stream = client.get("/")
        client.until(lambda: client.responses[stream].interim)
        seen.set()
        answer = client.response(stream)
        assert links(answer) == [STYLE.decode()]
        assert (answer.status, answer.body) == (200, b"ok")


def test_http1_where_it_is_wanted():
    def script(conn):
        while True:
            conn.request()
            conn.send(reply())

    with hinting(script, links=[STYLE, FONTS], http1=True) as edge, Client(edge) as client:
        for _ in range(2):
            client.send(get())
            hint = client.response()
            assert hint.start == "HTTP/1.1 103 Early Hints"
            assert hint.fields == {"link": FONTS.decode()}      # the last of two lines
            assert client.response().body == b"ok"
        client.send(get(version="1.0"))
        assert client.response().status == 200
    with hinting(script, links=[STYLE]) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200


def test_what_gets_none():
    def script(conn):
        while True:
            request = conn.request()
            conn.send(reply(b"" if request.start.startswith("HEAD") else b"ok"))

    with hinting(script, links=[STYLE], table=False) as edge, H2Client(edge) as client:
        assert links(client.response(client.post(b"x"))) == []
        assert links(client.response(client.get("/", method="HEAD"))) == []
        assert links(client.ask("/", fields=[("sec-fetch-mode", "no-cors")])) == []
        assert links(client.ask("/", fields=[("sec-fetch-mode", "navigate")])) == [STYLE.decode()]
        assert links(client.ask("*", method="OPTIONS")) == []


def test_what_asks_for_another_protocol_gets_none():
    """Clients of WebSockets take the first response for the answer."""

    def script(conn):
        while True:
            conn.request()
            conn.send(reply())

    with hinting(script, links=[STYLE], http1=True) as edge, Client(edge) as client:
        assert client.ask(get("/", "Connection: Upgrade", "Upgrade: websocket")).status == 200
        assert client.ask(get("/")).status == 103


def test_an_upstream_that_is_not_there():
    with hinting(lambda conn: None, links=[STYLE], table=False) as edge, H2Client(edge) as client:
        answer = client.ask("/")
        assert (links(answer), answer.status) == ([STYLE.decode()], 502)


def test_a_backends_own_hints_follow_without_what_was_said():
    told = []

    def script(conn):
        while True:
            conn.request()
            conn.send(told[0] + reply())

    with hinting(script, links=[STYLE, FONTS], table=False) as edge, H2Client(edge) as client:
        told[:] = [early(STYLE)]
        assert links(client.ask("/")) == [FONTS.decode()]
        told[:] = [early(b"</style.css>;rel=preload, </a.js>; rel=preload", b"<https://fonts.example>; rel=preconnect")]
        assert [i["link"] for i in client.ask("/").interim] == [FONTS.decode(), "</a.js>; rel=preload"]
        told[:] = [early(b"</style.css>; rel=modulepreload")]       # the same, but something else is to be done with it
        assert [i["link"] for i in client.ask("/").interim] == [FONTS.decode(), "</style.css>; rel=modulepreload"]
        told[:] = [b"HTTP/1.1 103 Early Hints\r\nX-Other: 1\r\n\r\n"]
        assert client.ask("/").interim[1]["x-other"] == "1"
        told[:] = [b"HTTP/1.1 102 Processing\r\nLink: %s\r\n\r\n" % STYLE]
        assert client.ask("/").interim[1][":status"] == "102"


def test_pushed_requests_get_none_and_hints_push_once():
    def script(conn):
        while True:
            page = conn.request().start.startswith("GET /page")
            conn.send(reply(fields=["Link: </style.css>; rel=preload"] if page else ()))

    hints = EarlyHints([STYLE])
    with serving(script, routes=lambda group: [Route(group, hints=hints, push=True)]) as edge, H2Client(edge) as client:
        page = client.ask("/page")
        ((stream, fields),) = page.promises
        assert fields[":path"] == "/style.css"
        assert client.response(stream).interim == []


@pytest.mark.parametrize(
    "link",
    [
        b"",
        b"/style.css",
        b"</style.css>",
        b"</style.css>; rel=next",
        b"</style.css>; rel=preload, </b>; rel=preload",
        b"</style.css>; rel=preload\r\nSet-Cookie: a=b",
        b"</style.css>; rel=preload; x=\"\r\nSet-Cookie: a=b\"",
        b"</style.css>; rel=preload; x=\"\n\"",
        b"</style.css>; rel=preload; x=\"\0\"",
        b"</style.css>; rel=preload ",
        b" </style.css>; rel=preload",
        b"</style.css>; rel=preload; anchor=\"/x\"",
        b"<>; rel=preload",
        b"</" + b"x" * 5000 + b">; rel=preload",
    ],
)
def test_what_is_no_hint(link):
    with pytest.raises(ValueError):
        EarlyHints([link])


def test_too_many():
    assert EarlyHints([b"</%d>; rel=preload" % i for i in range(32)]).answer(get(), 0).count(b"Link: ") == 32
    with pytest.raises(ValueError, match="at most 32"):
        EarlyHints([b"</%d>; rel=preload" % i for i in range(33)])


# ---- learned ----


class Page:
    """A backend whose answer the test sets."""

    def __init__(self, *fields, status="200 OK"):
        self.set(*fields, status=status)

    def set(self, *fields, status="200 OK"):
        self.fields, self.status = fields, status

    def __call__(self, conn):
        while True:
            conn.request()
            conn.send(reply(status=self.status, fields=self.fields))


PRELOAD = "Link: </a.js>; rel=preload; as=script"


def hinted(client, path="/", **how):
    return [link for interim in client.ask(path, **how).interim for link in [interim["link"]]]


def test_what_a_response_preloads_is_hinted_the_next_time():
    page = Page('Link: </a.js>; rel=preload, </b>; rel=next, <c.css>;rel="x preload"', "Link: <d>; rel=preconnect")
    with hinting(page) as edge, H2Client(edge) as client:
        assert client.ask("/").interim == []
        assert client.ask("/?other=query").interim[0]["link"] == "<d>; rel=preconnect"      # the last of three
        assert hinted(client, "/elsewhere") == []
        assert hinted(client, "/", authority="other.example") == []
        assert len(hinted(client, "/", authority="EXAMPLE.com")) == 1


def test_they_join_those_of_the_configuration():
    hints = EarlyHints([STYLE], HintTable(8))
    page = Page("Link: </style.css>; rel=preload; as=other, </b.js>; rel=preload, </b.js>; rel=preload")
    with serving(page, routes=lambda group: [Route(group, hints=hints)]) as edge:
        with H2Client(edge) as client:
            client.ask("/")
        assert edge.call(lambda: hints.answer(get(), 0)) == early(STYLE, b"</b.js>; rel=preload")


def test_they_are_forgotten_when_the_page_has_none_any_more():
    for status, fields in [("200 OK", ()), ("404 Not Found", [PRELOAD]), ("302 Found", [PRELOAD, "Location: /x"])]:
        page = Page(PRELOAD)
        with hinting(page) as edge, H2Client(edge) as client:
            client.ask("/")
            assert len(hinted(client)) == 1
            page.set(*fields, status=status)
            assert len(hinted(client)) == 1
            assert hinted(client) == []


def test_what_says_nothing_of_the_page_changes_nothing():
    page = Page(PRELOAD)
    with hinting(page) as edge, H2Client(edge) as client:
        client.ask("/")
        for status in ("304 Not Modified", "206 Partial Content", "500 Oh", "503 Oh", "429 Too Many Requests"):
            page.set(status=status)
            client.ask("/")
        page.set()
        client.ask("/?query")
        client.ask("/", fields=[("cookie", "a=b")])
        client.response(client.post(b"", "/"))
        assert len(hinted(client)) == 1


def test_they_are_forgotten_after_a_time():
    page = Page(PRELOAD)
    with hinting(page, remember_ms=150) as edge, H2Client(edge) as client:
        client.ask("/")
        page.set(status="304 Not Modified")
        assert len(hinted(client)) == 1
        time.sleep(0.2)
        assert hinted(client) == []


@pytest.mark.parametrize(
    "field",
    [
        "Set-Cookie: a=b",
        "Cache-Control: private",
        "Cache-Control: max-age=3, Private",
        'Cache-Control: x="a,\\",b", =, no-store',
        "cache-control: max-age=1\r\nCache-Control: no-store",
        'Cache-Control: private="set-cookie"',
        "Cache-Control: public, private",
        "Vary: *",
        "Vary: Accept-Encoding, Cookie",
        "Vary: User-Agent",
    ],
)
def test_what_is_somebodys_own_is_not_learned(field):
    with hinting(Page(PRELOAD, field)) as edge, H2Client(edge) as client:
        client.ask("/")
        assert hinted(client) == []


@pytest.mark.parametrize("field", ["Cache-Control: no-cache, max-age=3", "Vary: Accept-Encoding,Origin", "Vary:"])
def test_what_is_everybodys_is(field):
    with hinting(Page(PRELOAD, field)) as edge, H2Client(edge) as client:
        client.ask("/")
        assert len(hinted(client)) == 1


@pytest.mark.parametrize("who", [("cookie", "a"), ("authorization", "Basic eDp5")])
def test_who_shows_who_he_is_teaches_only_what_is_public(who):
    page = Page(PRELOAD)
    with hinting(page) as edge, H2Client(edge) as client:
        client.ask("/", fields=[who])
        assert hinted(client, "/", fields=[who]) == []
        page.set(PRELOAD, "Cache-Control: public")
        client.ask("/", fields=[who])
        assert len(hinted(client)) == 1


def test_a_query_teaches_nothing():
    with hinting(Page(PRELOAD)) as edge, H2Client(edge) as client:
        client.ask("/?a")
        client.ask("/?")
        assert hinted(client) == []


def test_content_of_a_get_teaches_nothing():
    """Whoever sends it may have it repeated in a link, and others would be told to fetch that."""
    def script(conn):
        while True:
            asked = conn.request()
            conn.send(reply(fields=[f"Link: </{asked.body.decode() or 'own'}.js>; rel=preload; as=script"]))

    with hinting(script) as edge, H2Client(edge) as client:
        assert client.response(client.post(b"foreign", method="GET")).status == 200
        assert links(client.ask("/")) == []
        assert links(client.ask("/")) == ["</own.js>; rel=preload; as=script"]
        assert client.response(client.post(b"foreign", method="GET")).status == 200
        assert links(client.ask("/")) == ["</own.js>; rel=preload; as=script"]


def test_the_table_is_bounded_and_keeps_what_is_used():
    with hinting(Page(PRELOAD)) as edge, H2Client(edge) as client:     # eight pages
        client.ask("/used")
        for i in range(20):
            client.ask(f"/{i}")
            assert len(hinted(client, "/used")) == 1
        assert [i for i in range(20) if hinted(client, f"/{i}")] == []     # each look teaches one, and forgets another
        client.ask("/" + "x" * 2000)
        assert hinted(client, "/" + "x" * 2000) == []


def test_what_a_page_can_make_us_keep_is_bounded():
    many = [f"Link: </{i}>; rel=preload" for i in range(100)]
    long = [f"Link: </{'x' * 3000}{i}>; rel=preload" for i in range(2)]
    for fields, kept in ((many, 32), (long, 1)):
        table = HintTable(8)
        hints = EarlyHints(table=table)
        with serving(Page(*fields), routes=lambda group, hints=hints: [Route(group, hints=hints)]) as edge:
            with H2Client(edge) as client:
                client.ask("/")
            text = edge.call(lambda hints=hints: hints.answer(get(), 0))
            assert text.count(b"Link: ") == kept
            assert len(text) <= 4096


# ---- whatever comes ----

PARTS = [b"<", b">", b'"', b"\\", b";", b",", b"=", b" ", b"rel", b"preload", b"anchor", b"/a", b"\xff"]
PARTS.append(b"</b>; rel=preload")
VALUES = st.lists(st.sampled_from(PARTS), max_size=40).map(b"".join)
NAMES = st.sampled_from([b"Link", b"Cache-Control", b"Vary", b"X-Other"])


def head(status, fields):
    return b"HTTP/1.1 %s\r\n" % status + b"".join(b"%s: %s\r\n" % field for field in fields) + b"\r\n"


@bounded(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=40))
def test_what_was_learned_is_a_103_of_links_that_were_there(fields):
    hints = EarlyHints([STYLE], HintTable(2))
    hints.study(b"example.com", b"/", b"", head(b"200 OK", fields), 0)
    text = hints.answer(get(), 1)
    start, *lines = text.split(b"\r\n")
    assert (start, lines[-2:]) == (b"HTTP/1.1 103 Early Hints", [b"", b""])
    assert lines[0] == b"Link: " + STYLE
    assert len(lines) <= 34
    assert len(text) <= 4096
    there = [link for name, value in fields if name == b"Link" for link, *_ in links_of(value.strip())]
    for line in lines[1:-2]:
        assert line.removeprefix(b"Link: ") in there
        assert links_of(line.removeprefix(b"Link: "))[0][2]


@bounded(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=20))
def test_what_is_left_of_a_103_has_nothing_that_was_said(fields):
    sent = early(b"</b>; rel=preload; as=style")
    before = [(name, value.strip()) for name, value in fields]
    links = [value for name, value in before if name == b"Link"]
    rest = rest_of(head(b"103 Early Hints", fields), sent)
    known = [link[0] for value in links for link in links_of(value) if link[1:3] == (b"/b", 1)]
    if not known:
        assert rest == (links, [field for field in before if field[0] != b"Link"])
    elif rest is not None:
        assert rest[1] == [field for field in before if field[0] != b"Link"]
        assert [link for link in rest[0] if link in known] == []
    else:
        assert {link for value in links for link, *_ in links_of(value)} == set(known)
