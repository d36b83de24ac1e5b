"""What concerns the whole suite: properties, which it tries by the same examples in every run, and `./dev fuzz` by many
new ones."""

import os
import signal

from hypothesis import HealthCheck, is_hypothesis_test, settings

FUZZ_EXAMPLES = int(os.environ.get("EDGE_FUZZ_EXAMPLES", "0"))

# What a change is judged by must not change with the day.
settings.register_profile("suite", derandomize=not FUZZ_EXAMPLES)
settings.load_profile("suite")

# A shell that starts the suite in the background has it ignore SIGINT, and what it starts would, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
