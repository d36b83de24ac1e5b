"""Puts tests/ on the path, for the builders that several directories of tests share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
