"""The demo's certificates: for this machine's own names only, kept, and renewed in time."""

import datetime
import ipaddress
import shutil
import socket
import subprocess
import threading

import pytest
from cryptography import x509

from edge import demo


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


def test_names_and_bounds(tmp_path):
    ca_path = demo.make_certificates(tmp_path)
    ca, leaf = load(ca_path), load(tmp_path / "localhost.pem")
    leaf.verify_directly_issued_by(ca)
    names = extension(leaf, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(a) for a in ("127.0.0.1", "::1")]
    assert extension(ca, x509.BasicConstraints).value == x509.BasicConstraints(ca=True, path_length=0)
    constraints = extension(ca, x509.NameConstraints)
    assert constraints.critical
    assert [str(n.value) for n in constraints.value.permitted_subtrees] == ["localhost", "127.0.0.1/32", "::1/128"]
    assert not extension(leaf, x509.BasicConstraints).value.ca


def test_it_is_kept_until_it_is_about_to_expire(tmp_path, monkeypatch):
    demo.make_certificates(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    demo.make_certificates(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=80)
    monkeypatch.setattr(demo, "_now", lambda: later)
    demo.make_certificates(tmp_path)
    assert (tmp_path / "ca.pem").read_bytes() == before["ca.pem"]
    assert load(tmp_path / "localhost.pem").not_valid_after_utc > later + datetime.timedelta(days=80)


def test_damage_is_mended(tmp_path):
    demo.make_certificates(tmp_path)
    ca = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "localhost.pem").write_text("")
    demo.make_certificates(tmp_path)
    assert (tmp_path / "ca.pem").read_bytes() == ca
    (tmp_path / "ca.key").unlink()
    demo.make_certificates(tmp_path)
    load(tmp_path / "localhost.pem").verify_directly_issued_by(load(tmp_path / "ca.pem"))
    assert (tmp_path / "ca.pem").read_bytes() != ca


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
@pytest.mark.parametrize(
    "name", [["-verify_hostname", "localhost"], ["-verify_ip", "127.0.0.1"], ["-verify_ip", "::1"]]
)
def test_openssl_accepts_it(tmp_path, name):
    ca = demo.make_certificates(tmp_path)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", *name, "-CAfile", ca]
    done = subprocess.run(
        [*command, tmp_path / "localhost.pem"], check=False, capture_output=True, text=True, timeout=20
    )
    assert done.returncode == 0, done.stderr


def test_content_of_a_get_is_not_taken_for_a_request(tmp_path):
    path = str(tmp_path / "socket")
    with demo._Origin(path, demo._Handler) as origin:
        threading.Thread(target=origin.serve_forever, daemon=True).start()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(path)
            head = b"GET /edge.svg HTTP/1.1\r\nHost: x\r\nConnection: %b\r\nTransfer-Encoding: chunked\r\n\r\n"
            content = b"10\r\nGET /evil HTTP/1\r\n0\r\nT: v\r\n\r\n"
            client.sendall(head % b"keep-alive" + content + head % b"close" + content)
            with client.makefile("rb") as answers:
                said = answers.read()
        origin.shutdown()
    assert said.count(b"HTTP/1.1 200 OK") == 2
    assert b"HTTP/1.1 4" not in said
