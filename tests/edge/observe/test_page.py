"""What the status page is answered with: whom it is shown to, and what it is told."""

import asyncio
import gzip
import json
import os
import re

import pytest
from cext.base.stats import Tally

from edge.observe import figures
from edge.observe.counting import Counting
from edge.observe.labels import ROUTE, SERVER, UPSTREAM
from edge.observe.observer import Request
from edge.observe.page import site
from edge.observe.page.site import FILES, Page
from edge.observe.settings import StatusPage
from edge.schema import Place, read_table


class View:
    """What the observer knows, by hand."""

    def __init__(self):
        self.counting = Counting(rows=4, room=1024)
        self.counting.join(self.counting.assign("worker"))
        self.tally = Tally(self.counting.table)
        self.state = {
            "pid": 1, "version": "1", "workers": [{"pid": os.getpid(), "row": 1, "slot": 0}, {"pid": 0, "row": None}],
            "certificates": [{"names": [f"{n}.example"], "expires": 1000 - n} for n in range(60)],
        }
        self.looks = 0
        self.exports = None

    def figures(self, rows=None):
        self.looks += rows is None
        return figures.read(self.counting.table, self.counting.labels, rows)

    def count(self, kind, label, status=200, us=1000, times=1):
        for _ in range(times):
            self.tally.request(self.counting.labels.index(kind, label), status, us)


@pytest.fixture
def view():
    return View()


def page(view, **given):
    return Page(view, read_table(StatusPage, {"bind": "127.0.0.1:9146", **given}, Place("edge.toml"))).handlers()


def ask(handlers, path="/", host="127.0.0.1:9146", **headers):
    """(status, {field in lower case: value}, content)"""
    fields = {"host": host, **{name.replace("_", "-"): value for name, value in headers.items()}}
    status, found, content = asyncio.run(handlers[path](Request(path, "", fields)))
    return status, {name.lower(): value for name, value in found}, content


# ---- who may ask

@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9146", "192.0.2.7:80", "[::1]", "[2001:db8::1]:9146", "localhost", "LOCALHOST:9146",
     "localhost.", "status.internal", "Status.Internal.:9146"])
@pytest.mark.parametrize("path", ["/", "/status.json", "/main.js"])
def test_addresses_and_names_of_ours(view, host, path):
    assert ask(page(view, hosts=["status.internal"]), path, host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "status.internal.evil.example",
     "[localhost]", "[127.0.0.1]", "::1", "[::1", "0x7f000001", "127.1", "localhost:x", "localhost:9146:1",
     "a@localhost", "localhost/..", "[::1%lo]", "127.0.0.1\t", "elsewhere.internal"])
@pytest.mark.parametrize("path", ["/", "/status.json"])
def test_anybody_elses_names_are_refused(view, host, path):
    """A site that leads its own name here gets neither page nor figures (DNS rebinding)."""
    status, headers, content = ask(page(view, hosts=["status.internal"]), path, host)
    assert (status, headers["content-type"]) == (421, "text/plain; charset=utf-8")
    assert b"server.status_page.hosts" in content and view.looks == 0


def test_names_without_patterns():
    with pytest.raises(Exception, match="is a pattern"):
        page(None, hosts=["*.internal"])


# ---- files

@pytest.mark.parametrize("path", FILES)
def test_files(view, path):
    handlers = page(view)
    status, headers, content = ask(handlers, path)
    assert (status, headers["content-type"]) == (200, FILES[path][1])
    packed = ask(handlers, path, accept_encoding="br, gzip")
    assert packed[1]["content-encoding"] == "gzip" and gzip.decompress(packed[2]) == content
    assert packed[1]["vary"] == headers["vary"] == "Accept-Encoding"
    status, again, nothing = ask(handlers, path, if_none_match=headers["etag"])
    assert (status, nothing, again["etag"]) == (304, b"", headers["etag"])


@pytest.mark.parametrize("path", [*FILES, "/status.json"])
def test_nothing_from_elsewhere_runs_and_nobody_else_frames_it(view, path):
    _, headers, _ = ask(page(view), path)
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert not re.search(r"unsafe|\*|data:|http", headers["content-security-policy"])
    assert (headers["referrer-policy"], headers["x-frame-options"]) == ("no-referrer", "DENY")
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_the_page_asks_nobody_else_and_has_no_script_of_its_own():
    for name, _ in FILES.values():
        text = (site.DIRECTORY / name).read_text()
        assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function", text), name
    page = (site.DIRECTORY / "index.html").read_text()
    assert not re.search(r"\son\w+\s*=|\sstyle\s*=|<style|<script(?![^>]*\bsrc=)", page)
    wanted = set(re.findall(r"(?:href|src)=\"([^\"]+)\"", page)) | {
        found for name in ("main.js", "attention.js", "chart.js", "tables.js", "history.js", "format.js")
        for found in re.findall(r"from \"([^\"]+)\"", (site.DIRECTORY / name).read_text())}
    assert wanted - {"/status.json"} == set(FILES) - {"/"}


# ---- figures

def status_of(view, **given):
    return json.loads(ask(page(view, **given), "/status.json")[2])


def test_what_is_told(view):
    view.count(ROUTE, "a", us=1000, times=3)
    view.count(ROUTE, "b", status=502, us=3000)
    view.count(UPSTREAM, "app", times=4)
    view.count(SERVER, "app/127.0.0.1:9000", times=4)
    found = status_of(view)
    assert found["requests"]["status"] == {"none": 0, "1xx": 0, "2xx": 3, "3xx": 0, "4xx": 0, "5xx": 1}
    assert {label: one["requests"] for label, one in found["figures"]["routes"].items()} == {"a": 3, "b": 1}
    assert found["figures"]["upstreams"]["app"]["requests"] == 4
    first, counts = found["histograms"]["total"]
    assert sum(counts) == 4 and counts[0] == 3 and counts[-1] == 1
    bounds = found["histograms"]["bounds"]
    assert bounds[first - 1] < 0.001 <= bounds[first]
    assert found["histograms"]["routes"]["b"][1] == [1]
    assert found["more"] == {"routes": 0, "upstreams": 0, "servers": 0, "certificates": 10}
    assert [c["expires"] for c in found["state"]["certificates"]] == list(range(941, 991))
    assert found["processes"]["0"] == {"memory": None}
    assert found["traces"] is None
    own = found["processes"][str(os.getpid())]
    assert own["memory"] > 1 << 20 and own["requests"] == 0


def test_spans(view):
    view.exports = lambda: {"exported": 5, "failed": 1, "dropped": 2}
    assert status_of(view)["traces"] == {"exported": 5, "failed": 1, "dropped": 2}


def test_before_the_master_has_said_anything(view):
    view.state = {}
    found = status_of(view)
    assert found["requests"]["status"] == dict.fromkeys(("none", "1xx", "2xx", "3xx", "4xx", "5xx"), 0)
    assert (found["state"], found["processes"]) == ({"certificates": []}, {})
    assert found["histograms"]["total"] == [0, []]


def test_of_many_the_busiest_are_shown(view):
    for n in range(150):
        view.count(ROUTE, f"r{n}", times=1 + n % 150)
    found = status_of(view)
    assert set(found["figures"]["routes"]) == set(found["histograms"]["routes"]) == {f"r{n}" for n in range(50, 150)}
    assert found["more"]["routes"] == 50
    assert found["requests"]["status"]["2xx"] == sum(range(1, 151)), "all of them are in the sums"


def test_many_who_ask_at_once_are_one_look(view):
    handlers = page(view)
    request = Request("/status.json", "", {"host": "localhost"})

    async def together():
        return await asyncio.gather(*(handlers["/status.json"](request) for _ in range(20)))

    answers = asyncio.run(together())
    assert view.looks == 1 and len({content for _, _, content in answers}) == 1


def test_much_is_compressed(view):
    for n in range(100):
        view.count(ROUTE, f"r{n}")
    handlers = page(view)
    status, headers, content = ask(handlers, "/status.json", accept_encoding="gzip, deflate")
    assert (status, headers["content-encoding"], headers["cache-control"]) == (200, "gzip", "no-store")
    assert gzip.decompress(content) == ask(handlers, "/status.json")[2]


def test_markup_in_json_is_a_string(view):
    """It is application/json, nosniff. Tests of the page look at what that makes of it."""
    view.count(ROUTE, "</script><script>alert(1)</script>\u2028é")
    _, headers, content = ask(page(view), "/status.json")
    assert headers["content-type"] == "application/json" and content.isascii()
    assert "</script><script>alert(1)</script>\u2028é" in json.loads(content)["figures"]["routes"]
