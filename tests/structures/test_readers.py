"""Layouts, names and units of files with energies and forces."""

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from dimenet_tf.data import DataConfig, DataContainer, ethanol_xtb, from_atoms, load_dataset, read_file
from dimenet_tf.errors import UserError
from dimenet_tf.structures.quantities import conversion

KCAL = {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}
EV = units.kcal / units.mol
RNG = np.random.default_rng(0)
FRAMES = 30
Z = np.array([8, 1, 1])
R = molecule("H2O").positions[[0, 1, 2]] + RNG.normal(0, 0.05, (FRAMES, 3, 3))
E, F = RNG.normal(-1e5, 5, FRAMES), RNG.normal(0, 20, (FRAMES, 3, 3))
FLAT = {"N": np.full(FRAMES, 3), "Z": np.tile(Z, FRAMES), "R": R.reshape(-1, 3)}
LAYOUTS = {
    "MD17": {"z": Z.astype(np.uint8), "R": R, "E": E[:, None], "F": F, "name": "water", "theory": "none"},
    "rMD17": {"nuclear_charges": Z, "coords": R, "energies": E, "forces": F, "old_indices": np.arange(FRAMES)},
    "COLL": {
        **FLAT,
        "E": E,
        "F": F.reshape(-1, 3),
        "id": np.arange(FRAMES),
    },
    "ours": {
        **FLAT,
        "energy": E,
        "forces": F.reshape(-1, 3),
    },
}


def atoms_with_labels(count=4) -> list:
    frames = []
    for i in range(count):
        atoms = molecule("H2O", positions=R[i])
        atoms.calc = SinglePointCalculator(atoms, energy=E[i] * EV, forces=F[i] * EV)
        frames.append(atoms)
    return frames


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_and_units(tmp_path, layout):
    np.savez(tmp_path / "data.npz", **LAYOUTS[layout])
    data = read_file(tmp_path / "data.npz", units=KCAL)
    assert data.N.tolist() == [3] * FRAMES and data.Z.tolist() == [8, 1, 1] * FRAMES
    np.testing.assert_array_equal(data.R, R.reshape(-1, 3))
    np.testing.assert_allclose(data.target("energy"), E * EV, rtol=1e-8)
    np.testing.assert_allclose(data.target("forces"), F.reshape(-1, 3) * EV, rtol=1e-8)
    second = data.select([7, 2])
    np.testing.assert_array_equal(second.target("forces"), data.target("forces")[[21, 22, 23, 6, 7, 8]])


@pytest.mark.parametrize("layout", ["MD17", "rMD17", "COLL"])
def test_units_are_never_guessed(tmp_path, layout):
    np.savez(tmp_path / "data.npz", **LAYOUTS[layout])
    with pytest.raises(UserError, match=r"does not name the unit of its energy and forces: add data.units.energy="):
        read_file(tmp_path / "data.npz")
    with pytest.raises(UserError, match=r"does not name the unit of its forces"):
        read_file(tmp_path / "data.npz", units={"energy": "eV"})


def test_units_that_the_file_tells(tmp_path):
    np.savez(tmp_path / "data.npz", **LAYOUTS["MD17"], e_unit="kcal/mol", r_unit="Ang")
    np.testing.assert_allclose(read_file(tmp_path / "data.npz").target("forces"), F.reshape(-1, 3) * EV, rtol=1e-8)


def test_conversions():
    assert conversion("energy", "Hartree") == pytest.approx(units.Hartree, rel=1e-7)
    assert conversion("U0", "kJ/mol") == pytest.approx(units.kJ / units.mol, rel=1e-7)
    assert conversion("forces", "Hartree/a0") == pytest.approx(units.Hartree / units.Bohr, rel=1e-7)
    assert conversion("dipole", "D") == pytest.approx(units.Debye, rel=1e-7)
    assert conversion("mu", "e*Ang") == pytest.approx(1 / units.Debye, rel=1e-7)
    assert conversion("polarizability", "Ang^3") == pytest.approx(units.Bohr**-3, rel=1e-7)
    assert conversion("R", "a0") == pytest.approx(units.Bohr, rel=1e-7)
    assert conversion("Cv", "cal/mol/K") == 1.0
    with pytest.raises(UserError, match=r"data.units.energy = D: energy can be read in eV, meV, Hartree"):
        conversion("energy", "D")


def test_a_split_in_the_file_is_used(tmp_path):
    parts = {"train_idx": [5, 3, 9, 8], "val_idx": [1, 2], "test_idx": [0, 4, 6]}
    np.savez(tmp_path / "data.npz", **LAYOUTS["MD17"], **parts)
    config = {"path": str(tmp_path / "data.npz"), "target": ["energy", "forces"], "units": KCAL}
    dataset = load_dataset(DataConfig(**config))
    assert [part.tolist() for part in dataset.split] == [[5, 3, 9, 8], [1, 2], [0, 4, 6]]
    assert [len(p) for p in load_dataset(DataConfig(**config, num_train=3, num_valid=1)).split] == [3, 1, 3]
    assert [len(p) for p in load_dataset(DataConfig(**config, split="random")).split] == [24, 3, 3]
    with pytest.raises(UserError, match="num_train = 20 .* own split, which has 4 training and 2 validation"):
        load_dataset(DataConfig(**config, num_train=20))


@pytest.mark.parametrize(
    "parts, message",
    [
        (([1, 2, 3], [3], [4]), "a molecule is in the split twice"),
        (([1, 2, 3], [0], [30]), "the split's test molecules are not all in 0 ... 29"),
        (([1, 2, 3], [0], []), "the split has no test molecules"),
    ],
)
def test_wrong_splits_are_refused(tmp_path, parts, message):
    split = {key: np.array(part, int) for key, part in zip(("train_idx", "val_idx", "test_idx"), parts)}
    np.savez(tmp_path / "data.npz", **LAYOUTS["MD17"], **split)
    with pytest.raises(UserError, match=message):
        load_dataset(DataConfig(path=str(tmp_path / "data.npz"), target=["energy", "forces"], units=KCAL))


@pytest.mark.parametrize("layout, theirs", [("MD17", ("E", "F")), ("rMD17", ("energies", "forces"))])
def test_other_names_in_known_layouts(tmp_path, layout, theirs):
    """Better labels next to the usual ones: all named labels are used, and no usual one in their place."""
    other = {"E_cc": 2 * E, "F_cc": 3 * F, "dip": RNG.normal(size=(FRAMES, 3))}
    np.savez(tmp_path / "data.npz", **LAYOUTS[layout], **other)
    keys = {"energy": "E_cc", "forces": "F_cc", "dipole": "dip"}
    data = read_file(tmp_path / "data.npz", keys, KCAL)
    np.testing.assert_allclose(data.target("energy"), 2 * E * EV, rtol=1e-8)
    np.testing.assert_allclose(data.target("forces"), 3 * F.reshape(-1, 3) * EV, rtol=1e-8)
    np.testing.assert_array_equal(data.target("dipole"), other["dip"])
    with pytest.raises(UserError, match="unknown name in data.keys .* 'E_c'; did you mean 'E_cc'"):
        read_file(tmp_path / "data.npz", {"energy": "E_c"}, KCAL)


def test_energies_alone_of_a_file_with_forces(tmp_path):
    np.savez(tmp_path / "data.npz", **LAYOUTS["MD17"])
    dataset = load_dataset(DataConfig(path=str(tmp_path / "data.npz"), target="energy", units=KCAL))
    assert dataset.names == ["energy"] and not dataset.has_forces


def test_units_that_contradict_the_file(tmp_path):
    np.savez(tmp_path / "data.npz", **LAYOUTS["MD17"], e_unit=np.bytes_("kcal/mol"), r_unit="Ang")
    with pytest.raises(UserError, match="gives its energy in kcal/mol, but data.units.energy is eV"):
        read_file(tmp_path / "data.npz", units={"energy": "eV"})
    np.savez(tmp_path / "data.npz", **LAYOUTS["COLL"])
    with pytest.raises(UserError, match="does not name the unit of its energy"):
        read_file(tmp_path / "data.npz", {"energy": "E"}, {"forces": "eV/Ang"})


def test_labels_of_different_origin_are_never_mixed():
    """A frame that lacks what data.keys names has no label, even if its calculator has one."""
    frames = atoms_with_labels()
    for i in (0, 1, 3):
        frames[i].info["REF_energy"] = -1.0
    with pytest.raises(UserError, match="target 'energy' is missing or not finite in molecule 2"):
        from_atoms(frames, "here", {"energy": "REF_energy"}).target("energy")


def test_results_of_other_positions_are_refused():
    frames = atoms_with_labels()
    frames[1].positions[0] += 0.1
    with pytest.raises(UserError, match="the calculator of molecule 1 has results of other atoms or positions"):
        from_atoms(frames)
    shared = [molecule("H2O", positions=R[i]) for i in range(2)]
    calculator = EMT()
    for atoms in shared:
        atoms.calc = calculator
        atoms.get_forces()
    with pytest.raises(UserError, match="the calculator of molecule 0 has results of other atoms"):
        from_atoms(shared)


def test_databases_in_units_of_their_own(tmp_path):
    with ase.db.connect(tmp_path / "data.db") as database:
        for i in range(3):
            database.write(Atoms(Z, R[i]), data={"energy": np.array([E[i]]), "forces": F[i]})
        database.metadata = {"_property_unit_dict": {"energy": "kcal/mol"}, "_distance_unit": "Ang"}
    with pytest.raises(UserError, match="written by SchNetPack, in units of its own .*'energy': 'kcal/mol'"):
        read_file(tmp_path / "data.db")
    data = read_file(tmp_path / "data.db", units=KCAL)
    np.testing.assert_allclose(data.target("energy"), E[:3] * EV, rtol=1e-8)
    np.testing.assert_allclose(data.target("forces"), F[:3].reshape(-1, 3) * EV, rtol=1e-8)
    (tmp_path / "broken.db").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="broken.db could not be read by ASE"):
        read_file(tmp_path / "broken.db")


def test_names_of_other_programs(tmp_path):
    frames = atoms_with_labels()
    for i, atoms in enumerate(frames):
        atoms.calc = None
        atoms.info["REF_energy"] = E[i]
        atoms.arrays["REF_forces"] = F[i]
    ase.io.write(tmp_path / "data.extxyz", frames)
    keys = {"energy": "REF_energy", "forces": "REF_forces"}
    data = read_file(tmp_path / "data.extxyz", keys, KCAL)
    np.testing.assert_allclose(data.target("energy"), E[:4] * EV, rtol=1e-8)
    np.testing.assert_allclose(data.target("forces"), F[:4].reshape(-1, 3) * EV, atol=1e-6)
    with pytest.raises(UserError, match=r"unknown name in data.keys .* 'REF_energi'; did you mean 'REF_energy'"):
        read_file(tmp_path / "data.extxyz", {"energy": "REF_energi"})


@pytest.mark.parametrize("name", ["data.extxyz", "data.db", "data.traj"])
def test_energies_and_forces_of_calculators(tmp_path, name):
    frames = atoms_with_labels()
    if name.endswith(".db"):
        with ase.db.connect(tmp_path / name) as database:
            for i, atoms in enumerate(frames):
                database.write(atoms, gap=1.5 + i)
    else:
        ase.io.write(tmp_path / name, frames)
    data = read_file(tmp_path / name)
    np.testing.assert_allclose(data.target("energy"), E[:4] * EV, rtol=1e-7)
    np.testing.assert_allclose(data.target("forces"), F[:4].reshape(-1, 3) * EV, atol=1e-6)
    if name.endswith(".db"):
        assert data.target("gap").tolist() == [1.5, 2.5, 3.5, 4.5]


def test_a_frame_without_forces_is_named():
    frames = atoms_with_labels()
    frames[2].calc = SinglePointCalculator(frames[2], energy=0.0)
    data = from_atoms(frames, "here")
    assert len(data.target("energy")) == 4
    with pytest.raises(
        UserError, match=r"here: target 'forces' is missing or not finite in molecule 2 \(id 2\), 1 such"
    ):
        data.target("forces")


def test_shapes_of_vectors_and_tensors():
    with pytest.raises(UserError, match=r"target 'forces' has shape \(1, 3\), expected \(3, 3\)"):
        DataContainer([3], Z, R[0], {"forces": np.zeros((1, 3))})
    with pytest.raises(UserError, match=r"target 'polarizability' has shape \(1, 9\), expected \(1, 3, 3\)"):
        DataContainer([3], Z, R[0], {"polarizability": np.zeros((1, 9))})


def test_formulas():
    names = ["H2O", "CH3CH2OH", "CO2", "HCl", "C6H6"]
    assert from_atoms([molecule(n) for n in names]).formulas().tolist() == ["H2O", "C2H6O", "CO2", "ClH", "C6H6"]


class TestEmbeddedTrajectory:
    data = ethanol_xtb()

    def test_is_what_its_description_says(self):
        assert len(self.data) == 2000 and set(self.data.formulas()) == {"C2H6O"}
        assert self.data.target("dipole").shape == (2000, 3)
        assert self.data.target("polarizability").shape == (2000, 3, 3)
        assert set(self.data.target("trajectory")) == {0, 1}

    def test_labels_are_of_thermal_size_and_consistent(self):
        forces = self.data.target("forces")
        np.testing.assert_allclose(forces.reshape(2000, 9, 3).sum(axis=1), 0, atol=1e-4)
        assert 0.5 < np.sqrt((forces**2).mean()) < 2 and 0.05 < self.data.target("energy").std() < 0.3
        alpha = self.data.target("polarizability")
        np.testing.assert_array_equal(alpha, alpha.transpose(0, 2, 1))
        assert (np.linalg.eigvalsh(alpha) > 0).all()

    def test_no_torque(self):
        """Forces and positions belong to each other."""
        R = self.data.R.astype(float).reshape(2000, 9, 3)
        torque = np.cross(R, self.data.target("forces").reshape(2000, 9, 3)).sum(axis=1)
        assert np.abs(torque).max() < 2e-4

    def test_training_set(self):
        dataset = load_dataset(DataConfig(name="ethanol_xtb", target="energy,forces", num_train=100))
        assert dataset.names == ["energy"] and dataset.has_forces
        forces = dataset.container.select(dataset.split.train).target("forces")
        assert dataset.fitted("energy").reference.scale == pytest.approx(np.sqrt((forces**2).mean()))


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"name": "ethanol_xtb", "target": "forces"},
            r"forces are the gradient of an energy; set data.target: \[energy, forces\]",
        ),
        ({"name": "sample", "target": "energy,forces"}, "unknown target 'energy'"),
        ({"name": "ethanol_xtb", "target": "energy", "units": {"energy": "meV"}}, "data.units belongs to data.path"),
        ({"name": "sample", "keys": {"U0": "H"}}, "data.keys belongs to data.path"),
        ({"name": "sample", "molecule": "ethanol"}, "data set 'sample' has no choice of molecules"),
        ({"name": "sample", "fold": 2}, "only rmd17 has several splits"),
        ({"path": "x.npz", "molecule": "ethanol"}, "data.molecule belongs to data.name"),
        ({"path": "x.npz", "filter": "release"}, "data.filter belongs to data.name"),
        ({"name": "sample", "split": "given"}, "embedded sample has none; set data.split=random"),
        ({"name": "sample", "split": "rnd"}, "data.split must be one of auto, given, random; got 'rnd'"),
        ({"name": "md17", "molecule": "etanol"}, "unknown data.molecule 'etanol'; did you mean 'ethanol'"),
        ({"name": "md17"}, "unknown data.molecule 'None'"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(UserError, match=message):
        load_dataset(DataConfig(**options))
