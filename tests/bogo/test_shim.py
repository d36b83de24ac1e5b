"""The shim and its run command, without BoringSSL's runner: these tests play its part."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import CLOSE_NOTIFY, DATA, ESTABLISHED, Engine
from cryptography.hazmat.primitives import serialization

from tests.cext.tls.peer import certified, server_config

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIG = json.loads((HERE / "config.json").read_text(encoding="utf-8"))
FLIPPED = bytes(byte ^ 0xFF for byte in b"hello")


def start(*flags):
    environment = {**os.environ, "EDGE_PYTHON": sys.executable}
    return subprocess.Popen(
        [HERE / "shim", *map(str, flags)], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def run(*flags):
    shim = start(*flags)
    out, err = shim.communicate(timeout=20)
    return shim.returncode, out, err


class Runner:
    """A listener that takes one connection of a shim, and an engine of the other role to speak with it."""

    def __init__(self, engine, *flags):
        self.engine = engine
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(20)
            self.shim = start("-port", listener.getsockname()[1], "-shim-id", 0x1234, *flags)
            self.socket, _ = listener.accept()
        self.socket.settimeout(20)
        assert self.socket.recv(8, socket.MSG_WAITALL) == (0x1234).to_bytes(8, "little")

    def until(self, *wanted):
        """Carries bytes until these events have come; the application data among them."""
        received = b""
        missing = list(wanted)
        while missing:
            self.socket.sendall(self.engine.take_output())
            data = self.socket.recv(1 << 16)
            assert data, self.end()
            for event, payload in self.engine.receive_bytes(data):
                received += payload
                if event in missing:
                    missing.remove(event)
        self.socket.sendall(self.engine.take_output())
        return received

    def end(self):
        """Exit status and stderr of the shim."""
        self.socket.shutdown(socket.SHUT_WR)
        _, err = self.shim.communicate(timeout=20)
        self.socket.close()
        return self.shim.returncode, err


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Flags for a certificate and its key."""
    directory = tmp_path_factory.mktemp("bogo")
    certificate, key = certified("ecdsa-p256", "example.com")
    (directory / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (directory / "key.pem").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    return ["-cert-file", directory / "cert.pem", "-key-file", directory / "key.pem"]


def test_there_is_no_split_handshake():
    assert run("-is-handshaker-supported") == (0, "No\n", "")


@pytest.mark.parametrize("flags", [["-no-such-flag"], ["-on-resume-no-such-flag", "x"], ["-dtls"]])
def test_what_is_not_offered_is_unimplemented(flags):
    assert run("-port", 1, *flags) == (89, "", "")


@pytest.mark.parametrize("flags", [[], ["-async"], ["-shim-writes-first"], ["-key-update"]])
def test_as_a_server(files, flags):
    client = Engine(ClientConfig(server_name="example.com"))
    runner = Runner(client, "-server", *files, "-check-close-notify", *flags)
    received = runner.until(ESTABLISHED)
    runner.engine.send(b"hello")
    wanted = b"hello" * ("-shim-writes-first" in flags) + FLIPPED
    while received != wanted:
        received += runner.until(DATA)
        assert wanted.startswith(received)
    runner.engine.send_close_notify()
    runner.until(CLOSE_NOTIFY)
    assert runner.end() == (0, "")


def test_as_a_client(files):
    flags = ["-host-name", "example.com", "-advertise-alpn", "\x08http/1.1", "-expect-alpn", "http/1.1",
             "-expect-no-session", "-expect-peer-cert-file", files[1], "-expect-version", 0x0304]
    runner = Runner(Engine(server_config()), *flags)
    runner.until(ESTABLISHED)
    runner.engine.send(b"hello")
    assert runner.until(DATA) == FLIPPED
    assert runner.end() == (0, "")


@pytest.mark.parametrize(("flags", "error"), [
    (["-expect-alpn", "h2"], "ALPN b'' instead of b'h2'\n"),
    (["-expect-cipher", 0x1303], "cipher suite 0x1301 instead of 0x1303\n"),
    (["-expect-hrr"], "a HelloRetryRequest: False\n"),
    (["-verify-peer", "-verify-fail"], "handshake_failure: the certificate is not trusted: "
                                       "certificate verification failed\n"),
])
def test_what_does_not_meet_the_flags_fails(flags, error):
    runner = Runner(Engine(server_config()), *flags)
    while data := runner.socket.recv(1 << 16):
        runner.engine.receive_bytes(data)
        runner.socket.sendall(runner.engine.take_output())
    assert runner.end() == (1, error)


def test_a_handshake_that_must_not_be_completed():
    runner = Runner(Engine(server_config()), "-handshake-never-done")
    runner.until(ESTABLISHED)
    assert runner.end() == (90, "the handshake was completed\n")


def test_an_error_is_told_and_its_alert_arrives(files):
    runner = Runner(None, "-server", *files)
    runner.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert runner.socket.recv(7, socket.MSG_WAITALL) == bytes.fromhex("1503030002020a")
    assert runner.end() == (1, "unexpected_message: a plaintext HTTP request\n")


def test_no_common_group_is_a_failure(files):
    runner = Runner(None, "-server", *files)
    hello = bytes.fromhex("0303") + bytes(32) + b"\0" + bytes.fromhex("0002c02b0100")
    hello = b"\1" + len(hello).to_bytes(3, "big") + hello
    runner.socket.sendall(b"\x16\3\1" + len(hello).to_bytes(2, "big") + hello)
    assert runner.end() == (1, "handshake_failure: no group in common\n")


# --- the configuration

def test_every_pattern_has_a_reason():
    assert set(CONFIG) == {"DisabledTests", "ErrorMap", "HalfRTTTickets"}
    assert all(isinstance(reason, str) and len(reason) > 10 for reason in CONFIG["DisabledTests"].values())


def test_every_error_that_is_mapped_exists():
    """The runner looks for these texts in stderr: one that nobody writes any more hides a test's point."""
    sources = [*(ROOT / "cext" / "tls").glob("*.pyx"), *(ROOT / "cext" / "crypto").glob("*.pyx"), HERE / "exchange.py"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    alerts = set(re.findall(r'"([a-z_]+)"', (ROOT / "cext" / "tls" / "alert.pyx").read_text(encoding="utf-8")))
    for error, ours in CONFIG["ErrorMap"].items():
        assert isinstance(ours, list) and ours, error
        for fragment in ours:
            prefix, _, reason = fragment.removeprefix("peer's alert: ").rpartition(": ")
            known = prefix in alerts or reason in alerts or reason.startswith("unknown(") or not prefix
            assert known or prefix in text, (error, fragment)
            assert not reason or reason in alerts or reason.startswith("unknown(") or reason in text, (error, fragment)


# --- the command

FAKE_RUNNER = """#!{python}
import sys
assert "-allow-unimplemented" in sys.argv and "-loose-errors" not in sys.argv
erase = lambda n: "\\b \\b" * n
sys.stdout.write("0/0/0/1/10" + erase(10) + "0/0/1/1/10" + erase(10))
sys.stdout.write("FAILED (A-Test)\\nunexpected success\\n" * {failed})
sys.stdout.write("{failed}/3/7/7/10\\n")
sys.exit({failed})
"""


@pytest.mark.parametrize(("failed", "arguments", "last"), [
    (0, [], "bogo: 4 passed, 3 disabled, 3 unimplemented, 0 failed"),
    (1, [], "bogo: 3 passed, 3 disabled, 3 unimplemented, 1 failed"),
    (0, ["-test", "A*"], "bogo: 4 passed, 0 disabled, 3 unimplemented, 0 failed"),
])
def test_the_run_command_ends_with_the_counts(tmp_path, failed, arguments, last):
    fake = tmp_path / "runner"
    fake.write_text(FAKE_RUNNER.format(python=sys.executable, failed=failed), encoding="utf-8")
    fake.chmod(0o755)
    done = subprocess.run([HERE / "run", fake, *arguments], check=False, capture_output=True, text=True, timeout=20)
    assert done.stdout.splitlines()[-1] == last
    assert done.returncode == failed
    assert done.stdout.count("FAILED (A-Test)\nunexpected success\n") == failed


def test_the_run_command_without_a_runner(tmp_path):
    missing = tmp_path / "none"
    done = subprocess.run([HERE / "run", missing], check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 2
    assert "README.md" in done.stderr
