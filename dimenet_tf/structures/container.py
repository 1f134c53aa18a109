"""Data sets of molecules that have passed the checks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike

from dimenet_tf.errors import UserError
from dimenet_tf.structures.cells import make_cells
from dimenet_tf.structures.checks import STRICT, Bad, Checks, bad_data, find_bad, find_kept, isolated_atoms
from dimenet_tf.structures.elements import symbols
from dimenet_tf.structures.flat import FlatMolecules
from dimenet_tf.structures.quantities import find_property
from dimenet_tf.structures.splits import Split

if TYPE_CHECKING:
    from ase import Atoms

SHOWN = 12  # targets in a container's `repr`


class DataContainer(FlatMolecules):
    """A data set: molecules with ids and target properties.

    `len` is the number of molecules. Indexing with an integer and iteration give molecules as `ase.Atoms`, see
    `to_atoms`; indexing with a slice, an array of integers or a mask gives a data set, see `select`.

    Parameters
    ----------
    N : (molecules,) int, atoms of each molecule
    Z : (sum N,) int, atomic numbers, 1 ... 94
    R : (sum N, 3) float, positions in Angstrom
    targets : mapping from property names to float arrays: (molecules, ...), or (sum N, ...) for properties of atoms;
        the dots stand for the shape in `PROPERTIES`, and for () if the library does not know the property
    id : (molecules,) int or str, all different; 0, 1, 2, ... where left out
    source : str, named in errors
    split : the split that comes with the data, if any
    charge, spin : (molecules,) float, total charge in e and spin multiplicity 2S + 1; 0 and 1 where left out
    weight : (molecules,) float, weight of each molecule in the loss; 1 where left out
    cell : (molecules, 3, 3) float, Angstrom, rows are lattice vectors, zero for molecules; None for molecules alone
    pbc : (molecules, 3) bool, the periodic directions; by default those whose lattice vector is not zero
    check : bool; False checks only the shapes of the arrays, for data that `checked` checks next

    Raises
    ------
    UserError
        If array lengths do not fit, or a molecule is bad: a coordinate that is not finite, an atomic number out of
        range, two atoms closer than 0.3 Angstrom, a single atom or none, a charge or spin that the models do not take,
        the id of another one; names the first molecule of each kind.

    Attributes
    ----------
    dropped : molecules that `checked` left out
    outliers : molecules with an outlying label that `checked` kept because `Checks.outliers` is "keep"
    isolated : values of the single atoms that `checked` set aside, by property and atomic number
    set_aside : (atoms,) int, where these were in the file or the arrays
    notes : remarks of the reader, one line each: values of the file that are not used or were converted
    found : values of the file by name, each with its shape or type in words

    Examples
    --------
    >>> from dimenet_tf.data import sample
    >>> data = sample()
    >>> data[:10]
    DataContainer(embedded sample: 10 molecules; H, C, N, O, F; mu, alpha, homo, lumo, gap, zpve, U0, U, H, G, Cv)
    >>> data[0].get_chemical_formula(), round(data[0].info["U0"], 2)
    ('CH4', -20.77)
    """

    dropped: Sequence[Bad] = ()
    outliers: Sequence[Bad] = ()
    set_aside: Sequence[int] = ()

    def __init__(
        self,
        N: ArrayLike,
        Z: ArrayLike,
        R: ArrayLike,
        targets: Mapping[str, ArrayLike] | None = None,
        id: ArrayLike | None = None,
        source: str = "data",
        split: Split | None = None,
        check: bool = True,
        charge: ArrayLike | None = None,
        spin: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        cell: ArrayLike | None = None,
        pbc: ArrayLike | None = None,
    ) -> None:
        cells = make_cells(cell, pbc, len(np.atleast_1d(np.asarray(N))), source)
        self._fill(N, Z, R, targets or {}, id, source, split, charge, spin, weight, cells)
        self._check_shapes()
        if check and (bad := find_bad(self, STRICT)):
            raise bad_data(self.source, bad, len(self))

    def checked(self, checks: Checks) -> DataContainer:
        """Return the data set without bad molecules and single atoms; itself if there are none.

        The result has the bad molecules as `dropped`, and the values of single atoms as `isolated`. Both are numbered
        as in the file or the arrays, also after earlier calls have removed molecules.

        Raises
        ------
        UserError
            If there are bad molecules and `checks.on_bad` is "error", if there are no others, or if single atoms of one
            element have different energies.

        Examples
        --------
        >>> from dimenet_tf.data import Checks, sample
        >>> len(sample().checked(Checks(on_bad="drop", max_atoms=12))) < 2000
        True
        """
        aside, isolated = isolated_atoms(self, checks)
        bad = find_bad(self, checks, aside)
        keep = ~aside
        keep[[b.index for b in bad]] = False
        if bad and (checks.on_bad == "error" or not keep.any()):
            raise bad_data(self.source, bad, len(self) - int(np.count_nonzero(aside)))
        if not keep.any() and len(self):
            raise UserError(f"{self.source}: all {len(self)} molecules are single atoms; there is nothing to train on")
        gone = [*(b.index for b in self.dropped), *self.set_aside]
        original = np.delete(np.arange(len(self) + len(gone)), gone)
        rest = self
        if not keep.all():
            rest = self.select(np.flatnonzero(keep))
            rest.split = None if self.split is None else self.split.renumbered(keep, self.source)
            rest.dropped = sorted([*self.dropped, *(b._replace(index=int(original[b.index])) for b in bad)])
            rest.set_aside = sorted([*self.set_aside, *original[aside].tolist()])
            rest.isolated = {
                name: {**isolated.get(name, {}), **self.isolated.get(name, {})} for name in [*self.isolated, *isolated]
            }
        rest.outliers = [b._replace(index=int(original[keep][b.index])) for b in find_kept(rest, checks)]
        return rest

    def __repr__(self) -> str:
        names = [*self.targets][:SHOWN] + ["..."] * (len(self.targets) > SHOWN)
        parts = [f"{self.source}: {len(self)} molecules", symbols(self.elements), ", ".join(names) or "no targets"]
        return f"DataContainer({'; '.join(part for part in parts if part)})"

    @overload
    def __getitem__(self, index: int | np.integer) -> Atoms: ...

    @overload
    def __getitem__(self, index: slice | Sequence | np.ndarray) -> DataContainer: ...

    def __getitem__(self, index: int | np.integer | slice | Sequence | np.ndarray) -> Atoms | DataContainer:
        """Return one molecule, or the data set of several; see `to_atoms` and `select`."""
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        array = np.asarray(index)
        if array.shape == (len(self),) and array.dtype == bool:
            return self.select(np.flatnonzero(array))
        if array.ndim > 1 or (array.size and array.dtype.kind not in "iu"):
            kind = f"an array of {array.dtype} {array.shape}" if array.ndim else repr(index)
            raise TypeError(
                f"a data set is indexed by an integer, a slice, an array of integers or a mask of {len(self)}; "
                f"got {kind}"
            )
        wrong = array[(array < -len(self)) | (array >= len(self))]
        if wrong.size:
            raise IndexError(f"{self.source}: there is no molecule {wrong.flat[0]}, only {len(self)} molecules")
        return self.select(array) if array.ndim else next(self._atoms([int(array)]))

    def __iter__(self) -> Iterator[Atoms]:
        return self._atoms(range(len(self)))

    def to_atoms(self) -> list[Atoms]:
        """Convert the molecules to `ase.Atoms`, as `from_atoms` reads them.

        `energy`, `forces` and `stress` are results of a `SinglePointCalculator`. Other targets and the id are in
        `info`, as are `charge`, `spin` and `weight` where they are not 0, 1 and 1. Values that a molecule lacks are
        left out.
        `from_atoms(atoms, keys={"weight": "weight"})` reads the weights back.

        Examples
        --------
        >>> from dimenet_tf.data import ethanol_xtb
        >>> first, *_ = ethanol_xtb().select([0, 1]).to_atoms()
        >>> first.symbols, first.get_forces().shape
        (Symbols('C2OH6'), (9, 3))
        """
        return list(self)

    def _atoms(self, molecules: Iterable[int]) -> Iterator[Atoms]:
        from ase import Atoms  # slow to import
        from ase.calculators.singlepoint import SinglePointCalculator

        last = np.cumsum(self.N)
        for molecule in molecules:
            rows = slice(last[molecule] - self.N[molecule], last[molecule])
            atoms = Atoms(self.Z[rows], self.R[rows])
            if self.cells is not None and self.cells.pbc[molecule].any():
                atoms.cell, atoms.pbc = self.cells.cell[molecule], self.cells.pbc[molecule]
            values: dict[str, Any] = {}
            for name, of_all in self.targets.items():
                value = of_all[rows if find_property(name).per_atom else molecule]
                if np.isfinite(value).any():
                    values[name] = value.copy() if value.ndim else float(value)
            results = {name: values.pop(name) for name in ("energy", "forces", "stress") if name in values}
            if "stress" in results:
                results["stress"] = results["stress"].ravel()[[0, 4, 8, 5, 2, 1]]  # ASE's: xx yy zz yz xz xy
            if results:
                atoms.calc = SinglePointCalculator(atoms, **results)
            for name, usual in (("charge", 0), ("spin", 1), ("weight", 1)):
                state = float(getattr(self, name)[molecule])
                if state != usual:
                    values[name] = state
            atoms.info.update(values, id=self.id[molecule].item())
            yield atoms

    def checksum(self) -> str:
        """Return a SHA-256 of molecules and targets: the same for the same data in any file.

        Charges, spins, weights and values of single atoms are included only if there are any besides the defaults, so
        that data sets without them keep the checksums of earlier versions.

        Examples
        --------
        >>> from dimenet_tf.data import ethanol_xtb
        >>> frames = ethanol_xtb()
        >>> frames.checksum() == frames.select(range(len(frames))).checksum()
        True
        """
        digest = hashlib.sha256()
        for array in (self.N, self.Z, np.ascontiguousarray(self.R, np.float64)):
            digest.update(array.tobytes())
        for key in sorted(self.targets):
            digest.update(key.encode() + self.targets[key].tobytes())
        for key, usual in (("charge", 0), ("spin", 1), ("weight", 1)):
            values = getattr(self, key)
            if (values != usual).any():
                digest.update(key.encode() + values.tobytes())
        for array in () if self.cells is None else self.cells:
            digest.update(np.ascontiguousarray(array).tobytes())
        for key in sorted(self.isolated):
            digest.update(f"isolated {key} {sorted(self.isolated[key].items())}".encode())
        return digest.hexdigest()
