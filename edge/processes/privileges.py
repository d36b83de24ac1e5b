"""What a process gives up before it reads what strangers send: its user, its groups, its capabilities, the way back to
any of them, and that its memory can be looked at from outside.

Secrets are in the memory of each process: no core dump is to hold them, and no other process of the same user is to
read them (ptrace(2), /proc/PID/mem). A process that is not "dumpable" (prctl(2)) is safe from both.
"""

import ctypes
import errno
import os
import pwd
import resource
import struct
from typing import Final

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_CAPABILITY_VERSION: Final = 0x20080522
_CAPABILITIES_MOST: Final = 64

_libc: Final = ctypes.CDLL(None, use_errno=True)


def drop_privileges(uid: int, gid: int) -> None:
    """Becomes the user and group for good, with the user's own supplementary groups, without capabilities and never to
    gain any. Raises OSError when that fails."""
    dumpable = _prctl(_PR_GET_DUMPABLE)
    _drop_bounds()
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3:
        try:
            os.initgroups(pwd.getpwuid(uid).pw_name, gid)
        except KeyError:
            os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    _drop_capabilities()
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, int(dumpable == 1))  # another user's process is as its kernel is set
    if resource.getrlimit(resource.RLIMIT_CORE)[0] == 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep_memory(private: bool) -> None:
    """Whether nobody but root may look into this process, and those that it forks, nor a core dump be made of them."""
    _prctl(_PR_SET_DUMPABLE, int(not private))
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0 if private else hard, hard))


def _drop_bounds() -> None:
    """What no program that is executed later can have. Without CAP_SETPCAP it stays; none is gained then either."""
    for capability in range(_CAPABILITIES_MOST):
        try:
            _prctl(_PR_CAPBSET_DROP, capability)
        except OSError as e:
            if e.errno in (errno.EPERM, errno.EINVAL):  # not allowed; or there are no more
                return
            raise


def _drop_capabilities() -> None:
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION, 0))
    held = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, held))
    if not any(held.raw):
        return
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _check(_libc.capset(header, bytes(24)))


def _prctl(option: int, value: int = 0) -> int:
    arguments = [ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3]
    return _check(_libc.prctl(ctypes.c_int(option), *arguments))


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def raise_file_limit() -> None:
    """As many open files as the hard limit allows: each connection is one, or two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
