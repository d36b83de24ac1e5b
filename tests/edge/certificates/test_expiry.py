"""What is told of what will expire, and what is listed of it."""

import dataclasses
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edge.certificates import inventory
from edge.certificates.certs import Identity
from edge.certificates.delegated import Delegation
from edge.certificates.expiry import Expiry
from edge.certificates.ocsp_fetch import Cache
from edge.schema import Place
from tests.edge.issuing import DAY, NOW, Authority, p256, staple, timestamp

CA = Authority()


def identity(days, *, leaf=None, **named):
    leaf = leaf or CA.issue(p256(), "leaf", end=NOW + days * DAY)
    chain = (leaf.public_bytes(Encoding.DER), CA.certificate.public_bytes(Encoding.DER))
    given = {
        "names": ("a.test",), "asked": ("a.test",), "chain": chain, "public_key": b"", "key_pem": b"", "signer": None,
        "delegation": None, "ocsp_response": b"", "ocsp_expires": 0.0, "responders": (), "must_staple": False,
        "timestamps": (), "kind": "ECDSA P-256", "expires": leaf.not_valid_after_utc, "warnings": (),
        "at": Place("edge.toml", "certificate[0]"), **named,
    }  # fmt: skip
    ends = [x509.load_der_x509_certificate(one).not_valid_after_utc.timestamp() for one in given["chain"]]
    given.setdefault("ends", min(ends))
    return Identity(**given)


class Days:
    """Days that pass over identities -> what is told on each."""

    def __init__(self):
        self.now = NOW.timestamp()
        self.expiry = Expiry(lambda: self.now)

    def look(self, *identities):
        told = []
        self.expiry.look(identities, lambda *one: told.append(one))
        return [one for one in told if one[0] != "debug"]

    def after(self, days, *identities):
        self.now += days * 86400
        return self.look(*identities)


def test_each_distance_is_told_once():
    own = identity(30)
    days = Days()
    told = {}
    assert days.look(own) == []
    for hour in range(24 * 32):
        for level, message in days.after(1 / 24, own):
            told[round(30 - hour / 24)] = (level, message)
    assert list(told) == [14, 7, 3, 1, 0]
    assert [level for level, _ in told.values()] == ["warning"] * 3 + ["error"] * 2
    assert "certificate[0].chain: certificate number 1 (a.test) expires on" in told[14][1]
    assert "expired on" in told[0][1]


def test_what_was_near_when_it_was_loaded_was_told_then():
    days = Days()
    own = identity(5)
    assert days.look(own) == []
    assert days.after(1, own) == []
    assert len(days.after(1.5, own)) == 1
    # Several distances at once are one message.
    days = Days()
    own = identity(30)
    days.look(own)
    ((level, message),) = days.after(28.5, own)
    assert level == "warning" and "expires" in message


def test_an_issuer_goes_by_its_own_name():
    days = Days()
    leaf, issuer = (CA.issue(p256(), name, end=NOW + ends * DAY) for name, ends in (("leaf", 90), ("Issuer X", 15)))
    own = identity(90, chain=tuple(one.public_bytes(Encoding.DER) for one in (leaf, issuer)))
    assert days.look(own) == []
    ((_, message),) = days.after(1.5, own)
    assert "certificate[0].chain: certificate number 2 (CN=Issuer X) expires on" in message


def test_another_certificate_begins_anew():
    days = Days()
    old, new = identity(14.5), identity(60)
    days.look(old)
    assert len(days.after(1, old)) == 1
    assert days.after(1, new) == []
    assert days.after(1, old) == []  # as when it is loaded


def test_the_issuers_too():
    days = Days()
    short = Authority()
    own = identity(100, leaf=CA.issue(p256(), "leaf", end=NOW + 100 * DAY))
    days.look(own)
    ((_, message),) = days.after(50, own)  # the authority's: 60 days
    assert "certificate number 2" in message
    assert short.certificate != CA.certificate


def test_a_clock_that_goes_back_tells_nothing_twice():
    days = Days()
    own = identity(14.5)
    days.look(own)
    assert len(days.after(1, own)) == 1
    assert days.after(-3, own) == []
    assert days.after(3, own) == []


def test_what_stands_beside_it():
    days = Days()
    ends = NOW + 2 * DAY
    own = identity(
        90, delegation=Delegation(b"dc", b"", ends), ocsp_response=b"staple", ocsp_expires=(NOW + 4 * DAY).timestamp()
    )
    assert days.look(own) == days.after(1.9, own) == []
    ((level, message),) = days.after(0.2, own)
    assert level == "warning" and "certificate[0].delegated: the delegated credential has expired" in message
    ((level, message),) = days.after(2, own)
    assert level == "warning" and "the OCSP response has expired" in message
    days = Days()
    demanded = dataclasses.replace(own, must_staple=True, delegation=None)
    days.look(demanded)
    ((level, _),) = days.after(4.1, demanded)
    assert level == "error"


def test_nothing_is_looked_at_twice_a_minute(monkeypatch):
    days = Days()
    own = identity(14 + 30 / 86400)
    assert days.look(own) == []
    assert days.after(40 / 86400, own) == []  # a moment later, but not a minute
    assert len(days.after(30 / 86400, own)) == 1


# --- the list


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({}, ""),
        ({"must_staple": True}, "must-staple, no OCSP response"),
        ({"responders": ("http://x/",), "must_staple": True}, "must-staple, OCSP response (fetched) not there yet"),
        ({"ocsp_response": b"x"}, "OCSP response (file) without an end"),
        ({"ocsp_response": b"x", "ocsp_expires": 86400.0}, "OCSP response (file) until 1970-01-02 00:00 UTC"),
        ({"timestamps": (timestamp(),)}, "1 SCT"),
        ({"timestamps": (timestamp(), timestamp())}, "2 SCTs"),
        (
            {"delegation": Delegation(b"", b"", datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))},
            "delegated credential until 2030-01-01 00:00 UTC",
        ),
    ],
)
def test_what_is_listed(named, words, tmp_path):
    own = identity(90, **named)
    (entry,) = inventory.entries([own], tmp_path)
    assert entry.beside() == words
    assert (entry.names, entry.kind, entry.path) == (("a.test",), "ECDSA P-256", "certificate[0]")
    assert entry.expires == own.expires
    assert int(entry.serial, 16) > 0


def test_a_fetched_response_is_listed(tmp_path):
    leaf = CA.issue(p256(), "leaf")
    own = identity(0, leaf=leaf, responders=("http://x/",))
    Cache(tmp_path).path(own.chain[0]).write_bytes(staple(leaf, CA.certificate, CA.key))
    (entry,) = inventory.entries([own], tmp_path)
    assert entry.beside() == f"OCSP response (fetched) until {NOW + DAY:%Y-%m-%d %H:%M} UTC"
    (entry,) = inventory.entries([own], None)
    assert entry.beside() == "OCSP response (fetched) not there yet"


def test_those_that_are_far_from_their_end_are_not_read(monkeypatch):
    days, soon, many = Days(), identity(15), [identity(40) for _ in range(5)]
    read = []
    load = x509.load_der_x509_certificate
    monkeypatch.setattr(x509, "load_der_x509_certificate", lambda der: read.append(der) or load(der))
    assert days.look(soon, *many) == []
    assert read == []
    assert len(days.after(2, soon, *many)) == 1
    assert read == list(soon.chain)
    assert len(days.after(25, *many)) == 5


def test_the_list_is_the_same_until_something_changes(tmp_path):
    known, own, other = inventory.Inventory(), identity(90), identity(80)
    identities = (own,)
    first = known.entries(identities, tmp_path)
    assert known.entries(identities, tmp_path) is first
    second = known.entries((own, other), tmp_path)
    assert second[0] is first[0]
    assert len(second) == 2
    assert known.entries((other,), tmp_path) == second[1:]


def test_a_list_in_which_responses_come(tmp_path):
    own = identity(90, responders=("http://r.test/",))
    known, identities = inventory.Inventory(), (own,)
    first = known.entries(identities, tmp_path)
    assert [entry.ocsp for entry in first] == ["missing"]
    assert known.entries(identities, tmp_path) is first
    Cache(tmp_path).path(own.chain[0]).write_bytes(b"a response")
    assert [entry.ocsp for entry in known.entries(identities, tmp_path)] == ["fetched"]
