"""The shim: what BoringSSL's runner starts for each of its tests, to play the tested side with this engine.

    shim.py -port PORT -shim-id ID [-server] [flags of the test]

It connects to the runner, not the other way round, also as a server. Exit status 0: all went as the flags want; 1: an
error, which stderr tells; 89: the test needs something the engine does not offer; 90: fails whatever was expected.
With EDGE_BOGO_LOG set to a file's path, a line is appended to it for each test: "+ server" or "+ client" where the
engine took part, "- " and what was asked for where it did not.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.dirname(os.path.dirname(HERE)), HERE]
# The interpreter has been started without its site packages; ML-KEM may be among them.
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
sys.path.append(os.path.join(os.path.dirname(os.path.dirname(sys.executable)), "lib", PYTHON, "site-packages"))

from flags import UnimplementedError, parse  # noqa: E402

PASSED, FAILED, UNIMPLEMENTED, MUST_FAIL = 0, 1, 89, 90


def main(arguments):
    try:
        status = play(arguments)
    except UnimplementedError as error:
        log(f"- {error}")
        return UNIMPLEMENTED
    log("+ server" if "-server" in arguments else "+ client")
    return status


def play(arguments):
    initial, resume, retry = parse(arguments)
    if initial.is_handshaker_supported:
        print("No")
        return PASSED
    # The engine is loaded only for tests it takes part in.
    from exchange import ExchangeError, HandshakeDoneError, connect
    from settings import Memory

    memory = Memory()
    try:
        connect(initial, retry, memory, False)
        for _ in range(initial.resume_count):
            connect(resume, retry, memory, True)
    except HandshakeDoneError as error:
        print(error, file=sys.stderr)
        return MUST_FAIL
    except (ExchangeError, OSError, ValueError) as error:     # ValueError: the engine refuses the configuration
        print(error, file=sys.stderr)
        return FAILED
    return PASSED


def log(line):
    path = os.environ.get("EDGE_BOGO_LOG")
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
