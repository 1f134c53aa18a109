"""What is minimized, molecule by molecule."""

from __future__ import annotations

import tensorflow as tf

from dimenet_tf.errors import UserError

RHO_FORCE = {"dimenet": 100.0, "gemnet": 0.999}
"""The papers' weights of the forces; they mean different things in the two losses."""


class Loss:
    """Loss of DimeNet, Eq. 2, or GemNet, Eq. 21; without forces the mean absolute error of the targets.

    dimenet: |dE| + rho/(3N) sum over atoms and components of |dF|
    gemnet: (1 - rho) |dE| + rho/N sum over atoms of the length of dF

    Errors are divided by the targets' scales, forces by that of the energy, which leaves the balance between the two as
    in the papers: rho is in Angstrom, whatever the unit of energy. |dE| is the mean over the targets if there are more.

    Parameters
    ----------
    name : "dimenet" or "gemnet"
    rho_force : None for the paper's
    scale : (targets,) float64
    energy : column of the energy whose gradient are the forces; None where no forces are learned
    """

    def __init__(self, name: str, rho_force: float | None, scale, energy: int | None) -> None:
        if name not in RHO_FORCE:
            raise UserError(f"training.loss: '{name}' is none of {', '.join(RHO_FORCE)}")
        if energy is None and (rho_force is not None or name != "dimenet"):
            raise UserError("training.loss and training.rho_force are for forces: data.target: [energy, forces]")
        self.name = name
        self.rho = RHO_FORCE[name] if rho_force is None else rho_force
        if name == "gemnet" and self.rho > 1:
            raise UserError(f"training.rho_force = {self.rho} must be at most 1 for training.loss: gemnet")
        self.scale, self.energy = scale, energy

    def __call__(self, prediction, targets, forces, molecule_of_atom, num_atoms) -> tf.Tensor:
        """Return each molecule's loss, (molecules,) float64; targets (molecules, targets), forces (atoms, 3)."""
        values = tf.reduce_mean(tf.abs(prediction.values - targets) / self.scale, axis=1)
        if self.energy is None:
            return values
        error = (tf.cast(prediction.forces, tf.float64) - forces) / self.scale[self.energy]  # (atoms, 3)
        if self.name == "dimenet":
            per_atom = tf.reduce_mean(tf.abs(error), axis=1)
        else:
            square = tf.reduce_sum(error * error, axis=1)
            exact = square == 0  # the length's slope is infinite there
            per_atom = tf.where(exact, tf.zeros_like(square), tf.sqrt(tf.where(exact, tf.ones_like(square), square)))
        total = tf.math.unsorted_segment_sum(per_atom, molecule_of_atom, tf.shape(targets)[0])
        mean = total / tf.cast(num_atoms, tf.float64)
        return (values if self.name == "dimenet" else (1 - self.rho) * values) + self.rho * mean
