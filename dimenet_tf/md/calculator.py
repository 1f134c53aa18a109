"""Models as calculators of ASE."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph, SkinList
from dimenet_tf.md.committee import DESCRIPTION as COMMITTEE
from dimenet_tf.md.committee import Committee
from dimenet_tf.predictor import Predictor, load


class DimeNetCalculator(Calculator):
    """Energy and forces of molecules for ASE.

    `energy`, `free_energy` (the same), `forces` and `energies` (each atom's share), in eV and Angstrom, reference
    energies included, and the `dipole` (e*Ang) of a model that predicts it. A `polarizability`, for which ASE has no
    name, is the attribute of that name: (3, 3) in a0^3, of the last computed positions. With a
    committee the attribute `spread` holds the members' standard deviations: `energy`, and `forces` (atoms,), which are
    multiplied by the committee's factor once it is fitted. The models know neutral closed-shell molecules: charges and
    magnetic moments of the atoms are not looked at.

    Parameters
    ----------
    model : predictor, committee, run folder, folder of either, or name of a pretrained model; several make a committee
    energy : the target that is the energy, where the model was not trained with forces: a model of U0, say, knows
        relaxed geometries only, and its gradient means something near them at best
    precision : "float32" or "float64"; the model's where left out
    skin : Angstrom; neighbors are searched for anew when an atom has moved by half of it
    label, directory : of ASE's `Calculator`

    Raises
    ------
    UserWarning
        For models whose energies jump (the published torsion of SphereNet and DPGN): they heat up in dynamics.
    UserError
        For models without an energy; when it computes: for periodic cells, elements that the training data did not
        contain, atoms at the same place, positions that are not finite.
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
    ) -> None:
        super().__init__(label=label, directory=directory)
        if skin <= 0:
            raise UserError(f"skin = {skin} must be greater than 0")
        if precision not in (None, "float32", "float64"):
            raise UserError(f"precision: '{precision}' is none of float32, float64")
        force_field = _with_forces(_open(model), energy)
        if precision not in (None, force_field.precision):
            force_field = force_field.clone(precision)
        members = force_field.members if isinstance(force_field, Committee) else [force_field]
        for reason in sorted({member.model.discontinuity for member in members} - {""}):
            warnings.warn(reason, stacklevel=2)
        self.force_field = force_field
        self.skin = skin
        self.spread = self.polarizability = None
        if "dipole" in force_field.head.targets:
            self.implemented_properties = [*self.implemented_properties, "dipole"]
        self._neighbors = None
        self._topology = None  # the last graph's sources and, as tensors, all of it
        self._columns = force_field.head.columns
        self._compute = force_field.predict_graph.get_concrete_function()  # traced here, once and for all sizes

    def __deepcopy__(self, memo: dict) -> DimeNetCalculator:
        """Return a calculator of the same force field, which never changes, for other atoms."""
        return DimeNetCalculator(self.force_field, skin=self.skin)

    def __reduce__(self):
        raise UserError("a calculator with a TensorFlow model cannot be pickled: make one in each process, by its path")

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=all_changes) -> None:
        """Compute everything at once, as ASE asks for it."""
        super().calculate(atoms, properties, system_changes)
        atoms, self.results, self.spread, self.polarizability = self.atoms, {}, None, None
        if atoms is None:
            raise UserError("the calculator has no atoms yet: atoms.calc = calculator")
        if atoms.pbc.any():
            raise UserError("periodic cells are not supported: set atoms.pbc = False for a molecule")
        if not np.isfinite(atoms.positions).all():
            raise UserError("a coordinate is not finite")
        if self._neighbors is None or not np.array_equal(self._neighbors.Z, atoms.numbers):
            field = self.force_field
            field.check(np.array([len(atoms)]), atoms.numbers, centered(atoms, field.dtype))
            self._neighbors = SkinList(atoms.numbers, field.model.cutoff, self.skin, field.model.needs, field.dtype)
        graph = self._neighbors.graph(centered(atoms, self.force_field.dtype))
        if self._neighbors.closest == 0:
            raise UserError("two atoms are at the same place")
        if self._topology is None or graph.edge_source is not self._topology[0]:
            self._topology = graph.edge_source, Graph(*map(tf.constant, graph))
        answer = self._compute(self._topology[1]._replace(positions=tf.constant(graph.positions)))
        prediction, spread = answer if isinstance(self.force_field, Committee) else (answer, None)
        values, name = self._columns.split(prediction.values.numpy()), self.force_field.energy
        energy = float(values[name][0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": self._columns.split(prediction.shares.numpy())[name],
            "forces": prediction.forces.numpy().astype(np.float64),
        }
        if "dipole" in values:
            self.results["dipole"] = values["dipole"][0]
        if "polarizability" in values:
            self.polarizability = values["polarizability"][0]
        if spread is not None:
            factor = 1.0 if self.force_field.factor is None else self.force_field.factor
            forces = factor * spread.forces.numpy().astype(np.float64)
            self.spread = {"energy": float(self._columns.split(spread.values.numpy())[name][0]), "forces": forces}


def centered(atoms: Atoms, dtype: str) -> np.ndarray:
    """Return positions about their mean: far from the origin float32 would lose digits of the distances."""
    return (atoms.positions - atoms.positions.mean(axis=0)).astype(dtype)


def _open(model) -> Predictor | Committee:
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
    if energy is not None:
        return model.with_forces(energy)
    raise UserError(
        f"this model predicts {', '.join(model.head.targets)} and was not trained with forces; "
        "DimeNetCalculator(model, energy=NAME) takes one of these for the energy, if that is meant"
    )


class UncertaintyExceeded(RuntimeError):
    """The dynamics has come to where the committee knows too little."""


class StopOnUncertainty:
    """Stops a simulation when the uncertainty of a force passes a threshold.

    `dynamics.attach(StopOnUncertainty(atoms, threshold=0.5))`; `dynamics.run` then raises `UncertaintyExceeded`.

    Parameters
    ----------
    atoms : with a calculator of a committee whose factor is fitted
    threshold : eV/Angstrom, of any atom's scaled spread
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
