"""What the roles bring along: scripts, and the filter that encrypts."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from ansible.parsing.vault import VaultLib, VaultSecret, VaultSecretsContext

from tests.ansible.readmes import COLLECTION

FILES = [
    path
    for path in COLLECTION.glob("roles/*/files/*")
    if path.is_file() and path.read_text().startswith("#!/bin/sh\n")
]


@pytest.mark.parametrize("script", FILES, ids=lambda path: path.name)
def test_the_shell_reads_it(script):
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0


def prune(directory, *words):
    script = COLLECTION / "roles/edge/files/prune.sh"
    done = subprocess.run(["sh", script, directory, *words], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return done.stdout.splitlines(), sorted(path.name for path in directory.iterdir())


@pytest.fixture
def releases(tmp_path):
    for age, name in enumerate(["new", "newer than old", "old", "oldest"]):
        (tmp_path / name / "lib").mkdir(parents=True)
        os.utime(tmp_path / name, (1_700_000_000 - age * 1000,) * 2)
    (tmp_path / "file").write_text("")
    return tmp_path


def test_the_oldest_go(releases):
    assert prune(releases, "2") == (["removed old", "removed oldest"], ["file", "new", "newer than old"])
    assert prune(releases, "2") == ([], ["file", "new", "newer than old"])


def test_those_that_are_named_stay(releases):
    assert prune(releases, "1", "oldest", "old") == (
        ["removed newer than old"],
        ["file", "new", "old", "oldest"],
    )


def test_what_a_process_has_mapped_stays(releases):
    library = releases / "oldest/lib/libc.so.6"
    found = subprocess.run(["ldconfig", "-p"], check=True, stdout=subprocess.PIPE, text=True, env={"PATH": "/sbin"})
    (real,) = {line.split()[-1] for line in found.stdout.splitlines() if "libc.so.6" in line and "x86-64" in line}
    library.write_bytes(Path(real).read_bytes())
    with subprocess.Popen(["sleep", "60"], env={"LD_PRELOAD": str(library)}) as sleeper:
        try:
            while str(library) not in Path(f"/proc/{sleeper.pid}/maps").read_text():
                assert sleeper.poll() is None
            assert prune(releases, "1")[1] == ["file", "new", "oldest"]
        finally:
            sleeper.kill()
    assert prune(releases, "1")[1] == ["file", "new"]


@pytest.fixture
def vaulted():
    spec = importlib.util.spec_from_file_location("vaulted_filter", COLLECTION / "plugins/filter/vaulted.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.FilterModule().filters()["vaulted"]


def test_what_is_encrypted_is_read_by_who_has_the_password(vaulted, monkeypatch):
    secrets = [("default", VaultSecret(b"a password"))]
    monkeypatch.setattr(VaultSecretsContext, "_current", VaultSecretsContext(secrets))
    written = vaulted("a key\n")
    assert written.startswith("$ANSIBLE_VAULT;1.1;AES256\n")
    assert "a key" not in written
    assert VaultLib(secrets).decrypt(written.encode()) == b"a key\n"


@pytest.mark.parametrize("context", [None, VaultSecretsContext([])])
def test_without_a_password_nothing_is_written(vaulted, monkeypatch, context):
    monkeypatch.setattr(VaultSecretsContext, "_current", context)
    with pytest.raises(AnsibleFilterError, match="no password of a vault"):
        vaulted("a key\n")


def test_the_admin_socket_is_found_wherever_it_is(tmp_path):
    place, before = tmp_path / "edge.toml", tmp_path / "before.toml"
    script = (COLLECTION / "roles/edge/files/admin.py").read_text()
    for file, here in ("/etc/edge.before/etc/edge.toml", before), ("/etc/edge/edge.toml", place):
        assert file in script
        script = script.replace(file, str(here))

    def said():
        done = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
        return done.stdout.strip()

    assert said() == ""
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        one.bind(str(tmp_path / "one"))
        other.bind(str(tmp_path / "other"))
        place.write_text(f'[server]\nadmin = "unix:{tmp_path}/one"\n')
        before.write_text(f'[server.admin]\npath = "unix:{tmp_path}/other"\nmode = "0660"\n')
        assert said() == str(tmp_path / "one")
        place.write_text(f'[server]\nadmin = "unix:{tmp_path}/nobody"\n')
        assert said() == str(tmp_path / "other")
        place.write_text("[server\n")
        assert said() == str(tmp_path / "other")
        before.write_text("[server]\nworkers = 2\n")
        assert said() == ""
