"""The load generator, which a release carries in an archive of its own, is whole: what it imports is in there."""

import json
import re
import shlex
import subprocess
import sys
import tarfile

import yaml

from tests.ansible.readmes import COLLECTION, ROOT

ROLE = COLLECTION / "roles/edge"


def line(text, begin):
    """A command of a script or task, as it stands, in words."""
    (found,) = re.findall(rf"(?m)^{re.escape(begin)}.*$", text)
    return shlex.split(found)


def test_the_sources_have_all_that_is_compiled_of_it(tmp_path):
    tasks = yaml.safe_load((ROLE / "tasks/build.yml").read_text())
    (pack,) = [task for task in tasks if task["name"] == "Pack the sources"]
    command = pack["ansible.builtin.shell"]["cmd"]
    command = command.replace("{{ edge_source | quote }}", shlex.quote(str(ROOT)))
    command = command.replace("{{ edge__archive | quote }}", shlex.quote(f"{tmp_path}/sources.tar.gz"))
    subprocess.run(["/bin/bash", "-c", command], check=True)
    with tarfile.open(tmp_path / "sources.tar.gz") as tar:
        packed = {name for name in tar.getnames() if name.startswith("bench/")}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "bench").rglob("*.p*") if path.suffix != ".pyc"}
    assert {name for name in there if name.endswith((".py", ".pyx", ".pxd"))} <= packed


def test_it_begins_from_its_archive_alone(tmp_path):
    """Packed as build.sh does it, and started as the command on a host does it: at a port where nobody listens."""
    pack = line((ROLE / "files/build.sh").read_text(), "tar --create --file bench.tar")
    pack[pack.index("--file") + 1] = f"{tmp_path}/bench.tar"
    pack[pack.index("--directory") + 1] = str(ROOT)
    subprocess.run([pack[0], "--exclude=bench/micro", *pack[1:]], check=True)  # which is no part of it there
    subprocess.run(["tar", "--extract", "--file", tmp_path / "bench.tar", "--directory", tmp_path], check=True)
    start = line((COLLECTION / "roles/bench/templates/edge-load.j2").read_text(), "exec ../bin/python")
    code = start[start.index("-c") + 1]
    own = "[module.__file__ for name, module in sys.modules.items() if name.startswith('bench.')]"
    code = f"import atexit, json, sys; atexit.register(lambda: print(json.dumps({own}), file=sys.stderr)); {code}"
    options = ["https://127.0.0.1:1/", "--json", "-n", "1", "-c", "1", "--mode", "handshake", "--max-errors", "1"]
    done = subprocess.run(
        [sys.executable, "-c", code, *options], cwd=tmp_path, check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["errors"], done.stdout
    files = json.loads(done.stderr.splitlines()[-1])
    assert files and all(file.startswith(f"{tmp_path}/bench/") for file in files), files


def test_where_a_host_is_not_found_the_inventory_has_to_say_it():
    command = [sys.executable, ROLE.parent / "bench/files/run_load.py", "h1", "https://example.com/", "nowhere.invalid"]
    done = subprocess.run([*command, "1", "1"], check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("nowhere.invalid: ") and "edge_address" in done.stderr
    assert "Traceback" not in done.stderr
