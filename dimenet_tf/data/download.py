"""Files of public data sets: downloaded once, checked against what was downloaded before, parsed once."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pooch
import requests
from tqdm import tqdm

from dimenet_tf.errors import UserError
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.readers import SPLIT

PINS = "checksums.json"


def cache_folder(cache: str | Path | None) -> Path:
    """Return the folder of downloads: the given one, or the user's cache folder."""
    return Path(cache) if cache else Path(pooch.os_cache("dimenet_tf"))


def fetch(name: str, addresses: Sequence[str], cache: Path) -> Path:
    """Return the path of a raw file, downloaded if it is not there and compared with its pinned checksum.

    Raises
    ------
    UserError
        Without a network, with the file's name and place; for another checksum than before.
    """
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / name
    if not path.exists():
        with filelock.FileLock(cache / f".{name}.lock"):  # a second process waits, and finds the file there
            _download(path, addresses)
    pinned, found = _read_pins(cache).get(name), pooch.file_hash(path)
    if pinned not in (None, found):
        raise UserError(
            f"{path} is not the file that was used before (SHA-256 {found}, pinned {pinned}): "
            f"remove it to download it again, or remove {cache / PINS} if you mean to use another"
        )
    return path


def _download(path: Path, addresses: Sequence[str]) -> None:
    reasons = []
    for address in addresses:
        if path.exists():
            return
        part = path.with_name(f"{path.name}.part")
        try:
            # pooch moves the file into place when it is complete
            pooch.retrieve(address, None, fname=path.name, path=path.parent, downloader=_resume(part))
        except (OSError, ValueError) as error:  # requests' exceptions are OSErrors
            reasons.append(f"{address}: {type(error).__name__} {' '.join(str(error).split())[:80]}".rstrip())
    if not path.exists():
        raise UserError(
            f"{path.name} could not be downloaded ({'; '.join(reasons)}): try again, which resumes where it stopped, "
            f"or put the file at {path} by hand"
        )


def _resume(part: Path) -> Callable[[str, str, Any], None]:
    """Return a downloader for pooch that continues an interrupted download from its `part` file."""

    def download(url: str, output_file: str, pooch_object: Any) -> None:
        start = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # ranges and lengths count the file's own bytes
        if start:
            headers["Range"] = f"bytes={start}-"
        with requests.get(url, headers=headers, stream=True, timeout=60) as response:
            if response.status_code == 416:  # the file ends before `start`, so `part` belongs to another file
                part.unlink()
            response.raise_for_status()
            if response.status_code != 206:  # the server starts from the beginning
                start = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise OSError(f"asked for the bytes from {start}, got {response.headers.get('Content-Range')}")
            total = start + int(response.headers.get("Content-Length", 0))
            with (
                part.open("ab" if start else "wb") as file,
                tqdm(total=total or None, initial=start, unit="B", unit_scale=True, desc=part.stem) as bar,
            ):
                for chunk in response.iter_content(1 << 16):
                    file.write(chunk)
                    bar.update(len(chunk))
        if part.stat().st_size < total:
            raise OSError(f"connection closed after {part.stat().st_size} of {total} bytes")
        shutil.move(part, output_file)

    return download


def _read_pins(cache: Path) -> dict[str, str]:
    try:
        return json.loads((cache / PINS).read_text()) if (cache / PINS).exists() else {}
    except json.JSONDecodeError:
        raise UserError(f"{cache / PINS} is damaged: remove it, and the downloads are pinned again") from None


def pin(cache: Path, names: list[str]) -> None:
    """Write down the checksums of files, which `fetch` then holds them to.

    Not before they have been read: what arrived may be an error page.
    """
    pins = {**_read_pins(cache), **{name: pooch.file_hash(cache / name) for name in names}}
    unfinished = cache / f".{PINS}.{os.getpid()}"
    unfinished.write_text(json.dumps(pins, indent=1))
    unfinished.replace(cache / PINS)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Add to errors of reading a downloaded file what to do; what arrived may be an error page."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}; remove {path} to download it again") from None


def keep(data: DataContainer, path: Path) -> None:
    """Write a parsed data set as npz; the file is there when it is complete."""
    unfinished = path.with_suffix(f".{os.getpid()}.npz")
    others: dict[str, Any] = {**data.targets, **dict(zip(SPLIT, data.split or ()))}
    np.savez(unfinished, id=data.id, N=data.N, Z=data.Z.astype(np.uint8), R=data.R, **others)
    unfinished.replace(path)
