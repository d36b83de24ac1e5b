"""HTTP/2 with the programs that people use: curl, h2load and nghttp."""

import hashlib
import os
import re
import threading

import pytest

from tests.e2e.processes import peer, run, wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def curl(pki):
    program = peer("curl")

    def call(edge, path: str, *options: object):
        command = [
            program,
            "--silent",
            "--show-error",
            "--http2",
            "--cacert",
            pki.ca.file,
            "--max-time",
            "50",
            "--resolve",
            f"*:{edge.port}:127.0.0.1",
            *map(str, options),
            edge.url(path),
        ]
        process = run(command, seconds=60)
        assert process.returncode == 0, process.stdout
        return process.stdout

    return call


def h2load(edge, path: str, requests: int, clients: int, streams: int, *options: object) -> str:
    command = [
        peer("h2load"),
        "-n",
        requests,
        "-c",
        clients,
        "-m",
        streams,
        "-t",
        "1",
        *options,
        f"https://127.0.0.1:{edge.port}{path}",
    ]
    return run([str(c) for c in command], seconds=90).stdout


def test_curl(curl, edge):
    said = curl(edge, "/1k?curl-h2", "--output", os.devnull, "--write-out", "%{http_version} %{size_download}")
    assert said == "2 1024"
    record = edge.wait_request(path="/1k?curl-h2")
    assert (record["alpn"], record["status"], record["host"]) == ("h2", 200, f"edge.test:{edge.port}")


def test_curl_head_and_missing(curl, edge):
    assert re.search(r"(?im)^content-length: 102400\s*$", curl(edge, "/100k", "--head"))
    assert curl(edge, "/missing", "--output", os.devnull, "--write-out", "%{http_code}") == "404"


def test_curl_uploads(curl, edge, tmp_path):
    body = tmp_path / "body"
    body.write_bytes(os.urandom(8 * MIB))
    digest = hashlib.sha256(body.read_bytes()).hexdigest()
    assert digest in curl(edge, "/app/sha256", "--data-binary", f"@{body}")
    assert digest in curl(edge, "/app/sha256", "--upload-file", body, "--request", "POST")


def test_curl_shows_why_an_upload_is_refused(curl, make_edge, gunicorn, tmp_path):
    """The answer comes in the midst of the upload."""
    routes = [
        {"match": {"path": "/small"}, "upstream": "app", "limits": {"body": "1KiB"}},
        {"match": {}, "upstream": "app", "timeouts": {"min_rate": "1MiB/s", "rate_grace": "200ms"}},
    ]
    edge = make_edge({"app": [gunicorn.server]}, routes=routes)
    body = tmp_path / "body"
    body.write_bytes(bytes(2 * MIB))
    upload = ("--upload-file", body, "--write-out", "%{http_code}")
    assert curl(edge, "/small", *upload) == "The request body is too large.\n413"
    assert curl(edge, "/app/sha256", *upload, "--limit-rate", "20k") == "The request did not arrive in time.\n408"


def test_curl_many_at_once(curl, edge):
    said = curl(
        edge,
        "/100k?[1-30]",
        "--parallel",
        "--no-progress-meter",
        "--output",
        os.devnull,
        "--write-out",
        "%{http_version} %{size_download}\n",
    )
    assert said.split("\n")[:30] == ["2 102400"] * 30


@pytest.mark.parametrize(
    ("path", "requests", "clients", "streams"),
    [
        ("/1k", 6000, 8, 32),
        ("/100k", 600, 4, 8),
        ("/1k", 3000, 1, 200),
    ],
)
def test_h2load(edge, path, requests, clients, streams):
    said = h2load(edge, path, requests, clients, streams)
    assert "Application protocol: h2" in said
    assert f"{requests} succeeded, 0 failed, 0 errored, 0 timeout" in said, said
    assert f"status codes: {requests} 2xx" in said, said


def test_http1_alone(make_edge, nginx, curl):
    edge = make_edge({"nginx": [nginx.server]}, listener={"http2": {"enabled": False}})
    assert curl(edge, "/1k", "--output", os.devnull, "--write-out", "%{http_version}") == "1.1"


def test_max_streams(make_edge, nginx):
    edge = make_edge({"nginx": [nginx.server]}, listener={"http2": {"max_streams": 3}})
    assert "500 succeeded, 0 failed" in h2load(edge, "/1k", 500, 1, 3)
    said = run([peer("nghttp"), "-nv", "--no-verify-peer", f"https://127.0.0.1:{edge.port}/1k"], seconds=20).stdout
    assert "SETTINGS_MAX_CONCURRENT_STREAMS(0x03):3" in said


def test_reloads_under_load(make_edge, nginx):
    """Old workers say GOAWAY, and serve what is on its way."""
    edge = make_edge({"nginx": [nginx.server]}, server={"workers": 2})
    results = []

    def load():
        for n in range(40):
            if stopped.is_set():
                break
            results.append(
                run(
                    [
                        peer("curl"),
                        "-sk",
                        "--http2",
                        "--parallel",
                        "--no-progress-meter",
                        "--max-time",
                        "20",
                        "--output",
                        os.devnull,
                        "--write-out",
                        "%{http_code}\n",
                        f"https://127.0.0.1:{edge.port}/1k?{n}-[1-40]",
                    ],
                    seconds=40,
                )
            )

    stopped = threading.Event()
    loads = [threading.Thread(target=load) for _ in range(2)]
    for one in loads:
        one.start()
    for number in (2, 3, 4):
        edge.tables["listener"][0]["forwarded"] = "both" if number % 2 else "forwarded"
        edge.write()
        edge.reload()
        edge.wait_error(rf"generation {number} serves", seconds=8)
        before = len(results)
        wait_until(lambda: len(results) > before + 2, 20, "further load")  # noqa: B023
    stopped.set()
    for one in loads:
        one.join()
    assert len(results) > 8
    for process in results:
        assert process.returncode == 0, process.stdout
        assert process.stdout.split() == ["200"] * 40


def test_push(make_edge, backend):
    """nghttp takes pushes, and says what it got."""

    def page(connection, request):
        connection.body(request)
        connection.send(
            b"HTTP/1.1 103 Early Hints\r\nLink: </x.js>; rel=preload\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nLink: </style.css>; rel=preload; as=style\r\n\r\npage"
        )
        return True

    def style(connection, request):
        connection.body(request)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstyle")
        return True

    for path, handler in {"/page": page, "/style.css": style, "/x.js": style}.items():
        backend.on(path, handler)
    edge = make_edge({"app": [backend.server]}, routes=[{"match": {}, "upstream": "app", "push": True}])
    said = run([peer("nghttp"), "-nv", f"https://127.0.0.1:{edge.port}/page"], seconds=20).stdout
    assert len(re.findall(r"recv PUSH_PROMISE frame", said)) == 2, said
    assert ":status: 103" in said
    assert edge.wait_request(path="/style.css")["status"] == 200
    quiet = run([peer("nghttp"), "-nv", "--no-push", f"https://127.0.0.1:{edge.port}/page"], seconds=20).stdout
    assert "recv PUSH_PROMISE" not in quiet
    assert ":status: 103" in quiet
    assert edge.wait_request(path="/page", count=2)["status"] == 200


def test_trailers_of_an_http1_backend(make_edge, backend):
    def script(connection, request):
        connection.body(request)
        connection.send(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n"
            b"2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n"
        )
        return True

    backend.on("/t", script)
    edge = make_edge({"app": [backend.server]})
    said = run([peer("nghttp"), "-nv", f"https://127.0.0.1:{edge.port}/t"], seconds=20).stdout
    assert "grpc-status: 0" in said
