"""Atoms' scalars and vectors -> molecular properties with units.

Every head says what each atom contributes to one property; the property is the sum, made in float64: a molecule of
-4000 eV has a float32 spacing of 0.5 meV. Heads of vectors and tensors are for neutral molecules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError, check_choice, unknown_name
from dimenet_tf.graph import Graph
from dimenet_tf.layers.gathers import gather, segment_sum
from dimenet_tf.layers.geometry import unit_vectors
from dimenet_tf.layers.output import AtomOutputs
from dimenet_tf.properties.columns import Columns


def molecule_sum(x: tf.Tensor, graph: Graph) -> tf.Tensor:
    """Sum over the atoms of each molecule: (atoms, ...) -> (molecules, ...)."""
    return segment_sum(x, graph.molecule_of_atom, tf.shape(graph.num_atoms)[0])


def molecule_size(graph: Graph) -> tf.Tensor:
    """Return how many atoms the molecule of each atom has, (atoms,) float64."""
    return tf.cast(tf.gather(graph.num_atoms, graph.molecule_of_atom), tf.float64)


def relative_positions(graph: Graph, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Return positions relative to the molecule's centroid, or its center of weights; (atoms, 3) float64, Angstrom."""
    positions = tf.cast(graph.positions, tf.float64)
    weights = tf.ones_like(positions[:, 0]) if weights is None else weights
    center = molecule_sum(weights[:, None] * positions, graph) / molecule_sum(weights, graph)[:, None]
    return positions - gather(center, graph.molecule_of_atom)


class PropertyHead:
    """One property of a molecule.

    Parameters
    ----------
    target : name of the property
    unit : of it
    scale : in this unit: what the network says is multiplied by it (and lengths are in Angstrom)
    """

    shape: tuple[int, ...] = ()
    """Of one molecule's value."""
    additive = False
    """Whether reference values are added."""
    vector = False
    """Whether the head takes a vector of each atom beside a scalar."""
    needs_vector = False
    """Whether it can do without."""

    def __init__(self, target: str, unit: str, scale: float = 1.0) -> None:
        self.target, self.unit, self.scale = target, unit, float(scale)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, {self.unit!r}, scale={self.scale:g})"

    @property
    def name(self) -> str:
        """Its key in `HEADS`."""
        return NAMES[type(self)]

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        """Return what each atom contributes, (atoms, *shape); scalar (atoms,), vector (atoms, 3), all float64."""
        raise NotImplementedError

    def get_config(self) -> dict:
        return {"head": self.name, "target": self.target, "unit": self.unit, "scale": self.scale}


class AdditiveHead(PropertyHead):
    """A property that reference values are added to.

    Parameters
    ----------
    target, unit, scale : as `PropertyHead`
    per_element : (95,) float, reference value of each element; none where left out
    offset : float, of the molecule
    """

    additive = True

    def __init__(
        self, target: str, unit: str, scale: float = 1.0, per_element: np.ndarray | None = None, offset: float = 0.0
    ) -> None:
        super().__init__(target, unit, scale)
        self.per_element = np.zeros(95) if per_element is None else np.asarray(per_element, np.float64)
        self.offset = float(offset)

    def reference(self, graph: Graph) -> tf.Tensor:
        """Return what each atom has of the reference values, (atoms,)."""
        return tf.gather(tf.constant(self.per_element), graph.atomic_numbers) + self.offset / molecule_size(graph)

    def get_config(self) -> dict:
        return {**super().get_config(), "per_element": self.per_element.tolist(), "offset": self.offset}


class Sum(AdditiveHead):
    """offset + sum_i (per_element[Z_i] + scale * scalar_i)."""

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        return self.reference(graph) + self.scale * scalar


class Mean(AdditiveHead):
    """The same with the mean of the atoms' scalars; the references are summed in any case."""

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        return self.reference(graph) + self.scale * scalar / molecule_size(graph)


class Dipole(PropertyHead):
    """Dipole moment of a neutral molecule: scale * sum_i (vector_i + q_i r_i), PaiNN, Eq. 13; without vectors Eq. 12.

    r is relative to the centroid. That is the same as subtracting their mean from the charges, which makes the molecule
    neutral and the dipole independent of the origin.

    Parameters
    ----------
    target, unit, scale : as `PropertyHead`
    vector : whether the atoms have dipoles of their own beside charges
    """

    shape: tuple[int, ...] = (3,)

    def __init__(self, target: str, unit: str, scale: float = 1.0, vector: bool = False) -> None:
        super().__init__(target, unit, scale)
        self.vector = vector

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        dipoles = scalar[:, None] * relative_positions(graph)  # (atoms, 3)
        return self.scale * (dipoles if vector is None else dipoles + vector)

    def get_config(self) -> dict:
        return {**super().get_config(), "vector": self.vector}


class DipoleMagnitude(Dipole):
    """Length of that dipole moment: QM9's mu. An atom's share is the part of its dipole along the molecule's."""

    shape = ()

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        dipoles = super().shares(scalar, vector, graph)  # (atoms, 3)
        # its slope is zero where the dipole is, as that of a safe norm
        direction = gather(unit_vectors(molecule_sum(dipoles, graph)), graph.molecule_of_atom)
        return tf.reduce_sum(dipoles * direction, axis=1)


class Polarizability(AdditiveHead):
    """Polarizability tensor, PaiNN, Eq. 14.

    sum_i ((per_element[Z_i] + scale * scalar_i) I + scale * (vector_i (x) r_i + r_i (x) vector_i)) + offset I, with r
    relative to the centroid.
    """

    shape = (3, 3)
    vector = needs_vector = True

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        assert vector is not None  # `needs_vector`
        isotropic = self.reference(graph) + self.scale * scalar  # (atoms,)
        outer = vector[:, :, None] * relative_positions(graph)[:, None, :]  # (atoms, 3, 3)
        anisotropic = self.scale * (outer + tf.transpose(outer, [0, 2, 1]))
        return isotropic[:, None, None] * tf.eye(3, dtype=tf.float64) + anisotropic


class SpatialExtent(PropertyHead):
    """Electronic spatial extent: scale * sum_i q_i |r_i|^2, r relative to the center of mass (PaiNN, Sec. 5.1)."""

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        from ase.data import atomic_masses  # slow to import

        masses = tf.gather(tf.constant(atomic_masses[:95], tf.float64), graph.atomic_numbers)
        return self.scale * scalar * tf.reduce_sum(relative_positions(graph, masses) ** 2, axis=1)


HEADS: dict[str, type[PropertyHead]] = {
    "sum": Sum,
    "mean": Mean,
    "dipole": Dipole,
    "dipole_magnitude": DipoleMagnitude,
    "polarizability": Polarizability,
    "spatial_extent": SpatialExtent,
}
NAMES = {head: name for name, head in HEADS.items()}


class Head:
    """What turns a model's outputs into properties: a small head for each.

    Of the model's scalars those of heads without a vector come first, each in the order of the targets; the last ones
    belong to the vectors, in the same order.

    Parameters
    ----------
    parts : of the targets
    """

    def __init__(self, parts: Sequence[PropertyHead]) -> None:
        self.parts = list(parts)
        self.targets = [part.target for part in self.parts]
        self.units = [part.unit for part in self.parts]
        self.columns = Columns({part.target: part.shape for part in self.parts})
        self.with_vector = [part.target for part in self.parts if part.vector]
        self.scalars = [*(part.target for part in self.parts if not part.vector), *self.with_vector]

    def __repr__(self) -> str:
        return f"Head({self.parts})"

    def __getitem__(self, target: str) -> PropertyHead:
        """Return the head of a target."""
        return self.parts[self.targets.index(target)]

    def shares(self, outputs: AtomOutputs, graph: Graph) -> dict[str, tf.Tensor]:
        """Return what each atom contributes to every target, (atoms, *shape) float64."""
        scalars, vectors = tf.cast(outputs.scalars, tf.float64), tf.cast(outputs.vectors, tf.float64)
        return {
            part.target: part.shares(
                scalars[:, self.scalars.index(part.target)],
                vectors[:, self.with_vector.index(part.target)] if part.vector else None,
                graph,
            )
            for part in self.parts
        }

    def values(self, shares: Mapping[str, tf.Tensor], graph: Graph) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the properties (molecules, columns) and the atoms' shares in them (atoms, columns), float64."""
        side_by_side = self.columns.join(shares)
        return molecule_sum(side_by_side, graph), side_by_side

    def direct_forces(self, outputs: AtomOutputs, target: str) -> tf.Tensor:
        """Return the forces (atoms, 3) that the model gives beside a target's scalars, without a gradient."""
        forces = outputs.forces[:, self.scalars.index(target)]
        return forces * tf.cast(self[target].scale, forces.dtype)

    def get_config(self) -> list[dict]:
        return [part.get_config() for part in self.parts]

    @classmethod
    def from_config(cls, config: Sequence[Mapping] | Mapping) -> Head:
        if isinstance(config, Mapping):  # of format 1, which knew sums of scalars only
            return scalar_head(**config)
        return cls([HEADS[part["head"]](**{k: v for k, v in part.items() if k != "head"}) for part in config])


def scalar_head(
    targets: Sequence[str],
    units: Sequence[str],
    per_element: np.ndarray,
    offset: Sequence[float] | np.ndarray,
    scale: Sequence[float] | np.ndarray,
    extensive: bool = True,
) -> Head:
    """Make the head of numbers: sums, or where not `extensive` means, of the atoms' scalars.

    Parameters
    ----------
    targets, units : of the properties
    per_element : (targets, 95) float, reference value of each element
    offset, scale : (targets,) float
    """
    kind = Sum if extensive else Mean
    return Head([kind(*of_target) for of_target in zip(targets, units, scale, per_element, offset)])


def choose_heads(
    shapes: Mapping[str, tuple[int, ...]], asked: Mapping[str, str], extensive: bool, vectors: bool
) -> dict[str, type[PropertyHead]]:
    """Return the head of every target.

    Without a wish: `dipole` and `polarizability` have the heads of that name; `mu` is a `dipole_magnitude` and `r2` a
    `spatial_extent` where the model has vectors (PaiNN, Sec. 5.1); all else is a `sum`, or a `mean` if not `extensive`.

    Parameters
    ----------
    shapes : of one molecule's value of each target, by name
    asked : names of heads by target
    extensive : of the model
    vectors : whether the model has any

    Raises
    ------
    UserError
        For unknown targets, and heads that are unknown or of another shape.
    """
    automatic = {"dipole": "dipole", "polarizability": "polarizability"}
    if vectors:
        automatic |= {"mu": "dipole_magnitude", "r2": "spatial_extent"}
    for target in asked:
        if target not in shapes:
            raise unknown_name("target in data.heads", target, shapes)
    chosen = {}
    for target, shape in shapes.items():
        name = asked.get(target, automatic.get(target, "sum" if extensive else "mean"))
        fitting = [n for n, head in HEADS.items() if head.shape == shape]
        check_choice(f"data.heads.{target}", name, fitting)
        chosen[target] = HEADS[name]
    return chosen


def check_energy(head: Head, energy: str) -> None:
    """Raise a UserError if a target is no energy, whose negative gradient would be forces in eV/Angstrom."""
    if energy not in head.targets:
        raise UserError(f"forces need an energy, one of {', '.join(head.targets)}; got '{energy}'")
    part = head[energy]
    if part.name not in ("sum", "mean") or part.unit not in ("eV", ""):  # a target of the user's own may have no unit
        unit = f" in {part.unit}" if part.unit else ""
        raise UserError(f"forces need an energy in eV: '{energy}' is a {part.name}{unit}")
