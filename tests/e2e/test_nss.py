"""NSS's tstclnt: TLS 1.3 with each suite and group, verified against the test CA in a database of its own."""

import pytest

from tests.e2e.processes import peer, run

GET = "GET /headers HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def nss_database(tmp_path_factory, pki):
    certutil = peer("certutil")
    directory = tmp_path_factory.mktemp("nss")
    for command in (
        ["-N", "--empty-password"],
        ["-A", "-n", "test-ca", "-t", "C,,", "-i", pki.ca.file],
    ):
        made = run([certutil, "-d", f"sql:{directory}", *command])
        assert made.returncode == 0, made.stdout
    return directory


@pytest.fixture(scope="module")
def tstclnt(edge, nss_database):
    program = peer("tstclnt", "/usr/lib/nss/unsupported-tools", "/usr/lib/x86_64-linux-gnu/nss/unsupported-tools")

    def call(*options: object, name: str = "edge.test", version: str = "tls1.3:tls1.3", server=edge):
        command = [program, "-h", "127.0.0.1", "-p", server.port, "-a", name, "-d", f"sql:{nss_database}"]
        # From a file: at the end of a pipe it spins.
        request = nss_database / "request"
        request.write_text(GET.format(name=name))
        with open(request) as stdin:
            return run([*command, "-V", version, *options], stdin=stdin, seconds=20)

    return call


def answered(process) -> str:
    assert "HTTP/1.1 200 OK" in process.stdout, process.stdout
    assert "uri=/headers" in process.stdout
    return process.stdout


@pytest.mark.parametrize("suite", [":1301", ":1302", ":1303"])
def test_suites(tstclnt, edge, suite):
    answered(tstclnt("-c", suite))


@pytest.mark.parametrize(("group", "logged"), [("x25519", "x25519"), ("P256", "secp256r1"), ("P384", "secp384r1")])
def test_groups(tstclnt, edge, group, logged):
    known = len(edge.requests(path="/headers", group=logged))
    answered(tstclnt("-I", group))
    edge.wait_request(count=known + 1, path="/headers", group=logged)


def test_hello_retry_request(tstclnt, edge):
    """P-521 comes first, and its share alone is sent; the server asks for P-384."""
    known = len(edge.requests(path="/headers", group="secp384r1"))
    answered(tstclnt("-I", "P521,P384"))
    edge.wait_request(count=known + 1, path="/headers", group="secp384r1")


@pytest.mark.parametrize("name", ["p384.edge.test", "rsa.edge.test", "c.wild.edge.test"])
def test_certificates(tstclnt, name):
    answered(tstclnt(name=name))


def test_a_wrong_name_is_refused_by_the_client(tstclnt, edge):
    since = edge.mark()
    refused = tstclnt(name="elsewhere.test")
    assert refused.returncode != 0
    assert "HTTP/1.1" not in refused.stdout
    edge.wait_error("handshake failed: ", since)


def test_tls_1_2_is_refused(tstclnt, nginx, make_edge):
    strict = make_edge({"nginx": [nginx.server]}, tls={"min_version": "1.3"})
    refused = tstclnt(version="tls1.2:tls1.2", server=strict)
    assert refused.returncode != 0
    assert "PROTOCOL_VERSION" in refused.stdout
