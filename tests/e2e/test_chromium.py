"""Headless Chromium: a page whose style, scripts, images and fetches come through the edge, its CA properly trusted."""

import contextlib
import html
import json
import os
import re
import threading
import time

import pytest

from tests.e2e.processes import peer, run, wait_until
from tests.e2e.relay import Relay
from tests.e2e.scripted import OK
from tests.e2e.sockets import Sockets

SOCKET_PAGE = b"""<!doctype html><link rel="icon" href="data:,"><div id="result">not run</div>
<img src="/hold"><script>           // the image comes when the socket is over: till then the page has not loaded
const facts = {}, sizes = [0, 1, 125, 126, 65536, 1000000];
const socket = new WebSocket("wss://" + location.host + "/echo?QUERY", ["chat"]);
socket.binaryType = "arraybuffer";
const said = new Promise(done => socket.onclose = e => { facts.code = e.code; facts.clean = e.wasClean; done(); });
const next = () => new Promise(done => socket.onmessage = e => done(e.data));
socket.onopen = async () => {
  facts.protocol = socket.protocol;
  facts.extensions = socket.extensions;
  facts.sizes = [];
  for (const size of sizes) {
    socket.send(new Uint8Array(size).fill(7));
    const back = new Uint8Array(await next());
    if (back.length === size && back.every(b => b === 7)) facts.sizes.push(size);
  }
  socket.send("text");
  facts.text = await next();
  socket.close(3333, "enough");
};
said.then(() => { document.getElementById("result").textContent = JSON.stringify(facts); });
</script>"""
SOCKET_FACTS = {
    "code": 3333,
    "clean": True,
    "protocol": "chat",
    "extensions": "permessage-deflate",
    "sizes": [0, 1, 125, 126, 65536, 1_000_000],
    "text": "text",
}

EARLY_PAGE = b"""<!doctype html><link rel="icon" href="data:,"><div id="result">not run</div><img src="/hold"><script>
(async () => {
  const facts = [];
  await new Promise(done => setTimeout(done, 1500));    // the image's connection takes no other request by then
  for (const [path, options] of [["/f/get", {}], ["/f/get?a=1", {}], ["/f/post", {method: "POST", body: "abc"}]])
    facts.push(await (await fetch(path, {cache: "no-store", ...options})).text());
  const socket = new WebSocket("wss://" + location.host + "/f/socket");
  facts.push(await new Promise(done => { socket.onerror = () => done("declined"); socket.onopen = done; }));
  document.getElementById("result").textContent = facts.join(",");
  fetch("/over");                   // till then the page, for its image, has not loaded
})();
</script>"""

FACTS = ["early", "css", "images", "small", "large", "chunked", "stream", "upload", "streamed", "missing", "parallel"]


@pytest.fixture(scope="module")
def home(tmp_path_factory, pki):
    """A home whose NSS database, which Chromium reads, holds the test CA."""
    home = tmp_path_factory.mktemp("chromium")
    database = home / ".pki/nssdb"
    database.mkdir(parents=True)
    certutil = peer("certutil")
    for command in (["-N", "--empty-password"], ["-A", "-n", "test-ca", "-t", "C,,", "-i", pki.ca.file]):
        made = run([certutil, "-d", f"sql:{database}", *command])
        assert made.returncode == 0, made.stdout
    return home


@pytest.fixture(scope="module")
def chromium(home):
    program = peer("chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-default-apps"]
    flags += ["--disable-dev-shm-usage", "--disable-extensions", "--host-resolver-rules=MAP *.test 127.0.0.1"]
    environment = {**os.environ, "HOME": str(home)}
    # Debian's wrapper reads these; a test's browser shall not depend on the user's.
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "CHROMIUM_FLAGS"):
        environment.pop(name, None)

    def dump(url: str, profile: str, *, seconds: int = 20, features: str = "") -> str:
        """The page as it is after so many seconds of its own time; 0: when it has loaded."""
        own = [f"--user-data-dir={home / profile}"]
        if features:
            own.append(f"--enable-features={features}")
        if seconds:
            own.append(f"--virtual-time-budget={seconds * 1000}")
        return run([program, *flags, *own, "--dump-dom", url], seconds=90, env=environment).stdout

    return dump


@pytest.fixture(scope="module")
def page(chromium, edge):
    return chromium(edge.url("/index.html"), "page")


@pytest.fixture(scope="module")
def facts(page) -> dict:
    found = re.search(r'<div id="result">(.*?)</div>', page)
    assert found, page[-3000:]
    told = html.unescape(found[1])
    assert told.startswith("{"), page[-3000:]
    return json.loads(told)


@pytest.mark.parametrize("fact", FACTS)
def test_page(facts, fact):
    assert facts.get(fact) is True, str(facts)


def test_every_resource_came_through(edge, facts):
    for path in ("/index.html", "/page/style.css", "/page/early.js", "/page/image.svg", "/page/late.js", "/10m"):
        record = edge.wait_request(path=path)
        assert (record["status"], record["tls"], record["alpn"]) == (200, "TLSv1.3", "h2")


def test_what_a_103_names_is_fetched_before_the_page_is_there(chromium, make_edge, backend):
    """The backend waits with the page until its script has been asked for, which no word of the page could say yet."""
    asked = threading.Event()
    in_time = []

    def page(connection, request):
        in_time.append(asked.wait(10))
        body = b'<!doctype html><div id="result">not run</div><script src="/hinted.js"></script>'
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return True

    def script(connection, request):
        asked.set()
        body = b"""const [entry] = performance.getEntriesByName(new URL("/hinted.js", location));
            document.getElementById("result").textContent = entry.initiatorType;"""
        head = b"Content-Type: text/javascript\r\nCache-Control: max-age=60\r\nContent-Length: %d" % len(body)
        connection.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + body)
        return True

    backend.on("/hinting.html", page)
    backend.on("/hinted.js", script)
    backend.on("/favicon.ico", lambda c, r: c.send(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n") or True)
    hints = {"links": ["</hinted.js>; rel=preload; as=script"]}
    edge = make_edge({"app": [backend.server]}, routes=[{"match": {}, "upstream": "app", "early_hints": hints}])
    for attempt in range(3):  # on a busy machine Chromium sometimes passes a hint over
        shown = chromium(edge.url("/hinting.html"), f"hints-{attempt}")
        if in_time[-1]:
            break
        asked.clear()
    assert in_time[-1]
    assert '<div id="result">early-hints</div>' in shown
    assert len(backend.seen("/hinted.js")) == len(in_time)


@pytest.mark.parametrize(
    "http2",
    [
        {},  # in a stream of the page's own connection (RFC 8441)
        {"connect_protocol": False},  # beside it
        {"enabled": False},
    ],
    ids=["in-h2", "beside-h2", "h1"],
)
def test_websockets(chromium, make_edge, backend, http2):
    name = next(iter(http2), "default")
    in_stream = not http2

    def page(connection, request):
        body = SOCKET_PAGE.replace(b"QUERY", name.encode())
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return True

    def hold(connection, request):
        with contextlib.suppress(AssertionError):
            wait_until(lambda: sockets.ends, 20, "the socket's end")
        time.sleep(0.3)
        connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    backend.on("/socket.html", page)
    backend.on("/hold", hold)
    with Sockets() as sockets:
        edge = make_edge(
            {"app": [backend.server], "sockets": [sockets.server]},
            routes=[{"match": {}, "upstream": "app"}, {"match": {"path": "/echo"}, "upstream": "sockets"}],
            listener={"http2": http2},
        )
        shown = chromium(edge.url("/socket.html"), f"sockets-{name}", seconds=0)
    found = re.search(r'<div id="result">(.*?)</div>', shown)
    assert found, shown[-3000:]
    assert html.unescape(found[1]).startswith("{"), shown[-3000:]
    facts = json.loads(html.unescape(found[1]))
    assert facts.pop("extensions").split(";")[0] == SOCKET_FACTS["extensions"]
    assert facts == {k: v for k, v in SOCKET_FACTS.items() if k != "extensions"}
    assert sockets.ends == [(f"/echo?{name}", 3333)]
    record = edge.wait_request(path=f"/echo?{name}")
    assert (record["status"], record["upgrade"]) == (200 if in_stream else 101, "websocket")
    assert (record.get("alpn") == "h2") == in_stream
    page_record = edge.wait_request(path="/socket.html")
    assert (page_record["client_port"] == record["client_port"]) == in_stream


def test_early_data(chromium, make_edge, backend):
    """0-RTT, which it knows and has switched off, in HTTP/2: each request has a connection of its own, whose handshake
    is over long after its first flight. The talk's table: only a GET without a query goes to the backend at once."""
    got, over = {}, threading.Event()

    def page(connection, request):
        head = b"Content-Type: text/html\r\nContent-Length: %d" % len(EARLY_PAGE)
        connection.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n" + EARLY_PAGE)
        return True

    def note(connection, request):
        connection.body(request)
        got[request.method, request.target] = request
        connection.send(OK)
        return True

    def hold(connection, request):
        over.wait(20)
        connection.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    backend.on("/early.html", page)
    backend.on("/f/*", note)
    backend.on("/hold", hold)
    backend.on("/over", lambda c, r: over.set() or c.send(b"HTTP/1.1 204 No Content\r\n\r\n") or True)
    edge = make_edge(
        {"b": [backend.server]},
        tls={"early_data": {"window": "30s"}},
        routes=[{"match": {}, "upstream": "b"}, {"match": {"path": "/f/*"}, "upstream": "b", "early_data": "forward"}],
        listener={"limits": {"requests_per_connection": 1}},
    )
    with Relay(edge.port, pause=0.3) as relay:
        url = edge.url("/early.html").replace(str(edge.port), str(relay.port))
        shown = chromium(url, "early", seconds=0, features="EnableTLS13EarlyData")
    assert '<div id="result">ok,ok,ok,declined</div>' in shown, shown[-3000:]
    early = got.pop(("GET", "/f/get"))
    assert early.get("early-data") == "1" and re.fullmatch(r"[0-9a-f]{64}-1", early.get("early-data-unique"))
    assert set(got) == {("GET", "/f/get?a=1"), ("POST", "/f/post"), ("GET", "/f/socket")}
    assert not any(request.get("early-data") or request.get("early-data-unique") for request in got.values())
    record = edge.wait_request(path="/f/get")
    assert (record["alpn"], record["early_data"], record["early_request"]) == ("h2", True, "forwarded")
    record = edge.wait_request(path="/f/get?a=1")
    assert (record["alpn"], record["early_data"], record["early_request"]) == ("h2", True, "confirmed")
    for path in ("/f/post", "/f/socket"):  # it waits by itself with these
        assert edge.wait_request(path=path).get("early_request") in (None, "confirmed")


def test_it_does_verify_certificates(chromium, edge):
    """The same browser refuses a name that the certificate is not for: trust above was no accident."""
    known = len(edge.requests(path="/index.html"))
    shown = chromium(edge.url("/index.html", host="elsewhere.test"), "refused")
    assert '<div id="result">' not in shown
    assert len(edge.requests(path="/index.html")) == known
