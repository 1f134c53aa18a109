"""Loss functions."""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from dimenet_tf.errors import UserError, check_choice, unknown_name
from dimenet_tf.layers.geometry import safe_norm
from dimenet_tf.properties.heads import Head
from dimenet_tf.properties.loss_kinds import LOSSES
from dimenet_tf.properties.prediction import Prediction


class Loss:
    """Loss of each molecule: the weighted mean of one term for each property.

    The term of a property is the mean of |d| over the components of its error d, or of d^2 for `mse`. The term of an
    energy with forces adds the forces' errors dF, averaged over the N atoms of the molecule:

    dimenet: |dE| + rho/(3N) sum over atoms and components of |dF|  (DimeNet, Eq. 2)
    gemnet: (1 - rho) |dE| + rho/N sum over atoms of the length of dF  (GemNet, Eq. 21)
    mse: (1 - rho) dE^2 + rho/(3N) sum over atoms and components of dF^2  (PaiNN, Sec. 5.2)

    Errors are divided by the scales of their properties, which makes the terms of different properties comparable. The
    errors of forces are divided by the scale of the energy, so the balance between the two is that of the papers: rho
    (for mse its square root) is in Angstrom, whatever the unit of energy. Other properties do not change this balance.

    A learned stress adds rho_stress times the mean of |dW| over the nine components, or of dW^2 for `mse`, where
    W = stress * volume / atoms is the virial of an atom (up to its sign). Unlike the stress, W does not shrink with the
    vacuum in a cell, and unlike the virial of the cell it does not grow with its size. W is divided by the scale of the
    energy. rho_stress has no unit; its default is the number of rho, as if the lever of forces were 1 Angstrom long.

    A label that is NaN is missing. Its term is exactly zero, and so is its gradient. The mean is still taken over all
    properties and all molecules of a batch, so that the weight of a label does not depend on which others are missing.
    An infinite label makes the loss infinite. Forces of fixed atoms are NaN, and N does not count them.

    Parameters
    ----------
    name : key of `LOSSES`
    rho_force : weight of the forces; None for the default of the loss
    head : of the predictor, with the properties that it computes
    energy : name of the property whose negative gradient is the forces; None if no forces are learned
    weights : of the properties' terms, by name; 1 where left out. That of the energy includes its forces and stress.
    rho_stress : weight of the stress; None for that of the forces
    has_stress : whether the stress is learned

    Raises
    ------
    UserError
        For an unknown loss or weight, a weight of the forces out of range, and options for forces or a stress that are
        not learned.

    Examples
    --------
    >>> import numpy as np
    >>> from dimenet_tf.properties.heads import Head, Sum
    >>> loss = Loss("dimenet", None, Head([Sum("U0", "eV", scale=2.0)]), energy=None)
    >>> prediction = Prediction(tf.constant([[1.0], [5.0]], tf.float64), (), ())
    >>> loss(prediction, np.array([[0.0], [np.nan]]), None, np.array([0, 1]), np.array([1, 1])).numpy()
    array([0.5, 0. ])
    """

    def __init__(
        self,
        name: str,
        rho_force: float | None,
        head: Head,
        energy: str | None,
        weights: Mapping | None = None,
        rho_stress: float | None = None,
        has_stress: bool = False,
    ) -> None:
        check_choice("training.loss", name, LOSSES)
        self.kind = LOSSES[name]
        if energy is None and (rho_force is not None or self.kind.force_lengths):
            option = "training.rho_force" if rho_force is not None else f"training.loss: {name}"
            raise UserError(f"{option} needs forces; set data.target: [energy, forces], or remove this option")
        self.rho = self.kind.rho if rho_force is None else rho_force
        if self.kind.mixed and self.rho > 1:
            raise UserError(f"training.rho_force = {self.rho} must be at most 1 for training.loss: {name}")
        if rho_stress is not None and not has_stress:
            raise UserError(
                "training.rho_stress needs a stress; set data.target: [energy, forces, stress], or remove this option"
            )
        self.has_stress = has_stress
        self.rho_stress = self.rho if rho_stress is None else rho_stress
        for target in weights or {}:
            if target == "stress":
                raise UserError("training.weights.stress: the weight of the stress is training.rho_stress")
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
        stress: tf.Tensor | None = None,
        cell: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Compute the loss of each molecule, (molecules,) float64.

        Parameters
        ----------
        prediction : of the molecules
        targets : (molecules, columns) labels
        forces : (atoms, 3) labels; None if no forces are learned
        molecule_of_atom : (atoms,) int
        num_atoms : (molecules,) int
        stress : (molecules, 3, 3) labels; None if no stress is learned
        cell : (molecules, 3, 3), Angstrom, with `stress`
        """
        size = tf.square if self.kind.squared else tf.abs
        errors = difference(prediction.values, targets)
        properties = self.head.properties
        terms = {name: tf.reduce_mean(size(each.scaled(errors)), axis=1) for name, each in properties.items()}
        if self.energy is not None:
            assert forces is not None
            scale = properties[self.energy].reference.scale
            error = difference(tf.cast(prediction.forces, tf.float64), forces) / scale
            per_atom = safe_norm(error) if self.kind.force_lengths else tf.reduce_mean(size(error), axis=1)  # (atoms,)
            total = tf.math.unsorted_segment_sum(per_atom, molecule_of_atom, tf.shape(targets)[0])
            missing = tf.cast(tf.math.is_nan(forces[:, 0]), tf.float64)
            missing = tf.math.unsorted_segment_sum(missing, molecule_of_atom, tf.shape(targets)[0])
            mean = total / tf.maximum(tf.cast(num_atoms, tf.float64) - missing, 1.0)  # without any, the sum is zero
            share = 1 - self.rho if self.kind.mixed else 1.0
            terms[self.energy] = share * terms[self.energy] + self.rho * mean
            if stress is not None:
                # without a volume the prediction is NaN, and so is the label, which masks it
                error = difference(tf.cast(prediction.stress, tf.float64), stress)
                volume = tf.abs(tf.linalg.det(tf.cast(cell, tf.float64)))
                error *= (volume / tf.cast(num_atoms, tf.float64) / scale)[:, None, None]
                terms[self.energy] += self.rho_stress * tf.reduce_mean(size(error), axis=[1, 2])
        return tf.add_n([self.weights[target] * term for target, term in terms.items()]) / len(terms)


def difference(predicted: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Subtract labels from predictions. Where a label is NaN, the difference and its gradient are zero."""
    missing = tf.math.is_nan(labels)
    zeros = tf.zeros_like(predicted)
    # masked twice, because a branch that is not taken must be finite too: its gradient would be NaN otherwise
    return tf.where(missing, zeros, tf.where(missing, zeros, predicted) - tf.where(missing, zeros, labels))
