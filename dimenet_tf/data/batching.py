"""Which molecules make a step: a pure function of the seed and the number of the step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from dimenet_tf.errors import UserError

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
    budget : instead: at most so many "atoms", "edges" or "triplets" in a batch, by name. A molecule that is larger
        than the budget makes a batch of its own; none is left out.
    sizes : for a budget, (molecules,) int for each of its names, of *all* molecules
    """
    if budget is None:
        for start in range(0, len(order), batch_size):
            yield order[start : start + batch_size]
        return
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


def training_batches(molecules: np.ndarray, seed: int, first_step: int = 0, **fill) -> Iterator[np.ndarray]:
    """Yield the batches of steps `first_step`, `first_step` + 1, ... without end.

    Every epoch is a new permutation of the molecules, made from the seed and the number of the epoch alone, so that a
    resumed run sees the batches that it would have seen. Arguments in `fill` as `fill_batches`.
    """
    if len(molecules) == 0:
        raise UserError("no molecules to train on")
    step = epoch = 0
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(molecules)
        for batch in fill_batches(order, **fill):
            if step >= first_step:
                yield batch
            step += 1
        epoch += 1


def check_budget(batch_size: int | None, budget: Mapping[str, int] | None) -> None:
    """Raise a UserError unless exactly one of the two is a sensible answer."""
    if (batch_size is None) == (not budget):
        raise UserError("give either training.batch_size or training.budget, and set the other to None")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"training.batch_size = {batch_size} must be at least 1")
    for name, limit in (budget or {}).items():
        if name not in BUDGETS:
            raise UserError(f"training.budget: unknown '{name}'; known: {', '.join(BUDGETS)}")
        if limit < 1:
            raise UserError(f"training.budget.{name} = {limit} must be at least 1")
