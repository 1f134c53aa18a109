"""Folders of the repository."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "dimenet_tf"
FILES = ROOT / "tests/files"
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
