"""curl as the client: methods, bodies both ways, reuse of connections, suites and groups, names, addresses."""

import hashlib
import json
import os
import re
import socket

import pytest

from tests.e2e.pki import Authority
from tests.e2e.processes import free_port, peer, run

MIB = 1 << 20


@pytest.fixture(scope="module")
def curl(edge, pki):
    """curl(path or URL, options...) -> the finished process; it trusts the test CA and finds every name here."""
    program = peer("curl")

    def call(*arguments: object, host: str = "edge.test", seconds: float = 60, **options):
        target, *more = (str(a) for a in arguments)
        command = [program, "--silent", "--show-error", "--http1.1", "--cacert", pki.ca.file, "--max-time", "50"]
        command += ["--resolve", f"*:{edge.port}:127.0.0.1", *more]
        return run([*command, edge.url(target, host) if target.startswith("/") else target], seconds=seconds, **options)

    return call


def ok(process) -> str:
    assert process.returncode == 0, process.stdout
    return process.stdout


def test_get(curl):
    told = json.loads(ok(curl("/app/echo?q=1&q=%20")))
    assert (told["method"], told["path"], told["query"]) == ("GET", "/app/echo", "q=1&q=%20")
    assert told["headers"]["x-forwarded-proto"] == "https"


def test_get_says_version_and_length(curl):
    facts = "%{http_version} %{size_download} %{ssl_verify_result}"
    said = ok(curl("/1k", "--output", os.devnull, "--write-out", facts))
    assert said == "1.1 1024 0"


def test_head_has_a_length_and_no_body(curl):
    said = ok(curl("/100k", "--head", "--write-out", "downloaded=%{size_download}"))
    assert re.search(r"(?im)^content-length: 102400$", said)
    assert said.endswith("downloaded=0")


def test_post_with_length(curl):
    told = json.loads(ok(curl("/app/echo", "--data-binary", "a=b&c", "--header", "Content-Type: text/plain")))
    assert told["method"] == "POST"
    assert told["body"] == "a=b&c"
    assert told["headers"]["content-length"] == "5"


def test_post_chunked(curl):
    told = json.loads(ok(curl("/app/echo", "--header", "Transfer-Encoding: chunked", "--data-binary", "x" * 5000)))
    assert told["length"] == 5000
    assert told["headers"]["transfer-encoding"] == "chunked"


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_methods(curl, method):
    assert json.loads(ok(curl("/app/echo", "--request", method)))["method"] == method


def test_one_connection_serves_many_requests(curl, edge):
    paths = [f"/app/echo?reuse{i}" for i in range(6)]
    urls = [argument for path in paths[1:] for argument in ("--url", edge.url(path))]
    ok(curl(paths[0], *urls, "--output", os.devnull, "--fail"))
    ports = {edge.wait_request(path=path)["client_port"] for path in paths}
    assert len(ports) == 1


def test_expect_100_continue(curl):
    said = ok(curl("/app/sha256", "--verbose", "--header", "Expect: 100-continue", "--expect100-timeout", "20",
                   "--data-binary", "y" * 2000))  # fmt: skip
    assert "HTTP/1.1 100 Continue" in said
    assert f"{hashlib.sha256(b'y' * 2000).hexdigest()} 2000" in said


def test_expect_refused_by_the_final_status(curl, scripted):
    """The backend answers at once: curl does not send its body, nobody waits for it."""
    scripted.on("/s/expect-refused", lambda c, r: c.send(
        b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))  # fmt: skip
    said = ok(curl("/s/expect-refused", "--header", "Expect: 100-continue", "--expect100-timeout", "20",
                   "--data-binary", "z" * 2000, "--output", os.devnull,
                   "--write-out", "%{http_code} %{size_upload}"))  # fmt: skip
    assert said == "413 0"


def test_http_1_0(curl):
    # curl offers the ALPN protocol http/1.0 then.
    assert json.loads(ok(curl("/app/echo", "--http1.0")))["method"] == "GET"
    # Without chunks, a response of unknown length ends with the connection.
    said = ok(curl("/app/stream?n=3&size=1000", "--http1.0", "--include", text=False))
    head, _, body = said.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"a" * 1000 + b"b" * 1000 + b"c" * 1000


def test_trailers(curl):
    said = ok(curl("/chunked/1k", "--dump-header", "-", "--output", os.devnull))
    assert "X-Trailer: at the end" in said


@pytest.mark.parametrize("path", ["/10m", "/chunked/10m"])
def test_large_download(curl, nginx, path):
    content = ok(curl(path, text=False))
    assert hashlib.sha256(content).hexdigest() == nginx.digests["10m"]


@pytest.mark.parametrize("view", ["/app/sha256", "/unix/sha256"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_of_50_mib(curl, tmp_path, view, framing):
    content = os.urandom(MIB) * 50
    file = tmp_path / "upload"
    file.write_bytes(content)
    more = ["--header", "Transfer-Encoding: chunked"] if framing == "chunked" else []
    said = ok(curl(view, "--upload-file", file, *more))
    assert said == f"{hashlib.sha256(content).hexdigest()} {len(content)}"


def test_put_to_nginx_and_back(curl, tmp_path):
    content = os.urandom(3 * MIB + 17)
    file = tmp_path / "upload"
    file.write_bytes(content)
    assert ok(curl("/put/file", "--upload-file", file, "--write-out", "%{http_code}")) == "201"
    assert ok(curl("/put/file", text=False)) == content
    assert ok(curl("/put/file", "--request", "DELETE", "--write-out", "%{http_code}")) == "204"


@pytest.mark.parametrize("suite", ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"])
def test_suites(curl, edge, suite):
    path = f"/app/echo?{suite}"
    ok(curl(path, "--tls13-ciphers", suite))
    assert edge.wait_request(path=path)["cipher"] == suite


@pytest.mark.parametrize(("group", "logged"), [("X25519", "x25519"), ("P-256", "secp256r1"), ("P-384", "secp384r1")])
def test_groups(curl, edge, group, logged):
    path = f"/app/echo?{logged}"
    ok(curl(path, "--curves", group))
    assert edge.wait_request(path=path)["group"] == logged


@pytest.mark.parametrize("host", ["p384.edge.test", "rsa.edge.test", "a.wild.edge.test", "exact.wild.edge.test",
                                  "multi.edge.test"])  # fmt: skip
def test_certificates_are_accepted_for_their_names(curl, host):
    ok(curl("/1k", "--output", os.devnull, host=host))


def test_a_name_of_no_certificate_is_the_clients_to_refuse(curl):
    refused = curl("/1k", host="elsewhere.test")
    assert refused.returncode == 60  # the default certificate does not name this host
    # The server does not insist: the default certificate serves those who take it.
    said = ok(curl("/1k", "--insecure", "--output", os.devnull, "--write-out", "%{http_code}", host="elsewhere.test"))
    assert said == "200"


def test_an_unknown_ca_is_named_in_the_error_log(curl, edge, tmp_path):
    since = edge.mark()
    refused = curl("/1k", "--cacert", Authority(tmp_path).file)
    assert refused.returncode == 60
    edge.wait_error(r"127\.0\.0\.1:\d+: handshake failed: .*unknown_ca", since)


def test_tls_1_2_is_refused(curl, nginx, make_edge):
    strict = make_edge({"nginx": [nginx.server]}, tls={"min_version": "1.3"})
    refused = curl(strict.url("/1k"), "--tls-max", "1.2", "--resolve", f"*:{strict.port}:127.0.0.1")
    assert refused.returncode == 35
    assert "protocol version" in refused.stdout


def test_alpn(curl):
    assert "server accepted h2" in ok(curl("/1k", "--verbose", "--http2", "--output", os.devnull))
    assert "server accepted http/1.1" in ok(curl("/1k", "--verbose", "--http1.1", "--output", os.devnull))


def test_ipv4_and_ipv6(make_edge, pki, nginx):
    if not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    port = free_port(socket.AF_INET6)
    edge = make_edge({"nginx": [nginx.server]}, binds=[f"[::1]:{port}"])
    program = peer("curl")
    for flag, bound in (("-4", edge.port), ("-6", port)):
        url = f"https://localhost:{bound}/headers?{flag}"
        said = ok(run([program, "-sS", flag, "--cacert", pki.ca.file, url]))
        client = "127.0.0.1" if flag == "-4" else "::1"
        assert f"xff={client} " in said
        assert edge.wait_request(path=f"/headers?{flag}")["client"] == client
