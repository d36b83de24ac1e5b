"""What repeats is told seldom."""

from edge import seldom


def test_what_is_told_each_time_in_other_words_is_not_remembered_for_ever():
    told = []
    tell = seldom.Seldom(lambda *one: told.append(one))
    for i in range(2 * seldom.REMEMBERED + 1):
        tell("info", f"message {i}")
        assert len(tell._told) <= seldom.REMEMBERED
    assert len(told) == 2 * seldom.REMEMBERED + 1
    tell("info", told[-1][1])
    assert len(told) == 2 * seldom.REMEMBERED + 1
