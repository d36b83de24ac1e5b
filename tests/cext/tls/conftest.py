import pytest
from cext.tls.session import shift_clock


@pytest.fixture(autouse=True)
def clock():
    """The engine's clock, which a test may shift, is right again for the next one."""
    yield
    shift_clock(0)
