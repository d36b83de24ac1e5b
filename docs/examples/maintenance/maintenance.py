"""Answers in place of the upstream while the file `maintenance` stands beside this one."""

import hmac
import time
from pathlib import Path

SWITCH = Path(__file__).with_name("maintenance")
PASS = b"letmein"  # in earnest: from a file that only edge's user reads
LOOK_EVERY = 1.0  # seconds between two looks at the file

PAGE = """<!doctype html>
<title>Back soon</title>
<h1>Back soon</h1>
<p>We are changing something. Please come again in a few minutes.</p>
"""


class Policy:
    def __init__(self):
        self._closed = SWITCH.exists()
        self._looked = time.monotonic()

    def director(self, request):
        shown = request.headers.pop("X-Maintainer", "").encode("latin-1")  # whatever it says, it is not the upstream's
        if self._is_closed() and not hmac.compare_digest(shown, PASS):
            request.respond(503, {"Retry-After": "300", "Content-Type": "text/html; charset=utf-8"}, PAGE)

    def _is_closed(self):
        if time.monotonic() - self._looked > LOOK_EVERY:
            self._closed = SWITCH.exists()
            self._looked = time.monotonic()
        return self._closed
