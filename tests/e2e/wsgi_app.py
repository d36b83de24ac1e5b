"""A WSGI application for gunicorn: the backend that a Python service would be."""

import hashlib
import json
import time
from urllib.parse import parse_qs

PIECE = 65536


def application(environ, start_response):
    path = environ["PATH_INFO"]
    query = {key: values[0] for key, values in parse_qs(environ["QUERY_STRING"]).items()}
    for prefix, view in _VIEWS.items():
        if path.startswith(prefix):
            return view(environ, start_response, path.removeprefix(prefix), query)
    return _answer(start_response, "404 Not Found", b"no such view")


def _answer(start_response, status, body, *fields, kind="text/plain"):
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *fields])
    return [body]


def _echo(environ, start_response, _rest, _query):
    """The request as JSON."""
    body = environ["wsgi.input"].read()
    headers = {
        key.removeprefix("HTTP_").replace("_", "-").lower(): value
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in ("CONTENT_LENGTH", "CONTENT_TYPE")
    }
    told = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "protocol": environ["SERVER_PROTOCOL"],
        "headers": headers,
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "body": body[:4096].decode("latin-1"),
    }
    return _answer(start_response, "200 OK", json.dumps(told).encode(), kind="application/json")


def _sha256(environ, start_response, _rest, _query):
    """The body's digest and length, read in pieces."""
    digest, length = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(PIECE):
        digest.update(piece)
        length += len(piece)
    return _answer(start_response, "200 OK", f"{digest.hexdigest()} {length}".encode())


def _stream(_environ, start_response, _rest, query):
    """n pieces of `size` bytes, `pause` seconds apart, without a length."""

    def pieces():
        for i in range(int(query.get("n", "3"))):
            if i:
                time.sleep(float(query.get("pause", "0")))
            yield bytes((97 + i % 26,)) * int(query.get("size", "1024"))

    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return pieces()


def _status(_environ, start_response, rest, _query):
    """The status in the path."""
    if rest in ("204", "304"):
        start_response(f"{rest} x", [("ETag", '"1"')])
        return []
    return _answer(start_response, f"{rest} Told So", f"status {rest}".encode(), ("Location", "/elsewhere"))


def _slow(_environ, start_response, _rest, query):
    """An answer after `seconds`."""
    time.sleep(float(query.get("seconds", "0.2")))
    return _answer(start_response, "200 OK", b"late")


def _refuse(environ, start_response, _rest, _query):
    """An answer that does not wait for the body."""
    return _answer(start_response, "413 Content Too Large", b"too large", ("Connection", "close"))


_VIEWS = {
    "/app/echo": _echo,
    "/app/sha256": _sha256,
    "/app/stream": _stream,
    "/app/status/": _status,
    "/app/slow": _slow,
    "/app/refuse": _refuse,
    "/unix/echo": _echo,
    "/unix/sha256": _sha256,
    "/unix/stream": _stream,
}
