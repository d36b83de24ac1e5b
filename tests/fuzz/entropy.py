"""A source of randomness that gives the same bytes again, so that a fuzzer's input always means the same handshake.

It takes the place of libcrypto's generator through RAND_set_rand_method, a door that libcrypto itself has: key pairs,
nonces of signatures and hello randoms all come through it. Nothing in the project can open it; this file does it from
outside, through ctypes, in a process that tests. `os.urandom` (cookie secrets, replay registers) goes the same way.
"""

import contextlib
import ctypes
import hashlib
import os
import ssl  # noqa: F401  (loads the libcrypto that the extension modules use, if they have not yet)

STREAM = 1 << 16
FILL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
STATUS = ctypes.CFUNCTYPE(ctypes.c_int)


class RandMethod(ctypes.Structure):
    _fields_ = (
        ("seed", ctypes.c_void_p),
        ("bytes", FILL),
        ("cleanup", ctypes.c_void_p),
        ("add", ctypes.c_void_p),
        ("pseudorand", FILL),
        ("status", STATUS),
    )


class Entropy:
    """The source: restart() begins the stream again, which any two runs of one input must do."""

    def __init__(self, seed=b"edge"):
        self.stream = hashlib.shake_256(seed).digest(STREAM)
        self.at = 0
        self.crypto = ctypes.CDLL("libcrypto.so.3")
        self.crypto.RAND_set_rand_method.argtypes = (ctypes.c_void_p,)
        fill = FILL(self.fill)
        self.method = RandMethod(None, fill, None, None, fill, STATUS(lambda: 1))

    def restart(self):
        self.at = 0

    def take(self, n):
        if self.at + n > STREAM:
            self.at = 0
        self.at += n
        return self.stream[self.at - n : self.at]

    def fill(self, out, n):
        ctypes.memmove(out, self.take(n), n)
        return 1

    @contextlib.contextmanager
    def installed(self):
        """libcrypto's randomness and os.urandom come from here, in the whole process, until this ends."""
        urandom = os.urandom
        if self.crypto.RAND_set_rand_method(ctypes.byref(self.method)) != 1:
            raise OSError("libcrypto does not take another generator")
        os.urandom = self.take
        try:
            yield self
        finally:
            os.urandom = urandom
            self.crypto.RAND_set_rand_method(None)
