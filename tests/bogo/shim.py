"""The shim: what BoringSSL's runner starts for each of its tests, to play the tested side with this engine.

    shim.py -port PORT -shim-id ID [-server] [flags of the test]

It connects to the runner, not the other way round, also as a server. Exit status 0: all went as the flags want; 1: an
error, which stderr tells; 89: the test needs something the engine does not offer; 90: fails whatever was expected.
With EDGE_BOGO_REASONS set to a file's path, what was not offered is appended to it, a line for each test.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(os.path.dirname(HERE)), HERE]

from flags import UnimplementedError, parse  # noqa: E402

PASSED, FAILED, UNIMPLEMENTED, MUST_FAIL = 0, 1, 89, 90


def main(arguments):
    try:
        initial, resume, retry = parse(arguments)
        if initial.is_handshaker_supported:
            print("No")
            return PASSED
        # The engine is loaded only for tests it takes part in: half of them end above.
        from exchange import ExchangeError, HandshakeDoneError, connect
        from settings import Memory

        memory = Memory()
        connect(initial, retry, memory, False)
        for _ in range(initial.resume_count):
            connect(resume, retry, memory, True)
    except UnimplementedError as error:
        log_reason(str(error))
        return UNIMPLEMENTED
    except HandshakeDoneError as error:
        print(error, file=sys.stderr)
        return MUST_FAIL
    except (ExchangeError, OSError) as error:
        print(error, file=sys.stderr)
        return FAILED
    return PASSED


def log_reason(reason):
    path = os.environ.get("EDGE_BOGO_REASONS")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(reason + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
