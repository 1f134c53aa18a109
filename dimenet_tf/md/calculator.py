"""Models as calculators of ASE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from dimenet_tf.errors import UserError
from dimenet_tf.md.committee import Committee, Spread
from dimenet_tf.md.stepping import NOT_PICKLED, Stepper, open_force_field
from dimenet_tf.predictor import Predictor
from dimenet_tf.structures.cells import Cells
from dimenet_tf.structures.charges import State, state_of
from dimenet_tf.structures.molecules import Molecules


class DimeNetCalculator(Calculator):
    """Energy, forces and stress of molecules and crystals for ASE.

    `energy`, `free_energy` (the same), `forces` and `energies` (each atom's share), in eV and Angstrom, reference
    energies included, and the `dipole` (e*Ang) of a model that predicts it. Periodic structures also have a `stress`
    (eV/Angstrom^3, in ASE's sign and order xx, yy, zz, yz, xz, xy) if the forces are the gradient of an energy. A
    `polarizability`, for which ASE has no name, is the attribute of that name: (3, 3) in a0^3, of the last computed
    positions. With a committee the attribute `spread` holds the members' standard deviations: `energy`, and `forces`
    (atoms,), which are multiplied by the committee's factor once it is fitted.

    Parameters
    ----------
    model : predictor, committee, run folder, folder of either, or name of a pretrained model; several make a committee
    energy : the target that is the energy, where the model was not trained with forces: a model of U0, say, knows
        relaxed geometries only, and its gradient means something near them at best
    precision : "float32" or "float64"; the model's where left out
    skin : Angstrom; neighbors are searched for again when an atom has moved by half of it, or the cell has changed as
        much
    label, directory : of ASE's `Calculator`
    domain : "flag" to warn once of each reason why a structure lies outside of the model's domain (see
        `dimenet_tf.Domain`), "error" to refuse it. The attribute `in_domain` tells whether the last structure lies
        inside; it is None for models that do not record their domain.

    Attributes
    ----------
    neighbors_dropped : pairs within the cutoff that a model with `max_neighbors` left out of the last structure;
        None for models without such a limit

    Raises
    ------
    UserWarning
        For models whose energies jump (`model.discontinuity`): they heat up in dynamics.
        For structures outside of the model's domain, once for each reason.
    UserError
        For models without an energy; when it computes: as `Predictor.predict`. Only the bonds of the first structure
        are checked for the unit of length.

    Examples
    --------
    >>> from ase.build import molecule
    >>> import dimenet_tf
    >>> atoms = molecule("CH3CH2OH")
    >>> atoms.calc = dimenet_tf.Calculator("dimenet_pp-ethanol_xtb-forces")
    >>> round(atoms.get_potential_energy(), 1), atoms.get_forces().shape
    (-310.0, (9, 3))
    >>> atoms.calc.in_domain
    True
    """

    implemented_properties = ["energy", "free_energy", "forces", "energies"]  # noqa: RUF012  (ASE's type)

    def __init__(
        self,
        model: Predictor | Committee | str | Path | Sequence,
        energy: str | None = None,
        precision: str | None = None,
        skin: float = 0.5,
        label: str | None = None,
        directory: str = ".",
        domain: str = "flag",
    ) -> None:
        super().__init__(label=label, directory=directory)
        self.force_field = force_field = open_force_field(model, energy, precision)
        self.stepper = Stepper(force_field, skin, domain)
        force_field.graph_function.get_concrete_function()  # traced here, once and for all sizes
        self.spread: dict | None = None
        self.polarizability: np.ndarray | None = None
        self.in_domain: bool | None = None
        self.neighbors_dropped: int | None = None
        self._state: State | None = None
        if "dipole" in force_field.head.targets:
            self.implemented_properties = [*self.implemented_properties, "dipole"]
        if force_field.has_stress:
            self.implemented_properties = [*self.implemented_properties, "stress"]

    def __repr__(self) -> str:
        return f"DimeNetCalculator({self.force_field})"

    def __deepcopy__(self, memo: dict) -> DimeNetCalculator:
        """Return a calculator of the same force field, which never changes, for other atoms."""
        return DimeNetCalculator(self.force_field, skin=self.stepper.skin, domain=self.stepper.watch.action)

    def __reduce__(self) -> NoReturn:
        raise UserError(NOT_PICKLED)

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """Compare atoms with those of the last calculation, as ASE does, and also charge and spin in `atoms.info`.

        Returns
        -------
        list of str
            Names of the properties that have changed: "positions", "numbers", ..., and "info" for charge and spin.

        Examples
        --------
        >>> from ase.build import molecule
        >>> import dimenet_tf
        >>> atoms = molecule("CH3CH2OH")
        >>> atoms.calc = dimenet_tf.Calculator("dimenet_pp-ethanol_xtb-forces")
        >>> energy = atoms.get_potential_energy()
        >>> atoms.info["charge"] = 1
        >>> atoms.calc.check_state(atoms)
        ['info']
        """
        changes = super().check_state(atoms, tol)
        return changes if changes or self.atoms is None or state_of(atoms) == self._state else ["info"]

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Compute energy, forces and all other properties of the model; ASE calls this when the atoms have changed.

        Examples
        --------
        >>> from ase.build import molecule
        >>> import dimenet_tf
        >>> calculator = dimenet_tf.Calculator("dimenet_pp-ethanol_xtb-forces")
        >>> calculator.calculate(molecule("CH3CH2OH"))
        >>> sorted(calculator.results)
        ['energies', 'energy', 'forces', 'free_energy']
        """
        super().calculate(atoms, properties, system_changes)
        atoms, self.results, self.spread, self.polarizability = self.atoms, {}, None, None
        self.in_domain = self.neighbors_dropped = None
        if atoms is None:
            raise UserError("the calculator has no atoms yet: atoms.calc = calculator")
        state = state_of(atoms)
        cells = Cells(atoms.cell.array[None], np.array(atoms.pbc)[None]) if atoms.pbc.any() else None
        N = np.array([len(atoms)])
        molecules = Molecules(N, atoms.numbers, atoms.positions, len(atoms), *state, cells=cells)
        prediction, spread = self.stepper.evaluate(molecules)
        self._state = state
        if not isinstance(prediction.in_domain, tuple):
            self.in_domain = bool(prediction.in_domain[0])
        if not isinstance(prediction.neighbors_dropped, tuple):
            self.neighbors_dropped = int(prediction.neighbors_dropped[0])
        columns, name = self.force_field.head.columns, self.force_field.energy
        values = columns.split(prediction.values)
        energy = float(values[name][0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": columns.split(prediction.shares)[name],
            "forces": prediction.forces.astype(np.float64),
        }
        if not isinstance(prediction.stress, tuple) and np.isfinite(prediction.stress).all():
            self.results["stress"] = voigt(prediction.stress[0])
        if "dipole" in values:
            self.results["dipole"] = values["dipole"][0]
        if "polarizability" in values:
            self.polarizability = values["polarizability"][0]
        if spread is not None:
            scaled = scaled_spread(self.force_field, spread)
            self.spread = {"energy": float(scaled["energy"][0]), "forces": scaled["forces"]}


def voigt(stress: np.ndarray) -> np.ndarray:
    """Return a stress, (3, 3), in ASE's order xx, yy, zz, yz, xz, xy."""
    return stress.astype(np.float64).ravel()[[0, 4, 8, 5, 2, 1]]


def scaled_spread(committee: Committee, spread: Spread) -> dict[str, np.ndarray]:
    """Return the standard deviations of the energies, (structures,), and of the forces, (atoms,), scaled if fitted."""
    factor = 1.0 if committee.factor is None else committee.factor
    energies = committee.head.columns.split(np.asarray(spread.values))[committee.energy]
    return {"energy": energies, "forces": factor * np.asarray(spread.forces).astype(np.float64)}


class UncertaintyExceeded(RuntimeError):
    """Uncertainty of a force above the threshold of `StopOnUncertainty`."""


class StopOnUncertainty:
    """Stop a simulation when the uncertainty of a force exceeds a threshold.

    Attach it to an ASE dynamics. `dynamics.run` then raises `UncertaintyExceeded`.

    Parameters
    ----------
    atoms : with a calculator of a committee whose factor is fitted
    threshold : eV/Angstrom, of any atom's scaled spread

    Examples
    --------
    >>> from ase import units
    >>> from ase.build import molecule
    >>> from ase.md.verlet import VelocityVerlet
    >>> import dimenet_tf
    >>> one = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")
    >>> other = dimenet_tf.load("dimenet_pp-ethanol_xtb-forces")  # in practice: trained with another seed
    >>> other.set_weights([1.01 * w for w in other.get_weights()])
    >>> atoms = molecule("CH3CH2OH")
    >>> atoms.calc = dimenet_tf.Calculator(dimenet_tf.Committee([one, other], factor=1.0))
    >>> dynamics = VelocityVerlet(atoms, 0.5 * units.fs)
    >>> dynamics.attach(StopOnUncertainty(atoms, threshold=1e-6))
    >>> dynamics.run(10)
    Traceback (most recent call last):
        ...
    dimenet_tf.md.calculator.UncertaintyExceeded: atom ...
    """

    def __init__(self, atoms: Atoms, threshold: float) -> None:
        force_field = getattr(atoms.calc, "force_field", None)
        if not isinstance(force_field, Committee):
            raise UserError("the uncertainty needs the calculator of a committee")
        if force_field.factor is None:
            raise UserError("the committee's spread is not scaled yet: committee.fit(held_out_frames)")
        self.atoms, self.threshold = atoms, threshold

    def __call__(self) -> None:
        self.atoms.get_forces()
        spread = self.atoms.calc.spread["forces"]
        worst = int(spread.argmax())
        if not spread[worst] <= self.threshold:  # also where it is no number
            raise UncertaintyExceeded(
                f"atom {worst} ({self.atoms.symbols[worst]}): uncertainty of the force {spread[worst]:.3g} eV/Ang, "
                f"threshold {self.threshold:g}"
            )
