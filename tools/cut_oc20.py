"""Cut small test files out of data sets in OC20's formats.

    pip install -e .[oc20]
    python tools/cut_oc20.py FOLDER tests/files/oc20

FOLDER has the layout `is2re/SPLIT/data.lmdb`, `s2ef/SPLIT/0.extxyz.xz`, `s2ef/SPLIT/0.txt.xz`, `s2ef/SPLIT.aselmdb`.
Entries of LMDB files are copied as they are, in their order.
"""

import argparse
import itertools
import lzma
import zlib
from pathlib import Path

import lmdb

IS2RE = {"train": 6, "val_id": 3}  # split: structures
S2EF = {"val_id": 4}  # split: frames


def copy_lmdb(source: Path, target: Path, count: int, first: int) -> None:
    """Copy the first entries of an LMDB file whose keys are numbers from `first`, and set their number."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    whole = lmdb.open(str(source), subdir=False, readonly=True, lock=False)
    part = lmdb.open(str(target), subdir=False, lock=False, map_size=1 << 24)
    with whole, part, whole.begin() as read, part.begin(write=True) as write:
        for key in range(first, first + count):
            write.put(b"%d" % key, read.get(b"%d" % key))
        if read.get(b"nextid"):
            write.put(b"nextid", zlib.compress(b"%d" % (first + count)))
        else:
            write.put(b"length", b"%d" % count)


def copy_frames(source: Path, target: Path, count: int) -> None:
    """Copy the first frames of S2EF's pair of files."""
    target.mkdir(parents=True, exist_ok=True)
    with lzma.open(source / "0.extxyz.xz", "rb") as read, lzma.open(target / "0.extxyz.xz", "wb") as write:
        for _ in range(count):
            header = read.readline()
            write.writelines([header, *itertools.islice(read, int(header) + 1)])
    with lzma.open(source / "0.txt.xz", "rb") as read, lzma.open(target / "0.txt.xz", "wb") as write:
        write.writelines(itertools.islice(read, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    for split, count in IS2RE.items():
        place = f"is2re/{split}/data.lmdb"
        copy_lmdb(options.source / place, options.target / place, count, 0)
    for split, count in S2EF.items():
        copy_frames(options.source / "s2ef" / split, options.target / "s2ef" / split, count)
        place = f"s2ef/{split}.aselmdb"
        copy_lmdb(options.source / place, options.target / place, count, 1)


if __name__ == "__main__":
    main()
