"""Predict a file, or a share of it, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from tqdm import tqdm

from dimenet_tf.bulk.formats import FORMATS, Result
from dimenet_tf.bulk.job import Job, JobGone
from dimenet_tf.bulk.workers import print_progress, run_workers, stop_with_parent
from dimenet_tf.data.readers import PERIODIC
from dimenet_tf.data.streams import open_stream
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor, load


def predict_file(
    model: str | Path,
    source: str | Path,
    target: str | Path,
    batch_size: int = 32,
    piece: int = 1000,
    processes: int = 1,
    shard: tuple[int, int] = (1, 1),
    on_bad: str = "error",
    worker: bool = False,
) -> str:
    """Predict the molecules of a file, in order and in constant memory.

    Finished pieces lie in `.TARGET.parts` until the target is complete: the same call goes on where it was stopped.

    Parameters
    ----------
    model : as `dimenet_tf.load`
    source : see `dimenet_tf.data.streams.open_stream`
    target : extended XYZ or npz (see `dimenet_tf.bulk.formats`)
    batch_size : molecules computed at once
    piece : molecules of a piece
    processes : how many compute at the same time, each a share of the pieces
    shard : (k, n) for the k-th of n shares, 1 <= k <= n; who finds all pieces finished joins them
    on_bad : "error" to stop at a molecule that cannot be predicted, "skip" to leave it without numbers
    worker : compute a share for a parent process, which shows the progress and joins

    Returns
    -------
    str
        what was done, for people

    Raises
    ------
    UserError
        For what cannot be read, written or predicted; names the molecule, counted from 0.
    """
    source, target = Path(source), Path(target)
    _check(source, target, batch_size, piece, processes, shard)
    if shard[1] > 1 and not worker and target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return f"complete already: {target} (newer than {source}; remove it to compute it again)"
    try:
        job = Job(model, source, target, batch_size, piece)
        if not worker and not job.begin():
            return f"complete already: {target}"
        job.open()
        share = range(shard[0] - 1, len(job), shard[1])
        if worker:
            stop_with_parent()
            predict_share(job, share, on_bad, print_progress)
            return ""
        _predict(job, share, processes, shard, on_bad)
        left = sum(map(job.molecules_of, job.missing(range(len(job)))))
        job.assert_there()  # else what is missing was not: it has been joined
        if left:
            return f"shard {shard[0]}/{shard[1]} is complete; {left} of {job.molecules} molecules of others are left"
        bad, first = job.errors()
        job.join()
    except JobGone:
        if not job.finished_elsewhere():
            raise UserError(f"{job.folder} was removed while its pieces were computed: start again") from None
        return f"completed by another process: {target}"
    except OSError as error:
        raise UserError(f"{error}; finished pieces are kept, the same command goes on") from None
    errors = f"; {bad} of them could not be predicted, the first: {first}" if bad else ""
    return f"{job.molecules} molecules: {target}{errors}"


def _check(source: Path, target: Path, batch_size: int, piece: int, processes: int, shard: tuple[int, int]) -> None:
    if target.suffix not in FORMATS:
        raise UserError(f"{target}: predictions are written as extended XYZ (.extxyz or .xyz) or .npz")
    if not target.parent.is_dir():
        raise UserError(f"no such folder: {target.parent}")
    if source.resolve() == target.resolve():
        raise UserError(f"{target} is the input: choose another output")
    for name, value in (("batch-size", batch_size), ("piece", piece), ("processes", processes)):
        if value < 1:
            raise UserError(f"--{name} {value} must be at least 1")
    if not 1 <= shard[0] <= shard[1]:
        raise UserError(f"--shard {shard[0]}/{shard[1]} must be 1/n, 2/n, ... n/n")


def _predict(job: Job, share: range, processes: int, shard: tuple[int, int], on_bad: str) -> None:
    """Compute what is missing of a share, with a progress bar."""
    missing = job.missing(share)
    total, left = (sum(map(job.molecules_of, pieces)) for pieces in (share, missing))
    if left < total:
        print(f"{total - left} of {total} molecules are there already, in {job.folder}", flush=True)
    if not missing:
        return
    with tqdm(total=total, initial=total - left, unit="molecule", dynamic_ncols=True) as bar:
        if processes == 1:
            predict_share(job, share, on_bad, bar.update)
            return
        k, n = shard
        options = ["--batch-size", job.batch_size, "--piece", job.size, "--on-bad", on_bad, "--worker"]
        run_workers(
            [
                ["predict", job.model, job.source, job.target, *options, "--shard", f"{k + n * i}/{n * processes}"]
                for i in range(processes)
            ],
            bar.update,
        )


def predict_share(job: Job, share: range, on_bad: str, advance: Callable[[int], object]) -> None:
    """Compute the pieces of a share that are missing; `advance` is told of molecules as they are done."""
    missing = job.missing(share)
    if not missing:
        return
    predictor = load(job.model)
    job.assert_same_model()
    with open_stream(job.source) as stream:
        for piece in range(missing[-1] + 1):
            size = job.molecules_of(piece)
            if piece not in share or job.path(piece).exists():
                found = stream.skip(size)
            else:
                frames = stream.take(size)
                found = len(frames)
                first = piece * job.size
                results = predict_frames(predictor, frames, first, job, on_bad, advance)
                job.publish_piece(piece, frames, results, predictor)
            if found < size:
                raise UserError(f"{job.source} has fewer molecules than when the prediction began: it was changed")


def predict_frames(
    predictor: Predictor, frames: Sequence[Atoms], first: int, job: Job, on_bad: str, advance: Callable[[int], object]
) -> list[Result]:
    """Return the result of every molecule; `first` is the number of the first one in the file."""
    results = [what_is_wrong(predictor, atoms, i) for i, atoms in enumerate(frames, start=first)]
    good = [i for i, error in enumerate(results) if error is None]
    if len(good) < len(frames):
        if on_bad == "error":
            error = next(filter(None, results))
            raise UserError(f"{job.source}: {error} (counted from 0; --on-bad skip goes on without its numbers)")
        advance(len(frames) - len(good))
    for start in range(0, len(good), job.batch_size):
        batch = good[start : start + job.batch_size]
        predicted = predictor.predict([frames[i] for i in batch], job.batch_size)
        for row, i in enumerate(batch):
            results[i] = {name: array[row] for name, array in predicted.items()}
            if "forces" in results[i]:
                results[i]["forces"] = results[i]["forces"][: len(frames[i])]
        advance(len(batch))
    return results


def what_is_wrong(predictor: Predictor, atoms: Atoms, number: int) -> str | None:
    """Return why a molecule cannot be predicted, with its number in the file; None if it can."""
    if atoms.pbc.any():
        return f"molecule {number} {PERIODIC}"
    try:
        predictor.check(np.array([len(atoms)]), atoms.numbers, atoms.positions.astype(predictor.dtype), first=number)
    except UserError as error:
        return str(error)
    return None
