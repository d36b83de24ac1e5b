"""Runs the targets under libFuzzer, by way of atheris: `./dev fuzz-engine [SECONDS] [TARGET ...]`.

Each target gets its share of the time. What is new in coverage is gathered in .cache/fuzz/TARGET beside what the tree
holds (tests/fuzz/corpus/TARGET); an input that breaks an invariant or the memory's rules is written there too, named
crash-..., and the run ends with exit status 1. `--merge` reduces what was gathered to what covers more, into the tree.
`--replay FILE` runs one input alone.
"""

import argparse
import hashlib
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.fuzz.seeds import write_seeds
from tests.fuzz.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).parent / "corpus"
FOUND = ROOT / ".cache" / "fuzz"
INPUT_MAX = {
    "server_script": 600, "client_script": 600, "handshake_messages": 1500, "session_state": 600, "http2_server": 1500,
    "http2_requester": 1500,
}  # fmt: skip
MEMORY_MB = 1024
ONE_BLOCK_MB = 64
ONE_INPUT_SECONDS = 10
STATUS = re.compile(r"#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+) corp: (\d+)")


def child(name, arguments):
    """libFuzzer itself: it takes the process over."""
    import atheris

    def run(data):
        try:
            TARGETS[name](data)
        except BaseException:
            # Kept here: libFuzzer, which learns of it when the interpreter ends, may not come to it.
            digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()
            (FOUND / name / f"crash-{digest}").write_bytes(data)
            raise

    atheris.Setup([sys.argv[0], *arguments], run)
    atheris.Fuzz()


def libfuzzer(name, *arguments):
    command = (sys.executable, "-m", "tests.fuzz", "--child", name, *map(str, arguments))
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def fuzz(name, seconds):
    """Runs one target; whether it found nothing."""
    gathered = FOUND / name
    gathered.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    process = libfuzzer(
        name, gathered, CORPUS / name, f"-max_total_time={seconds}", f"-max_len={INPUT_MAX.get(name, 4096)}",
        f"-rss_limit_mb={MEMORY_MB}", f"-malloc_limit_mb={ONE_BLOCK_MB}", f"-timeout={ONE_INPUT_SECONDS}",
        f"-artifact_prefix={gathered}/", "-print_final_stats=1",
    )  # fmt: skip
    first = last = None
    lines = []
    for line in process.stdout:
        lines = [*lines[-200:], line]
        status = STATUS.search(line)
        if status:
            last = [int(n) for n in status.group(1, 3, 4, 5)]
            if status.group(2) == "INITED":
                first = last
            if sys.stderr.isatty():
                print(f"\r{name}: {last[0]} runs, coverage {last[1]}", end="", file=sys.stderr)
    bad = process.wait() != 0
    runs = next((int(line.split()[1]) for line in lines if line.startswith("stat::number_of_executed_units")), 0)
    runs = runs or (last or [0])[0]
    grown = f"coverage {first[1]} -> {last[1]}, features {first[2]} -> {last[2]}" if first else "no coverage"
    print(f"{name}: {runs} runs in {time.monotonic() - started:.0f} s, {grown}: {'FOUND' if bad else 'nothing found'}")
    if bad:
        print("".join(lines[-60:]))
    sys.stdout.flush()
    return not bad


def merge(name):
    """What was gathered, reduced to few and small inputs that have every feature of it, into the tree.

    libFuzzer's own merging starts itself again, which it cannot do under Python; its inner step tells the features.
    """
    into = CORPUS / name
    into.mkdir(parents=True, exist_ok=True)
    paths = [path for folder in (into, FOUND / name) for path in folder.iterdir() if not path.name.startswith("crash-")]
    paths.sort(key=lambda path: path.stat().st_size)
    control = FOUND / f"{name}.merge"
    control.write_text("\n".join([str(len(paths)), "0", *map(str, paths)]) + "\n")
    process = libfuzzer(name, "-merge_inner=1", f"-merge_control_file={control}")
    output, _ = process.communicate()
    features = {}
    for line in control.read_text().splitlines():
        words = line.split()
        if words[:1] == ["FT"]:
            features[int(words[1])] = set(words[2:])
    if not features:
        print(output[-3000:])
        return False
    kept, seen = {}, set()
    for i in sorted(features, key=lambda i: (-len(features[i]), i)):  # the richest first
        if features[i] - seen:
            seen |= features[i]
            kept[hashlib.sha1(paths[i].read_bytes(), usedforsecurity=False).hexdigest()] = paths[i].read_bytes()
    for path in into.iterdir():
        path.unlink()
    for digest, data in kept.items():
        (into / digest).write_bytes(data)
    print(f"{name}: {len(kept)} inputs of {len(paths)}")
    return True


def main():
    parser = argparse.ArgumentParser(prog="./dev fuzz-engine", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=int, default=600, help="for all targets together (600)")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="(all)")
    parser.add_argument("--merge", action="store_true")
    parser.add_argument("--replay", type=Path)
    arguments = parser.parse_args()
    targets = arguments.targets or list(TARGETS)
    if arguments.replay:
        for name in targets:
            TARGETS[name](arguments.replay.read_bytes())
        return 0
    if arguments.merge:
        return int(sum(not merge(name) for name in targets) > 0)
    for name in targets:
        write_seeds(name, FOUND / name)
    return int(sum(not fuzz(name, max(arguments.seconds // len(targets), 1)) for name in targets) > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(main())
