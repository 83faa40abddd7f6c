"""Benchmarks are scripts: they find each other in their own folder, as Python puts it first."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
