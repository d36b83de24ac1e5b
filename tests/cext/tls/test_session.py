"""The session state's encoding, ticket keys, wrapped tickets, and a client's sessions as bytes."""

import os

import pytest
from cext.tls.session import Session, TicketKeys, TicketSealer, WrappedTickets, decode_state, encode_state
from hypothesis import given, settings
from hypothesis import strategies as st

STATE = {
    "version": 0x0304, "cipher_suite": 0x1301, "extended_master_secret": True, "created": 1_800_000_000_123,
    "authenticated": 1_799_999_999_000, "lifetime": 86400, "age_add": 0xDEADBEEF, "max_early_data": 14336,
    "replay_register": b"register", "secret": bytes(range(32)), "alpn": b"http/1.1", "server_name": b"example.com",
    "peer_chain": b"\0\0\3DER",
}
NAME, KEY = b"n" * 16, b"k" * 32


@pytest.fixture
def keys():
    return TicketKeys([(NAME, KEY), (b"m" * 16, b"l" * 32)])


def test_state_comes_back():
    assert decode_state(encode_state(STATE)) == STATE


@settings(max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({
        "version": st.integers(0, 0xFFFF), "cipher_suite": st.integers(0, 0xFFFF), "created": st.integers(0, 2**64 - 1),
        "authenticated": st.integers(0, 2**64 - 1), "lifetime": st.integers(0, 2**32 - 1),
        "age_add": st.integers(0, 2**32 - 1), "max_early_data": st.integers(0, 2**32 - 1),
        "extended_master_secret": st.booleans(), "replay_register": st.binary(min_size=8, max_size=8),
        "secret": st.binary(max_size=48), "alpn": st.binary(max_size=255), "server_name": st.binary(max_size=255),
        "peer_chain": st.binary(max_size=300),
    }))
def test_any_state_comes_back(state):
    assert decode_state(encode_state(state)) == state
    assert TicketKeys([(NAME, KEY)]).open(TicketKeys([(NAME, KEY)]).seal(state)) == state


def test_a_state_cut_or_followed_by_bytes_is_none():
    data = encode_state(STATE)
    assert all(decode_state(data[:n]) is None for n in range(len(data)))
    assert decode_state(data + b"\0") is None
    assert decode_state(b"\xff" + data[1:]) is None, "another format"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_state_or_none(data):
    state = decode_state(b"\1" + data)
    assert state is None or encode_state(state) == b"\1" + data


def test_what_does_not_fit_is_refused():
    for field, size in [("alpn", 256), ("server_name", 256), ("secret", 49)]:
        with pytest.raises(ValueError):
            encode_state({**STATE, field: bytes(size)})


# Ticket keys.


def test_a_ticket_opens_and_tells_nothing(keys):
    ticket = keys.seal(STATE)
    assert keys.open(ticket) == STATE
    assert ticket[:16] == NAME
    assert STATE["secret"] not in ticket and b"example.com" not in ticket
    assert ticket != keys.seal(STATE), "another nonce"


def test_every_changed_bit_and_every_cut_is_no_ticket(keys):
    ticket = keys.seal(STATE)
    for at in range(len(ticket)):
        changed = bytearray(ticket)
        changed[at] ^= 1 << at % 8
        assert keys.open(bytes(changed)) is None, at
        assert keys.open(ticket[:at]) is None, at
    assert keys.open(ticket + b"\0") is None
    assert keys.open(b"") is None


def test_keys_are_replaced(keys):
    old = keys.seal(STATE)
    new_key = (b"new" + bytes(13), os.urandom(32))
    keys.replace([new_key, (NAME, KEY)])
    assert keys.names == [new_key[0], NAME]
    assert keys.open(old) == STATE
    assert keys.seal(STATE)[:16] == new_key[0]
    keys.replace([new_key])
    assert keys.open(old) is None
    assert TicketKeys([(NAME, bytes(32))]).open(old) is None, "another key of that name"


@pytest.mark.parametrize("bad", [
    [], [(b"short", KEY)], [(NAME, b"short")], [(NAME, KEY), (NAME, b"x" * 32)],
    [(bytes([i] * 16), KEY) for i in range(17)],
])
def test_keys_that_are_none_change_nothing(keys, bad):
    with pytest.raises(ValueError):
        keys.replace(bad)
    assert keys.names == [NAME, b"m" * 16]
    assert keys.open(keys.seal(STATE)) == STATE


def test_a_state_too_large_for_a_ticket(keys):
    assert keys.seal({**STATE, "peer_chain": bytes(65400)}) is None
    assert keys.open(keys.seal({**STATE, "peer_chain": bytes(60000)}))["peer_chain"] == bytes(60000)


def test_the_base_gives_none_and_knows_none():
    assert TicketSealer().seal(STATE) is None
    assert TicketSealer().open(bytes(100)) is None


# A wrapper.


class Wrapper:
    def __init__(self):
        self.said = []

    def wrap(self, info, content):
        self.said.append(info)
        return b"wrapped " + content[::-1]

    def unwrap(self, client_hello, ticket):
        self.said.append(client_hello)
        return ticket[8:][::-1] if ticket.startswith(b"wrapped ") else None

    def clone(self):
        return self


def test_a_wrapper_makes_and_opens_tickets():
    wrapper = Wrapper()
    tickets = WrappedTickets(wrapper)
    ticket = tickets.seal(STATE)
    assert ticket.startswith(b"wrapped ")
    assert tickets.open(ticket, b"hello") == STATE
    assert tickets.open(b"else", b"hello") is None
    info = {key: STATE[key] for key in ("version", "cipher_suite", "server_name", "alpn")}
    assert wrapper.said == [info, b"hello", b"hello"]


@pytest.mark.parametrize("result", [ValueError("no"), None, 7, "text", b"", b"\0" * 70000])
def test_a_wrapper_that_fails_makes_no_ticket(result):
    class Failing(Wrapper):
        def wrap(self, info, content):
            if isinstance(result, Exception):
                raise result
            return result

        unwrap = wrap

    tickets = WrappedTickets(Failing())
    if result != 7:     # bytes(7) are seven zeros
        assert tickets.seal(STATE) is None
    assert tickets.open(b"ticket") is None
    assert tickets.seal(STATE) is None or result == 7


def test_what_is_no_wrapper():
    with pytest.raises(TypeError):
        WrappedTickets(object())


# A client's sessions.


def session_bytes(verified=1, ticket=b"ticket", response=b"OCSP", timestamps=b"", **changes):
    return b"".join((bytes([verified]), len(ticket).to_bytes(2, "big"), ticket, len(response).to_bytes(3, "big"),
                     response, len(timestamps).to_bytes(2, "big"), timestamps, encode_state({**STATE, **changes})))


def test_a_session_comes_back():
    session = Session.from_bytes(session_bytes(timestamps=b"SCT"))
    assert (session.ocsp_response, session.signed_certificate_timestamps) == (b"OCSP", b"SCT")
    assert session.to_bytes() == session_bytes(timestamps=b"SCT", extended_master_secret=True, replay_register=bytes(8))
    assert (session.version, session.cipher_suite, session.ticket) == (0x0304, 0x1301, b"ticket")
    assert (session.lifetime, session.max_early_data, session.alpn) == (86400, 14336, b"http/1.1")
    assert (session.server_name, session.chain, session.verified) == (b"example.com", (b"DER",), True)
    assert STATE["secret"].hex() not in repr(session)


def test_a_session_expires():
    assert Session.from_bytes(session_bytes(created=1)).expired
    assert Session.from_bytes(session_bytes(created=2**60)).expired, "from the future"


@pytest.mark.parametrize("data", [
    b"", b"\0", b"\0\0\0", session_bytes()[:-1], session_bytes() + b"x", session_bytes(ticket=b""), session_bytes(2),
    session_bytes(peer_chain=b"\0\0\4DER"), session_bytes()[:12], session_bytes()[:16],
])
def test_what_is_no_session(data):
    with pytest.raises(ValueError):
        Session.from_bytes(data)


def test_sessions_are_not_made_by_hand():
    with pytest.raises(TypeError):
        Session()
