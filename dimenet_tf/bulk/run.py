"""Predict a file, or a share of it, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tqdm import tqdm

from dimenet_tf.bulk.formats import FORMATS, IN_DOMAIN, Result
from dimenet_tf.bulk.job import Job, JobGone
from dimenet_tf.bulk.workers import print_notes, print_progress, run_workers, stop_with_parent
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor, load
from dimenet_tf.predictor.admission import WrongUnit, in_angstrom
from dimenet_tf.predictor.watch import DomainWatch
from dimenet_tf.structures.limits import molecules_of
from dimenet_tf.structures.molecules import Molecules
from dimenet_tf.structures.streams import open_stream

LOOKED_AT = 100  # molecules, for the unit of a file's positions


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
    domain: str = "flag",
    length_unit: str | None = None,
) -> str:
    """Predict the molecules of a file, in order and in constant memory.

    Finished pieces are in `.TARGET.parts` until the target is complete, so the same call resumes where it stopped.

    Parameters
    ----------
    model : as `dimenet_tf.load`
    source : see `dimenet_tf.structures.streams.open_stream`
    target : extended XYZ or npz (see `dimenet_tf.bulk.formats`)
    batch_size : molecules computed at once
    piece : molecules of a piece
    processes : how many compute at the same time, each a share of the pieces
    shard : (k, n) for the k-th of n shares, 1 <= k <= n; who finds all pieces finished joins them
    on_bad : "error" to stop at a molecule that cannot be predicted, "skip" to leave it without numbers
    domain : "flag" to mark molecules outside of the model's domain (`in_domain`), "error" to treat them as bad
    length_unit : of the positions, as `Predictor.predict`; without it the first molecules are looked at
    worker : compute a share for a parent process, which shows the progress and joins

    Returns
    -------
    str
        what was done, for people

    Raises
    ------
    UserError
        For what cannot be read, written or predicted; names the molecule, counted from 0.

    Examples
    --------
    >>> import tempfile
    >>> from ase.build import molecule
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     water, predicted = Path(folder) / "water.xyz", Path(folder) / "predicted.extxyz"
    ...     molecule("H2O").write(water)
    ...     predict_file("dimenet_pp-sample-U0", water, predicted)
    '1 molecules: ...predicted.extxyz'
    """
    source, target = Path(source), Path(target)
    _check(source, target, batch_size, piece, processes, shard)
    if shard[1] > 1 and not worker and target.exists() and target.stat().st_mtime > source.stat().st_mtime:
        return f"complete already: {target} (newer than {source}; remove it to compute it again)"
    try:
        job = Job(model, source, target, batch_size, piece, domain, length_unit)
        if not worker and not job.begin():
            return f"complete already: {target}"
        job.open()
        share = range(shard[0] - 1, len(job), shard[1])
        if worker:
            stop_with_parent()
            print_notes(predict_share(job, share, on_bad, print_progress))
            return ""
        _predict(job, share, processes, shard, on_bad)
        left = sum(map(job.molecules_of, job.missing(range(len(job)))))
        job.assert_there()  # else what is missing was not: it has been joined
        if left:
            return f"shard {shard[0]}/{shard[1]} is complete; {left} of {job.molecules} molecules of others are left"
        (bad, first), outside = job.errors(), job.outside()
        job.join()
    except JobGone:
        if not job.finished_elsewhere():
            raise UserError(f"{job.folder} was removed while its pieces were computed: start again") from None
        return f"completed by another process: {target}"
    except OSError as error:
        raise UserError(f"{error}; finished pieces are kept, and the same command resumes") from None
    errors = f"; {bad} of them could not be predicted, the first: {first}" if bad else ""
    flagged = f"; {outside} lie outside of the model's domain (in_domain)" if outside else ""
    return f"{job.molecules} molecules: {target}{flagged}{errors}"


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
            notes = predict_share(job, share, on_bad, bar.update)
        else:
            notes = _predict_in_processes(job, processes, shard, on_bad, bar.update)
    print_notes(notes)


def _predict_in_processes(
    job: Job, processes: int, shard: tuple[int, int], on_bad: str, advance: Callable[[int], object]
) -> list[str]:
    k, n = shard
    options = ["--batch-size", job.batch_size, "--piece", job.size, "--on-bad", on_bad, "--worker"]
    options += ["--domain", job.domain, *(["--length-unit", job.length_unit] if job.length_unit else [])]
    return run_workers(
        [
            ["predict", job.model, job.source, job.target, *options, "--shard", f"{k + n * i}/{n * processes}"]
            for i in range(processes)
        ],
        advance,
    )


def predict_share(job: Job, share: range, on_bad: str, advance: Callable[[int], object]) -> list[str]:
    """Compute the missing pieces of a share, and return the reader's remarks about the file.

    `advance` is called with the number of molecules whenever some are done.
    """
    missing = job.missing(share)
    if not missing:
        return []
    predictor = load(job.model)
    job.assert_same_model()
    DomainWatch(predictor.domain, predictor.model.cutoff, job.domain)  # refuses "error" where nothing is recorded
    if job.length_unit is None:
        _check_unit(predictor, job.source)
    with open_stream(job.source) as stream:
        for piece in range(missing[-1] + 1):
            size = job.molecules_of(piece)
            if piece not in share or job.path(piece).exists():
                found = stream.skip(size)
            else:
                molecules = stream.take(size)
                found = len(molecules.N)
                results = predict_piece(predictor, molecules, piece * job.size, job, on_bad, advance)
                job.publish_piece(piece, molecules, results, predictor)
            if found < size:
                raise UserError(f"{job.source} has fewer molecules than when the prediction began: it was changed")
        return list(stream.notes)


def _check_unit(predictor: Predictor, source: Path) -> None:
    """Raise a UserError if the first molecules of a file have bonds as long as in another unit than Angstrom."""
    with open_stream(source) as stream:
        some = stream.take(LOOKED_AT)
    try:
        predictor.admission.check_unit(some)
    except WrongUnit as error:
        raise UserError(
            f"{source}: {error.fault}; --length-unit {error.unit} converts them, --length-unit Ang takes them as they "
            "are"
        ) from None


def predict_piece(
    predictor: Predictor, molecules: Molecules, first: int, job: Job, on_bad: str, advance: Callable[[int], object]
) -> list[Result]:
    """Return the result of every molecule; `first` is the number of the first one in the file."""
    results: list = [None] * len(molecules.N)

    def refuse(reasons: Mapping[int, str]) -> None:
        if reasons and on_bad == "error":
            number = min(reasons)
            raise UserError(
                f"{job.source}: molecule {first + number} {reasons[number]} (counted from 0; --on-bad skip leaves it "
                "without numbers)"
            )
        for number, reason in reasons.items():
            results[number] = f"molecule {first + number} {reason}"
        advance(len(reasons))

    molecules = in_angstrom(molecules, job.length_unit)
    faults, _ = predictor.admission.faults(molecules)
    refuse(faults)
    good = [i for i, result in enumerate(results) if result is None]
    for start in range(0, len(good), job.batch_size):
        batch = good[start : start + job.batch_size]
        admitted = molecules.select(batch)
        prediction = predictor.predict_admitted(admitted, job.batch_size)
        predicted = predictor.named(prediction)
        if predictor.domain is not None:
            predicted[IN_DOMAIN] = prediction.in_domain
        if job.domain == "error":
            inside = predicted[IN_DOMAIN]
            refuse(
                {i: _why_outside(predictor, admitted.select([row])) for row, i in enumerate(batch) if not inside[row]}
            )
        forces = predicted.pop("forces", None)
        for row, (i, atoms) in enumerate(zip(batch, molecules_of(admitted.N))):
            if results[i] is None:
                results[i] = {name: array[row] for name, array in predicted.items()}
                if forces is not None:
                    results[i]["forces"] = forces[atoms]
                advance(1)
    return results


def _why_outside(predictor: Predictor, molecule: Molecules) -> str:
    assert predictor.domain is not None  # else nothing lies outside
    reasons = predictor.domain.reasons(molecule.Z, molecule.R, predictor.model.cutoff, molecule.cells)
    return f"lies outside of the model's domain: {'; '.join(reasons.values())}"
