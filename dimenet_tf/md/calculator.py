"""Models as calculators of ASE."""

from __future__ import annotations

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
    energies included. With a committee `results` also holds `energy_spread` and `forces_spread` (per atom), scaled by
    the committee's factor once it is fitted.

    Parameters
    ----------
    model : predictor, committee, run folder, folder of either, or name of a pretrained model; several make a committee
    energy : the target that is the energy, where the model was not trained with forces: a model of U0, say, knows
        relaxed geometries only, and its gradient means something near them at best
    precision : "float32" or "float64"; the model's where left out
    skin : Angstrom; neighbors are searched for anew when an atom has moved by half of it
    **kwargs : of ASE's `Calculator`

    Raises
    ------
    UserError
        For models without an energy; when it computes: for periodic cells, elements that the training data did not
        contain, atoms at the same place, positions that are not finite.
    """

    implemented_properties = ("energy", "free_energy", "forces", "energies")

    def __init__(
        self,
        model: Predictor | Committee | str | Path | Sequence,
        energy: str | None = None,
        precision: str | None = None,
        skin: float = 0.5,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if skin <= 0:
            raise UserError(f"skin = {skin} must be greater than 0")
        force_field = _with_forces(_open(model), energy)
        if precision not in (None, force_field.dtype):
            force_field = force_field.clone(precision)
        self.force_field = force_field
        self.skin = skin
        self._neighbors = None
        self._column = force_field.head.targets.index(force_field.energy)
        self._compute = force_field.predict_graph.get_concrete_function()  # traced here, once and for all sizes

    def calculate(self, atoms: Atoms | None = None, properties=("energy",), system_changes=all_changes) -> None:
        """Compute everything at once, as ASE asks for it."""
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        if atoms.pbc.any():
            raise UserError("periodic cells are not supported: set atoms.pbc = False for a molecule")
        if not np.isfinite(atoms.positions).all():
            raise UserError("a coordinate is not finite")
        if self._neighbors is None or not np.array_equal(self._neighbors.Z, atoms.numbers):
            field = self.force_field
            field.check(np.array([len(atoms)]), atoms.numbers, atoms.positions.astype(field.dtype))
            self._neighbors = SkinList(atoms.numbers, field.model.cutoff, self.skin, field.model.needs, field.dtype)
        graph = self._neighbors.graph(atoms.positions)
        if not _apart(graph):
            raise UserError("two atoms are at the same place")
        answer = self._compute(Graph(*map(tf.constant, graph)))
        prediction, spread = answer if isinstance(self.force_field, Committee) else (answer, None)
        energy = float(prediction.values[0, self._column])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": prediction.shares.numpy()[:, self._column],
            "forces": prediction.forces.numpy().astype(np.float64),
        }
        if spread is not None:
            factor = self.force_field.factor or 1.0
            self.results["energy_spread"] = factor * float(spread.values[0, self._column])
            self.results["forces_spread"] = factor * spread.forces.numpy().astype(np.float64)


def _open(model) -> Predictor | Committee:
    if isinstance(model, (Predictor, Committee)):
        return model
    if isinstance(model, (str, Path)):
        return Committee.from_folder(model) if Path(model, COMMITTEE).exists() else load(model)
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


def _apart(graph) -> bool:
    vectors = graph.positions[graph.edge_source] - graph.positions[graph.edge_target]
    return bool(vectors.any(axis=1).all())


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
        spread = self.atoms.calc.results["forces_spread"]
        worst = int(spread.argmax())
        if spread[worst] > self.threshold:
            raise UncertaintyExceeded(
                f"atom {worst} ({self.atoms.symbols[worst]}): uncertainty of the force {spread[worst]:.3g} eV/Ang, "
                f"threshold {self.threshold:g}"
            )
