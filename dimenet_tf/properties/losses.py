"""What is minimized, molecule by molecule."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from dimenet_tf.errors import UserError, check_choice, unknown_name
from dimenet_tf.layers.geometry import safe_norm
from dimenet_tf.properties.heads import Head
from dimenet_tf.properties.prediction import Prediction

RHO_FORCE = {"dimenet": 100.0, "gemnet": 0.999, "mse": 0.95}
"""The papers' weights of the forces; they mean different things in the losses."""


class Loss:
    """Loss of DimeNet (Eq. 2), GemNet (Eq. 21) or PaiNN (Sec. 5.2): the weighted mean of a term for every target.

    The term of a target is |d|, averaged over the components of vectors and tensors; in `mse` it is d^2. That of an
    energy with forces is

    dimenet: |dE| + rho/(3N) sum over atoms and components of |dF|
    gemnet: (1 - rho) |dE| + rho/N sum over atoms of the length of dF
    mse: (1 - rho) dE^2 + rho/(3N) sum over atoms and components of dF^2

    Errors are divided by the targets' scales, which makes the terms of different targets comparable; forces by that of
    the energy, which leaves the balance between the two as in the papers: rho (mse: its square root) is in Angstrom,
    whatever the unit of energy. Other targets do not change this balance: they stand beside the term of the energy.

    A label that is NaN is missing. Its term is exactly zero, and so is its gradient. The mean is still over all targets
    and over all molecules of a batch, so a label weighs the same whatever else is missing. An infinite label makes the
    loss infinite.

    Parameters
    ----------
    name : "dimenet", "gemnet" or "mse"
    rho_force : None for the paper's
    head : of the predictor; its targets, their columns and scales
    energy : the target whose gradient are the forces; None where no forces are learned
    weights : of targets' terms, by name; 1 where not given. That of the energy is its forces' too.
    """

    def __init__(
        self, name: str, rho_force: float | None, head: Head, energy: str | None, weights: Mapping | None = None
    ) -> None:
        check_choice("training.loss", name, RHO_FORCE)
        if energy is None and (rho_force is not None or name == "gemnet"):
            raise UserError(
                "training.rho_force and training.loss: gemnet are for forces (data.target: [energy, forces])"
            )
        self.name = name
        self.rho = RHO_FORCE[name] if rho_force is None else rho_force
        if name != "dimenet" and self.rho > 1:
            raise UserError(f"training.rho_force = {self.rho} must be at most 1 for training.loss: {name}")
        for target in weights or {}:
            if target == "forces":
                raise UserError("training.weights.forces: the weight of the forces is training.rho_force")
            if target not in head.targets:
                raise unknown_name("target in training.weights", target, head.targets)
        self.head, self.energy, self.weights = head, energy, {**dict.fromkeys(head.targets, 1.0), **(weights or {})}

    def __call__(
        self,
        prediction: Prediction,
        targets: tf.Tensor,
        forces: tf.Tensor | None,
        molecule_of_atom: tf.Tensor,
        num_atoms: tf.Tensor,
    ) -> tf.Tensor:
        """Return each molecule's loss, (molecules,) float64; targets (molecules, columns), forces (atoms, 3)."""
        size = tf.square if self.name == "mse" else tf.abs
        errors = difference(prediction.values, targets)
        terms = {}
        for part in self.head.parts:
            error = errors[:, self.head.columns[part.target]] / part.scale  # (molecules, components)
            terms[part.target] = tf.reduce_mean(size(error), axis=1)
        if self.energy is not None:
            error = difference(tf.cast(prediction.forces, tf.float64), forces) / self.head[self.energy].scale
            per_atom = safe_norm(error) if self.name == "gemnet" else tf.reduce_mean(size(error), axis=1)  # (atoms,)
            total = tf.math.unsorted_segment_sum(per_atom, molecule_of_atom, tf.shape(targets)[0])
            mean = total / tf.cast(num_atoms, tf.float64)
            share = 1.0 if self.name == "dimenet" else 1 - self.rho
            terms[self.energy] = share * terms[self.energy] + self.rho * mean
        return tf.add_n([self.weights[target] * term for target, term in terms.items()]) / len(terms)


def difference(predicted: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Subtract labels from predictions; 0, with a gradient of 0, where the label is NaN."""
    missing = tf.math.is_nan(labels)
    zeros = tf.zeros_like(predicted)
    # twice: the branch that is not taken must be finite too, or its gradient would be NaN
    return tf.where(missing, zeros, tf.where(missing, zeros, predicted) - tf.where(missing, zeros, labels))
