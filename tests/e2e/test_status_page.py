"""The status page in a real Chromium: it shows what goes on, runs nothing else, and says so when the server is gone."""

import contextlib
import http.client
import json
import socket
import threading
import time

import pytest

from tests.e2e.client import Client
from tests.e2e.devtools import Browser
from tests.e2e.processes import free_port, wait_until
from tests.e2e.scripted import OK, Backend

MARKUP = "<img src=x onerror=owned()><script>owned()</script>"
OWNED = "window.owned_ = 0; window.owned = () => { window.owned_ += 1; }"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def backend():
    with Backend() as made:
        made.on("/*", lambda connection, request: connection.send(OK) or True)
        made.on("/missing", lambda c, r: c.send(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n") or True)
        made.on("/broken", lambda c, r: c.send(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n") or True)
        yield made
        assert made.faults == []


@pytest.fixture
def shown(make_edge, backend, browser):
    """An edge, and its page: shown(**settings of the edge) -> (edge, page)."""
    pages = []

    def show(upstreams=None, *, routes=None, look=None, **settings):
        port = free_port()
        server = {"workers": 2, "status_page": f"127.0.0.1:{port}", **settings.pop("server", {})}
        edge = make_edge(upstreams or {"app": [backend.server]}, routes=routes, server=server, **settings)
        edge.page_port = port
        page = browser.open(f"http://127.0.0.1:{port}/", **(look or {}))
        pages.append(page)
        page.until("document.body.dataset.link === 'live'")
        return edge, page

    yield show
    for page in pages:
        page.__exit__()


def status(edge):
    connection = http.client.HTTPConnection("127.0.0.1", edge.page_port, timeout=30)
    try:
        connection.request("GET", "/status.json")
        response = connection.getresponse()
        assert response.status == 200
        return json.load(response)
    finally:
        connection.close()


def cells(page, table):
    """Each row's cells, as text."""
    rows = f"[...document.querySelectorAll('#{table} tbody tr')]"
    return page.js(f"{rows}.map(row => [...row.children].map(cell => cell.textContent))")


def traffic(edge, seconds, *paths):
    """Requests for so long, over new connections and kept ones -> how many."""
    end, n = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        with Client(edge) as client:
            for path in paths or ("/a", "/b", "/missing", "/broken"):
                client.get(path)
                n += 1
        time.sleep(0.01)
    return n


@contextlib.contextmanager
def flowing(edge):
    """Traffic meanwhile."""
    over = threading.Event()
    faults = []

    def flow():
        try:
            while not over.is_set():
                traffic(edge, 0.2)
        except Exception as e:
            faults.append(e)

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert faults == []


def test_charts_and_numbers_follow_the_traffic(shown):
    edge, page = shown()
    area = "document.querySelector('#chart-requests [data-series=ok]')?.getAttribute('d') ?? ''"
    reading = "parseFloat(document.querySelector('#chart-requests .legend li:nth-child({}) b').textContent)"
    with flowing(edge):
        before = page.until(area)
        for place in (1, 3, 4):     # 2xx, 4xx, 5xx
            page.until(reading.format(place) + " > 0")
        page.until("parseFloat(document.querySelector('.tile b').textContent) > 0")
        page.until("/[mµ]s$/.test(document.querySelector('#chart-latency .legend li:nth-child(3) b').textContent)")
        page.until("parseFloat(document.querySelector('#chart-handshakes .legend b').textContent) > 0")
        page.until("parseFloat(document.querySelectorAll('#workers tbody td')[5].textContent) > 0")
        page.until(f"({area}).length > {len(before) + 20}")
    page.until(reading.format(1) + " === 0")        # and they follow its end
    assert "2xx 0" in page.js("document.querySelector('#chart-requests svg.plot').getAttribute('aria-label')")
    assert page.js("document.title") == "0 req/s – edge 127.0.0.1"
    assert page.complaints == []


def test_what_it_shows_is_what_there_is(shown):
    edge, page = shown()
    sent = traffic(edge, 1)
    wait_until(lambda: status(edge)["requests"]["status"]["2xx"] == sent // 2, 30, "all are counted")
    found = status(edge)
    [(label, route)] = found["figures"]["routes"].items()
    assert route["requests"] == sent
    page.until(f"document.querySelector('#routes tbody tr')?.children[8].textContent === '{sent:,}'")
    row = cells(page, "routes")[0]
    assert (row[0], row[9]) == (label, str(route["status"]["5xx"]))
    upstream, server = cells(page, "upstreams")
    [own] = found["figures"]["servers"]
    assert (upstream[0], server[0]) == ("app", own.removeprefix("app/"))
    assert upstream[11] == str(found["figures"]["upstreams"]["app"]["retries"])
    workers = cells(page, "workers")
    assert [row[1] for row in workers] == [str(w["pid"]) for w in found["state"]["workers"]]
    assert all("serving" in row[2] for row in workers)
    certificate = found["state"]["certificates"][0]
    days = int((certificate["expires"] - found["state"]["now"]) // 86400)
    assert page.text("#certificates .left") == f"●{days} days"
    assert page.text("#certificates .names") == ", ".join(certificate["names"][:3])
    assert edge.config.name in page.text("#configuration")
    suites = {(h["version"], h["cipher_suite"], h["group"]): h["count"] for h in found["figures"]["handshakes"]}
    assert {tuple(row[:3]): int(row[3]) + int(row[4]) for row in cells(page, "tls")} == suites
    assert page.complaints == []


def test_whatever_others_can_write_is_text(shown, backend, tmp_path):
    """Names of routes, paths of servers, what a reload was refused for; and names and paths of clients, which the page
    does not show at all."""
    place = tmp_path / "<b onmouseover=owned()>"
    place.mkdir()
    odd = Backend(place / "s.sock")
    odd.on("/*", lambda connection, request: connection.send(OK) or True)
    edge, page = shown(
        {"app": [odd.server]},
        routes=[{"match": {}, "upstream": "app", "name": MARKUP}, {"match": {"path": "/<img*"}, "upstream": "app"}],
    )
    page.js(OWNED)
    traffic(edge, 0.3, "/x", "/%3Cscript%3Eowned()%3C/script%3E", "/<img")
    with pytest.raises(OSError), Client(edge, name="<script>owned()"):
        pass
    edge.config.write_text(edge.config.read_text() + f"\n['{MARKUP}']\n")
    edge.reload()
    page.until("document.querySelector('#notices')?.textContent.includes('rejected')")
    page.until("document.querySelector('#routes tbody th') !== null")
    assert MARKUP in page.text("#notices") and MARKUP in page.text("#configuration")
    assert MARKUP in [row[0] for row in cells(page, "routes")]
    assert "<b onmouseover" in page.js("document.querySelector('#upstreams').textContent")
    assert page.js("window.owned_") == 0
    assert page.js("document.querySelectorAll('img, b[onmouseover], main script, .notices script').length") == 0
    assert page.complaints == []
    odd.close()


def test_nothing_of_others_runs(shown):
    _, page = shown()
    page.js(OWNED)
    blocked = """(() => { try { CODE; return "ran" } catch (error) { return error.name } })()"""
    for code in ("document.body.innerHTML = '<img src=x onerror=owned()>'", "new Function('owned()')()",
                 "eval('owned()')",
                 "const s = document.createElement('script'); s.textContent = 'owned()'; document.body.append(s)",
                 "document.body.setAttribute('onclick', 'owned()'); document.body.click()"):
        assert page.js(blocked.replace("CODE", code)) in ("TypeError", "EvalError"), code
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        url = f"http://127.0.0.1:{elsewhere.getsockname()[1]}/"
        refused = f"fetch('{url}').then(() => 'fetched', error => error.name)"
        assert page.js(refused) == "TypeError"
        elsewhere.settimeout(0.2)
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    assert page.js("window.owned_") == 0
    assert any("Content Security Policy" in text for text in page.complaints)


def test_names_that_lead_here_from_elsewhere_get_nothing(shown):
    edge, page = shown()
    for host, expected in ((f"evil.test:{edge.page_port}", 421), (f"127.0.0.1:{edge.page_port}", 200)):
        for path in ("/", "/status.json"):
            connection = http.client.HTTPConnection("127.0.0.1", edge.page_port, timeout=30)
            connection.request("GET", path, headers={"Host": host})
            assert connection.getresponse().status == expected
            connection.close()
    page.go(f"http://evil.test:{edge.page_port}/")
    page.until("document.body?.textContent.includes('server.status_page.hosts')")


def test_a_server_that_is_gone_and_back(shown, browser):
    edge, page = shown()
    traffic(edge, 0.5)
    edge.stop()
    page.until("document.body.dataset.link === 'lost'")
    assert page.text("#link").startswith("no answer: it cannot be reached; again in")
    assert page.js("document.title").startswith("(no answer)")
    edge.start()
    page.until("document.body.dataset.link === 'live'")
    with flowing(edge):
        page.until("parseFloat(document.querySelector('.tile b').textContent) > 0")


LOOKS = {
    "wide-light": {"width": 1680, "height": 1000, "scheme": "light"},
    "wide-dark": {"width": 1680, "height": 1000, "scheme": "dark"},
    "phone-dark": {"width": 390, "height": 844, "scheme": "dark"},
    "phone-light": {"width": 320, "height": 640, "scheme": "light"},
}
CONTRASTS = """(() => {
  const style = getComputedStyle(document.documentElement);
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const light = (name) => {
    canvas.fillStyle = style.getPropertyValue(name).trim();
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const pairs = [];
  for (const ink of ["--text", "--soft", "--good", "--warn", "--bad", "--accent"])
    for (const ground of ["--card", "--ground"]) pairs.push([ink, ground, 4.5]);
  for (const state of ["good", "warn", "bad"]) pairs.push(["--text", `--${state}-wash`, 4.5]);
  pairs.push(["--good", "--good-wash", 4.5], ["--bad", "--bad-wash", 4.5], ["--soft", "--faint", 4.5]);
  for (const series of ["--c1", "--c2", "--c4", "--p99", "--p90", "--p50"]) pairs.push([series, "--card", 3]);
  return pairs.map(([ink, ground, least]) => {
    const [a, b] = [light(ink), light(ground)].sort((x, y) => y - x);
    return [ink, ground, (a + 0.05) / (b + 0.05), least];
  }).filter(([, , ratio, least]) => ratio < least);
})()"""


def test_on_every_screen(shown, tmp_path):
    edge, page = shown()
    traffic(edge, 2)
    taken = []
    for name, look in LOOKS.items():
        page.look(**look)
        page.until("document.querySelector('#chart-requests svg.plot').getAttribute('viewBox')?.startsWith('0 0 ' + "
                   "document.querySelector('#chart-requests svg.plot').getBoundingClientRect().width)")
        assert page.js("document.documentElement.scrollWidth <= innerWidth"), f"{name} scrolls sideways"
        assert page.js(CONTRASTS) == [], name
        taken.append(page.screenshot(tmp_path / f"{name}.png"))
    assert len(set(taken)) == len(LOOKS) and all(len(image) > 20_000 for image in taken)
    every = "[...document.querySelectorAll('{}')].every(one => one.{})"
    assert page.js(every.format("svg[role=img]", "getAttribute('aria-label').includes('now')"))
    assert page.js(every.format("table", "querySelectorAll('th[scope=col]').length > 0"))
    assert page.complaints == []


def test_values_under_the_pointer_and_the_arrow_keys(shown):
    edge, page = shown()
    traffic(edge, 3)
    page.until("document.querySelector('#chart-connections [data-series=idle]').getAttribute('d').length > 60")
    place = page.js("document.querySelector('#chart-requests svg.plot').focus(), true")
    assert place
    page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    first = page.until("document.querySelector('#chart-requests .time').textContent")
    for _ in range(2):
        page.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    page.until(f"document.querySelector('#chart-requests .time').textContent < '{first}'")
    page.js("document.querySelector('[data-minutes=\"1\"]').click()")
    assert page.js("document.querySelector('[data-minutes=\"1\"]').getAttribute('aria-pressed')") == "true"


# ---- the page's own functions

def test_numbers_as_people_read_them(shown):
    _, page = shown()
    cases = {
        "rate": [(0, "0"), (0.44, "0.4"), (9.96, "10.0"), (12.3, "12.3"), (99.97, "100"), (999.4, "999"),
                 (1240, "1.24k"), (3_100_000, "3.10M")],
        "bytes": [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (64 << 20, "64.0 MiB")],
        "seconds": [(0, "0 ms"), (0.00025, "250 µs"), (0.00123, "1.23 ms"), (0.0456, "45.6 ms"), (0.456, "456 ms"),
                    (2.5, "2.50 s"), (75, "75.0 s")],
        "percent": [(0, "0 %"), (0.0004, "<0.1 %"), (0.0123, "1.2 %"), (0.5, "50 %"), (1, "100 %")],
        "age": [(0, "0 s"), (59, "59 s"), (61, "1 min 1 s"), (3600, "1 h"), (90061, "1 d 1 h"), (864000, "10 d")],
        "count": [(1234567, "1,234,567"), (None, "–")],
    }
    for name, expected in cases.items():
        values = json.dumps([value for value, _ in expected])
        found = page.js(f"import('/format.js').then(f => {values}.map(f.{name}))")
        assert found == [text for _, text in expected], name


def test_percentiles_of_what_came_in_between(shown):
    _, page = shown()
    bounds = [1, 2, 4, 8]
    ask = "import('/history.js').then(h => h.quantiles({}, {}))"
    assert page.js(ask.format([1, [100]], bounds)) == {"p50": 1.5, "p90": 1.9, "p99": 1.99}
    assert page.js(ask.format([0, [50, 0, 0, 0, 50]], bounds)) == {"p50": 1, "p90": 8, "p99": 8}
    assert page.js(ask.format([0, []], bounds)) == {"p50": None, "p90": None, "p99": None}
    answer = {
        "state": {"pid": 1, "started": 1}, "processes": {},
        "figures": {"at": 100, "counters": {}, "gauges": {}, "handshakes": [], "routes": {}},
        "requests": {"status": {"2xx": 10}, "bytes_in": 0, "bytes_out": 0, "running": 0},
        "histograms": {"bounds": bounds, "total": [3, [10]], "first_byte": [3, [10]], "turn": [0, []]},
    }
    later = json.loads(json.dumps(answer))
    later["figures"]["at"] = 102
    later["requests"]["status"]["2xx"] = 30
    later["histograms"] |= {"total": [1, [20, 0, 10]], "first_byte": [1, [20, 0, 10]]}
    reborn = json.loads(json.dumps(answer)) | {"state": {"pid": 2, "started": 101}}
    reborn["figures"]["at"] = 103
    found = page.js(f"""import('/history.js').then(h => {{
        const history = new h.History();
        return [{json.dumps(answer)}, {json.dumps(later)}, {json.dumps(reborn)}].map(a => history.take(a));
    }})""")
    assert found[0] is None and found[2] is None
    assert found[1]["rate"]["status_2xx"] == 10
    assert found[1]["latency"] == {"p50": 1.5, "p90": 1.9, "p99": 1.99}, "the ten slow ones came before"
