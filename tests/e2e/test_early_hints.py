"""Early Hints of our own, as clients see them."""

import pytest

from tests.e2e.processes import peer, run

LINK = "</style.css>; rel=preload; as=style"


@pytest.fixture
def ask(pki):
    """curl's account of a request: the heads that came, in order."""

    def ask(edge, path, *arguments):
        command = [peer("curl"), "--silent", "--show-error", "--cacert", pki.ca.file, "--dump-header", "-"]
        route = ["--resolve", f"edge.test:{edge.port}:127.0.0.1", "--output", "/dev/null"]
        done = run([*command, *route, *arguments, edge.url(path)], seconds=20)
        assert done.returncode == 0, done.stdout
        return [head.splitlines() for head in done.stdout.replace("\r", "").strip().split("\n\n")]

    return ask


def statuses(heads):
    return [int(head[0].split()[1]) for head in heads]


def page(*fields):
    lines = "".join(f"{field}\r\n" for field in fields)

    def handler(connection, request):
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{lines}\r\nok".encode())
        return True

    return handler


def edge_with(make_edge, backend, hints):
    return make_edge({"app": [backend.server]}, routes=[{"match": {}, "upstream": "app", "early_hints": hints}])


def test_configured(make_edge, backend, ask):
    backend.on("/page", page())
    edge = edge_with(make_edge, backend, {"links": [LINK]})
    hint, answer = ask(edge, "/page", "--http2")
    assert hint == ["HTTP/2 103 ", f"link: {LINK}"]
    assert answer[0] == "HTTP/2 200 "
    assert statuses(ask(edge, "/page", "--http1.1")) == [200]
    assert statuses(ask(edge, "/page", "--http2", "--header", "Sec-Fetch-Mode: cors")) == [200]
    record = edge.wait_request(path="/page", count=3)
    assert record["status"] == 200


def test_http1_too(make_edge, backend, ask):
    backend.on("/page", page())
    edge = edge_with(make_edge, backend, {"links": [LINK], "http1": True})
    hint, answer = ask(edge, "/page", "--http1.1")
    assert hint == ["HTTP/1.1 103 Early Hints", f"Link: {LINK}"]
    assert statuses([answer]) == [200]
    assert statuses(ask(edge, "/page", "--http1.0")) == [200]


def test_learned_and_forgotten(make_edge, backend, ask):
    backend.on("/page", page(f"Link: {LINK}", "Link: </next>; rel=next"))
    edge = edge_with(make_edge, backend, {"learn": True})
    assert statuses(ask(edge, "/page", "--http2")) == [200]
    hint, answer = ask(edge, "/page", "--http2")
    assert hint == ["HTTP/2 103 ", f"link: {LINK}"]
    assert f"link: {LINK}" in answer
    backend.on("/page", page())
    assert statuses(ask(edge, "/page", "--http2")) == [103, 200]
    assert statuses(ask(edge, "/page", "--http2")) == [200]
