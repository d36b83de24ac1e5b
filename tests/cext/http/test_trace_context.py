"""W3C Trace Context: what is read as a context, and what is written."""

import pytest
from cext.http.h1_reader import parse_request_bytes
from cext.http.h1_writer import serialise_request
from cext.http.trace_context import context_of, trace_lines, traceparent
from hypothesis import given
from hypothesis import strategies as st

# The example of section 3.2 of the recommendation.
TRACE, PARENT = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736"), bytes.fromhex("00f067aa0ba902b7")
VALUE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OURS = bytes.fromhex("1122334455667788")
HEX = st.text("0123456789abcdef", min_size=2, max_size=2)


def head(*fields):
    return b"\r\n".join([b"GET /a HTTP/1.1", b"Host: a.example", *fields, b"", b""])


def lines(*fields, state=True, flags=1, cap=None):
    """What write_trace writes for a request with these fields."""
    written = trace_lines(head(*fields), TRACE, OURS, flags, state, cap)
    if written is None:
        return None
    text, at = written
    assert text[at : at + 16] == OURS.hex().encode()
    assert text.endswith(b"\r\n")
    return text[:-2].split(b"\r\n")


# ---- traceparent

def test_the_example():
    assert traceparent(VALUE) == (TRACE, PARENT, 1)


@pytest.mark.parametrize(
    ("flags", "read"),
    [("00", 0), ("01", 1), ("02", 2), ("03", 3), ("ff", 3), ("fc", 0), ("09", 1)],
)
def test_flags_that_we_do_not_know_are_cleared(flags, read):
    assert traceparent(VALUE[:-2] + flags.encode()) == (TRACE, PARENT, read)


@pytest.mark.parametrize("end", range(len(VALUE)))
def test_truncated(end):
    assert traceparent(VALUE[:end]) is None


@pytest.mark.parametrize("tail", [b"-", b"0", b" ", b"-00", b"\x00", b"," + VALUE])
def test_nothing_follows_version_00(tail):
    assert traceparent(VALUE + tail) is None


@pytest.mark.parametrize("tail", [b"", b"-", b"-what-comes-then", b"-" + b"x" * 1000])
def test_later_versions_may_have_more(tail):
    assert traceparent(b"cc" + VALUE[2:] + tail) == (TRACE, PARENT, 1)


@pytest.mark.parametrize("tail", [b"0", b".", b"01-x", b" -"])
def test_but_only_behind_a_dash(tail):
    assert traceparent(b"01" + VALUE[2:] + tail) is None


@pytest.mark.parametrize(
    "value",
    [
        b"ff" + VALUE[2:],
        b"0" + VALUE,
        b"-0" + VALUE[2:],
        b"0X" + VALUE[2:],
        VALUE.upper(),
        VALUE.replace(b"f", b"F", 1),
        VALUE.replace(b"-", b"_"),
        VALUE.replace(TRACE.hex().encode(), b"0" * 32),
        VALUE.replace(PARENT.hex().encode(), b"0" * 16),
        VALUE.replace(b"4bf", b"4bg"),
        VALUE[:-2] + b"0g",
        VALUE[:-2] + b" 1",
        b"",
    ],
)
def test_what_is_none(value):
    assert traceparent(value) is None


@pytest.mark.parametrize("at", range(len(VALUE)))
def test_each_character_matters(at):
    for other in b"G\x00\xff/:`g ":
        assert traceparent(VALUE[:at] + bytes([other]) + VALUE[at + 1 :]) is None


@given(HEX, st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 255))
def test_every_well_formed_one_is_read(version, trace, parent, flags):
    read = traceparent(f"{version}-{trace.hex()}-{parent.hex()}-{flags:02x}".encode())
    valid = version != "ff" and any(trace) and any(parent)
    assert read == ((trace, parent, flags & 3) if valid else None)


@given(st.binary(max_size=80))
def test_noise_is_none(value):
    assert traceparent(value) is None


# ---- of a request

def test_a_field_in_any_case():
    assert context_of(head(b"TraceParent:  " + VALUE + b"\t")) == (TRACE, PARENT, 1)


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"traceparent:"],
        [b"traceparent: " + VALUE, b"traceparent: " + VALUE],
        [b"traceparent: " + VALUE, b"Traceparent: x"],
        [b"traceparent: x", b"traceparent: " + VALUE],
        [b"traceparent: " + VALUE + b", " + VALUE],
        [b"traceparent: " + VALUE, b"Connection: traceparent"],
        [b"x-traceparent: " + VALUE],
        [b"tracestate: a=1"],
    ],
)
def test_no_context(fields):
    assert context_of(head(*fields)) is None


# ---- what is written

def test_ours():
    assert lines(flags=3) == [b"traceparent: 00-" + TRACE.hex().encode() + b"-" + OURS.hex().encode() + b"-03"]


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ([b"tracestate: rojo=00f067aa0ba902b7"], b"rojo=00f067aa0ba902b7"),
        ([b"tracestate: a=1, b=2 ,\tc=3"], b"a=1,b=2,c=3"),
        ([b"tracestate: a=1", b"x: y", b"TraceState: b=2"], b"a=1,b=2"),
        ([b"tracestate: ,, a=1,,"], b"a=1"),
        ([b"tracestate: 0a_-*/@=x y"], b"0a_-*/@=x y"),
        ([b"tracestate: t@v= spaces before stay"], b"t@v= spaces before stay"),
        ([b"tracestate: " + b"k" * 256 + b"=v"], b"k" * 256 + b"=v"),
        ([b"tracestate: k=" + b"v" * 256], b"k=" + b"v" * 256),
        ([b"tracestate: " + b",".join(b"k%d=v" % i for i in range(32))], b",".join(b"k%d=v" % i for i in range(32))),
    ],
)
def test_tracestate_goes_on_as_one_field(fields, state):
    assert lines(*fields)[1:] == [b"tracestate: " + state]
    assert lines(*fields, state=False)[1:] == []


@pytest.mark.parametrize(
    "value",
    [
        b"", b" , ,", b"a", b"a=", b"=1", b"A=1", b"-a=1", b"_=1", b"a=1=2", b"a b=1", b"a=1,a=2", b"a=1,b=2,a=1",
        b"a=1,b", b"a=\x80", b"a=1\tb", b"k" * 257 + b"=v", b"k=" + b"v" * 257,
        b",".join(b"k%d=v" % i for i in range(33)),
    ],
)
def test_what_is_no_tracestate_is_left_out(value):
    assert len(lines(b"tracestate: " + value)) == 1


def test_keys_that_begin_alike_are_two():
    assert lines(b"tracestate: ab=1,a=2,abc=3")[1:] == [b"tracestate: ab=1,a=2,abc=3"]


def test_a_long_tracestate_loses_whole_members():
    """512 characters; those of more than 128 fall first, then the last (section 3.3.1.5)."""
    small = [b"k%02d=%s" % (i, b"v" * 36) for i in range(12)]     # 40 each, 491 together
    large = b"big=" + b"v" * 130
    many = [b"k%02d=%s" % (i, b"v" * 36) for i in range(20)]
    for came, stays in (([*small[:3], large, *small[3:]], small), (many, many[:12])):
        assert lines(b"tracestate: " + b",".join(came))[1:] == [b"tracestate: " + b",".join(stays)]
    exact = [b"a=" + b"v" * 126, b"b=" + b"v" * 126, b"c=" + b"v" * 126, b"d=" + b"v" * 123]
    assert len(b",".join(exact)) == 512
    for came, stays in ((exact, exact), ([*exact[:3], exact[3] + b"v"], exact[:3])):
        assert lines(b"tracestate: " + b",".join(came))[1:] == [b"tracestate: " + b",".join(stays)]


@given(st.lists(st.binary(max_size=300).map(lambda v: bytes(b if 0x20 <= b < 0x7F else 0x61 for b in v)), max_size=6))
def test_whatever_comes_stays_within_bounds(values):
    written = lines(*[b"tracestate: " + value for value in values])
    assert len(written) <= 2
    for line in written[1:]:
        members = line.removeprefix(b"tracestate: ").split(b",")
        assert len(line) <= 12 + 512 and len(members) <= 32
        assert len({m.split(b"=")[0] for m in members}) == len(members)
        assert all(any(m in value for value in values) for m in members)


@pytest.mark.parametrize("cap", range(0, 100, 7))
def test_room_that_does_not_do(cap):
    assert (lines(b"tracestate: abcdefgh=12345678", cap=cap) is None) == (cap < 70 + 31)


# ---- in a request's head

def test_ours_takes_the_place_of_what_came():
    received = head(b"traceparent: " + VALUE, b"A: 1", b"tracestate: a=1", b"tracestate: b=2")
    sent = parse_request_bytes(serialise_request(received, trace=(TRACE, OURS, 1, True)))
    expected = b"00-" + TRACE.hex().encode() + b"-" + OURS.hex().encode() + b"-01"
    assert [f for f in sent.fields if f[0] in (b"A", b"traceparent", b"tracestate")] == [
        (b"A", b"1"), (b"traceparent", expected), (b"tracestate", b"a=1,b=2")]
    restarted = parse_request_bytes(serialise_request(received, trace=(TRACE, OURS, 0, False)))
    assert b"tracestate" not in dict(restarted.fields)


def test_without_traces_both_pass_untouched():
    received = head(b"TraceParent: nonsense", b"tracestate:  ", b"traceparent: " + VALUE)
    assert serialise_request(received) == received.replace(b"tracestate:  ", b"tracestate: ")


def test_the_largest_fits_the_room():
    state = b"tracestate: " + b",".join(b"k%02d=%s" % (i, b"v" * 36) for i in range(30))
    assert serialise_request(head(state), trace=(TRACE, OURS, 1, True)) != -1
