"""Clients of a measured edge on another machine, which leaves this one's processors to edge.

There, `python -m bench.scale.away --serve ADDRESS:PORT` runs `bench load` for whoever asks, and should run where nobody
else can ask. Here, `python -m bench.scale.away ADDRESS:PORT OPTION ...` is as that `bench load` would be: it writes
what that writes, ends as that ends, and ends it when it is stopped.
"""

import contextlib
import json
import socket
import socketserver
import subprocess
import sys
import threading

from bench.peers import ROOT

END = "away: ended with "


class _Asked(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        options = json.loads(self.rfile.readline())
        command = [sys.executable, "-u", "-m", "bench", "load", *options]
        pipe, together = subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=together, cwd=ROOT) as child:
            threading.Thread(target=self._watch, args=(child,), daemon=True).start()
            with contextlib.suppress(OSError):
                for line in child.stdout or ():
                    self.wfile.write(line)
            status = child.wait()
        with contextlib.suppress(OSError):
            self.wfile.write(f"{END}{status}\n".encode())

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        """Nothing more is asked: what can be read is the end of the connection."""
        with contextlib.suppress(OSError):
            self.rfile.read(1)
        child.terminate()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def serve(address: str, port: int) -> None:
    with _Server((address, port), _Asked) as server:
        print("serves", flush=True)
        server.serve_forever()


def ask(address: str, port: int, options: list[str]) -> int:
    """The exit status."""
    with socket.create_connection((address, port), 60) as connection:
        connection.settimeout(None)
        connection.sendall(json.dumps(options).encode() + b"\n")
        for line in connection.makefile("r", encoding="utf-8"):
            if line.startswith(END):
                return int(line.removeprefix(END))
            sys.stdout.write(line)
            sys.stdout.flush()
    return 1


def main() -> None:
    words = sys.argv[1:]
    serving = words[0] == "--serve"
    address, _, port = words[1 if serving else 0].rpartition(":")
    if serving:
        serve(address, int(port))
    sys.exit(ask(address, int(port), words[1:]))


if __name__ == "__main__":
    main()
