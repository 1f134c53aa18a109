"""Molecules of each training step: a pure function of the seed and the number of the step."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dimenet_tf.errors import UserError, unknown_name

BUDGETS = ("atoms", "edges", "triplets")


def fill_batches(
    order: np.ndarray,
    batch_size: int | None = None,
    budget: Mapping[str, int] | None = None,
    sizes: Mapping[str, np.ndarray] | None = None,
) -> Iterator[np.ndarray]:
    """Cut an order of molecules into batches.

    Parameters
    ----------
    order : (n,) int, molecules
    batch_size : int, molecules in a batch; the last one may be smaller
    budget : instead of `batch_size`, the largest number of "atoms", "edges" or "triplets" in a batch, by name. A
        molecule that is larger than the budget makes a batch of its own; none is left out.
    sizes : needed for a budget: for each of its names, the sizes of *all* molecules, (molecules,) int

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.graph.batching import fill_batches
    >>> sizes = {"atoms": np.array([3, 9, 2, 4])}
    >>> [batch.tolist() for batch in fill_batches(np.array([3, 2, 1, 0]), budget={"atoms": 6}, sizes=sizes)]
    [[3, 2], [1], [0]]
    """
    if budget is None:
        assert batch_size is not None
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]
        return
    assert sizes is not None
    names = list(budget)
    limits = np.array([budget[name] for name in names])
    cost = np.stack([sizes[name] for name in names], axis=1)[order]  # (n, names)
    start, total = 0, np.zeros_like(limits)
    for i, c in enumerate(cost):
        if i > start and (total + c > limits).any():
            yield order[start:i]
            start, total = i, np.zeros_like(limits)
        total = total + c
    if len(order):
        yield order[start:]


class TrainingBatches:
    """Endless sequence of the batches of all steps.

    Every epoch is a new permutation of the molecules, made from the seed and the number of the epoch alone, so that a
    resumed run sees the same batches as an uninterrupted one.

    Parameters
    ----------
    molecules : (n,) int, to train on
    seed : int
    **fill : `batch_size`, or `budget` and `sizes`, of `fill_batches`

    Raises
    ------
    UserError
        For no molecules.

    Examples
    --------
    >>> import numpy as np
    >>> from itertools import islice
    >>> from dimenet_tf.graph.batching import TrainingBatches
    >>> batches = TrainingBatches(np.arange(5), seed=0, batch_size=2)
    >>> [len(batch) for batch in islice(batches.from_step(0), 6)]
    [2, 2, 1, 2, 2, 1]
    """

    def __init__(self, molecules: np.ndarray, seed: int, **fill: Any) -> None:
        if len(molecules) == 0:
            raise UserError("no molecules to train on")
        self.molecules, self.seed, self.fill = molecules, seed, fill
        self._first_steps = [0]  # of the epochs up to now, so that no epoch is made twice to find a step

    def epoch(self, number: int) -> list[np.ndarray]:
        """Return the batches of an epoch, counted from 0."""
        order = np.random.default_rng((self.seed, number)).permutation(self.molecules)
        return list(fill_batches(order, **self.fill))

    def from_step(self, first_step: int) -> Iterator[np.ndarray]:
        """Yield the batches of steps `first_step`, `first_step` + 1, ..."""
        epoch = bisect.bisect_right(self._first_steps, first_step) - 1
        step = self._first_steps[epoch]
        while True:
            batches = self.epoch(epoch)
            yield from batches[max(first_step - step, 0) :]
            step += len(batches)
            epoch += 1
            if epoch == len(self._first_steps):
                self._first_steps.append(step)


def check_budget(batch_size: int | None, budget: Mapping[str, int] | None) -> None:
    """Raise a UserError unless exactly one of the two is given, and is valid."""
    if (batch_size is None) == (not budget):
        raise UserError("give either training.batch_size or training.budget, and set the other to None")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"training.batch_size = {batch_size} must be at least 1")
    for name, limit in (budget or {}).items():
        if name not in BUDGETS:
            raise unknown_name("name in training.budget", name, BUDGETS)
        if limit < 1:
            raise UserError(f"training.budget.{name} = {limit} must be at least 1")
