"""Routes: by host, path and method, the most specific first, whatever their order."""

import pytest

from tests.e2e.client import Client
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge

NAMES = ["any", "static", "login", "put", "host", "hostpath", "wild", "deepwild", "glob", "v6"]


def named(name: str):
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(name)}\r\n\r\n{name}".encode()

    def handler(connection, request):
        connection.body(request)
        connection.send(answer)
        return True

    return handler


@pytest.fixture(scope="module")
def routed(tmp_path_factory, pki):
    backends = {name: Backend() for name in NAMES}
    for name, backend in backends.items():
        backend.on("*", named(name))
        backend.handlers.pop("/ok")
    routes = [
        ("any", {"path": "/open/*"}),
        ("static", {"path": "/open/static/*"}),
        ("login", {"path": "/open/static/login"}),
        ("put", {"path": "/open/*", "method": ["PUT", "PROPFIND"]}),
        ("host", {"host": ["one.test", "two.test"]}),
        ("hostpath", {"host": ["one.test"], "path": "/a/*"}),
        ("wild", {"host": ["*.wild.test"]}),
        ("deepwild", {"host": ["*.deep.wild.test"]}),
        ("glob", {"path": "/open/*/edit"}),
        ("v6", {"host": ["[2001:db8::1]"]}),
    ]
    edge = Edge(
        tmp_path_factory.mktemp("routed"),
        pki,
        {name: [backend.server] for name, backend in backends.items()},
        routes=[{"match": match, "upstream": name} for name, match in routes],
    )
    with edge:
        yield edge
    for backend in backends.values():
        assert backend.faults == []
        backend.close()


@pytest.mark.parametrize(
    ("method", "host", "path", "upstream"),
    [
        ("GET", "x.test", "/open/", "any"),
        ("GET", "x.test", "/open/a?b", "any"),
        ("GET", "x.test", "/open/static/a.css", "static"),
        ("GET", "x.test", "/open/static/login", "login"),
        ("GET", "x.test", "/open/static/login?next=/", "login"),
        ("GET", "x.test", "/open/static/login/", "static"),
        ("PUT", "x.test", "/open/a", "put"),
        ("PROPFIND", "x.test", "/open/a", "put"),
        ("POST", "x.test", "/open/a", "any"),
        ("PUT", "x.test", "/open/static/a", "static"),
        ("GET", "x.test", "/open/page/edit", "glob"),
        ("GET", "one.test", "/", "host"),
        ("GET", "two.test", "/a/b", "host"),
        ("GET", "one.test", "/a/b", "hostpath"),
        ("GET", "ONE.Test", "/a/b", "hostpath"),
        ("GET", "one.test:8443", "/a/b", "hostpath"),
        ("GET", "one.test.", "/a/b", "hostpath"),
        ("GET", "one.test", "/open/static/login", "host"),
        ("GET", "a.wild.test", "/open/", "wild"),
        ("GET", "a.b.wild.test", "/x", "wild"),
        ("GET", "a.deep.wild.test", "/x", "deepwild"),
        ("GET", "[2001:db8::1]:8443", "/x", "v6"),
        ("GET", "x.test", "/", None),
        ("GET", "wild.test", "/", None),
        ("GET", "x.test", "/OPEN/", None),
        ("GET", "x.test", "/open", None),
        ("GET", "one.test.evil", "/a/b", None),
    ],
)
def test_route(routed, method, host, path, upstream):
    with Client(routed) as client:
        response = client.request(method, path, host=host)
        if upstream is None:
            assert response.status == 404
            # The connection goes on.
            assert client.request("GET", "/open/", host="x.test").status == 200
        else:
            assert (response.status, response.body) == (200, upstream.encode())


def test_absolute_form(routed):
    with Client(routed) as client:
        client.send(b"GET https://one.test/a/b HTTP/1.1\r\nHost: one.test\r\n\r\n")
        assert client.response().body == b"hostpath"


def test_the_asterisk_form_has_no_route_by_path(routed):
    """It asks about the server: the edge itself."""
    with Client(routed) as client:
        assert client.request("OPTIONS", "*", host="x.test").status == 204


def test_connect_is_refused(routed):
    with Client(routed) as client:
        client.send(b"CONNECT one.test:443 HTTP/1.1\r\nHost: one.test:443\r\n\r\n")
        assert client.response().status == 405
        assert client.closed()
