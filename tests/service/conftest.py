"""Puts the checkout's benchmarks within reach, behind whichever curator is tested."""

from __future__ import annotations

import sys
from pathlib import Path

# At the end: a wheel that is being tested stays in front of the sources.
sys.path.append(str(Path(__file__).resolve().parents[2]))
