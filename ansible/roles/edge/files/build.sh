#!/bin/sh
# build.sh DIRECTORY EXTRAS [REQUIREMENT...]: of DIRECTORY/source the wheel of edge, with those of all that it needs, in
# DIRECTORY/wheels.tar; their names and digests in requirements.txt, what they are called together in release, and the
# load generator in bench.tar.
set -eu
cd "$1"
extras=$2
shift 2
umask 022
export SOURCE_DATE_EPOCH=315532800  # the same sources, the same wheel
export PIP_DISABLE_PIP_VERSION_CHECK=1

/usr/bin/python3 -m venv venv
venv/bin/python - >build-requires.txt <<'PYTHON'
import tomllib
print(*tomllib.load(open("source/pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")
PYTHON
venv/bin/pip install --quiet wheel -r build-requires.txt
venv/bin/pip wheel --quiet --no-build-isolation --wheel-dir wheels "./source${extras:+[$extras]}" "$@"

venv/bin/python - <<'PYTHON'
import hashlib, pathlib
lines = []
for wheel in sorted(pathlib.Path("wheels").glob("*.whl")):
    name, version = wheel.name.split("-")[:2]
    lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n")
    if name == "edge":
        own = version
text = "".join(lines)
pathlib.Path("requirements.txt").write_text(text)
pathlib.Path("release").write_text(f"{own}-{hashlib.sha256(text.encode()).hexdigest()[:12]}\n")
PYTHON
tar --create --file wheels.tar --sort=name --directory wheels . --directory .. requirements.txt

rm -rf source/bench/micro
(cd source && EDGE_BUILD_ONLY=bench ../venv/bin/python setup.py -q build_ext --inplace)
tar --create --file bench.tar --sort=name --directory source --exclude='*.pyx' --exclude='*.pxd' bench

# What lacks something is to be noticed here, not on a host.
venv/bin/pip install --quiet --no-index --find-links wheels edge
mkdir load
tar --extract --file bench.tar --directory load
venv/bin/edge --version
(cd load && ../venv/bin/python -c 'from bench.load_command import load; load(prog_name="edge-load")' --help >/dev/null)
