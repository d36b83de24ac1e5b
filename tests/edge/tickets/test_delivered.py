"""The keys of a fleet in a host's processes: until there are any, as they change, and what is told of them."""

import json

from edge.tickets.delivered import Delivered
from edge.tickets.document import Document, first
from edge.tickets.rotations import Rotation
from edge.tickets.schedule import Schedule

ROTATE, KEEP = 3_600_000, 3
HOUR = 3600.0
START = 1_800_000_000.0
STATE = {"version": 0x0304, "cipher_suite": 0x1301, "secret": bytes(32)}


def delivered(state=(None, 0, 0), own=None):
    return Delivered("edge", ROTATE, KEEP, own or Schedule(ROTATE, KEEP, None, START), state)


def document(now=START):
    return first(int(now * 1000), ROTATE)


def heard(source, found, now=START, offset=0):
    state = source.heard(found, offset, now)
    source.take(state, now)
    return state


def test_its_own_keys_until_there_are_others():
    own = Schedule(ROTATE, KEEP, None, START)
    source = delivered(own=own)
    assert source.keys(START) == own.keys(START)
    assert source.settings() == {"source": "fleet", "rotate": 3600.0, "keep": 3, "shared": False}
    found = document()
    heard(source, found)
    assert source.settings()["shared"]
    keys = source.keys(START)
    assert keys[:2] == [key.pair for key in found.keys]
    assert own.keys(START)[0] in keys and own.keys(START)[1] not in keys, "what it has sealed opens"


def test_what_was_sealed_before_opens_as_long_as_tickets_last():
    time = [START]
    rotation = Rotation(delivered(), lambda: time[0])
    ticket = rotation.keys.seal(STATE)
    heard(rotation.source, document())
    rotation.turn()
    assert rotation.keys.open(ticket)
    for hours, opens in ((2.9, True), (3.1, False)):
        time[0] = START + hours * HOUR
        rotation.turn()
        assert bool(rotation.keys.open(ticket)) == opens


def test_a_copy_takes_what_another_process_has():
    own = Schedule(ROTATE, KEEP, None, START)
    ours, theirs = delivered(own=own), delivered(own=Schedule.of(own.state()))
    state = heard(ours, document())
    theirs.take(state, START)
    assert ours.keys(START) == theirs.keys(START)
    changed, _ = ours.document.rotated(int(START * 1000), ROTATE, 1000)
    theirs.take(heard(ours, changed), START)
    assert ours.keys(START + 1) == theirs.keys(START + 1) != ours.keys(START)
    theirs.take(state, START + 1)
    assert ours.keys(START + 1) == theirs.keys(START + 1), "nothing older takes its place"


def test_a_revocation_ends_its_own_keys_too():
    source = delivered()
    own = source.keys(START)[0]
    heard(source, document())
    assert own in source.keys(START)
    revoked, key = source.document.revoked(int(START * 1000), ROTATE)
    heard(source, revoked)
    assert source.keys(START)[0] == key.pair and len(source.keys(START)) == 2


def test_it_goes_by_the_fleets_clock():
    """This host's is an hour behind."""
    found = document(START + HOUR)
    source = delivered()
    heard(source, found, offset=3_600_000)
    assert source.keys(START)[0] == found.keys[0].pair
    assert source.keys(START + HOUR - 1)[0] == found.keys[0].pair
    assert source.keys(START + HOUR)[0] == found.keys[1].pair
    told = source.describe(START)
    assert [key["since"] for key in told] == [START, START + HOUR], "and tells moments by its own"


def test_an_answer_without_news_changes_nothing_but_the_clock():
    source = delivered()
    heard(source, document())
    before = source.keys(START)
    heard(source, None, offset=300)
    assert source.keys(START) == before and source.state()[1] == 300


def test_what_is_told():
    source = delivered()
    assert [key["state"] for key in source.describe(START)][:2] == ["seals", "next"]
    found = document()
    for hour in range(6):
        found = found.ready(int((START + hour * HOUR) * 1000), ROTATE, 1000)
    heard(source, found, START + 5.5 * HOUR)
    told = source.describe(START + 5.5 * HOUR)
    assert [key["state"] for key in told] == ["seals", "next", "opens", "opens", "opens"]
    assert [round((key["since"] - START) / HOUR) for key in told] == [5, 6, 4, 3, 2]
    assert [round((key["until"] - START) / HOUR) for key in told] == [9, 10, 8, 7, 6]
    text = json.dumps(told)
    assert not any(key.key.hex() in text or key.name.hex() in text for key in found.keys)
    assert Document.of_json(json.loads(json.dumps(found.to_json()))) == found
