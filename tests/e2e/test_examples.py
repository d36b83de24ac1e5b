"""What every example has in common: it is described, it starts, it serves, and nothing of it is left over."""

import json
import os
import signal

import pytest

from edge import example
from edge.errors import EdgeError
from tests.e2e.examples import EXAMPLES, run_example
from tests.e2e.processes import descendants, wait_until


@pytest.mark.parametrize("name", example.names())
def test_an_example_says_what_to_try(name):
    text = (EXAMPLES / name / "edge.toml").read_text()
    assert 0 < len(example.title(name)) < 90
    assert f"localhost:{8443}" in text or "127.0.0.1:8443" in text


def test_an_example_is_served_and_leaves_nothing(tmp_path):
    with run_example("headers", tmp_path) as running:
        status, body = running.curl("/request")
        assert status == 200
        assert json.loads(body)["headers"]["X-Forwarded-Proto"] == "https"
        below = descendants(running.process.pid)
        assert len(below) >= 2
        directory = running.directory
        for pid in [running.process.pid, *below]:  # as `timeout` does, or a service manager
            os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not directory.exists(), 20, "the example's directory is removed")


def test_unknown_examples_are_named(tmp_path):
    with pytest.raises(EdgeError, match=r"there is no example 'headres'; there are .*headers"):
        example.prepare("headres", 8443)

