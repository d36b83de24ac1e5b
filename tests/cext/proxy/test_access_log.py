"""The access log's lines: their forms, what no client can put into them, which requests have one, and what becomes of
lines that nobody takes."""

import json
import re
import threading

import pytest
from cext.proxy.access_log import SHARE_ONE
from cext.proxy.gate import GateSettings, ProxySettings
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cext.proxy.harness import Client, H2Client, echo, get, reply, serving, until
from tests.cext.proxy.test_gate import LINE, Proxied

STAMP = rb"\[\d\d/(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)/\d{4}:\d\d:\d\d:\d\d \+0000\]"
COMBINED = re.compile(
    rb'(?P<client>\S+) - - (?P<time>%s) "(?P<request>[^"\n]*)" (?P<status>\d{3}) (?P<sent>\d+) '
    rb'"(?P<referer>[^"\n]*)" "(?P<agent>[^"\n]*)"' % STAMP
)


class Lines:
    """A sink that takes all, or as much as it is let to."""

    def __init__(self, edge, **form):
        self.said = b""
        self.room = 1 << 40
        self.lost = []
        self.edge = edge
        edge.call(lambda: edge.plane.log_to(self.take, lost=self.lost.append, **form))

    def take(self, lines):
        taken = lines[:self.room]
        taken = taken[:taken.rfind(b"\n") + 1]
        self.said += taken
        self.room -= len(taken)
        return len(taken)

    def all(self, count=1):
        """The lines so far, of which there must be `count`; none comes later."""
        self.edge.call(lambda: self.edge.plane.log_to(None))
        assert self.said.count(b"\n") == count
        return self.said.splitlines()


@pytest.fixture(scope="module")
def edge():
    with serving(echo) as edge:
        yield edge


def combined(line):
    found = COMBINED.fullmatch(line)
    assert found, line
    return found.groupdict()


# Combined.


def test_combined(edge):
    lines = Lines(edge, form="combined")
    with Client(edge) as client:
        response = client.ask(get("/a?b=c", "Referer: https://example.com/from", "User-Agent: curl/8 (x)"))
    (line,) = lines.all()
    found = combined(line)
    found.pop("time")
    assert found == {"client": b"127.0.0.1", "request": b"GET /a?b=c HTTP/1.1", "status": b"200",
                     "sent": b"%d" % len(response.body), "referer": b"https://example.com/from",
                     "agent": b"curl/8 (x)"}  # fmt: skip


def test_combined_has_a_dash_for_what_is_not_there(edge):
    lines = Lines(edge, form="combined")
    with Client(edge) as client:
        client.ask(get("/"))
    found = combined(lines.all()[0])
    assert (found["referer"], found["agent"]) == (b"-", b"-")


def test_names_of_fields_are_compared_whole_and_in_any_case(edge):
    lines = Lines(edge, form="combined")
    with Client(edge) as client:
        client.ask(get("/", "X-Referer: no", "Referer-X: no", "USER-AGENT: yes", "reFerer:", "user-agent: second"))
    found = combined(lines.all()[0])
    assert (found["referer"], found["agent"]) == (b"-", b"yes")


def test_versions_in_combined(edge):
    lines = Lines(edge, form="combined")
    with Client(edge) as client:
        client.ask(b"GET /1.0 HTTP/1.0\r\n\r\n")
    with H2Client(edge) as client:
        client.response(client.get("/2"))
    assert [combined(line)["request"] for line in lines.all(2)] == [b"GET /1.0 HTTP/1.0", b"GET /2 HTTP/2.0"]


def test_our_own_answers_count_their_content(edge):
    with serving(lambda conn: None) as failing:
        lines = Lines(failing, form="combined")
        with Client(failing) as client:
            response = client.ask(get("/"))
        with H2Client(failing) as client:
            client.response(client.get("/2"))
        first, second = map(combined, lines.all(2))
    assert (int(first["status"]), int(first["sent"])) == (response.status, len(response.body))
    assert (int(second["status"]), int(second["sent"])) == (response.status, len(response.body))


def test_what_is_no_request_has_a_line(edge):
    lines = Lines(edge, form="combined")
    with Client(edge) as client:
        assert client.ask(b"GARBAGE\r\n\r\n").status == 400
    found = combined(lines.all()[0])
    assert (found["request"], found["status"]) == (b"-", b"400")


HOSTILE = [b'"', b"\\", b'" 200 0 "x', b"\\x22", b"\xff\x80", b"\xe2\x80\xa8", b"\x7f"]


@pytest.mark.parametrize("what", HOSTILE)
def test_combined_cannot_be_forged(edge, what):
    lines = Lines(edge, form="combined")
    field = what.replace(b"\x7f", b"")  # no field may have it
    with Client(edge) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: x" + field + b"y\r\nReferer: x" + field + b"y\r\n\r\n")
        assert client.response().status == 200
        client.send(b"GET /" + what.replace(b" ", b"") + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        status = client.response().status
    first, second = map(combined, lines.all(2))
    assert unescaped(first["agent"]) == unescaped(first["referer"]) == b"x" + field + b"y"
    assert second["status"] == b"%d" % status
    if status == 200:
        assert unescaped(second["request"]) == b"GET /" + what.replace(b" ", b"") + b" HTTP/1.1"


def unescaped(text):
    return re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), text)


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_stay_within_their_place(edge, agent, referer):
    """Whatever a field may hold: the line has the same parts, and the value can be read back."""
    allowed = bytes([9, *range(32, 127), *range(128, 256)])
    agent = bytes(b for b in agent if b in allowed).strip(b" \t")
    referer = bytes(b for b in referer if b in allowed).strip(b" \t")
    for form in ({"form": "combined"}, {"fields": ("user-agent", "referer")}, {"form": "combined", "prefix": b"P=1\n"}):
        lines = Lines(edge, **form)
        with Client(edge) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: " + agent + b"\r\nReferer: " + referer + b"\r\n\r\n")
            assert client.response().status == 200
        edge.call(lambda: edge.plane.log_to(None))
        line = lines.said.split(b"\n")[0]
        if form.get("form") == "combined":
            found = combined(line.removeprefix(b"MESSAGE="))
            assert unescaped(found["agent"]) == (agent or b"-")
            assert unescaped(found["referer"]) == (referer or b"-")
        else:
            record = json.loads(line)
            assert record["request_user_agent"].encode("latin-1") == agent
            assert record["request_referer"].encode("latin-1") == referer


def test_long_values_are_cut(edge):
    for form in ({"form": "combined"}, {"fields": ("user-agent",)}):
        lines = Lines(edge, **form)
        with Client(edge) as client:
            path, agent = b"/" + b"%22" * 2000, b"\x80" * 6000
            client.ask(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nUser-Agent: " + agent + b"\r\n\r\n")
        (line,) = lines.all()
        if "fields" in form:
            agent = json.loads(line)["request_user_agent"]
            assert 300 < len(agent) <= 2048
        else:
            agent = combined(line)["agent"].decode()
            assert agent.startswith("\\x80\\x80")
            assert 2000 < len(agent) <= 2051
            assert agent.endswith("...")
        assert len(line) < 24_000


# Fields of JSON.


def test_fields_of_the_request(edge):
    lines = Lines(edge, fields=("User-Agent", "x-request-id", "missing"))
    with Client(edge) as client:
        client.ask(get("/", "X-Request-Id: 17", "User-Agent: me"))
    record = json.loads(lines.all()[0])
    assert record["request_user_agent"] == "me"
    assert record["request_x_request_id"] == "17"
    assert "request_missing" not in record
    assert "sample" not in record


# The journal.


def test_entries_for_the_journal(edge):
    """A message and a field for each value: NAME=value, and an empty line behind each entry."""
    lines = Lines(edge, prefix=b"PRIORITY=6\nSYSLOG_IDENTIFIER=edge\n", fields=("user-agent",))
    with Client(edge) as client:
        client.ask(get("/a", "User-Agent: m\te"))
        client.ask(get("/b"))
    edge.call(lambda: edge.plane.log_to(None))
    first, second = ([line.partition(b"=") for line in entry.split(b"\n")] for entry in lines.said[:-2].split(b"\n\n"))
    for entry, path in ((first, b"/a"), (second, b"/b")):
        found = {name: value for name, equals, value in entry if equals}
        record = json.loads(found[b"MESSAGE"])
        assert len(found) == len(entry)
        assert all(re.fullmatch(rb"[A-Z][A-Z0-9_]*", name) for name in found)
        assert found[b"EDGE_PATH"] == path == record["path"].encode()
        assert found[b"EDGE_STATUS"] == b"200"
        assert found[b"EDGE_CLIENT"] == b"127.0.0.1"
        assert found[b"SYSLOG_IDENTIFIER"] == b"edge"
    assert {name: value for name, _, value in first}[b"EDGE_REQUEST_USER_AGENT"] == b"m\\x09e"


# Which requests have a line.


def answering(conn):
    """The status that the path names."""
    while True:
        status = conn.request().start.split()[1][1:4]
        conn.send(reply(status=f"{status} X"))


def paths(lines):
    return [json.loads(line)["path"] for line in lines.said.splitlines()]


def test_a_sample():
    with serving(answering) as edge:
        lines = Lines(edge, share=SHARE_ONE // 4)
        with Client(edge) as client:
            for i in range(400):
                client.ask(get(f"/200/{i}"))
                if i % 40 == 0:
                    client.ask(get(f"/503/{i}"))
        edge.call(lambda: edge.plane.log_to(None))
    chosen = [path for path in paths(lines) if path.startswith("/200")]
    assert 50 < len(chosen) < 160
    assert [path for path in paths(lines) if path.startswith("/503")] == [f"/503/{i}" for i in range(0, 400, 40)]
    for record in map(json.loads, lines.said.splitlines()):
        assert ("sample" in record) is (record["status"] == 200)
        assert record.get("sample", 0.25) == 0.25


@pytest.mark.parametrize(("always", "kept"), [
    ((), []), (("5xx",), ["/500"]), (("4xx",), ["/404", "/499"]), (("4xx", "5xx"), ["/404", "/499", "/500"]),
    (("faults",), []),
])
def test_what_has_a_line_in_any_case(always, kept):
    with serving(answering) as edge:
        lines = Lines(edge, share=1, always=always)  # one in 2**32
        with Client(edge) as client:
            for status in (200, 399, 404, 499, 500):
                client.ask(get(f"/{status}"))
        lines.all(len(kept))
    assert paths(lines) == kept


def test_faults_have_a_line():
    def cutting(conn):
        conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")

    with serving(cutting) as edge:
        lines = Lines(edge, share=1, always=("faults",))
        with Client(edge) as client:
            client.send(get("/cut"))
            with pytest.raises(Exception, match=r"."):
                client.response()
        until(lambda: lines.said)
    assert paths(lines) == ["/cut"]


# Where lines go.


def test_lines_that_nobody_takes_wait_then_are_dropped_and_counted():
    with serving(echo) as edge:
        lines = Lines(edge)
        lines.room = 0
        threads = [threading.Thread(target=ask_long, args=(edge, 60)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        dropped = edge.counters()["log_lines_dropped"]
        assert 0 < dropped < 240  # a mebibyte has waited
        lines.room = 1 << 40
        until(lambda: lines.said.count(b"\n") == 240 - dropped)
        assert sum(lines.lost) == dropped
        for line in lines.said.splitlines():
            assert json.loads(line)["status"] == 200
        with Client(edge) as client:
            client.ask(get("/after"))
        until(lambda: b"/after" in lines.said)
        assert edge.counters()["log_lines_dropped"] == dropped


def ask_long(edge, times):
    with Client(edge) as client:
        for _ in range(times):
            client.ask(get("/" + "x" * 8000))


def test_the_rest_is_offered_again_in_order(edge):
    lines = Lines(edge)
    lines.room = 700  # two lines or so
    with Client(edge) as client:
        for i in range(20):
            client.ask(get(f"/{i}"))
    until(lambda: lines.said)
    lines.room = 1 << 40
    until(lambda: lines.said.count(b"\n") == 20)
    assert paths(lines) == [f"/{i}" for i in range(20)]


def test_a_change_of_the_form_loses_nothing(edge):
    first = Lines(edge)
    with Client(edge) as client:
        client.ask(get("/1"))
        second = Lines(edge, form="combined")
        client.ask(get("/2"))
        second.all()
    assert paths(first) == ["/1"]
    assert combined(second.said.splitlines()[0])["request"] == b"GET /2 HTTP/1.1"


def test_the_client_of_a_proxy_is_named():
    gate = GateSettings(proxy=ProxySettings([("127.0.0.0", 8)], False, 0), rules=())
    with serving(echo, listener={"gate": gate}) as edge:
        lines = Lines(edge, form="combined")
        with Proxied(edge, LINE) as client:
            client.ask(get("/"))
        assert combined(lines.all()[0])["client"] == b"192.0.2.1"
