"""Heads: molecular properties from the scalars and vectors of atoms.

A head computes the share of each atom in one property. The property is the sum of the shares in float64, because the
spacing of float32 numbers is 0.5 meV at -4000 eV. Heads for vectors and tensors assume neutral molecules.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.graph import Graph
from dimenet_tf.layers.gathers import gather, segment_sum
from dimenet_tf.layers.geometry import unit_vectors
from dimenet_tf.layers.output import AtomOutputs
from dimenet_tf.properties.columns import Columns
from dimenet_tf.properties.property import Property, side_by_side
from dimenet_tf.properties.references import NO_REFERENCE, Reference
from dimenet_tf.structures.quantities import find_property


def molecule_sum(x: tf.Tensor, graph: Graph) -> tf.Tensor:
    """Sum over the atoms of each molecule: (atoms, ...) -> (molecules, ...)."""
    return segment_sum(x, graph.molecule_of_atom, tf.shape(graph.num_atoms)[0])


def molecule_size(graph: Graph) -> tf.Tensor:
    """Return the number of atoms in the molecule of each atom, (atoms,) float64."""
    return tf.cast(tf.gather(graph.num_atoms, graph.molecule_of_atom), tf.float64)


def relative_positions(graph: Graph, weights: tf.Tensor | None = None) -> tf.Tensor:
    """Return positions relative to the centroid of the molecule, (atoms, 3) float64, Angstrom.

    Parameters
    ----------
    graph : of the molecules
    weights : (atoms,) float64 weights of the mean that is the center, such as masses; equal weights if None
    """
    positions = tf.cast(graph.positions, tf.float64)
    weights = tf.ones_like(positions[:, 0]) if weights is None else weights
    center = molecule_sum(weights[:, None] * positions, graph) / molecule_sum(weights, graph)[:, None]
    return positions - gather(center, graph.molecule_of_atom)


class PropertyHead:
    """Base class of heads: computes one property.

    Parameters
    ----------
    target : name of the property
    unit : of the property
    scale : factor of the model's outputs, in this unit (lengths are in Angstrom)
    """

    shape: tuple[int, ...] = ()
    """Shape of one molecule's value."""
    additive = False
    """Whether reference values are added."""
    vector = False
    """Whether the head takes a vector of each atom in addition to a scalar."""
    needs_vector = False
    """Whether the head requires vectors. Otherwise it can do without them."""
    singular_at_zero = False
    """Whether the gradient vanishes if all outputs of the model are zero."""

    def __init__(self, target: str, unit: str, scale: float = 1.0) -> None:
        self.target, self.unit, self.scale = target, unit, float(scale)

    @classmethod
    def of(cls, prop: Property, vectors: bool) -> PropertyHead:
        """Make the head of a property, with its fitted reference.

        Parameters
        ----------
        prop : property whose head is of this class
        vectors : whether the model has vectors
        """
        return cls(prop.name, prop.unit, prop.reference.scale)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target!r}, {self.unit!r}, scale={self.scale:g})"

    @property
    def name(self) -> str:
        """Key of the head in `HEADS`."""
        return NAMES[type(self)]

    @property
    def fitted(self) -> Reference:
        """Reference values and scale."""
        return NO_REFERENCE._replace(scale=self.scale)

    @property
    def computes(self) -> Property:
        """The property that the head computes."""
        quantity = find_property(self.target)._replace(unit=self.unit, shape=self.shape)
        return Property(self.target, quantity, head=self.name, reference=self.fitted)

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        """Compute the share of each atom in the property, (atoms, *shape) float64.

        Parameters
        ----------
        scalar : (atoms,) float64
        vector : (atoms, 3) float64, if the head takes vectors
        graph : of the molecules
        """
        raise NotImplementedError

    def get_config(self) -> dict:
        return {"head": self.name, "target": self.target, "unit": self.unit, "scale": self.scale}


class AdditiveHead(PropertyHead):
    """Base class of heads that add reference values.

    Parameters
    ----------
    target, unit, scale : as `PropertyHead`
    per_element : (95,) float, reference value of each element; zero if left out
    offset : reference value of each molecule
    """

    additive = True

    def __init__(
        self, target: str, unit: str, scale: float = 1.0, per_element: np.ndarray | None = None, offset: float = 0.0
    ) -> None:
        super().__init__(target, unit, scale)
        self.per_element = np.zeros(95) if per_element is None else np.asarray(per_element, np.float64)
        self.offset = float(offset)

    @classmethod
    def of(cls, prop: Property, vectors: bool) -> AdditiveHead:
        fit = prop.reference
        return cls(prop.name, prop.unit, fit.scale, fit.per_element, fit.offset)

    @property
    def fitted(self) -> Reference:
        return Reference(self.per_element, self.offset, self.scale)

    def reference(self, graph: Graph) -> tf.Tensor:
        """Return the share of each atom in the reference values, (atoms,)."""
        return tf.gather(tf.constant(self.per_element), graph.atomic_numbers) + self.offset / molecule_size(graph)

    def get_config(self) -> dict:
        return {**super().get_config(), "per_element": self.per_element.tolist(), "offset": self.offset}


class Sum(AdditiveHead):
    """Sum over atoms: offset + sum_i (per_element[Z_i] + scale * scalar_i)."""

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        return self.reference(graph) + self.scale * scalar


class Mean(AdditiveHead):
    """Mean over atoms: offset + sum_i per_element[Z_i] + scale * mean of scalar_i."""

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        return self.reference(graph) + self.scale * scalar / molecule_size(graph)


class Dipole(PropertyHead):
    """Dipole moment of a neutral molecule: scale * sum_i (vector_i + q_i r_i), PaiNN, Eq. 13; without vectors Eq. 12.

    r is relative to the centroid, which is equivalent to subtracting the mean charge from all charges. The molecule is
    therefore neutral, and the dipole does not depend on the origin.

    Parameters
    ----------
    target, unit, scale : as `PropertyHead`
    vector : whether atoms have dipoles of their own in addition to charges
    """

    shape: tuple[int, ...] = (3,)

    def __init__(self, target: str, unit: str, scale: float = 1.0, vector: bool = False) -> None:
        super().__init__(target, unit, scale)
        self.vector = vector

    @classmethod
    def of(cls, prop: Property, vectors: bool) -> Dipole:
        return cls(prop.name, prop.unit, prop.reference.scale, vectors)

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        dipoles = scalar[:, None] * relative_positions(graph)  # (atoms, 3)
        return self.scale * (dipoles if vector is None else dipoles + vector)

    def get_config(self) -> dict:
        return {**super().get_config(), "vector": self.vector}


class DipoleMagnitude(Dipole):
    """Length of the dipole moment, such as QM9's mu.

    The share of an atom is the component of its dipole along the dipole of the molecule.
    """

    shape = ()
    singular_at_zero = True

    def shares(self, scalar: tf.Tensor, vector: tf.Tensor | None, graph: Graph) -> tf.Tensor:
        dipoles = super().shares(scalar, vector, graph)  # (atoms, 3)
        # where the dipole is zero the gradient is zero too, as that of `safe_norm`
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
        assert vector is not None  # because of `needs_vector`
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
    """Head of a model: computes several properties, each with a `PropertyHead`.

    The model's first scalars are for the heads without vectors, the last ones for the heads with vectors, each in the
    order of the targets. Vectors are in the same order.

    Parameters
    ----------
    parts : heads of the properties

    Examples
    --------
    >>> head = Head([Sum("energy", "eV"), Dipole("dipole", "e*Ang")])
    >>> head.targets, head.columns["dipole"], head.properties["dipole"].unit
    (['energy', 'dipole'], slice(1, 4, None), 'e*Ang')
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

    @functools.cached_property
    def properties(self) -> dict[str, Property]:
        """Computed properties by name, with their reference values and columns."""
        return side_by_side(part.computes for part in self.parts)

    def shares(self, outputs: AtomOutputs, graph: Graph) -> dict[str, tf.Tensor]:
        """Compute the share of each atom in every property, (atoms, *shape) float64."""
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
        """Return the properties (molecules, columns) and the shares of atoms in them (atoms, columns), float64."""
        side_by_side = self.columns.join(shares)
        return molecule_sum(side_by_side, graph), side_by_side

    def direct_forces(self, outputs: AtomOutputs, target: str) -> tf.Tensor:
        """Return the forces (atoms, 3) that the model predicts directly, without a gradient, for a target."""
        forces = outputs.forces[:, self.scalars.index(target)]
        return forces * tf.cast(self[target].scale, forces.dtype)

    def get_config(self) -> list[dict]:
        return [part.get_config() for part in self.parts]

    @classmethod
    def from_config(cls, config: Sequence[Mapping] | Mapping) -> Head:
        if isinstance(config, Mapping):  # format 1, which had sums and means of scalars only
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
    """Make the head of scalar properties, which are sums over atoms or means.

    Parameters
    ----------
    targets, units : of the properties
    per_element : (targets, 95) float, reference value of each element
    offset, scale : (targets,) float
    extensive : sums if True, means if False
    """
    kind = Sum if extensive else Mean
    return Head([kind(*options) for options in zip(targets, units, scale, per_element, offset)])


DEFAULT_HEADS = {"dipole": "dipole", "polarizability": "polarizability"}
DEFAULT_HEADS_WITH_VECTORS = {"mu": "dipole_magnitude", "r2": "spatial_extent"}  # PaiNN, Sec. 5.1


def choose_head(prop: Property, extensive: bool, vectors: bool) -> type[PropertyHead]:
    """Return the head class of a property: the one that it names, or the default.

    The default is in `DEFAULT_HEADS` or, for models with vectors, in `DEFAULT_HEADS_WITH_VECTORS`. For all other
    properties it is a sum, or a mean for models that are not extensive.

    Parameters
    ----------
    prop : the property
    extensive : whether the model is extensive
    vectors : whether the model has vectors

    Raises
    ------
    UserError
        For a head that is unknown or has another shape than the property.

    Examples
    --------
    >>> choose_head(Property.of("mu"), extensive=True, vectors=False).__name__
    'Sum'
    >>> choose_head(Property.of("mu"), extensive=True, vectors=True).__name__
    'DipoleMagnitude'
    """
    defaults = {**DEFAULT_HEADS, **(DEFAULT_HEADS_WITH_VECTORS if vectors else {})}
    default = defaults.get(prop.name, "sum" if extensive else "mean")
    name = default if prop.head is None else prop.head
    check_choice(f"data.heads.{prop.name}", name, [key for key, head in HEADS.items() if head.shape == prop.shape])
    return HEADS[name]


def check_energy(head: Head, energy: str) -> None:
    """Raise a UserError unless a target is an energy in eV, whose negative gradient is the forces in eV/Angstrom."""
    if energy not in head.targets:
        raise UserError(f"forces need an energy, one of {', '.join(head.targets)}; got '{energy}'")
    part = head[energy]
    if part.name not in ("sum", "mean") or part.unit not in ("eV", ""):  # the user's own targets may lack a unit
        unit = f" in {part.unit}" if part.unit else ""
        raise UserError(f"forces need an energy in eV: '{energy}' is a {part.name}{unit}")
