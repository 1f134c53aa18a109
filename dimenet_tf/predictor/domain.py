"""Domain of validity: record of the training data, and check whether structures lie outside of it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph, GraphStore, find_edges
from dimenet_tf.graph.build_numpy import edge_vectors_numpy
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.structures.cells import Cells, wrapped
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.elements import MAX_Z, SYMBOLS, atomic_number, composition_of, hill
from dimenet_tf.structures.limits import centered
from dimenet_tf.structures.quantities import find_property

MARGIN = 0.95  # of the smallest distance seen
LARGER = 2  # times the largest number of atoms
FEW = 20  # formulas; a model of more is taken to interpolate between compositions
AT_ONCE = 1000  # molecules whose pairs are in memory at a time


@dataclasses.dataclass(frozen=True)
class Domain:
    """Domain of the training data of a model.

    A structure is *refused* if its charge or spin does not occur in the data, if it is periodic and none of them is, or
    if they do not determine the reference
    energy of its composition: a fit to ethanol alone yields the sum of the reference energies of C2H6O, which
    is unrelated to water. A structure lies *outside of the domain* if it

    * has two atoms closer than 0.95 times the smallest distance seen of their elements, or two neighbors of elements
      that were never seen as neighbors;
    * has an atom without a neighbor, where every atom of the training data had one;
    * is a molecule with more than twice the atoms of the largest structure;
    * has a formula that is not among those of the data, where these were at most 20. Periodic structures need the
      proportions of one of these formulas, so that supercells lie inside;
    * is a molecule, where the data were periodic structures alone.

    Parameters
    ----------
    molecules : training molecules
    max_atoms : atoms of the largest
    closest : smallest distance in Angstrom of each pair of elements that were neighbors: {"C-H": 0.98}
    lone_atoms : whether some atom had no neighbor
    formulas : in Hill's order, where there are at most 20; else None
    independent : formulas that are linearly independent and span all compositions of the data
    example : the smallest training molecule, {"Z": (atoms,), "R": (atoms, 3)}; exported models are warmed up with it
    ranges : smallest and largest label: of energies and other extensive numbers per atom, of forces the components
    charges, spins : total charges and spin multiplicities
    periodic : whether there were periodic structures; models without any refuse them
    molecular : whether there were molecules without a cell

    Examples
    --------
    >>> import dimenet_tf
    >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
    >>> domain.max_atoms, domain.formulas
    (9, ('C2H6O',))
    """

    molecules: int
    max_atoms: int
    closest: Mapping[str, float]
    lone_atoms: bool
    formulas: Sequence[str] | None
    independent: Sequence[str]
    example: Mapping[str, list]
    ranges: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
    charges: Sequence[float] = (0,)
    spins: Sequence[float] = (1,)
    periodic: bool = False
    molecular: bool = True

    @classmethod
    def of(cls, data: DataContainer, cutoff: float, names: Iterable[str] = ()) -> Domain:
        """Return the domain of training molecules.

        Parameters
        ----------
        data : the molecules
        cutoff : Angstrom, of the model; two atoms within it are neighbors
        names : of the labels whose ranges are kept

        Examples
        --------
        >>> import dimenet_tf
        >>> frames = dimenet_tf.data.ethanol_xtb().select(range(100))
        >>> domain = Domain.of(frames, cutoff=5.0, names=["energy"])
        >>> domain.max_atoms, domain.formulas, sorted(domain.closest)
        (9, ('C2H6O',), ['C-C', 'C-H', 'C-O', 'H-H', 'H-O'])
        """
        closest, lone_atoms = _closest(data, cutoff)
        _, first = np.unique(data.composition(), axis=0, return_index=True)
        different = data.select(np.sort(first))
        formulas = different.formulas().tolist()
        rows = _independent_rows(different.composition())
        smallest = data.select([int(np.argmin(data.N))])
        return cls(
            molecules=len(data),
            max_atoms=int(data.N.max()),
            closest=closest,
            lone_atoms=lone_atoms,
            formulas=tuple(formulas) if len(formulas) <= FEW else None,
            independent=tuple(formulas[row] for row in rows),
            example=_example(smallest),
            ranges={name: _range(data, name) for name in names if data.labelled(name).any()},
            charges=tuple(int(charge) for charge in np.unique(data.charge)),
            spins=tuple(int(spin) for spin in np.unique(data.spin)),
            periodic=data.cells is not None,
            molecular=data.cells is None or not data.cells.periodic.all(),
        )

    @classmethod
    def common(cls, domains: Sequence[Domain]) -> Domain:
        """Intersect the domains of several models that know the same elements.

        Examples
        --------
        >>> import dimenet_tf
        >>> frames = dimenet_tf.data.ethanol_xtb()
        >>> one, other = (Domain.of(frames.select(range(s, s + 50)), cutoff=5.0) for s in (0, 50))
        >>> common = Domain.common([one, other])
        >>> common.closest["C-H"] == max(one.closest["C-H"], other.closest["C-H"])
        True
        """
        first, *others = domains
        if not others:
            return first
        second = cls.common(others)
        independent = [f for f in first.independent if second.is_determined(composition_of(f)[None])[0]]
        if not independent:
            raise UserError("the training data of the models have no composition in common")
        shared = set(first.closest) & set(second.closest)
        lists = [domain.formulas for domain in (first, second) if domain.formulas is not None]
        formulas = tuple(f for f in lists[0] if all(f in others for others in lists)) if lists else None
        ranges = {
            name: [
                max(first.ranges[name][0], second.ranges[name][0]),
                min(first.ranges[name][1], second.ranges[name][1]),
            ]
            for name in set(first.ranges) & set(second.ranges)
        }
        return cls(
            molecules=min(first.molecules, second.molecules),
            max_atoms=min(first.max_atoms, second.max_atoms),
            closest={pair: max(first.closest[pair], second.closest[pair]) for pair in sorted(shared)},
            lone_atoms=first.lone_atoms and second.lone_atoms,
            formulas=formulas,
            independent=tuple(independent),
            example=first.example,
            ranges=ranges,
            charges=tuple(c for c in first.charges if c in second.charges),
            spins=tuple(s for s in first.spins if s in second.spins),
            periodic=first.periodic and second.periodic,
            molecular=first.molecular and second.molecular,
        )

    def get_config(self) -> dict:
        """Domain as a dict for JSON; `from_config` reads it.

        Examples
        --------
        >>> import dimenet_tf
        >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
        >>> Domain.from_config(domain.get_config()) == domain
        True
        """
        return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_config(cls, config: Mapping) -> Domain:
        """Make a domain from a dict of `get_config`.

        Examples
        --------
        >>> import dimenet_tf
        >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
        >>> Domain.from_config(domain.get_config()).max_atoms
        9
        """
        arguments: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in config.items()
        }
        return cls(**arguments)

    def __post_init__(self) -> None:
        limits = np.full((MAX_Z + 1, MAX_Z + 1), np.inf)
        for pair, distance in self.closest.items():
            a, b = (atomic_number(symbol, "a model's domain") for symbol in pair.split("-"))
            limits[a, b] = limits[b, a] = MARGIN * distance
        spanning = np.array([composition_of(formula) for formula in self.independent], np.float64)
        # directions in the space of compositions of these elements that the data do not reach, (95, directions)
        elements = spanning.any(axis=0)
        undetermined = np.zeros((MAX_Z + 1, int(elements.sum()) - len(spanning)))
        undetermined[elements] = np.linalg.svd(spanning[:, elements], full_matrices=True)[2][len(spanning) :].T
        known = None if self.formulas is None else np.array([composition_of(f) for f in self.formulas], np.int64)
        self._limits: np.ndarray
        self._undetermined: np.ndarray
        self._known: np.ndarray | None
        for name, value in (("limits", limits), ("undetermined", undetermined), ("known", known)):
            object.__setattr__(self, f"_{name}", value)

    def __repr__(self) -> str:
        return f"Domain({self.summary()})"

    @property
    def has_undetermined(self) -> bool:
        """Whether there are compositions of the trained elements whose reference energy the data do not determine."""
        return self._undetermined.shape[1] > 0

    def is_determined(self, compositions: np.ndarray) -> np.ndarray:
        """Check whether the training data determine the reference energies of compositions.

        Parameters
        ----------
        compositions : (n, 95) int, atoms of each element

        Returns
        -------
        (n,) bool

        Examples
        --------
        >>> import dimenet_tf
        >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
        >>> ethanol, water = np.zeros((2, 95), int)
        >>> ethanol[[1, 6, 8]], water[[1, 8]] = (6, 2, 1), (2, 1)
        >>> domain.is_determined(np.stack([ethanol, 2 * ethanol, water]))
        array([ True,  True, False])
        """
        rest = np.abs(compositions @ self._undetermined).max(axis=1, initial=0)
        return rest <= 1e-6 * np.maximum(compositions.sum(axis=1), 1)

    def undetermined(self, Z: tf.Tensor, molecule: tf.Tensor, molecules: tf.Tensor) -> tf.Tensor:
        """Find molecules whose reference energy is not determined, in TensorFlow.

        Parameters
        ----------
        Z, molecule : (atoms,) int32, atomic numbers and the molecule of each atom
        molecules : () int32

        Returns
        -------
        (molecules,) bool

        Examples
        --------
        >>> import dimenet_tf
        >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
        >>> hydrogen = tf.constant([1, 1]), tf.constant([0, 0]), tf.constant(1)  # one molecule
        >>> domain.undetermined(*hydrogen).numpy()
        array([ True])
        """
        rows = tf.gather(tf.constant(self._undetermined), Z)  # (atoms, directions)
        rest = tf.reduce_max(tf.abs(tf.math.unsorted_segment_sum(rows, molecule, molecules)), axis=1)
        size = tf.math.unsorted_segment_sum(tf.ones_like(Z), molecule, molecules)
        return rest > 1e-6 * tf.cast(size, tf.float64)

    def why_undetermined(self, composition: np.ndarray) -> str:
        """Explain why a molecule is refused whose reference energy is not determined.

        Parameters
        ----------
        composition : (95,) int, atoms of each element

        Examples
        --------
        >>> import dimenet_tf
        >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
        >>> domain.why_undetermined(np.eye(95, dtype=int)[1])
        'has the formula H, but the training data (C2H6O) do not determine the reference energy of that composition'
        """
        formulas = ", ".join(self.independent)
        return (
            f"has the formula {hill(composition)}, but the training data ({formulas}) do not determine the reference "
            "energy of that composition"
        )

    def contains(self, graph: Graph) -> tf.Tensor:
        """Find which molecules of a graph lie inside of the domain, in TensorFlow.

        Returns
        -------
        (molecules,) bool

        Examples
        --------
        >>> import dimenet_tf
        >>> predictor = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
        >>> frame = dimenet_tf.data.ethanol_xtb().select([0])
        >>> graph = predictor.graph_store(frame.N, frame.Z, frame.R).batch([0])
        >>> predictor.domain.contains(graph).numpy()
        array([ True])
        """
        Z, atoms = graph.atomic_numbers, tf.shape(graph.atomic_numbers)[0]
        distance = safe_norm(edge_vectors(graph))
        pair = tf.gather(Z, graph.edge_source) * (MAX_Z + 1) + tf.gather(Z, graph.edge_target)
        limit = tf.gather(tf.constant(self._limits.ravel(), distance.dtype), pair)
        one = tf.ones_like(graph.edge_target)
        outside = tf.math.unsorted_segment_max(tf.cast(distance < limit, tf.int32), graph.edge_target, atoms)
        if not self.lone_atoms:
            neighbors = tf.math.unsorted_segment_sum(one, graph.edge_target, atoms)
            outside = tf.maximum(outside, tf.cast(neighbors == 0, tf.int32))
        molecules = tf.shape(graph.num_atoms)[0]
        outside = tf.math.unsorted_segment_max(outside, graph.molecule_of_atom, molecules) > 0
        periodic = tf.reduce_any(graph.cell != 0, axis=[1, 2]) if graph.is_periodic else tf.zeros([molecules], tf.bool)
        outside |= ~periodic & (graph.num_atoms > LARGER * self.max_atoms)
        if not self.molecular:
            outside |= ~periodic
        if self._known is not None:
            counts = tf.math.unsorted_segment_sum(
                tf.one_hot(Z, MAX_Z + 1, dtype=tf.int64), graph.molecule_of_atom, molecules
            )
            known = tf.constant(self._known, tf.int64)
            size, known_size = tf.reduce_sum(counts, axis=1), tf.reduce_sum(known, axis=1)
            # (molecules, formulas): the same proportions of the elements; of molecules also the same size
            same = tf.reduce_all(counts[:, None] * known_size[:, None] == known * size[:, None, None], axis=2)
            same &= periodic[:, None] | (size[:, None] == known_size)
            outside |= ~tf.reduce_any(same, axis=1)
        return ~outside

    def reasons(self, Z: np.ndarray, R: np.ndarray, cutoff: float, cells: Cells | None = None) -> dict[str, str]:
        """List the reasons why a molecule lies outside of the domain.

        Parameters
        ----------
        Z : (atoms,) int
        R : (atoms, 3), Angstrom
        cutoff : Angstrom, of the model
        cells : of this one structure; None for a molecule

        Returns
        -------
        dict from a short name of each reason, the same for all structures that have it, to its text

        Examples
        --------
        >>> import dimenet_tf
        >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
        >>> domain.reasons(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 0.74]]), cutoff=5.0)["formula"]
        'its formula is H2, which is not among those trained on (C2H6O)'
        """
        found = {}
        lattice = () if cells is None or not cells.pbc.any() else (cells.cell[0], cells.pbc[0])
        if not lattice and len(Z) > LARGER * self.max_atoms:
            found["size"] = f"it has {len(Z)} atoms, the largest training molecule has {self.max_atoms}"
        composition = np.bincount(Z, minlength=MAX_Z + 1)
        if self._known is not None:
            sizes = self._known.sum(axis=1, keepdims=True) if lattice else len(Z)
            if not (self._known * len(Z) == composition * sizes).all(axis=1).any():
                seen = ", ".join(self.formulas or ())
                among = "whose proportions are not those of one" if lattice else "which is not among those"
                found["formula"] = f"its formula is {hill(composition)}, {among} trained on ({seen})"
        if not lattice and not self.molecular:
            found["molecule"] = "it is a molecule; the model was trained on periodic structures"
        edges = find_edges(R, cutoff, *lattice)
        source, target, _ = edges
        if not self.lone_atoms and len(np.unique(target)) < len(Z):
            atom = int(np.setdiff1d(np.arange(len(Z)), target)[0])
            found["lone atom"] = f"atom {atom} ({SYMBOLS[Z[atom]]}) has no neighbor within {cutoff:g} Ang"
        vectors = edge_vectors_numpy(np.asarray(R, np.float64), edges, lattice[0] if lattice else None)
        distance = np.linalg.norm(vectors, axis=1)
        excess = distance / self._limits[Z[source], Z[target]]
        for edge in np.argsort(excess):
            if excess[edge] >= 1:
                break
            pair = _pair(Z[source[edge]], Z[target[edge]])
            atoms = f"{pair} distance of {distance[edge]:.3g} Ang (atoms {source[edge]} and {target[edge]})"
            smallest = f"; the smallest in the training data is {self.closest.get(pair, np.inf):.3g} Ang"
            never = f", but {pair} within {cutoff:g} Ang does not occur in the training data"
            found.setdefault(f"distance {pair}", f"a {atoms}{smallest if pair in self.closest else never}")
        return found

    def summary(self) -> str:
        """Describe the domain in one line, for model cards.

        Examples
        --------
        >>> import dimenet_tf
        >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
        >>> domain.summary()
        '1000 neutral singlets of at most 9 atoms, C2H6O only; smallest distances in Ang: ...'
        """
        number = len(self.formulas or ())
        formulas = f"more than {FEW} formulas" if self.formulas is None else ", ".join(self.formulas)
        closest = ", ".join(f"{pair} {distance:.2f}" for pair, distance in self.closest.items())
        kind = ("periodic and molecular " if self.molecular else "periodic ") if self.periodic else ""
        return (
            f"{self.molecules} {kind}neutral singlets of at most {self.max_atoms} atoms, {formulas}"
            f"{' only' if number == 1 else ''}; smallest distances in Ang: {closest}"
        )

    def describe(self) -> dict:
        """Domain as a dict for display, without the example molecule.

        Examples
        --------
        >>> import dimenet_tf
        >>> domain = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces").domain
        >>> domain.describe()["max_atoms"]
        9
        """
        config = {key: value for key, value in self.get_config().items() if key != "example"}
        if self.formulas is None:
            config["formulas"] = f"more than {FEW}"
        return config


NOT_RECORDED = "not recorded: the model was trained or converted without it"


def _example(data: DataContainer) -> dict[str, list]:
    """Return a molecule as arrays for JSON, with its cell if it is periodic."""
    inside = wrapped(data.N, data.R, data.cells)
    example = {"Z": data.Z.tolist(), "R": centered(data.N, inside).round(4).tolist()}
    if data.cells is not None:
        example |= {"cell": data.cells.cell[0].tolist(), "pbc": data.cells.pbc[0].tolist()}
    return example


def _pair(a: int, b: int) -> str:
    return "-".join(SYMBOLS[z] for z in sorted((int(a), int(b)), key=SYMBOLS.__getitem__))


def _closest(data: DataContainer, cutoff: float) -> tuple[dict[str, float], bool]:
    """Return the smallest distance of each pair of elements within the cutoff, and whether an atom has no neighbor."""
    smallest = np.full((MAX_Z + 1) ** 2, np.inf)
    lone_atoms = False
    for start in range(0, len(data), AT_ONCE):
        some = data.select(np.arange(start, min(start + AT_ONCE, len(data))))
        cell, pbc = (None, None) if some.cells is None else some.cells
        store = GraphStore(some.N, some.Z, some.R, cutoff, (), "float64", cell, pbc)
        graph = store.batch(range(len(some)))
        distance = tf.norm(edge_vectors(graph.to_tensors()), axis=1).numpy()
        Z = graph.atomic_numbers.astype(np.int64)
        pair = Z[graph.edge_source] * (MAX_Z + 1) + Z[graph.edge_target]
        np.minimum.at(smallest, pair, distance)
        lone_atoms |= len(np.unique(graph.edge_target)) < len(Z)
    table = smallest.reshape(MAX_Z + 1, MAX_Z + 1)
    pairs = itertools.combinations_with_replacement(data.elements, 2)
    # rounded down, so that the written number admits the distance itself
    found = {_pair(a, b): float(np.floor(1e4 * table[a, b]) / 1e4) for a, b in pairs if np.isfinite(table[a, b])}
    return found, lone_atoms


def _independent_rows(compositions: np.ndarray) -> list[int]:
    """Return rows that are linearly independent and span all rows, the first ones that do; (n, 95) int."""
    rows, basis = [], np.zeros((0, compositions.shape[1]))
    for i, row in enumerate(compositions.astype(np.float64)):
        rest = row - basis.T @ (basis @ row)
        rest -= basis.T @ (basis @ rest)  # once more, for rounding
        if np.linalg.norm(rest) > 1e-6 * np.linalg.norm(row):
            rows.append(i)
            basis = np.concatenate([basis, rest[None] / np.linalg.norm(rest)])
            if len(rows) == np.count_nonzero(compositions.any(axis=0)):
                break
    return rows


def _range(data: DataContainer, name: str) -> list[float]:
    """Return the smallest and the largest label of a property, per atom where it is an extensive number."""
    values, kind = data.labels(name), find_property(name)
    if kind.extensive and not kind.shape and not kind.per_atom:
        values = values / data.N
    return [float(np.nanmin(values)), float(np.nanmax(values))]
