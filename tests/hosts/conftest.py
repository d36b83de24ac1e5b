"""`./dev hosts` runs what is marked `machines`; the suite does without: it takes minutes, and the first time fetches
Debian."""

import os
from pathlib import Path

import pytest

from tests.hosts.machines import lacking


def pytest_configure(config):
    config.addinivalue_line("markers", "machines: boots machines; run by ./dev hosts")


def pytest_collection_modifyitems(items):
    reason = lacking() if os.environ.get("EDGE_HOSTS") else "boots machines: ./dev hosts runs it"
    if not reason:
        return
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("machines"):
            item.add_marker(pytest.mark.skip(reason=reason))
