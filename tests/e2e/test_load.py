"""Load: many connections at once lose no request, and every worker has its share."""

import re

import pytest

from tests.e2e.processes import peer, run


@pytest.mark.parametrize(("path", "size", "requests", "clients"), [("1k", 1024, 6000, 64), ("100k", 102400, 600, 16)])
def test_h2load(edge, path, size, requests, clients):
    command = [
        peer("h2load"),
        "--h1",
        "-n",
        requests,
        "-c",
        clients,
        "-t",
        "1",
        f"https://127.0.0.1:{edge.port}/{path}",
    ]
    said = run(command, seconds=60).stdout
    assert re.search(rf"{requests} succeeded, 0 failed, 0 errored, 0 timeout", said), said
    assert re.search(rf"status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx", said), said
    assert f"({requests * size})" in said.split("data")[-1] or f"{requests * size}" in said, said


def test_h2load_of_new_connections(edge):
    """A handshake for every request."""
    since = edge.mark()
    command = [peer("h2load"), "--h1", "-n", 300, "-c", 300, "-t", "1", f"https://127.0.0.1:{edge.port}/1k"]
    said = run(command, seconds=60).stdout
    assert "300 succeeded, 0 failed, 0 errored" in said, said
    assert not [message for level, message in edge.errors(since) if level in ("warning", "error")]


def test_wrk(edge):
    """wrk counts every response that is not whole, or not 2xx or 3xx."""
    said = run([peer("wrk"), "-t", "1", "-c", "32", "-d", "2s", f"https://127.0.0.1:{edge.port}/1k"], seconds=30).stdout
    assert int(re.search(r"(\d+) requests in", said)[1]) > 0, said
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
