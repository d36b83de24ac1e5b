"""What signers of a loop share: one of each kind, made once, ended once."""

import asyncio

from edge.shared import Shared


def test_the_first_makes_it_and_the_last_ends_it():
    shared = Shared()
    loop, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        one = shared.join(loop, "a", object)
        assert shared.join(loop, "a", object) is one
        assert shared.join(loop, "b", object) is not one
        assert shared.join(other, "a", object) is not one
        assert [shared.leave(loop, "a"), shared.leave(loop, "a")] == [False, True]
        assert shared.join(loop, "a", object) is not one
        assert shared.leave(other, "a")
    finally:
        loop.close()
        other.close()
