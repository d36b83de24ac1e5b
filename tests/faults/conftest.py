"""The fixtures of the end-to-end tests. EDGE_SLOW=1 runs what takes minutes, EDGE_FAULT_MINUTES says how many."""

from tests.e2e.conftest import (  # noqa: F401  # fixtures, and the mark `slow`
    backend,
    make_edge,
    nginx,
    pki,
    pytest_collection_modifyitems,
    pytest_configure,
)
