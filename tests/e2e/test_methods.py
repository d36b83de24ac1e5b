"""What an edge makes of CONNECT, TRACE, OPTIONS * and Expect, through the whole server and real clients."""

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import peer, run
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge

ALLOW = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


@pytest.fixture(scope="module")
def methods(tmp_path_factory, pki):
    """A backend behind two routes, one of which names TRACE."""
    def handler(connection, request):
        if request.get("expect"):
            if request.target == "/refused":
                connection.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                return False
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = request.head if request.method == "TRACE" else b"%d" % len(connection.body(request))
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return True

    with Backend() as backend:
        backend.on("*", handler)
        routes = [
            {"match": {}, "upstream": "b"},
            {"match": {"path": "/traced", "method": ["TRACE"]}, "upstream": "b"},
        ]
        with Edge(tmp_path_factory.mktemp("methods"), pki, {"b": [backend.server]}, routes=routes) as edge:
            edge.backend = backend
            yield edge
        assert backend.faults == []


def test_what_the_edge_answers_itself(methods):
    before = len(methods.backend.requests)
    with Client(methods) as client:
        for method, target, status in (("TRACE", "/", 405), ("OPTIONS", "*", 204), ("TRACE", "/a", 405)):
            response = client.request(method, target)
            assert (response.status, response.get("allow")) == (status, ALLOW)
        client.send(b"CONNECT edge.test:443 HTTP/1.1\r\nHost: edge.test:443\r\n\r\n")
        response = client.response()
        assert (response.status, response.get("allow"), response.get("connection")) == (405, ALLOW, "close")
        assert client.closed()
    assert len(methods.backend.requests) == before
    assert methods.wait_request(status=204, method="OPTIONS", path="*")


def test_trace_of_a_route_that_names_it(methods):
    with Client(methods) as client:
        response = client.request("TRACE", "/traced")
        assert response.status == 200
        assert response.body.startswith(b"TRACE /traced HTTP/1.1\r\nHost: edge.test")


@pytest.mark.parametrize(("path", "status"), [("/taken", "200 4000000"), ("/refused", "403 0")])
def test_curl_expects(methods, tmp_path, path, status):
    """curl waits for the 100 before it sends; after a final answer it sends nothing."""
    upload = tmp_path / "upload"
    upload.write_bytes(b"x" * 4_000_000)
    command = [peer("curl"), "--silent", "--http1.1", "--cacert", methods.pki.ca.file]
    command += ["--resolve", f"*:{methods.port}:127.0.0.1", "--header", "Expect: 100-continue"]
    command += ["--expect100-timeout", "20", "--upload-file", str(upload), "--output", "/dev/null"]
    process = run([*command, "--write-out", "%{http_code} %{size_upload}", methods.url(path)], seconds=30)
    assert (process.returncode, process.stdout) == (0, status)
