"""Builds one extension module per .pyx; everything else about the package is in pyproject.toml.

Environment:
    EDGE_BUILD       release (default), debug (bounds checks, -O1), asan (debug under AddressSanitizer) or
                     fuzz (as asan, by clang, with the coverage counters that libFuzzer reads)
    EDGE_BUILD_ONLY  space-separated module prefixes ("cext.http cext.net"): build these alone
    EDGE_WERROR      1: the C compiler's warnings are errors too (Cython's always are)
"""

import filecmp
import os
import sys
from pathlib import Path

import Cython.Compiler.Errors
import Cython.Compiler.Options
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
FLAVOUR = os.environ.get("EDGE_BUILD", "release")
ONLY = tuple(os.environ.get("EDGE_BUILD_ONLY", "").split())

# The layer (or module) that links a library; no other extension may.
LIBRARIES = {
    "cext.crypto": ["crypto"],
    "cext.http.h2_session": ["nghttp2"],
    "cext.http.h2_server": ["nghttp2"],
    "cext.http.h2_requester": ["nghttp2"],
}

HARDENING = ["-fstack-protector-strong", "-fPIC", "-Wno-unused-function", "-Wno-unreachable-code"]
LINK = ["-Wl,-z,relro,-z,now", "-Wl,--as-needed"]
if FLAVOUR == "release":
    COMPILE = ["-O3", "-g1", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", *HARDENING]
elif FLAVOUR == "debug":
    COMPILE = ["-O1", "-g", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", *HARDENING]
elif FLAVOUR == "asan":
    COMPILE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address", "-U_FORTIFY_SOURCE", *HARDENING]
    LINK = [*LINK, "-fsanitize=address"]
elif FLAVOUR == "fuzz":
    os.environ["CC"] = "clang"
    COMPILE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,fuzzer-no-link", "-U_FORTIFY_SOURCE"]
    COMPILE += HARDENING
else:
    sys.exit(f"setup.py: EDGE_BUILD={FLAVOUR!r}: must be release, debug, asan or fuzz")
if os.environ.get("EDGE_WERROR") == "1" and FLAVOUR != "fuzz":   # whose compiler is another
    COMPILE.append("-Werror")

CHECKED = FLAVOUR != "release"
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": CHECKED,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": CHECKED,
    "embedsignature": True,
    # The checks of a debug build are themselves worth a hint; it is the release build that must have none.
    "show_performance_hints": not CHECKED,
}


class FailOnHint:
    """A stderr that lets everything through and ends the build at Cython's first warning or performance hint.

    Needed beside `warning_errors`, which leaves performance hints and once-only warnings as they are. The
    processes of a parallel translation inherit it; their SystemExit reaches the parent as its own.
    """

    def __init__(self, stream):
        self.stream = stream

    def write(self, text):
        self.stream.write(text)
        if "performance hint:" in text:
            raise SystemExit("setup.py: a performance hint is an error: state noexcept, nogil or an exception value")
        if text.startswith("warning:"):
            raise SystemExit("setup.py: a Cython warning is an error")

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


def translate(modules):
    """The same extensions with their .pyx translated to C under build/, in parallel."""
    Cython.Compiler.Options.warning_errors = True
    stderr, sys.stderr = sys.stderr, FailOnHint(sys.stderr)
    try:
        return cythonize(
            modules,
            compiler_directives=DIRECTIVES,
            nthreads=0 if ONLY else os.cpu_count(),
            build_dir=f"build/{FLAVOUR}/c",
        )
    except Cython.Compiler.Errors.CompileError as failed:
        sys.exit(f"setup.py: Cython's errors and warnings, shown above, end the build: {failed}")
    finally:
        sys.stderr = stderr


class BuildExt(build_ext):
    """Translates when something is compiled, not each time a tool reads the metadata."""

    def initialize_options(self):
        super().initialize_options()
        self.parallel = os.cpu_count()
        self.build_temp = f"build/{FLAVOUR}/o"  # what one flavour made never meets another's

    def finalize_options(self):
        modules = self.distribution.ext_modules
        if self.inplace:
            self.build_lib = f"build/{FLAVOUR}/lib"
        else:  # benchmarks are part of the repository, not of an installation
            modules[:] = [m for m in modules if not m.name.startswith("bench.")]
        if any(source.endswith(".pyx") for m in modules for source in m.sources):
            modules[:] = translate(modules)
        super().finalize_options()

    def copy_file(self, infile, outfile, *args, **kwargs):
        """Into the source tree goes what differs, not what is newer: a change of flavour may bring an older file."""
        if os.path.exists(outfile) and filecmp.cmp(infile, outfile):
            return outfile, False
        Path(outfile).unlink(missing_ok=True)  # never into a file that a running process has mapped
        return super().copy_file(infile, outfile, *args, **kwargs)


if __name__ == "__main__":
    os.chdir(ROOT)
    setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})
