"""A wall clock that tests set, forward and back, for one process: a library between it and the system's clock adds what
a file says."""

import mmap
import struct
import subprocess
from pathlib import Path


class Clock:
    """How far the process's clock is from ours, in seconds."""

    def __init__(self, directory: Path) -> None:
        self.library = directory / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-o", self.library, source], check=True)
        self.file = directory / "clock"
        self.file.write_bytes(bytes(mmap.PAGESIZE))
        self.env = {"LD_PRELOAD": str(self.library), "EDGE_TEST_CLOCK": str(self.file)}

    def move(self, seconds: int) -> None:
        with open(self.file, "r+b") as f:
            f.write(struct.pack("=q", seconds))
