"""Committee of models of the same data, whose disagreement estimates their error."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph, graph_signature
from dimenet_tf.predictor import Prediction, Predictor, load
from dimenet_tf.predictor.admission import Admission
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.runs.catalog import read_description
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.molecules import Molecules

DESCRIPTION = "committee.json"
FORMAT = 1


class Spread(NamedTuple):
    """Unscaled standard deviations between the members of a committee."""

    values: tf.Tensor
    """(molecules, columns) float64."""
    forces: tf.Tensor
    """(atoms,), eV/Angstrom: root of the mean squared distance of the members' force vectors from their mean."""


class Committee:
    """Ensemble of predictors: their mean is the prediction, their scaled spread its uncertainty.

    Parameters
    ----------
    members : predictors, run folders or names of pretrained models, at least two; with forces, and with the same
        targets, elements, cutoff and dtype (different seeds, splits or sizes)
    factor : ratio of the error of the forces to their spread, from `fit`; None before that

    Examples
    --------
    >>> import dimenet_tf
    >>> one = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
    >>> other = one.clone()  # in practice: trained with another seed
    >>> other.set_weights([1.001 * w for w in other.get_weights()])
    >>> committee = Committee([one, other])
    >>> frames = dimenet_tf.data.ethanol_xtb().select(range(-8, 0))
    >>> committee.fit(frames) > 0  # frames that no member was trained on
    True
    """

    def __init__(self, members: Sequence, factor: float | None = None) -> None:
        self.members = [m if isinstance(m, Predictor) else load(m) for m in members]
        self.factor = factor
        if len(self.members) < 2:
            raise UserError("a committee needs at least two members")
        first = self.members[0]
        for i, member in enumerate(self.members):
            if member.energy is None:
                raise UserError(f"member {i} of the committee has no forces")
            for what in ("energy", "units", "elements", "precision"):
                if getattr(member, what) != getattr(first, what):
                    raise UserError(
                        f"member {i} of the committee has other {what} than member 0: "
                        f"{getattr(member, what)}, not {getattr(first, what)}"
                    )
            if member.head.columns.shapes != first.head.columns.shapes or member.head.targets != first.head.targets:
                raise UserError(f"member {i} of the committee has its targets in another order than member 0")
            if (member.model.cutoff, member.model.needs) != (first.model.cutoff, first.model.needs):
                raise UserError(f"member {i} of the committee has another cutoff or aggregation than member 0")
        self.energy, self.model, self.head = first.energy, first.model, first.head
        self.dtype, self.precision = first.dtype, first.precision
        self.graph_store = first.graph_store
        domains = [member.domain for member in self.members if member.domain is not None]
        self.domain = Domain.common(domains) if len(domains) == len(self.members) else None
        self.has_stress = all(member.has_stress for member in self.members)
        takes_cells = all(member.takes_cells for member in self.members)
        self.admission = Admission(first.elements, self.model.cutoff, self.domain, takes_cells)
        molecular, periodic = (graph_signature(self.dtype, self.model.needs, cells) for cells in (False, True))
        self.graph_function = tf.function(self._mean_and_spread, input_signature=[molecular])
        self.cell_function = tf.function(self._mean_and_spread, input_signature=[periodic])

    def __repr__(self) -> str:
        factor = "not fitted" if self.factor is None else f"{self.factor:.3g}"
        return f"Committee({len(self.members)} members, factor {factor}; member 0: {self.members[0]})"

    def predict_graph(self, graph: Graph) -> tuple[Prediction, Spread]:
        """Predict the molecules of a graph: mean and spread of the members; see `Predictor.predict_graph`.

        Examples
        --------
        >>> import dimenet_tf
        >>> one = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> committee = Committee([one, one.clone()])
        >>> frame = dimenet_tf.data.ethanol_xtb().select([0])
        >>> mean, spread = committee.predict_graph(committee.graph_store(frame.N, frame.Z, frame.R).batch([0]))
        >>> mean.forces.shape, float(abs(spread.forces).numpy().max())
        (TensorShape([9, 3]), 0.0)
        """
        self.model.check_graph(graph)
        function = self.cell_function if graph.is_periodic else self.graph_function
        return function(graph.only(self.model.needs))

    def _mean_and_spread(self, graph: Graph) -> tuple[Prediction, Spread]:
        graph = graph._replace(cutoff=self.model.cutoff)  # checked before: a constant saves the assertion
        predictions = [member.compute(graph) for member in self.members]
        stacked = Prediction(*map(tf.stack, zip(*(prediction[:3] for prediction in predictions))))
        mean = Prediction(*(tf.reduce_mean(array, axis=0) for array in stacked[:3]))
        if all(not isinstance(prediction.stress, tuple) for prediction in predictions):
            stresses = tf.stack([prediction.stress for prediction in predictions])
            mean = mean._replace(stress=tf.reduce_mean(stresses, axis=0))
        if all(not isinstance(prediction.neighbors_dropped, tuple) for prediction in predictions):
            dropped = tf.stack([prediction.neighbors_dropped for prediction in predictions])
            mean = mean._replace(neighbors_dropped=tf.reduce_max(dropped, axis=0))
        if self.domain is not None:
            mean = mean._replace(in_domain=self.domain.contains(graph))
        values = tf.sqrt(tf.reduce_mean((stacked.values - mean.values) ** 2, axis=0))
        forces = tf.sqrt(tf.reduce_mean(tf.reduce_sum((stacked.forces - mean.forces) ** 2, axis=-1), axis=0))
        return mean, Spread(values, forces)

    def fit(self, data: DataContainer, batch_size: int = 32) -> float:
        """Fit `factor` on frames that no member was trained on, and return it.

        With this factor the mean square of the scaled spread equals the mean squared error of the force vectors.

        Parameters
        ----------
        data : with the target `forces`
        batch_size : frames computed at once

        Examples
        --------
        >>> import dimenet_tf
        >>> one = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> committee = Committee([one, one.clone()])
        >>> committee.fit(dimenet_tf.data.ethanol_xtb().select([0, 1]))
        Traceback (most recent call last):
            ...
        dimenet_tf.errors.UserError: the members of the committee do not differ: train them with different seeds
        """
        if len(data) == 0:
            raise UserError("the committee's factor needs frames to be fitted on")
        molecules = self.admission.admit(
            Molecules(data.N, data.Z, data.R, charge=data.charge, spin=data.spin, cells=data.cells)
        )
        store = self.graph_store(*molecules[:3], *molecules.cell_arrays())
        forces = data.target("forces")
        squares = np.zeros(2)  # of errors, of spreads
        for start in range(0, len(data), batch_size):
            frames = np.arange(start, min(start + batch_size, len(data)))
            mean, spread = self.predict_graph(store.batch(frames))
            squares += np.sum((mean.forces - forces[store.atoms(frames)]) ** 2), np.sum(spread.forces.numpy() ** 2.0)
        if squares[1] <= 1e-12 * squares[0]:
            raise UserError("the members of the committee do not differ: train them with different seeds")
        self.factor = float(np.sqrt(squares[0] / squares[1]))
        return self.factor

    def to_folder(self, folder: str | Path) -> None:
        """Write the members and the factor; `from_folder` reads them.

        Examples
        --------
        >>> import tempfile
        >>> import dimenet_tf
        >>> one = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Committee([one, one.clone()], factor=1.5).to_folder(folder)
        ...     Committee.from_folder(folder).factor
        1.5
        """
        folder = Path(folder)
        for i, member in enumerate(self.members):
            member.to_folder(folder / str(i))
        description = {"format": FORMAT, "members": len(self.members), "factor": self.factor}
        (folder / DESCRIPTION).write_text(json.dumps(description, indent=1))

    @classmethod
    def from_folder(cls, folder: str | Path) -> Committee:
        """Read a committee that `to_folder` wrote.

        Examples
        --------
        >>> Committee.from_folder("nowhere")
        Traceback (most recent call last):
            ...
        dimenet_tf.errors.UserError: ...
        """
        folder = Path(folder)
        description = read_description(folder / DESCRIPTION, FORMAT)
        return cls([folder / str(i) for i in range(description["members"])], description["factor"])

    def clone(self, dtype: str) -> Committee:
        """Return a committee with the same weights in another dtype.

        Examples
        --------
        >>> import dimenet_tf
        >>> one = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> Committee([one, one.clone()]).clone("float64").precision
        'float64'
        """
        return Committee([member.clone(dtype) for member in self.members], self.factor)
