"""Every door of a model gives the same numbers, or refuses the same structures.

Doors are `predict` with arrays, `ase.Atoms`, files and `tf.data`, the predictor as a layer, bulk prediction, the ASE
calculator, a committee's, the three signatures of the exported model, and the driver of i-PI.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import ase.io
import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import molecule
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import dimenet_tf
from dimenet_tf.bulk import predict_file
from dimenet_tf.commands import main
from dimenet_tf.errors import UserError
from dimenet_tf.md import Batched, Committee, DimeNetCalculator
from helpers.paths import FILES
from helpers.pretrained import FORCES
from helpers.serving import call, flat, with_edges

CASES = FILES / "cases"
ETHANOL = molecule("CH3CH2OH")
SERVED = ("serving_default", "flat", "edges")


class Answer(NamedTuple):
    """Result of a door for one molecule."""

    energy: float
    forces: np.ndarray
    in_domain: bool


@functools.cache
def force_field():
    return dimenet_tf.load(FORCES)


@functools.cache
def committee():
    return Committee([force_field(), force_field().clone()])


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "1"
    force_field().export(path)
    return tf.saved_model.load(str(path))


def named(answer: dict, atoms: Atoms) -> Answer:
    energy, forces, inside = (np.asarray(answer[name]) for name in ("energy", "forces", "in_domain"))
    return Answer(energy[0], forces.reshape(-1, 3)[: len(atoms)], bool(inside[0]))


def padded(atoms: Atoms, dtype=np.float64) -> dict[str, np.ndarray]:
    return {"Z": atoms.numbers[None].astype(np.int32), "R": atoms.positions[None].astype(dtype)}


def by_arrays(atoms, there):
    state = {key: [atoms.info[key]] for key in ("charge", "spin") if key in atoms.info}
    return named(force_field().predict({**padded(atoms), **state}), atoms)


def by_atoms(atoms, there):
    return named(force_field().predict([atoms]), atoms)


def by_file(atoms, there):
    ase.io.write(there / "in.traj", atoms)  # to the last digit
    return named(force_field().predict(there / "in.traj"), atoms)


def by_dataset(atoms, there):
    state = {key: [atoms.info[key]] for key in ("charge", "spin") if key in atoms.info}
    return named(force_field().predict(tf.data.Dataset.from_tensors({**padded(atoms), **state})), atoms)


def by_layer(atoms, there):
    return named(force_field()({k: tf.constant(v) for k, v in padded(atoms).items()}), atoms)


def by_bulk(atoms, there):
    for path in there.glob("*"):
        path.unlink() if path.is_file() else None
    ase.io.write(there / "in.traj", atoms)
    predict_file(FORCES, there / "in.traj", there / "out.npz")
    return named(np.load(there / "out.npz"), atoms)


def by_calculator(atoms, there, model=force_field):
    atoms = atoms.copy()
    atoms.calc = DimeNetCalculator(model())
    return Answer(atoms.get_potential_energy(), atoms.get_forces(), atoms.calc.in_domain)


def by_committee(atoms, there):
    return by_calculator(atoms, there, committee)


HOST = {f.__name__: f for f in (by_arrays, by_atoms, by_dataset, by_layer, by_calculator, by_committee)}
WITH_FILES = {f.__name__: f for f in (by_file, by_bulk)}


def ask(door, atoms: Atoms, there: Path, served) -> Answer | None:
    """Return a door's answer; None where it refuses."""
    try:
        if door in SERVED:
            arrays = padded(atoms, np.float32)
            if door != "serving_default":
                arrays = flat(arrays)
            if door == "edges":
                arrays = with_edges(arrays)
            return named(call(served, door, arrays), atoms)
        return {**HOST, **WITH_FILES}[door](atoms, there)
    except (UserError, tf.errors.InvalidArgumentError):
        return None


def agree(a: Answer, b: Answer) -> bool:
    return (
        abs(a.energy - b.energy) < 1e-4 * max(1, np.abs(a.forces).max() / 10)
        and np.abs(a.forces - b.forces).max() < 1e-4 * max(1, np.abs(a.forces).max())
        and a.in_domain == b.in_domain
    )


UNITS = {"Ang": 1.0, "a0": 1 / 0.529177, "nm": 0.1, "pm": 100.0}


@st.composite
def structures(draw) -> tuple[Atoms, bool]:
    """Ethanol in motion, moved, squeezed, or in other units, and whether it must be refused."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    atoms = ETHANOL.copy()
    atoms.positions += 0.03 * rng.standard_normal((9, 3))
    what = draw(st.sampled_from(["as it is", "unit", "squeezed", "far", "state", "other"]))
    refused = False
    if what == "unit":
        unit = draw(st.sampled_from(sorted(UNITS)))
        atoms.positions *= UNITS[unit]
        refused = unit != "Ang"
    elif what == "squeezed":
        distance = draw(st.floats(1e-4, 1.5).filter(lambda d: abs(d - 0.3) > 0.02))
        atoms.positions[8] = atoms.positions[0] + distance * np.array([0.6, 0.0, -0.8])
        refused = atoms.get_all_distances()[np.triu_indices(9, 1)].min() < 0.3
    elif what == "far":
        atoms.positions += draw(st.sampled_from([1.0, 10.0, 1e3, 1e5, 1e7, 1e9])) * np.array([1.0, -0.5, 0.2])
    elif what == "state":
        atoms.info.update(charge=draw(st.sampled_from([0, 1, -1])), spin=draw(st.sampled_from([1, 2, 3])))
        refused = atoms.info != {"charge": 0, "spin": 1}
    elif what == "other":
        atoms = molecule(draw(st.sampled_from(["H2O", "CH3OH", "CH3OCH3", "NH3", "CO2", "C6H6"])))
        refused = sorted(atoms.numbers) != sorted(ETHANOL.numbers)
    return atoms, refused


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=structures())
def test_all_doors_agree(served, tmp_path, case):
    atoms, refused = case
    state = bool(atoms.info)
    reference = by_atoms(atoms, tmp_path) if not refused else None
    for door in (*HOST, *SERVED):
        # TensorFlow's doors have no input for charge and spin
        if state and door in (*SERVED, "by_layer"):
            continue
        answer = ask(door, atoms, tmp_path, served)
        far = np.abs(atoms.positions).max() > 32
        if refused or (far and door in SERVED):  # float32 cannot hold such positions
            assert answer is None, door
        else:
            assert answer is not None and agree(reference, answer), door


def as_written(name: str) -> Atoms:
    return ase.io.read(CASES / name)


WITHOUT_STATE = (*SERVED, "by_layer")
"""Doors that have no input for charge and spin."""
CASES_AND_DOORS = [
    (case, door)
    for case in ("ethanol_nm.xyz", "ethanol_bohr.xyz", "ethanol_far.xyz", "ethanol_cation.extxyz", "good")
    for door in (*HOST, *WITH_FILES, *SERVED)
    if not (case == "ethanol_cation.extxyz" and door in WITHOUT_STATE)
]


@pytest.mark.parametrize("case, door", CASES_AND_DOORS)
def test_each_case_in_each_door(served, tmp_path, case, door):
    atoms = ETHANOL if case == "good" else as_written(case)
    accepted = case == "good" or (case == "ethanol_far.xyz" and door not in SERVED)
    answer = ask(door, atoms, tmp_path, served)
    if accepted:
        assert agree(by_atoms(ETHANOL, tmp_path), answer)
    else:
        assert answer is None


FILES = {
    # file: model, number of molecules, the refused ones with the reason; positions alone decide
    "charges.extxyz": (FORCES, 40, {i: "has charge 1 and spin multiplicity 2" for i in range(1, 40, 2)}),
    "outlier.extxyz": (FORCES, 40, {}),
    "column_force.extxyz": (FORCES, 40, {}),
    "fortran_exponent.extxyz": (FORCES, 40, {}),
    "some_without_forces.extxyz": (FORCES, 40, {}),
    "weights.extxyz": (FORCES, 40, {}),
    "isolated_atoms.extxyz": (FORCES, 43, {i: "do not determine the reference energy" for i in range(3)}),
    "qm9_raw.xyz": ("dimenet_pp-sample-U0", 1, {}),
}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_predicted_or_refused(tmp_path, name):
    """By `predict` and by the command, which skips what is refused."""
    model, count, refused = FILES[name]
    predictor, path = dimenet_tf.load(model), CASES / name
    predict_file(model, path, tmp_path / "out.npz", on_bad="skip")
    written = np.load(tmp_path / "out.npz")
    energy = written["energy" if model == FORCES else "U0"]
    assert len(energy) == count
    assert sorted(refused) == np.flatnonzero(np.isnan(energy)).tolist()
    if refused:
        first = min(refused)
        with pytest.raises(UserError, match=f"molecule {first} .*{refused[first]}"):
            predictor.predict(path)
        with pytest.raises(UserError, match=f"molecule {first} .*{refused[first]}"):
            predict_file(model, path, tmp_path / "strict.npz")
    else:
        np.testing.assert_allclose(energy, predictor.predict(path)["energy" if model == FORCES else "U0"], rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_accepted_shift_changes_an_answer(dtype):
    """From 0 to 1e9 Angstrom; 1e-4 eV and 1e-4 eV/Angstrom."""
    rng, accepted = np.random.default_rng(0), []
    at_origin = by_atoms(ETHANOL, None)
    for size in [0.0, *10.0 ** np.arange(-1, 9.5, 0.5), 1e9]:
        moved = ETHANOL.copy()
        moved.positions += size * rng.uniform(-1, 1, 3) / np.sqrt(3)
        try:
            answer = named(force_field().predict(padded(moved, dtype)), moved)
        except UserError as error:
            assert "from the origin" in str(error)
            continue
        accepted.append(size)
        assert abs(answer.energy - at_origin.energy) < 1e-4
        assert np.abs(answer.forces - at_origin.forces).max() < 1e-4
    assert max(accepted) >= (10 if dtype == np.float32 else 1e9)


def test_units_are_converted_when_they_are_named():
    predictor, atoms = force_field(), ETHANOL.copy()
    expected = predictor.predict([ETHANOL])
    for unit, size in UNITS.items():
        atoms.positions = ETHANOL.positions * size
        answer = predictor.predict([atoms], length_unit=unit)
        np.testing.assert_allclose(answer["forces"], expected["forces"], atol=1e-4)
        if unit != "Ang":
            with pytest.raises(UserError, match=f"as if the positions were in {unit}, .*length_unit='{unit}' converts"):
                predictor.predict([atoms])
    with pytest.raises(UserError, match="length_unit = inch"):
        predictor.predict([atoms], length_unit="inch")


def test_stretched_bonds_are_no_unit():
    """A scan of a bond, one geometry after the other, is never taken for another unit."""
    predictor = dimenet_tf.load("dimenet_pp-sample-U0")
    for name, pair in (("H2", (0, 1)), ("H2O", (0, 1)), ("CH3CH2OH", (0, 1)), ("CO2", (0, 1))):
        atoms = molecule(name)
        for distance in np.linspace(0.7, 4.0, 12):
            atoms.set_distance(*pair, distance, fix=0)
            assert np.isfinite(predictor.predict([atoms])["U0"]).all()


def test_the_calculator_notices_a_charge_in_info():
    """ASE itself does not look at `info` to decide whether results are still valid."""
    atoms = ETHANOL.copy()
    atoms.calc = DimeNetCalculator(force_field())
    energy = atoms.get_potential_energy()
    atoms.info["charge"] = 1
    with pytest.raises(UserError, match="the structure has charge 1 and spin multiplicity 1"):
        atoms.get_potential_energy()
    del atoms.info["charge"]
    assert atoms.get_potential_energy() == energy
    atoms.set_initial_magnetic_moments([1.0] + 8 * [0.0])
    with pytest.raises(UserError, match="spin multiplicity 2"):
        atoms.get_forces()


def test_the_calculator_does_not_judge_units_on_the_way():
    """All bonds of a molecule that expands in the middle of dynamics have the length that they have in Bohr."""
    atoms = ETHANOL.copy()
    atoms.calc = DimeNetCalculator(force_field())
    atoms.get_forces()
    atoms.positions *= 1.89
    assert np.isfinite(atoms.get_forces()).all()


def test_the_calculator_warns_once_and_refuses_when_asked():
    atoms = ETHANOL.copy()
    atoms.set_distance(2, 3, 0.8, fix=0)
    atoms.calc = DimeNetCalculator(force_field())
    with pytest.warns(UserWarning, match="a H-O distance of 0.8 Ang") as record:
        for _ in range(3):
            atoms.rattle(1e-4)
            atoms.get_forces()
    assert len(record) == 1 and record[0].filename == __file__ and atoms.calc.in_domain is False
    atoms.calc = DimeNetCalculator(force_field(), domain="error")
    with pytest.raises(UserError, match="the structure lies outside of the model's domain: a H-O distance"):
        atoms.get_forces()


def test_bulk_marks_refuses_and_skips(tmp_path):
    name, close = FORCES, ETHANOL.copy()
    close.set_distance(2, 3, 0.8, fix=0)
    frames = [ETHANOL, close, molecule("H2O")]
    ase.io.write(tmp_path / "in.extxyz", frames[:2])
    predict_file(name, tmp_path / "in.extxyz", tmp_path / "out.extxyz")
    assert [atoms.info["in_domain"] for atoms in ase.io.read(tmp_path / "out.extxyz", ":")] == [True, False]
    with pytest.raises(UserError, match="molecule 1 lies outside of the model's domain: a H-O distance"):
        predict_file(name, tmp_path / "in.extxyz", tmp_path / "strict.extxyz", domain="error")
    ase.io.write(tmp_path / "three.extxyz", frames)
    predict_file(name, tmp_path / "three.extxyz", tmp_path / "out.npz", domain="error", on_bad="skip")
    written = np.load(tmp_path / "out.npz")
    assert written["in_domain"].tolist() == [True, False, False]
    assert np.isfinite(written["energy"]).tolist() == [True, False, False]
    with pytest.raises(UserError, match="as if the positions were in a0, .*--length-unit a0 converts them"):
        predict_file(name, CASES / "ethanol_bohr.xyz", tmp_path / "bohr.npz")
    predict_file(name, CASES / "ethanol_bohr.xyz", tmp_path / "bohr.npz", length_unit="a0")
    np.testing.assert_allclose(np.load(tmp_path / "bohr.npz")["energy"], by_atoms(ETHANOL, None).energy, atol=1e-2)


def test_ragged_inputs():
    predictor = dimenet_tf.load("dimenet_pp-sample-U0")
    atoms = [molecule("H2O"), molecule("CH3CH2OH"), molecule("CH4")]
    expected = predictor.predict(atoms)["U0"]
    Z, R = [a.numbers.tolist() for a in atoms], [a.positions.tolist() for a in atoms]
    ragged = {"Z": tf.ragged.constant(Z), "R": tf.ragged.constant(R, ragged_rank=1)}
    for inputs in ({"Z": Z, "R": R}, ragged):
        np.testing.assert_allclose(predictor.predict(inputs)["U0"], expected, atol=1e-5)


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"Z": [[8, 1.5, 1]]}, r"molecule 0, atom 1: the atomic number 1.5 must be a whole number"),
        ({"Z": [[8, np.nan, 1]]}, r"molecule 0, atom 1: the atomic number nan must be a whole number"),
        ({"Z": [["O", "H", "H"]]}, "atomic numbers Z must be integers"),
        ({"R": molecule("H2O").positions[None].astype(np.float16)}, "positions must be float32 or float64.*float16"),
        ({"charge": [1]}, "molecule 0 has charge 1"),
        ({"total_charge": [[-1]]}, "molecule 0 has charge -1"),
        ({"multiplicity": [3]}, "spin multiplicity 3"),
        ({"charge": [0, 0]}, "'charge' must be a number for each of 1 molecules"),
        ({"pbc": [[True, True, False]]}, "pbc says that a structure is periodic, but there is no cell"),
    ],
)
def test_arrays_that_are_refused_in_words(inputs, message):
    water = {"Z": molecule("H2O").numbers[None], "R": molecule("H2O").positions[None]}
    with pytest.raises(UserError, match=message):
        dimenet_tf.load("dimenet_pp-sample-U0").predict({**water, **inputs})


garbage = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True, width=32),
    st.floats(-3, 3, width=32),
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_served_model_answers_garbage_with_a_reason_or_finite_numbers(served, data):
    count = data.draw(st.integers(0, 3))
    size = data.draw(st.integers(0, 9))
    numbers = st.one_of(st.sampled_from([0, 1, 6, 8]), st.integers(-(2**31), 2**31 - 1))
    ethanol = data.draw(st.booleans()) and size == 9
    Z = np.array([data.draw(numbers) for _ in range(count * size)], np.int32).reshape(count, size)
    Z = np.tile(ETHANOL.numbers, (count, 1)).astype(np.int32) if ethanol else Z
    R = np.array([data.draw(garbage) for _ in range(count * size * 3)], np.float32).reshape(count, size, 3)
    for signature in SERVED:
        arrays = {"Z": Z, "R": R} if signature == "serving_default" else flat({"Z": Z, "R": R})
        if signature == "edges":
            edges = [data.draw(st.lists(st.integers(-1, 9), min_size=3, max_size=3)) for _ in range(2)]
            arrays |= {f"edge_{end}": np.array(e, np.int32) for end, e in zip(("source", "target"), edges)}
        try:
            answer = call(served, signature, arrays)
        except tf.errors.InvalidArgumentError as error:
            assert "assertion failed: [" in str(error)
        else:
            assert all(np.isfinite(np.asarray(value)).all() for value in answer.values())


@pytest.mark.parametrize(
    "case, options, message",
    [
        ("ethanol_nm.xyz", [], "as if the positions were in nm"),
        ("ethanol_bohr.xyz", [], "as if the positions were in a0"),
        ("ethanol_cation.extxyz", [], "has charge 1 and spin multiplicity 2"),
        ("squeezed", ["--domain", "error"], "lies outside of the model's domain: a H-O distance of 0.8 Ang"),
        ("squeezed", [], "no i-PI at"),  # flagged only, and nobody to connect to
    ],
)
def test_the_driver_of_i_pi_checks_the_structure_before_it_connects(tmp_path, capsys, case, options, message):
    path = CASES / case
    if case == "squeezed":
        atoms, path = ETHANOL.copy(), tmp_path / "squeezed.xyz"
        atoms.set_distance(2, 3, 0.8, fix=0)
        ase.io.write(path, atoms)
    with pytest.raises(SystemExit):
        main(["ipi", FORCES, str(path), "--unix", "nobody-listens", *options])
    assert message in capsys.readouterr().err


def test_dynamics_of_several_copies_warns_once():
    """The dynamics of `dimenet_tf.md.spectra`."""
    atoms = ETHANOL.copy()
    atoms.set_distance(2, 3, 0.8, fix=0)
    system = Batched(force_field(), [atoms] * 3).atoms
    with pytest.warns(UserWarning, match="a H-O distance of 0.8 Ang") as record:
        for _ in range(2):
            system.rattle(1e-4)
            system.get_forces()
    assert len(record) == 1
