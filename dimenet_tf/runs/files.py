"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a file so that there is the old one or the new one at any moment, even if the power fails."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    file_to_disk(new)
    new.replace(path)


def file_to_disk(path: Path) -> None:
    """Have the operating system write a file to the disk now."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def folder_to_disk(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
