"""Models as calculators of ASE."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.graph import Graph, SkinList
from dimenet_tf.md.committee import DESCRIPTION as COMMITTEE
from dimenet_tf.md.committee import Committee
from dimenet_tf.predictor import Predictor, load
from dimenet_tf.predictor.admission import WrongUnit
from dimenet_tf.predictor.domain import DomainWatch
from dimenet_tf.structures.cells import Cells
from dimenet_tf.structures.charges import State, state_of
from dimenet_tf.structures.limits import CLOSEST, FARTHEST
from dimenet_tf.structures.molecules import Molecules, join_atoms


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
        if skin <= 0:
            raise UserError(f"skin = {skin} must be greater than 0")
        if precision is not None:
            check_choice("precision", precision, ("float32", "float64"))
        force_field = _with_forces(_open(model), energy)
        if precision not in (None, force_field.precision):
            force_field = force_field.clone(precision)
        members = force_field.members if isinstance(force_field, Committee) else [force_field]
        for reason in sorted({member.model.discontinuity for member in members} - {""}):
            warnings.warn(reason, stacklevel=2)
        self.force_field = force_field
        self.skin = skin
        self.watch = DomainWatch(force_field.domain, force_field.model.cutoff, domain)
        self.spread: dict | None = None
        self.polarizability: np.ndarray | None = None
        self.in_domain: bool | None = None
        self.neighbors_dropped: int | None = None
        if "dipole" in force_field.head.targets:
            self.implemented_properties = [*self.implemented_properties, "dipole"]
        self._neighbors: SkinList | None = None
        self._state: State | None = None
        self._topology: tuple[np.ndarray, Graph] | None = None  # the last graph's sources and, as tensors, all of it
        self._columns = force_field.head.columns
        if force_field.has_stress:
            self.implemented_properties = [*self.implemented_properties, "stress"]
        self._compute = force_field.graph_function.get_concrete_function()  # traced here, once and for all sizes

    def __repr__(self) -> str:
        return f"DimeNetCalculator({self.force_field})"

    def __deepcopy__(self, memo: dict) -> DimeNetCalculator:
        """Return a calculator of the same force field, which never changes, for other atoms."""
        return DimeNetCalculator(self.force_field, skin=self.skin, domain=self.watch.action)

    def __reduce__(self) -> NoReturn:
        raise UserError("a calculator with a TensorFlow model cannot be pickled: make one in each process, by its path")

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
        neighbors = self._neighbors
        new = neighbors is None or not np.array_equal(neighbors.Z, atoms.numbers)
        new = new or (neighbors is not None and not np.array_equal(neighbors.pbc, atoms.pbc))
        cell = atoms.cell.array if atoms.pbc.any() else None
        if (
            new
            or (cell is not None and "cell" in system_changes)
            or state != self._state
            or not np.isfinite(atoms.positions).all()
        ):
            self._admit(join_atoms([atoms]), new)
        assert self._neighbors is not None  # made by `_admit`
        self._state = state
        R = atoms.positions - atoms.positions.mean(axis=0)
        graph = self._neighbors.graph(R, cell)
        far = np.abs(atoms.positions).max() > FARTHEST["float64"]
        if self._neighbors.closest < CLOSEST**2 or len(graph.edge_source) == 0 or far:
            self._admit(join_atoms([atoms]), False)  # raises with the reason
        if self._topology is None or graph.edge_source is not self._topology[0]:
            self._topology = graph.edge_source, graph.to_tensors()
            compute = self.force_field.cell_function if graph.is_periodic else self.force_field.graph_function
            self._compute = compute.get_concrete_function()
        tensors = self._topology[1]._replace(positions=tf.constant(graph.positions))
        if graph.is_periodic:
            tensors = tensors._replace(cell=tf.constant(graph.cell))
        answer = self._compute(tensors)
        prediction, spread = answer if isinstance(self.force_field, Committee) else (answer, None)
        if self.watch.domain is not None:
            self.in_domain = bool(prediction.in_domain.numpy()[0])
            if not self.in_domain:
                cells = None if cell is None else Cells(cell[None], np.array(atoms.pbc)[None])
                self.watch.look([False], [len(R)], atoms.numbers, R, None, stacklevel=6, cells=cells)
        if not isinstance(prediction.neighbors_dropped, tuple):
            self.neighbors_dropped = int(prediction.neighbors_dropped.numpy()[0])
        values, name = self._columns.split(prediction.values.numpy()), self.force_field.energy
        energy = float(values[name][0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": self._columns.split(prediction.shares.numpy())[name],
            "forces": prediction.forces.numpy().astype(np.float64),
        }
        if not isinstance(prediction.stress, tuple):
            stress = prediction.stress.numpy()[0].astype(np.float64)
            if np.isfinite(stress).all():
                self.results["stress"] = stress.ravel()[[0, 4, 8, 5, 2, 1]]
        if "dipole" in values:
            self.results["dipole"] = values["dipole"][0]
        if "polarizability" in values:
            self.polarizability = values["polarizability"][0]
        if spread is not None:
            factor = 1.0 if self.force_field.factor is None else self.force_field.factor
            forces = factor * spread.forces.numpy().astype(np.float64)
            self.spread = {"energy": float(self._columns.split(spread.values.numpy())[name][0]), "forces": forces}

    def _admit(self, molecules: Molecules, new: bool) -> None:
        """Refuse a structure that cannot be predicted; make the neighbor list of a new one."""
        field = self.force_field
        try:
            field.admission.admit(molecules, length_unit=None if new else "Ang")
        except WrongUnit as error:
            raise UserError(f"{error.fault}; ASE's positions are in Angstrom") from None
        except UserError as error:
            raise UserError(str(error).replace("molecule 0", "the structure", 1)) from None
        if new:
            model = field.model
            pbc = None if molecules.cells is None else molecules.cells.pbc[0]
            self._neighbors = SkinList(
                molecules.Z, model.cutoff, self.skin, model.needs, field.dtype, pbc, model.far_cutoff
            )


def _open(model: Predictor | Committee | str | Path | Sequence) -> Predictor | Committee:
    if isinstance(model, (Predictor, Committee)):
        return model
    if isinstance(model, (str, Path)):
        return Committee.from_folder(model) if Path(model, COMMITTEE).exists() else load(model)
    if not isinstance(model, Sequence):
        raise UserError(f"a calculator needs a predictor, a committee, a path or a list of these, not {model!r}")
    return Committee(list(model))


def _with_forces(model: Predictor | Committee, energy: str | None) -> Predictor | Committee:
    if model.energy is not None:
        if energy not in (None, model.energy):
            raise UserError(f"energy = {energy}: the model was trained with the forces of {model.energy}")
        return model
    if energy is not None and isinstance(model, Predictor):
        return model.with_forces(energy)
    raise UserError(
        f"this model predicts {', '.join(model.head.targets)} and was not trained with forces; "
        "DimeNetCalculator(model, energy=NAME) takes one of these for the energy, if that is meant"
    )


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
