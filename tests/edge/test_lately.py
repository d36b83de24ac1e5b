"""What is kept should it be asked for again."""

from edge.lately import Lately


def test_it_is_made_once():
    kept, made = Lately(), []
    for _ in range(3):
        assert kept.get("a", lambda: made.append(1) or len(made)) == 1
    assert kept.find("a") == 1 and kept.find("b") is None


def test_who_has_not_been_asked_for_longest_makes_room():
    kept = Lately(3)
    for name in "abcaxd":
        kept.get(name, name.upper)
        kept.find("b")
    assert list(kept.items()) == [("a", "A"), ("x", "X"), ("d", "D")]


def test_another_one_is_put_in_its_place():
    kept = Lately(2)
    kept.put(1, "a")
    kept.put(2, "b")
    assert kept.put(1, "c") == "c"
    assert list(kept.items()) == [(2, "b"), (1, "c")]
