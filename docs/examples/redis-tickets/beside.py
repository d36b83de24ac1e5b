"""A Redis of the example's own, on a Unix socket beside it; it keeps nothing on disk."""

import pathlib
import shutil
import signal
import subprocess
import sys
import time

program = shutil.which("redis-server") or shutil.which("valkey-server")
if program is None:
    sys.exit("this example needs redis-server or valkey-server: apt-get install redis-server")
options = "--port 0 --unixsocket redis.sock --unixsocketperm 700 --logfile redis.log"
memory = "--maxmemory 64mb --maxmemory-policy allkeys-lru --save"
server = subprocess.Popen([program, *options.split(), *memory.split(), ""])  # noqa: S603
signal.signal(signal.SIGTERM, lambda *_: server.terminate())
while server.poll() is None and not pathlib.Path("redis.sock").exists():
    time.sleep(0.02)
pathlib.Path("ready").touch()
sys.exit(server.wait())
