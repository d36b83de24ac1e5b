"""The examples of docs/examples, each served as a user would start it, on a port of the test's own."""

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from tests.e2e.processes import Process, answers, free_port, peer, run, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"


class Example:
    """A running example: `port`, `ca` (a PEM file), `directory` (its files), `process`."""

    def __init__(self, process, port):
        self.process = process
        self.port = port
        place = next(line for line in process.output().splitlines() if line.startswith("Its files are in "))
        self.directory = Path(place.removeprefix("Its files are in ").partition(";")[0])
        self.ca = self.directory / "ca.pem"

    @property
    def log(self):
        """What edge and what runs beside it have written."""
        return self.process.output()

    def curl(self, path="/", *arguments):
        """(status, body) of curl's request; (0, "") when there is no answer."""
        command = [peer("curl"), "--silent", "--cacert", self.ca, "--write-out", "\n%{http_code}", *arguments]
        done = run([*command, f"https://localhost:{self.port}{path}"])
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body


@contextlib.contextmanager
def run_example(name, tmp_path):
    """`edge example NAME` until the block ends."""
    port = free_port()
    command = [sys.executable, "-m", "edge", "example", name, "--port", port]
    with tempfile.TemporaryDirectory(prefix="example-") as short:  # the path of a Unix socket has room for 107 bytes
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TMPDIR": short}
        process = Process(command, tmp_path / "example.log", env=environment)
        try:
            process.started(lambda: "Its files are in " in process.output() and answers(port), seconds=60)
            yield Example(process, port)
        finally:
            process.stop()
            wait_until(lambda: not os.listdir(short), 20, "the removal of the example's files")
