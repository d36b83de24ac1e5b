"""The examples of HTTP hooks in docs/examples, as a user would start them."""

import base64
import hashlib
import json
import ssl
import urllib.parse

from tests.e2e.examples import run_example
from tests.e2e.processes import peer, run, wait_until

SECONDS = 30


def headers(body):
    return {name.lower(): value for name, value in json.loads(body)["headers"].items()}


def test_a_maintenance_page(tmp_path):
    with run_example("maintenance", tmp_path) as example:
        assert example.curl("/request")[0] == 200
        (example.directory / "maintenance").touch()
        status, page = wait_until(lambda: (got := example.curl("/request"))[0] == 503 and got, SECONDS, "the page")
        assert "Back soon" in page
        status, body = example.curl("/request", "--header", "X-Maintainer: letmein")
        assert (status, "x-maintainer" in headers(body)) == (200, False)
        assert example.curl("/request", "--header", "X-Maintainer: letmeout")[0] == 503
        (example.directory / "maintenance").unlink()
        wait_until(lambda: example.curl("/request")[0] == 200, SECONDS, "the end of the maintenance")


def test_a_list_of_bans(tmp_path):
    with run_example("ip-bans", tmp_path) as example:
        file = example.directory / "banned.txt"
        assert example.curl("/request")[0] == 200
        kept = file.read_text()
        for ban in ("127.0.0.0/8", "127.0.0.1"):
            file.write_text(f"{kept}{ban}  # everybody here\n")
            wait_until(lambda: example.curl("/request")[0] == 0, SECONDS, "the ban")
            file.write_text(f"{kept}127.1.0.0/16\n::/0\n")
            wait_until(lambda: example.curl("/request")[0] == 200, SECONDS, "its end")
        file.write_text(f"{kept}127.0.0.0/8\nno network\n")
        told = "the bans stay as they were"
        wait_until(
            lambda: example.curl("/request")[0] == 200 and told in example.log, SECONDS, "what is wrong in the file"
        )


def test_api_keys(tmp_path):
    def ask(key, path="/request", *more):
        return example.curl(path, "--header", f"X-API-Key: {key}", *more)

    with run_example("api-key", tmp_path) as example:
        assert example.curl("/request")[0] == 401
        assert ask("red")[0] == 403
        for _ in range(3):
            status, body = ask("green", "/request", "--header", "X-Client-Name: root")
            found = headers(body)
            assert (status, found["x-client-name"], "x-api-key" in found) == (200, "Alice", False)
        assert example.log.count("GET /owner") == 2                 # one for each key
        assert example.curl("/public/x")[0] != 401
        # Without the service: what it said lately is good, what it never said is not.
        (example.directory / "keys.sock").unlink()
        assert ask("green")[0] == 200
        assert ask("blue")[0] == 503


def test_two_versions_by_ja4(tmp_path):
    with run_example("ab-by-ja4", tmp_path) as example:
        seen = {}
        for arguments in ((), ("--tls-max", "1.2"), ("--http1.1",), ("--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"), ()):
            status, body = example.curl("/", *arguments)
            variant, ja4 = body.removeprefix("variant ").strip().split(", for ")
            assert (status, len(ja4), ja4[0]) == (200, 36, "t")
            assert seen.setdefault(ja4, variant) == variant
        assert len(seen) >= 3
        for ja4, variant in seen.items():
            share = int.from_bytes(hashlib.sha256(ja4.encode()).digest()[:8], "big") / 2**64
            assert variant == ("b" if share < 0.5 else "a")


def test_headers_of_clients_with_certificates(tmp_path):
    with run_example("mtls-headers", tmp_path) as example:
        alice = example.directory / "alice.pem"
        shown = ("--cert", alice, "--key", example.directory / "alice.key")
        forged = ("--header", "X-Client-Subject: root", "--header", "X_Client_Subject: root")
        status, body = example.curl("/request", *forged)
        assert (status, [name for name in headers(body) if "client" in name]) == (200, [])
        assert example.curl("/members/x", *forged)[0] == 403
        status, body = example.curl("/request", *shown, *forged)
        found = headers(body)
        assert (status, "x_client_subject" in found) == (200, False)
        assert urllib.parse.unquote(found["x-client-subject"]) == "O=Example,CN=Al\u00efce"
        der = ssl.PEM_cert_to_DER_cert(alice.read_text())
        assert found["x-client-fingerprint"] == hashlib.sha256(der).hexdigest()
        assert found["client-cert"] == f":{base64.b64encode(der).decode()}:"
        assert example.curl("/members/x", *shown)[0] != 403


def test_a_tour_of_hooks(tmp_path):
    with run_example("tour", tmp_path) as example:
        status, head = example.curl("/request", "--include")
        assert (status, head[:7]) == (200, "HTTP/2 ")
        assert "strict-transport-security: max-age=86400" in head.lower()
        status, head = example.curl("/request", "--include", "--tls-max", "1.2")
        assert (status, head[:9]) == (200, "HTTP/1.1 ")
        assert "x-tls-version: TLSv1.2" in head.replace("X-TLS-Version", "x-tls-version")
        command = [peer("curl"), "--cacert", example.ca, f"https://127.0.0.1:{example.port}/request"]
        refused = run(command)
        assert refused.returncode != 0
        assert "unrecognized name" in (refused.stdout + (refused.stderr or "")).lower()
        wait_until(lambda: "idle -> closed" in example.log and "nothing -> new" in example.log, SECONDS, "the states")
