"""Go's net/http as the client: a program that verifies what it gets, built here with the Go that is there."""

import os
from pathlib import Path

import pytest

from tests.e2e.processes import ROOT, peer, run

FACTS = ["get", "post", "chunked", "keepalive", "trailer", "head", "groups", "hrr", "names", "tls12", "concurrency"]


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2.0"])
def said(request, tmp_path_factory, edge, pki):
    directory = tmp_path_factory.mktemp("go")
    program = directory / "go_client"
    environment = {
        **os.environ,
        "GO111MODULE": "off",
        # Kept, as from Go 1.20 on the standard library is compiled first; Debian 12's comes compiled, with cgo.
        "GOCACHE": str(ROOT / ".cache/go-build"),
        "CGO_ENABLED": "1",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
    }
    source = Path(__file__).with_name("go_client.go")
    debian = Path("/usr/bin/go")  # the one that ./dev test installs
    go = debian if debian.exists() else peer("go")
    built = run([go, "build", "-o", program, source], seconds=240, env=environment)
    assert built.returncode == 0, built.stdout
    return run([program, f"https://127.0.0.1:{edge.port}", pki.ca.file, request.param], seconds=60).stdout


@pytest.mark.parametrize("fact", FACTS)
def test_go(said, fact):
    assert f"ok {fact}\n" in said, said


def test_nothing_failed(said):
    assert "FAILED" not in said
