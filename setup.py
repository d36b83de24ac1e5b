"""Builds one extension module per .pyx; everything else about the package is in pyproject.toml.

Environment:
    EDGE_BUILD       release (default), debug (bounds checks, -O1) or asan (debug under AddressSanitizer)
    EDGE_BUILD_ONLY  space-separated module prefixes ("cext.http cext.net"): build these alone
"""

import os
import sys
from pathlib import Path

import Cython.Compiler.Options
from Cython.Build import cythonize
from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
FLAVOUR = os.environ.get("EDGE_BUILD", "release")
ONLY = tuple(os.environ.get("EDGE_BUILD_ONLY", "").split())

# The layer (or module) that links a library; no other extension may.
LIBRARIES = {"cext.crypto": ["crypto"], "cext.http.h2_session": ["nghttp2"]}

HARDENING = ["-fstack-protector-strong", "-fPIC", "-Wno-unused-function", "-Wno-unreachable-code"]
LINK = ["-Wl,-z,relro,-z,now"]
if FLAVOUR == "release":
    COMPILE = ["-O3", "-g1", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", *HARDENING]
elif FLAVOUR == "debug":
    COMPILE = ["-O1", "-g", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", *HARDENING]
elif FLAVOUR == "asan":
    COMPILE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address", "-U_FORTIFY_SOURCE", *HARDENING]
    LINK = [*LINK, "-fsanitize=address"]
else:
    sys.exit(f"setup.py: EDGE_BUILD={FLAVOUR!r}: must be release, debug or asan")

CHECKED = FLAVOUR != "release"
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": CHECKED,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": CHECKED,
    "embedsignature": True,
}


class FailOnHint:
    """A stderr that lets everything through and ends the build at Cython's first performance hint."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        self.stream.write(text)
        if "performance hint" in text:
            raise SystemExit("setup.py: a performance hint is an error here: state noexcept, nogil or an exception value")

    def __getattr__(self, name):
        return getattr(self.stream, name)


def libraries(module):
    for prefix, names in LIBRARIES.items():
        if module == prefix or module.startswith(prefix + "."):
            return names
    return []


def extensions():
    found = []
    for top in ("cext", "bench"):
        for path in sorted((ROOT / top).rglob("*.pyx")):
            source = path.relative_to(ROOT)
            module = ".".join(source.with_suffix("").parts)
            if ONLY and not any(module == o or module.startswith(o + ".") for o in ONLY):
                continue
            found.append(
                Extension(
                    module,
                    [str(source)],
                    libraries=libraries(module),
                    extra_compile_args=COMPILE,
                    extra_link_args=LINK,
                    define_macros=[("OPENSSL_SUPPRESS_DEPRECATED", "1")],
                )
            )
    return found


def build():
    """The extensions, translated to C: a Cython warning or performance hint ends the build."""
    Cython.Compiler.Options.warning_errors = True
    stderr, sys.stderr = sys.stderr, FailOnHint(sys.stderr)
    try:
        return cythonize(
            extensions(),
            compiler_directives=DIRECTIVES,
            nthreads=0 if ONLY else os.cpu_count(),
            build_dir=f"build/{FLAVOUR}/c",
        )
    finally:
        sys.stderr = stderr


if __name__ == "__main__":
    os.chdir(ROOT)
    setup(ext_modules=build())
