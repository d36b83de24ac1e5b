"""Every input of the corpora and every seed through its target, without a fuzzer, and what the harness rests on."""

import contextlib
from pathlib import Path

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import REJECTED, Engine

from tests.fuzz import peers, seeds, targets
from tests.fuzz.script import KINDS, SLOTS, Script, encode, extensions_of

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", targets.TARGETS)
def test_corpus(name):
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        targets.TARGETS[name](path.read_bytes())


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds(name):
    for data in seeds.SEEDS[name]():
        targets.TARGETS[name](data)


@pytest.mark.parametrize("name", ["server_script", "client_script"])
@pytest.mark.parametrize("settings", seeds.HANDSHAKES)
def test_a_script_without_operations_is_a_handshake(name, settings):
    """Deep states are reached: else a fuzzer would turn about the first message alone."""
    peer = targets.TARGETS[name](encode(settings))
    assert peer.engine.established, peer.engine.failure
    assert peer.engine.resumed == bool(settings >> 5 & 1)


@pytest.mark.parametrize("name", ["server_script", "client_script"])
@pytest.mark.parametrize("retry", [0, 1 << 3])
def test_the_hybrid_is_reached(name, retry):
    peer = targets.TARGETS[name](encode(1 << 2 | 1 << 12 | retry))
    assert peer.engine.group == max(peers.SHARES)
    assert peer.engine.hello_retried == bool(retry)


@pytest.mark.parametrize("name", ["server_script", "client_script"])
def test_early_data_is_reached(name):
    peer = targets.TARGETS[name](encode(0x4E0))
    if name == "server_script":
        assert peer.early_accepted
    else:
        assert peer.read.sequence and peer.hello["early_data"] and not peer.early_unread


def test_a_client_of_tls12_shows_its_certificate():
    assert targets.server_script(encode(1 << 4 | 1 << 12)).engine.peer_certificates
    damaged = targets.server_script(encode(1 << 4 | 1 << 12, ("set", "client_verify", 20, b"\0\0\0")))
    assert damaged.engine.failure.name in ("decrypt_error", "decode_error")


@pytest.mark.parametrize("settings", [1 << 11, 1 << 11 | 1 << 13, 1 << 11 | 1 << 13 | 3, 1 << 4 | 1 << 11])
def test_a_client_is_given_what_stands_beside_a_certificate(settings):
    engine = targets.client_script(encode(settings)).engine
    assert engine.ocsp_response == peers.RESPONSE
    assert engine.signed_certificate_timestamps == peers.TIMESTAMPS


@pytest.mark.parametrize(
    ("settings", "slot", "operation", "reason"),
    [
        (1 << 11, "certificate", ("set_extension", 0, b"\2\0\0\1x"), "CertificateStatus"),
        (1 << 11 | 1 << 13, "certificate", ("set_extension", 1, b"\0\3\0\1"), "SignedCertificateTimestampList"),
        (1 << 11 | 1 << 13 | 3, "certificate", ("set", 9, b"\0\0\0"), "decompressed"),
        (1 << 11 | 1 << 13, "certificate", ("set", 0, b"\0\2"), "not offered"),
        (1 << 4 | 1 << 11, "retry", ("set", 0, b"\2"), "CertificateStatus"),
    ],
)
def test_faults_beside_a_certificate(settings, slot, operation, reason):
    engine = targets.client_script(encode(settings, (operation[0], slot, *operation[1:]))).engine
    assert reason in engine.failure.reason


def heard(target, settings, *operations):
    """The handshake messages that the engine sends, by type."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for peer in (peers.ScriptedClient, peers.ScriptedServer):
            take = peer.take
            patch.setattr(
                peer, "take", lambda self, whole, take=take: found.update({whole[0]: whole}) or take(self, whole)
            )
        assert target(encode(settings, *operations)).engine.established
    return found


@pytest.mark.parametrize("settings", [0, 1 << 15])
def test_a_server_shows_a_delegated_credential(settings):
    verify = heard(targets.server_script, settings, seeds.DELEGATED)[15]
    assert verify[4:6] == b"\x08\x07"
    assert heard(targets.server_script, settings)[15][4:6] == b"\4\3"


@pytest.mark.parametrize("compression", [0, 3])
def test_certificates_are_compressed(compression):
    both = 1 << 11 | 1 << 13 | compression
    number = b"\0\1" if compression else b"\x40\1"
    assert heard(targets.server_script, both)[25][4:6] == number
    assert targets.server_script(encode(both)).engine.peer_certificates
    assert heard(targets.client_script, 1 << 9 | 1 << 11 | 1 << 14 | compression)[25][4:6] == number


@pytest.mark.parametrize("tls12", [0, 1 << 4])
def test_a_client_chooses_its_certificate_when_asked(tls12):
    assert len(heard(targets.client_script, 1 << 9 | 1 << 15 | tls12)[11]) > 300
    other = ("set", "request", 5 if tls12 else 9, b"\x08\7")  # in place of its scheme
    assert len(heard(targets.client_script, 1 << 9 | 1 << 15 | tls12, other)[11]) < 10


@pytest.mark.parametrize("operation", [("drop_extension", "extensions", 1, b""), ("body", "extensions", 0, b"\0\0")])
def test_a_script_that_refuses_early_data_after_all(operation):
    peer = targets.client_script(encode(0x4E0, operation))
    assert peer.engine.established
    assert peer.engine.early_data_state == REJECTED


def test_recorded_handshakes_are_right_again():
    client, server = seeds.recorded()
    with targets.ENTROPY.installed():
        targets.ENTROPY.restart()
        assert targets.server_records(b"\3" + client).established_seen
        targets.ENTROPY.restart()
        assert targets.client_records(b"\3" + server).established_seen


@pytest.mark.parametrize("name", ["server_script", "client_script"])
def test_an_input_means_the_same_each_time(name):
    def trace():
        said = []
        with contextlib.ExitStack() as stack:
            take = targets.Watched.take_output

            def recorded(self):
                said.append(take(self))
                return said[-1]

            targets.Watched.take_output = recorded
            stack.callback(setattr, targets.Watched, "take_output", take)
            targets.TARGETS[name](encode(1 << 2 | 1 << 10, ("act", "after", 35, b"x")))
        return said

    assert trace() == trace()


def test_randomness_is_real_outside_a_run():
    def hello():
        return Engine(ClientConfig()).take_output()

    assert hello() != hello()
    with targets.ENTROPY.installed():
        targets.ENTROPY.restart()
        first = hello()
        targets.ENTROPY.restart()
        assert hello() == first
    assert hello() != hello()


@pytest.mark.parametrize("name", ["server_script", "client_script"])
@pytest.mark.parametrize(
    ("server", "client", "fault"),
    [
        ("client_hello", "server_hello", ("set_extension", 1, b"")),
        ("client_finished", "finished", ("set", 3, b"\0\0\0")),
        ("client_finished", "finished", ("repeat", 0, b"")),
        ("client_finished", "finished", ("before", 0, b"\x16\x18\0\0\1\0")),
        ("client_finished", "finished", ("flip", 9, b"\1")),
    ],
)
def test_a_fault_is_refused(name, server, client, fault):
    slot = server if name == "server_script" else client
    peer = targets.TARGETS[name](encode(0, (fault[0], slot, *fault[1:])))
    assert peer.engine.failure and peer.engine.failure.sent


def test_a_peer_may_fail_by_itself():
    engine = targets.client_records(bytes.fromhex("03 15 0303 0002 0250"))
    assert (engine.failure.name, engine.failure.sent) == ("internal_error", False)


def test_scripts():
    whole = b"\1\0\0\x08" + b"\3\3" + b"\0\4" + b"\0\x0a\0\0"
    assert Script(encode(0)).messages("client_hello", whole) == [whole]
    for kind, position, payload, expected in (
        ("set", 0, b"\3\4", b"\1\0\0\x08\3\4\0\4\0\x0a\0\0"),
        ("truncate", 2, b"", b"\1\0\0\2\3\3"),
        ("add_extension", 0, b"\0\x10x", b"\1\0\0\x0d\3\3\0\x09\0\x10\0\1x\0\x0a\0\0"),
        ("set_extension", 0, b"xy", b"\1\0\0\x0a\3\3\0\6\0\x0a\0\2xy"),
        ("drop_extension", 0, b"", b"\1\0\0\4\3\3\0\0"),
        ("length", 0xFFFF, b"\2", b"\1\2\xff\xff" + whole[4:]),
    ):
        script = Script(encode(0, (kind, "client_hello", position, payload)))
        assert script.messages("client_hello", whole) == [expected], kind
        assert script.messages("finished", whole) == [whole]
    assert Script(encode(0, ("drop", "verify", 0, b""))).messages("verify", whole) == []
    assert len(Script(encode(0, ("repeat", "verify", 0, b""))).messages("verify", whole)) == 2
    assert extensions_of(b"no extensions") == (None, [])


def test_any_bytes_are_a_script():
    for n in range(40):
        script = Script(bytes(range(n, 2 * n)))
        assert all(o.kind in KINDS and o.slot in SLOTS for o in script.operations)
