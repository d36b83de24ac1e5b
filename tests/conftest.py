"""What concerns the whole suite: `./dev fuzz`, which runs every property with many more examples."""

import os

from hypothesis import HealthCheck, is_hypothesis_test, settings

FUZZ_EXAMPLES = int(os.environ.get("EDGE_FUZZ_EXAMPLES", "0"))


def pytest_collection_modifyitems(items):
    if not FUZZ_EXAMPLES:
        return
    for item in items:
        test = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        if test is not None and is_hypothesis_test(test):
            # The tests state a number that suits every run of the suite; Hypothesis has no public way to raise it.
            test._hypothesis_internal_use_settings = settings(
                test._hypothesis_internal_use_settings,
                max_examples=FUZZ_EXAMPLES,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            )
