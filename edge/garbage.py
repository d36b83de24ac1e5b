"""Python's garbage collector, where a great deal is made at once that stays."""

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

_NEVER: Final = 2**31 - 1


@contextlib.contextmanager
def young_alone() -> Iterator[None]:
    """Within, it looks through what has just been made, and not again and again through all that was made before it.
    What it need not know it lets go of then (tuples of numbers, text and the like), a little at a time, so that there
    is hardly anything left for the first look through everything afterwards."""
    usual = gc.get_threshold()
    gc.set_threshold(usual[0], _NEVER, _NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
