"""The receiver of docs/examples/handoff, which the tests use as a program would."""

import importlib.util
from pathlib import Path

_FILE = Path(__file__).resolve().parents[3] / "docs/examples/handoff/beside.py"
_SPEC = importlib.util.spec_from_file_location("handoff_beside", _FILE)
beside = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(beside)
