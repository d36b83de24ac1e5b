"""A register that is asked, and waited for: by every handshake that could take early data, and by no other."""

import os

import pytest
from cext.tls.config import ClientConfig
from cext.tls.engine import (
    ACCEPTED,
    DATA,
    DISCARDING,
    ESTABLISHED,
    FAILED,
    NO_EARLY_DATA,
    PROGRESS,
    READING,
    REJECTED,
    WAIT_POLICY,
    WAIT_REGISTER,
    Engine,
)
from cext.tls.psk import REFUSAL_NAMES
from cext.tls.replay import DOWN, FRESH, FULL, LATE, SEEN, AwaitedRegister, SharedRegister
from cext.tls.session import TicketKeys, now, shift_clock

from tests.cext.tls.peer import CHACHA20, HANDSHAKE, P256, X25519, pump, record, records
from tests.cext.tls.resuming import LIMIT, ResumingClient, again, first_session, resuming_config

IDENTITY, KEY = b"a fleet.", b"k" * 32
SEE_OTHER = 0xFF


def register(local=None, *, up=True, **options):
    made = AwaitedRegister(
        local or SharedRegister(20_000, 1024), IDENTITY, KEY, **{"remembers": 22_000, "deadline": 50, **options}
    )
    made.up = up
    return made


@pytest.fixture
def config():
    return resuming_config(alpn=(), max_early_data=LIMIT, replay=register())


@pytest.fixture
def session(config):
    return first_session(config)


def offer(config, session, *, early=True, data=b"early", **client):
    """(client, server, the server's events) after the client's first flight."""
    client = Engine(ClientConfig(early_data=early, server_name="example.com", **client), session)
    if early:
        client.send(data)
    server = Engine(config)
    return client, server, [event for event, _ in server.receive_bytes(client.take_output())]


def asked(config, session, **client):
    a, b, events = offer(config, session, **client)
    assert events == [WAIT_REGISTER]
    return a, b


def refusal(server):
    return REFUSAL_NAMES[server.early_data_refusal]


def test_it_is_waited_for(config, session):
    client, server = asked(config, session)
    assert server.take_output() == b""
    assert server.asked_register is config.replay
    assert server.receive_bytes(b"") == []
    assert (server.early_data_state, server.write_open, server.established) == (NO_EARLY_DATA, False, False)
    assert server.tell(FRESH) == PROGRESS
    assert server.asked_register is None and server.asked_name is None
    assert server.early_data_state == READING
    assert (DATA, b"early") in server.receive_bytes(b"")  # what came meanwhile
    pump(client, server)
    assert client.established and server.established
    assert client.early_data_state == server.early_data_state == ACCEPTED
    assert server.fingerprint and server.resumed


@pytest.mark.parametrize(
    ("answer", "why"),
    [(SEEN, "replayed"), (LATE, "register late"), (DOWN, "register down"), (FULL, "register full")],
)
def test_an_answer_against_it(config, session, answer, why):
    client, server = asked(config, session)
    assert server.tell(answer) == PROGRESS
    assert server.early_data_state == DISCARDING
    assert refusal(server) == why
    read = [payload for side, event, payload in pump(client, server) if side == "b" and event == DATA]
    assert read == []
    assert client.established and server.established and server.resumed
    assert client.early_data_state == server.early_data_state == REJECTED
    client.send(b"again")
    assert (DATA, b"again") in [event[1:] for event in pump(client, server)]


@pytest.mark.parametrize(("stood_still", "taken"), [(0, True), (900, True), (-900, True), (60_000, False)])
def test_a_process_that_stood_still(config, session, stood_still, taken):
    """Between its look at the window and the question more may pass than any record keeps entries for: what others took
    meanwhile is forgotten, and seems new."""
    _, server = asked(config, session)
    shift_clock(stood_still)
    server.tell(FRESH)
    assert (server.early_data_state == READING) is taken
    assert taken or refusal(server) == "register late"


def test_nothing_leaves_until_then(config, session):
    """The flight is the same as without a wait."""
    client, server = asked(config, session)
    for _ in range(3):
        assert server.receive_bytes(b"") == []
        assert server.take_output() == b""
    server.tell(FRESH)
    assert server.take_output()
    assert client.early_data_state  # its data is still its own


def test_the_name_says_nothing_and_is_of_the_binder(config, session):
    """The same for a replay, on whichever host; another for every other ClientHello, and under another key."""
    client = Engine(ClientConfig(early_data=True, server_name="example.com"), session)
    client.send(b"early")
    flight = client.take_output()
    names = []
    for _ in range(2):
        server = Engine(again(config, replay=register()))
        server.receive_bytes(flight)
        names.append(server.asked_name)
    assert names[0] == names[1]
    assert len(names[0]) == 32 and bytes.fromhex(names[0].decode())
    other = Engine(again(config, replay=register()))
    assert [event for event, _ in other.receive_bytes(offered(session))] == [WAIT_REGISTER]
    assert other.asked_name != names[0]
    local = SharedRegister(20_000, 1024)
    assert register(local).name(b"x") != AwaitedRegister(local, IDENTITY, b"K" * 32, 22_000, 50).name(b"x")


def offered(session):
    client = Engine(ClientConfig(early_data=True, server_name="example.com"), session)
    client.send(b"early")
    return client.take_output()


def test_who_offers_nothing_does_not_wait(config, session):
    _, _, events = offer(config, session, early=False)
    assert events == [PROGRESS]
    _, _, events = offer(config, None, early=False)
    assert WAIT_REGISTER not in events


def test_what_this_host_has_seen_is_not_asked_for(config, session):
    flight = offered(session)
    first, second = Engine(config), Engine(config)
    assert [event for event, _ in first.receive_bytes(flight)] == [WAIT_REGISTER]
    assert WAIT_REGISTER not in [event for event, _ in second.receive_bytes(flight)]
    assert refusal(second) == "replayed"
    assert second.early_data_state == DISCARDING
    assert first.tell(FRESH) == PROGRESS
    assert first.early_data_state == READING


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"max_early_data": 0}, "not configured"),
        ({"replay": SharedRegister()}, "other register"),
        ({"cipher_suites": [CHACHA20]}, "other parameters"),
        ({"tickets": TicketKeys([(b"o" * 16, bytes(32))])}, "not resumed"),
    ],
)
def test_a_failed_check_does_not_wait(config, session, changes, why):
    assert unasked(again(config, **changes), session) == why


def test_out_of_the_window_it_does_not_wait(config, session):
    client = ResumingClient(config, session).hello(early=True, age=now() - session.received + 60_000)
    assert refusal(client.server) == "outside window"


def test_a_full_register_does_not_wait(config, session):
    local = SharedRegister(20_000, 16)
    for _ in range(64):
        local.enter(os.urandom(32))
    assert unasked(again(config, replay=register(local)), session) == "register full"


def unasked(config, session):
    """Why early data was not taken, which nobody was asked."""
    _, server, events = offer(config, session)
    assert WAIT_REGISTER not in events
    assert server.early_data_state == DISCARDING
    return refusal(server)


def test_while_it_is_down_nobody_waits(config, session):
    config.replay.up = False
    assert unasked(config, session) == "register down"
    config.replay.up = True
    asked(config, session)


def test_the_barrier_holds_and_may_be_raised_meanwhile(config, session):
    """What turns out to have been lost while it was waited for: an answer that says "new" does not count."""
    _, server = asked(config, session)
    config.replay.local.raise_barrier(now() + 60_000)
    assert server.tell(FRESH) == PROGRESS
    assert refusal(server) == "just started"
    assert unasked(config, session) == "just started"
    config.replay.local.raise_barrier(0)  # it never falls
    assert unasked(config, session) == "just started"


def test_no_bytes_of_its_record_come_after_the_client_hello(config, session):
    client = Engine(ClientConfig(early_data=True, server_name="example.com"), session)
    kind, hello = records(client.take_output())[0]
    server = Engine(config)
    assert server.receive_bytes(record(kind, hello[5:] + b"\x0b"))[-1][0] == FAILED
    assert server.failure.name == "unexpected_message"


def test_a_client_hello_in_pieces(config, session):
    flight = offered(session)
    server = Engine(config)
    events = [event for byte in flight for event, _ in server.receive_bytes(bytes([byte]))]
    assert events[-1] == WAIT_REGISTER
    server.tell(FRESH)
    assert (DATA, b"early") in server.receive_bytes(b"")


# Wrong orders of calls.


def test_nothing_is_told_unasked(config, session):
    server = Engine(config)
    for _ in range(2):
        with pytest.raises(ValueError, match="no register"):
            server.tell(FRESH)
    client, server = asked(config, session)
    for answer in (-1, 3, 6, SEE_OTHER):
        with pytest.raises(ValueError, match="no answer"):
            server.tell(answer)
    for wrong in (server.decide, server.show, lambda: server.give_signature(b"x")):
        with pytest.raises(ValueError):
            wrong()
    server.tell(FRESH)
    with pytest.raises(ValueError):
        server.tell(FRESH)
    pump(client, server)
    assert server.established
    with pytest.raises(ValueError):
        server.tell(SEEN)


def test_given_up(config, session):
    client, server = asked(config, session)
    assert server.give_up(80, "no more") == FAILED
    assert server.failure.name == "internal_error"
    with pytest.raises(ValueError):
        server.tell(FRESH)
    assert server.asked_register is None and server.asked_name is None
    assert client.receive_bytes(server.take_output())[-1][0] == FAILED


def test_closed_while_it_waits(config, session):
    _, server = asked(config, session)
    server.send_close_notify()
    server.tell(FRESH)
    assert not server.write_open
    with pytest.raises(ValueError):
        server.send(b"x")


def test_many_that_wait_do_not_touch_each_other(config, session):
    waiting = [asked(config, session) for _ in range(10)]
    for i, (client, server) in enumerate(reversed(waiting)):
        server.tell(FRESH if i % 2 else SEEN)
        pump(client, server)
        assert client.established and server.established
        assert server.early_data_state == (ACCEPTED if i % 2 else REJECTED)


def test_after_a_policy(config, session):
    """One wait after another: the configuration that was chosen is asked, not the one before it."""
    chosen = register()
    chooser = again(config, policy=True, replay=SharedRegister())
    client, server, events = offer(chooser, session)
    assert events == [WAIT_POLICY]
    with pytest.raises(ValueError):
        server.tell(FRESH)
    assert server.decide(again(config, replay=chosen)) == WAIT_REGISTER
    assert server.asked_register is chosen
    with pytest.raises(ValueError):
        server.decide()
    server.tell(FRESH)
    pump(client, server)
    assert server.early_data_state == ACCEPTED


@pytest.mark.parametrize("groups", [[X25519], [P256], [P256, X25519]])
def test_every_group_and_a_certificate_by_name(config, groups):
    config = again(config, groups=groups, require_sni=True)
    session = first_session(config, groups=groups)
    client, server = asked(config, session, groups=groups)
    server.tell(FRESH)
    pump(client, server)
    assert client.established and server.early_data_state == ACCEPTED
    assert server.group == client.group


def test_without_a_key_exchange(config):
    config = again(config, psk_ke=True)
    client = ResumingClient(config, first_session(config))
    flight = client.psk_hello(early=True, modes=(0,))
    assert client.server.receive_bytes(record(HANDSHAKE, flight))[-1][0] == WAIT_REGISTER
    assert client.server.tell(FRESH) == PROGRESS
    assert client.server.group == 0


def test_after_a_retry_there_is_no_early_data(config, session):
    a = Engine(ClientConfig(early_data=True, server_name="example.com", groups=[X25519, P256]), session)
    b = Engine(again(config, groups=[P256]))
    a.send(b"early")
    events = pump(a, b)
    assert WAIT_REGISTER not in [event for _, event, _ in events]
    assert a.established and b.established and refusal(b) == "hello retry"
    assert (ESTABLISHED, b"") in [event[1:] for event in events]


# The register by itself.


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": b"short"},
        {"key": b"k" * 31},
        {"remembers": 19_999},
        {"deadline": 0},
        {"most": 0},
    ],
)
def test_what_is_no_register(changes):
    of = {"identity": IDENTITY, "key": KEY, "remembers": 20_000, "deadline": 1, **changes}
    with pytest.raises(ValueError):
        AwaitedRegister(SharedRegister(20_000, 64), **of)
    with pytest.raises(TypeError):
        AwaitedRegister(None, IDENTITY, KEY, 20_000, 1)


def test_by_itself_it_calls_nothing_fresh():
    """An engine that knows of no wait (a CallableRegister's user) gets no early data by it."""
    made = register()
    assert (made.identity, made.keeps, made.remembers, made.deadline) == (IDENTITY, 20_000, 22_000, 50)
    assert not made.enter(b"b" * 32)


def test_the_host_hears_once_that_it_is_down_and_up():
    local = SharedRegister(20_000, 64)
    other = SharedRegister.of(local.fd, local.state())
    assert not local.speak()
    assert local.fall_silent()
    assert not other.fall_silent()
    assert other.speak()
    assert not local.speak()
    assert other.fall_silent()


def test_the_barrier_is_everybodys():
    local = SharedRegister(20_000, 64, since=5)
    other = SharedRegister.of(local.fd, local.state())
    other.raise_barrier(10)
    assert local.since == 10
    local.raise_barrier(7)
    assert other.since == 10


def test_names_of_answers_are_all_different():
    assert len({SEEN, FRESH, FULL, LATE, DOWN}) == 5
