"""Several structures that do not act on each other, simulated as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from dimenet_tf.errors import UserError
from dimenet_tf.md.calculator import scaled_spread, voigt
from dimenet_tf.md.committee import Committee
from dimenet_tf.md.stepping import NOT_PICKLED, Stepper, open_force_field
from dimenet_tf.predictor import Predictor
from dimenet_tf.structures.limits import molecules_of
from dimenet_tf.structures.molecules import Molecules, join_atoms


class Batched:
    """Several molecules and crystals, each on its own, that ASE moves together and a model evaluates as one batch.

    `atoms` holds the atoms of all structures, one structure after the other, with a calculator. ASE's `VelocityVerlet`
    and `Langevin` move each atom by its own force and momentum, so they can run on `atoms`. The trajectory of every
    structure is that of a simulation of its own, and a step costs far less than one after the other. Pass
    `fixcm=False` to `Langevin`, which would otherwise hold the common center of mass.

    Barostats and cell filters need one stress and are refused: the structures keep their cells. A method that acts on
    all atoms, such as a Nose-Hoover chain, Berendsen's thermostat or `Stationary`, would couple the structures.

    Parameters
    ----------
    model, energy, precision, skin, domain : as in `DimeNetCalculator`
    structures : `ase.Atoms`, with their momenta, masses, cells, charges, spins and `FixAtoms`

    Attributes
    ----------
    atoms : ase.Atoms
        All atoms, without a cell. Energy and forces are those of all structures; a committee's calculator has `spread`,
        with `energy` (structures,) and `forces` (atoms,).

    Raises
    ------
    UserError
        For structures that cannot be predicted, by their number, and for constraints other than `FixAtoms`.

    Examples
    --------
    >>> import numpy as np
    >>> from ase import units
    >>> from ase.build import molecule
    >>> from ase.md.verlet import VelocityVerlet
    >>> from dimenet_tf.md import Batched
    >>> structures, rng = [molecule("CH3CH2OH") for _ in range(4)], np.random.default_rng(0)
    >>> for atoms in structures:
    ...     atoms.set_velocities(0.01 * rng.normal(size=(9, 3)))
    >>> batch = Batched("dimenet_pp-ethanol_xtb-forces", structures)
    >>> dynamics = VelocityVerlet(batch.atoms, 0.5 * units.fs)
    >>> completed = dynamics.run(10)
    >>> batch.predicted["energy"].shape, len(batch.atoms)
    ((4,), 36)
    >>> [round(atoms.get_potential_energy()) for atoms in batch.split()]
    [-310, -310, -310, -310]
    """

    def __init__(
        self,
        model: Predictor | Committee | str | Path | Sequence,
        structures: Sequence[Atoms],
        energy: str | None = None,
        precision: str | None = None,
        skin: float = 0.5,
        domain: str = "flag",
    ) -> None:
        if len(structures) == 0:
            raise UserError("a batch needs at least one structure")
        molecules = join_atoms(structures)
        self._structures = [atoms.copy() for atoms in structures]
        self.atoms = joined(structures)
        self._calculator = _JointCalculator(open_force_field(model, energy, precision), molecules, skin, domain)
        self.atoms.calc = self._calculator

    def __repr__(self) -> str:
        return f"Batched({len(self._structures)} structures, {len(self.atoms)} atoms; {self._calculator.force_field})"

    @property
    def predicted(self) -> dict[str, np.ndarray]:
        """Results for the present positions, by the names that `Predictor.predict` uses.

        Energies and other properties (structures, ...), `forces` (atoms, 3), `stress` (structures, 3, 3) with NaN for
        molecules where a structure is periodic, `in_domain` (structures,) where the domain is recorded, and
        `neighbors_dropped` (structures,) of a model with `max_neighbors`.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from dimenet_tf.md import Batched
        >>> batch = Batched("dimenet_pp-ethanol_xtb-forces", [molecule("CH3CH2OH")] * 2)
        >>> batch.predicted["forces"].shape, batch.predicted["in_domain"]
        ((18, 3), array([ True,  True]))
        """
        self.atoms.get_forces()  # computed where the atoms have moved
        return self._calculator.predicted

    @property
    def energies(self) -> np.ndarray:
        """Potential energy of each structure, (structures,) float64, eV.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from dimenet_tf.md import Batched
        >>> Batched("dimenet_pp-ethanol_xtb-forces", [molecule("CH3CH2OH")] * 2).energies.round(1)
        array([-310., -310.])
        """
        return self.predicted[self._calculator.energy]

    def split(self) -> list[Atoms]:
        """Return the structures as they are now, with momenta, cells and results, such as energy and temperature.

        Examples
        --------
        >>> from ase.build import molecule
        >>> from dimenet_tf.md import Batched
        >>> batch = Batched("dimenet_pp-ethanol_xtb-forces", [molecule("CH3CH2OH")] * 2)
        >>> first, second = batch.split()
        >>> first.get_forces().shape, first.get_temperature()
        ((9, 3), 0.0)
        """
        predicted, energies = self.predicted, self.energies.tolist()
        masses, momenta = self.atoms.get_masses(), self.atoms.get_momenta()
        made = []
        for i, own in enumerate(molecules_of(self._calculator.molecules.N)):
            atoms = self._structures[i].copy()
            atoms.positions = self.atoms.positions[own]
            atoms.set_masses(masses[own])
            atoms.set_momenta(momenta[own], apply_constraint=False)
            results = {"energy": energies[i], "free_energy": energies[i], "forces": predicted["forces"][own]}
            if "stress" in predicted and np.isfinite(predicted["stress"][i]).all():
                results["stress"] = voigt(predicted["stress"][i])
            if "dipole" in predicted:
                results["dipole"] = predicted["dipole"][i]
            atoms.calc = SinglePointCalculator(atoms, **results)
            made.append(atoms)
        return made


def joined(structures: Sequence[Atoms]) -> Atoms:
    """Return the atoms of all structures, with masses and momenta, without cells; fixed atoms stay fixed.

    Raises
    ------
    UserError
        For a constraint that is not `FixAtoms`.
    """
    atoms = Atoms(
        np.concatenate([each.numbers for each in structures]),
        np.concatenate([each.positions for each in structures]),
        masses=np.concatenate([each.get_masses() for each in structures]),
        momenta=np.concatenate([each.get_momenta() for each in structures]),
    )
    fixed: list[int] = []
    first = 0
    for i, each in enumerate(structures):
        for constraint in each.constraints:
            if not isinstance(constraint, FixAtoms):
                raise UserError(
                    f"molecule {i} has the constraint {type(constraint).__name__}; a batch takes FixAtoms only"
                )
            fixed += [first + int(index) for index in constraint.get_indices()]
        first += len(each)
    if fixed:
        atoms.set_constraint(FixAtoms(sorted(set(fixed))))
    return atoms


class _JointCalculator(Calculator):
    """Calculator of the atoms of a `Batched`."""

    implemented_properties = ["energy", "free_energy", "forces", "energies"]  # noqa: RUF012  (ASE's type)

    def __init__(self, force_field: Predictor | Committee, molecules: Molecules, skin: float, domain: str) -> None:
        super().__init__()
        assert force_field.energy is not None  # it has forces
        self.force_field, self.energy, self.molecules = force_field, force_field.energy, molecules
        self.stepper = Stepper(force_field, skin, domain, first=0)
        self.predicted: dict[str, np.ndarray] = {}
        self.spread: dict[str, np.ndarray] | None = None
        self.stepper.check(molecules)

    def __reduce__(self) -> NoReturn:
        raise UserError(NOT_PICKLED)

    def get_stress(self, atoms: Atoms | None = None) -> NoReturn:
        raise UserError(
            "the structures of a batch have a stress each (Batched.predicted, Batched.split) and keep their cells: "
            "barostats and cell filters need a calculator for each structure"
        )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results, self.predicted, self.spread = {}, {}, None
        atoms = self.atoms
        if not np.array_equal(atoms.numbers, self.molecules.Z):
            raise UserError("these are not the atoms of this batch: its calculator belongs to Batched.atoms alone")
        if atoms.pbc.any() or atoms.cell.any():
            raise UserError("the atoms of a batch have no common cell: every structure keeps its own")
        prediction, spread = self.stepper.evaluate(self.molecules._replace(R=atoms.positions))
        columns = self.force_field.head.columns
        self.predicted = {**columns.split(prediction.values), "forces": prediction.forces.astype(np.float64)}
        if not isinstance(prediction.stress, tuple):
            self.predicted["stress"] = prediction.stress.astype(np.float64)
        if not isinstance(prediction.in_domain, tuple):
            self.predicted["in_domain"] = prediction.in_domain
        if not isinstance(prediction.neighbors_dropped, tuple):
            self.predicted["neighbors_dropped"] = prediction.neighbors_dropped
        energy = float(self.predicted[self.energy].sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": columns.split(prediction.shares)[self.energy],
            "forces": self.predicted["forces"],
        }
        if spread is not None:
            self.spread = scaled_spread(self.force_field, spread)
