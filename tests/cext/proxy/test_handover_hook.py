"""Connections that a hook hands over, at once or after it has waited; and what becomes of those that nobody takes."""

import pytest

from edge.policy import HandOver
from tests.cext.proxy.handing import connected, gate, receiver
from tests.cext.proxy.harness import Client, echo, get, serving, until
from tests.cext.proxy.test_handover import handed, hello
from tests.cext.tls.peer import HANDSHAKE, record
