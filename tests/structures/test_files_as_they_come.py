"""Files as other programs write them, read for training (`read_file`) and for prediction (`open_stream`)."""

import bz2
import gzip
import io
import lzma
import re
import tarfile

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from hypothesis import given
from hypothesis import strategies as st

from dimenet_tf.data import DataConfig, load_dataset, read_file
from dimenet_tf.data.dataset import load_container
from dimenet_tf.errors import UserError
from dimenet_tf.structures.charges import state_of
from dimenet_tf.structures.frames import read_label, repair_comment, repair_number
from dimenet_tf.structures.streams import count_molecules, open_stream
from helpers.paths import FILES

CASES = FILES / "cases"
WATER = "O 0 0 0.1\nH 0 0.8 -0.5\nH 0 -0.8 -0.5\n"


def take(path) -> tuple[list, list]:
    """Return the molecules and the notes that prediction gets."""
    with open_stream(path) as stream:
        return stream.take(1000).to_atoms(), list(stream.notes)


def both(path, keys=None):
    """Return a file as training reads it, after a look that prediction gets the same molecules and notes."""
    data, (atoms, notes) = read_file(path, keys, {"R": "Ang"}, checks=None), take(path)
    np.testing.assert_array_equal(data.N, [len(a) for a in atoms])
    np.testing.assert_array_equal(data.Z, np.concatenate([a.numbers for a in atoms]))
    np.testing.assert_array_equal(data.R, np.concatenate([a.positions for a in atoms]))
    np.testing.assert_array_equal(np.stack([data.charge, data.spin], axis=1), [state_of(a) for a in atoms])
    assert [note for note in data.notes if "weight" not in note] == notes
    assert count_molecules(path) == len(data)
    return data


def refused(path) -> str:
    """Return the error that training and prediction give."""
    with pytest.raises(UserError) as training:
        read_file(path)
    with pytest.raises(UserError) as prediction:
        take(path)
    assert str(training.value) == str(prediction.value) and "\n" not in str(training.value)
    assert str(training.value).startswith(str(path))
    return str(training.value).removeprefix(str(path))


@pytest.fixture
def written(tmp_path):
    def write(text, name="data.xyz"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


# the cases


def test_fortran_exponents():
    data, (atoms, _) = both(CASES / "fortran_exponent.extxyz"), take(CASES / "fortran_exponent.extxyz")
    assert data.target("energy")[:2].tolist() == [-4215.03149, -4215.01710]
    assert atoms[0].get_potential_energy() == -4215.03149


def test_raw_qm9(tmp_path, written):
    raw = (CASES / "qm9_raw.xyz").read_text()
    data = both(CASES / "qm9_raw.xyz")
    assert data.id.tolist() == [3] and data.Z.tolist() == [8, 1, 1] and data.R[2, 2] == 6.93e-6
    hartree = 27.211386246
    assert data.target("U0")[0] == pytest.approx((-76.404702 + 75.064579 + 2 * 0.500273) * hartree)
    assert data.target("gap")[0] == pytest.approx(0.3615 * hartree) and data.target("mu")[0] == 1.8511
    assert "1 molecules are in QM9's raw format; energies are read in eV" in data.notes[0]
    short = "\n".join(raw.splitlines()[:5]) + "\n"  # without the three lines after the atoms
    several = "".join(
        text.replace("gdb 3", f"gdb {i}") for i, text in enumerate([raw, short, raw.rstrip("\n"), "\n", raw])
    )
    data = load_container(DataConfig(path=str(written(several)), target="U0", units={"R": "Ang"}))
    assert data.id.tolist() == [0, 1, 2, 4] and len(set(data.target("U0"))) == 1
    with gzip.open(tmp_path / "raw.xyz.gz", "wt") as file:
        file.write(several)
    assert both(tmp_path / "raw.xyz.gz").id.tolist() == [0, 1, 2, 4]
    with pytest.raises(UserError, match=r"in QM9's raw format, whose units are known: remove data.units.U0=Hartree"):
        read_file(CASES / "qm9_raw.xyz", units={"U0": "Hartree"})
    assert ", molecule 0 (line 1): expected 'gdb N' and 15 numbers in the second line" in refused(
        written(raw.replace("6.002", ""))
    )
    assert "could not convert string to float: 'abc'" in refused(written(raw.replace("6.93*^-6", "abc")))


def test_qm9_as_it_is_downloaded(tmp_path):
    with tarfile.open(tmp_path / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as archive:
        archive.addfile(tarfile.TarInfo("dsgdb9nsd_000001.xyz"), io.BytesIO())
    assert "is an archive of files: unpack it; data.name=qm9 reads" in refused(tmp_path / "dsgdb9nsd.xyz.tar.bz2")


def test_a_missing_target_lists_what_there_is():
    path = CASES / "column_force.extxyz"
    with pytest.raises(UserError) as error:
        load_dataset(DataConfig(path=str(path), target="energy,forces", num_train=8, num_valid=2))
    assert str(error.value) == (
        f"{path}: unknown target 'forces'; did you mean data.keys.forces=force? It holds force (atoms, 3), energy ()"
    )
    keys = {"forces": "force"}
    dataset = load_dataset(DataConfig(path=str(path), target="energy,forces", keys=keys, num_train=8, num_valid=2))
    assert dataset.has_forces


def test_weights(written):
    path = CASES / "weights.extxyz"
    data = both(path)
    assert set(data.weight) == {1.0} and data.notes == [
        f"{path} has 'config_weight', which is not used: "
        "data.keys.weight=config_weight multiplies each molecule's loss by it"
    ]
    data = both(path, {"weight": "config_weight"})
    assert data.weight[:2].tolist() == [1.0, 0.1] and not data.notes
    assert "config_weight" not in data.targets and "weight" not in data.targets
    assert data.select([1]).weight.tolist() == [0.1]
    text = path.read_text().replace("config_weight=1.0", "", 1)
    assert both(written(text, "some.extxyz"), {"weight": "config_weight"}).weight[:2].tolist() == [1.0, 0.1]
    for wrong in ("-0.1", "heavy", "nan"):
        changed = written(text.replace("config_weight=0.1", f"config_weight={wrong}", 1), "wrong.extxyz")
        with pytest.raises(
            UserError, match=r"wrong.extxyz: 'config_weight' of molecule 1 must be a number of at least 0"
        ):
            read_file(changed, {"weight": "config_weight"})
    ones = written(text.replace("config_weight=0.1", "config_weight=1.0"), "ones.extxyz")
    assert not both(ones).notes  # nothing is lost
    with pytest.raises(UserError, match="unknown name in data.keys .* 'config_wieght'; did you mean 'config_weight'"):
        read_file(path, {"weight": "config_wieght"})


def test_charges_of_frames():
    data = both(CASES / "charges.extxyz")
    assert data.charge[:4].tolist() == [0, 1, 0, 1] and data.spin[:4].tolist() == [1, 2, 1, 2]
    with pytest.raises(UserError, match=r"molecule 1, id 1, charge 1 and spin multiplicity 2"):
        load_container(DataConfig(path=str(CASES / "charges.extxyz"), target="energy,forces"))
    data = both(CASES / "ethanol_cation.extxyz")
    assert data.charge.tolist() == [1] and data.spin.tolist() == [2]


# charge, spin and weights in other files


@pytest.mark.parametrize(
    "comment, charge, spin",
    [
        ("charge=-1", -1, 1),
        ("total_charge=+1 multiplicity=2", 1, 2),
        ("spin_multiplicity=3", 0, 3),
        ("charge=-1.0D+00", -1, 1),
        ("Properties=species:S:1:pos:R:3:initial_charges:R:1", 1, 1),
        ("Properties=species:S:1:pos:R:3:initial_magmoms:R:1", 0, 2),
        ("Properties=species:S:1:pos:R:3:charge:R:1", 1, 1),
    ],
)
def test_charge_and_spin_in_extended_xyz(written, comment, charge, spin):
    atoms = "O 0 0 0.1 0.5\nH 0 0.8 -0.5 0.25\nH 0 -0.8 -0.5 0.25\n" if "Properties" in comment else WATER
    data = both(written(f"3\n{comment}\n{atoms}"))
    assert (data.charge[0], data.spin[0]) == (charge, spin)


def test_a_charge_that_is_no_number(written):
    with pytest.raises(UserError, match=r"data.xyz: molecule 1 cannot be read: 'charge' must be a number, got 'plus'"):
        read_file(written(f"3\n\n{WATER}3\ncharge=plus\n{WATER}"))


def test_charge_and_spin_in_databases(tmp_path):
    charged = molecule("H2O")
    charged.set_initial_charges([-1, 0, 0])
    with ase.db.connect(tmp_path / "data.db") as database:
        database.write(molecule("H2O"), total_charge=1, multiplicity=2)
        database.write(charged)
        database.write(molecule("H2O"), data={"charge": 2})
    data = both(tmp_path / "data.db")
    assert data.charge.tolist() == [1, -1, 2] and data.spin.tolist() == [2, 1, 1]


FLAT = {"N": [3, 3], "Z": [8, 1, 1] * 2, "R": np.concatenate([molecule("H2O").positions] * 2)}
REPEATED = {"z": [8, 1, 1], "R": np.stack([molecule("H2O").positions] * 2), "E": [-1.0, -2.0]}


@pytest.mark.parametrize("layout", [FLAT, REPEATED], ids=["flat", "repeated"])
@pytest.mark.parametrize("shape", [(2,), (2, 1), ()])
def test_charge_spin_and_weight_in_npz(tmp_path, layout, shape):
    path = tmp_path / "data.npz"
    extra = {"charge": np.ones(shape, int), "multiplicity": np.full(shape, 2), "w": np.array([0.5, 0])}
    np.savez(path, **layout, **extra)
    units = {"R": "Ang", "energy": "eV"}
    data = read_file(path, {"weight": "w"}, units, None)
    assert data.charge.tolist() == [1, 1] and data.spin.tolist() == [2, 2] and data.weight.tolist() == [0.5, 0]
    atoms, _ = take(path)
    assert [tuple(state_of(a)) for a in atoms] == [(1, 2), (1, 2)]
    with open_stream(path) as stream:
        molecules = stream.take(5)
    assert molecules.charge.tolist() == [1, 1] and molecules.spin.tolist() == [2, 2]
    assert not molecules.frames and "charge" in molecules.info  # read as arrays
    with open_stream(path) as stream:
        assert stream.skip(1) == 1 and len(stream.take(5).N) == 1
    np.savez(path, **layout, charge=[[1, 2], [3, 4]])
    with pytest.raises(UserError, match="'charge' must be a number for each of 2 molecules"):
        read_file(path, units=units)
    with pytest.raises(UserError, match="'charge' must be a number for each of 2 molecules"):
        take(path)
    np.savez(path, **layout, w=[-1.0, 1.0], config_weight=[1.0, 2.0])
    with pytest.raises(UserError, match="'w' of molecule 0 must be a number of at least 0, got -1"):
        read_file(path, {"weight": "w"}, units)
    assert "has 'config_weight', which is not used" in read_file(path, units=units).notes[0]


# encodings, line ends and numbers


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"),
        lambda text: text.replace("\n", "\r").encode(),
        lambda text: text.encode("utf-8-sig") * 2,  # concatenated files
    ],
)
def test_byte_order_marks_and_line_ends(written, encode):
    one = both(written(encode(f"3\nenergy=-1.5 name=µ\n{WATER}" * 2)))
    assert one.target("energy").tolist() == [-1.5] * len(one) and len(one) in (2, 4)


def test_latin_1(written):
    data = both(written(f"3\nunit=\xc5 energy=-1\n{WATER}".encode("latin-1")))
    assert data.target("energy").tolist() == [-1] and "1 molecules have characters that are not UTF-8" in data.notes[0]


def test_numbers_in_columns_and_comments(written):
    text = (
        '3\nProperties=species:S:1:tag:S:1:pos:R:3:forces:R:3 energy=-.15d+02 dipole="1.D0 0 -2.5D-01" '
        'note="1.5D+02 K" name=1.5D+02x id=12d3\n'
        "O 1D2 0.1D+00 0 0 1 2 3\nH a 0 6.93*^-6 1 1 2 1.25-101\nH b 0 0 -1d0 1 2 3\n"
    )
    atoms, _ = take(written(text))
    assert both(written(text)).target("energy").tolist() == [-15]
    assert (
        atoms[0].info["note"] == "1.5D+02 K" and atoms[0].info["name"] == "1.5D+02x" and atoms[0].info["id"] == "12d3"
    )
    assert atoms[0].arrays["tag"].tolist() == ["1D2", "a", "b"]
    assert atoms[0].get_dipole_moment().tolist() == [1, 0, -0.25]
    assert atoms[0].positions.tolist() == [[0.1, 0, 0], [0, 6.93e-6, 1], [0, 0, -1]]
    assert atoms[0].get_forces()[1].tolist() == [1, 2, 1.25e-101]


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["d", "D", "*^"]), st.integers(0, 17))
def test_every_number_is_repaired(number, letter, digits):
    text = f"{number:.{digits}e}"
    assert float(repair_number(text.replace("e", letter))) == float(text)
    assert repair_comment(f"x={text.replace('e', letter)}") == f"x={text}"


def is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@given(st.text(alphabet="0123456789.+-dDeE*^ abx=,\"'\\{}[]_:", max_size=40))
def test_what_is_no_such_number_is_never_changed(text):
    assert repair_number(text) == text or is_number(repair_number(text))
    if is_number(text):
        assert repair_number(text) == text
    words = repair_comment(text)
    exponents = re.compile(r"\*\^|[dDe]")  # of them letters change, nothing else
    assert exponents.sub("e", words) == exponents.sub("e", text)
    assert repair_comment(f'note="{text.replace(chr(34), "").replace(chr(92), "")} K"').endswith(' K"')


@given(st.text(alphabet="0123456789.+-dD*^ abK", max_size=30))
def test_quoted_text_is_never_changed(text):
    comment = f'note="{text} K" energy=-1.5'
    assert repair_comment(comment) == comment


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_plain_xyz_compressed(tmp_path, ending):
    path = tmp_path / f"data.xyz.{ending}"
    module = {"gz": gzip, "bz2": bz2, "xz": lzma}[ending]
    path.write_bytes(module.compress(f"3\nwater\n{WATER}3\n\n{WATER}".encode()))
    assert both(path).N.tolist() == [3, 3] and not both(path).notes
    path.write_bytes(path.read_bytes()[:-9])
    assert "could not be read by ASE" in refused(path)


# species


def test_species(written):
    def numbers(*labels):
        lines = "".join(f"{label} {i} 0 0\n" for i, label in enumerate(labels))
        data = both(written(f"{len(labels)}\n\n{lines}"))
        return data.Z.tolist(), [note.split(": ", 1)[1] for note in data.notes]

    assert numbers("C", "Cl", "H") == ([6, 17, 1], [])
    assert numbers("c", "CL", "h") == ([6, 17, 1], [])
    isotopes = "2 atoms D or T are read as hydrogen of their masses; the models do not use masses"
    assert numbers("O", "D", "T") == ([8, 1, 1], [isotopes])
    assert take(written(f"3\n\n{WATER}".replace("H", "D1", 1)))[0][0].get_masses().round(2).tolist() == [
        16.0,
        2.01,
        1.01,
    ]
    by_number = "3 atoms have atomic numbers in the species column, which are read as elements (6 as C)"
    assert numbers("6", "8", "1") == ([6, 8, 1], [by_number])
    assert numbers("C1", "H12", "Cl2", "13C", "C_3")[0] == [6, 1, 17, 6, 6]
    assert numbers("C", "H12") == ([6, 1], ["1 atoms have labels, which are read as elements ('H12' as H)"])


@pytest.mark.parametrize("label", ["CA", "HG", "ca", "NE", "NA", "CO2", "os"])
def test_ambiguous_labels_are_refused(written, label):
    text = f"3\n\n{WATER}3\n\nO 0 0 0\n{label} 0 0 1\nH 0 1 0\n"
    assert refused(written(text)).startswith(f", molecule 1, line 9: '{label}' may be the element")


@pytest.mark.parametrize("label", ["Xq", "OH", "Na+", "200", "0", "CB", "Bq"])
def test_labels_that_are_no_elements(written, label):
    assert f", molecule 0, line 4: '{label}' is not an " in refused(written(f"3\n\nO 0 0 0\n{label} 0 0 1\nH 0 1 0\n"))
    assert read_label(label)[0] is None


def test_types_of_lammps(written):
    typed = "3\n{}\n3 0 0 0\n1 0 0 1\n1 0 1 0\n"
    assert "holds LAMMPS' atom types" in refused(written(typed.format("Atoms. Timestep: 0")))
    assert "species 1, 2 may be atom types" in refused(written(typed.format("").replace("3 0", "2 0")))


def test_other_columns(written):
    text = "3\nProperties=pos:R:3:species:{}:1 energy=1\n0 0 0.1 8\n0 0.8 -0.5 1\n0 -0.8 -0.5 1\n"
    for kind in "SI":
        assert both(written(text.format(kind))).Z.tolist() == [8, 1, 1]
    data = both(written(f"3\nfrom a program\n{WATER}".replace("0.5\n", "0.5 1 2 3\n").replace("0.1\n", "0.1 1 2 3\n")))
    assert "1 molecules have columns after the positions that no Properties= names" in data.notes[0]


# frames that cannot be read


@pytest.mark.parametrize(
    "change, message",
    [
        (("H 0 0.8 -0.5 0 0 0", "H 0 0.8 -0.5"), "line 9: expected 7 columns (species, pos, forces), got 4"),
        (("H 0 0.8", "H 0 abc"), "line 9: 'abc' is not a number (column pos)"),
        (("0.5 0 0 0", "0.5 0 ******* 0"), "line 9: '*******' is not a number (column forces)"),
        (("O 0", "Xq 0"), "line 8: 'Xq' is not an element"),
        (("pos:R:3", "pos:R"), "line 7: Properties must be NAME:TYPE:COLUMNS"),
        (("energy=1", "stress=1"), "line 7: could not be read by ASE: Got info item stress"),
        (("H 0 0.8 -0.5 0 0 0", ""), "line 9: expected 7 columns (species, pos, forces), got 0"),
    ],
)
def test_broken_frames(written, change, message):
    good = "3\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1\n" + WATER.replace("\n", " 0 0 0\n")
    assert refused(written(good + good.replace(*change, 1))) == f", molecule 1, {message}" or message in refused(
        written(good + good.replace(*change, 1))
    )


def test_wrong_numbers_of_atoms(written):
    frame = f"3\n\n{WATER}"
    error = refused(written(frame.replace("3\n", "4\n") + frame))
    assert error.startswith(
        ", molecule 0, line 6: expected 4 columns (species, pos), got 1; the frame's first line promi"
    )
    error = refused(written(frame.replace("3\n", "2\n", 1) + frame))
    assert "line 5: expected the number of atoms of molecule 1, got 'H 0 -0.8 -0.5'; does molecule 0 have more" in error
    assert "is empty" in refused(written(""))
    assert "ends inside molecule 0, which begins in line 1 and should have 9 atoms" in refused(
        written("9\n\nH 0 0 0\n")
    )


def test_other_formats_keep_the_words_of_ase(written):
    assert "could not be read by ASE" in refused(written("no json", "data.json"))


def test_cell_vectors_after_the_atoms(written):
    """ASE's notation of cells in plain xyz."""
    atoms = molecule("H2O", cell=[9, 9, 9], pbc=True)
    text = io.StringIO()
    ase.io.write(text, [atoms] * 2, format="extxyz", vec_cell=True)
    path = written(text.getvalue())
    read, _ = take(path)
    assert len(read) == 2 and read[1].pbc.all() and read[1].cell[0, 0] == 9
    assert read_file(path).cells.cell[1, 0, 0] == 9


def test_a_large_frame_takes_linear_time(written):
    """Each repair once over the lines: a hundred thousand atoms take seconds, not hours."""
    text = "100000\nenergy=-1.5D+02\n" + "".join(f"D{i} {i}.0 0.5D+00 0\n" for i in range(100_000))
    atoms, notes = take(written(text))
    assert len(atoms[0]) == 100_000 and atoms[0].positions[9].tolist() == [9, 0.5, 0] and "100000 atoms D" in notes[0]


# missing targets


def frames_with(**names) -> list:
    atoms = molecule("H2O")
    for name, value in names.items():
        (atoms.arrays if np.shape(value)[:1] == (3,) and np.ndim(value) > 1 else atoms.info)[name] = value
    return [atoms, atoms.copy()]


def missing(path, target, **options) -> str:
    with pytest.raises(UserError) as error:
        load_container(DataConfig(path=str(path), target=target, units={"R": "Ang"}, **options)).target(target)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    "target, names, proposed",
    [
        ("forces", {"dft_forces": np.zeros((3, 3)), "REF_energy": 1.0}, ["dft_forces"]),
        ("forces", {"F": np.zeros((3, 3)), "velocities": np.zeros((3, 3))}, ["F"]),
        ("energy", {"REF_energy": 1.0, "energy_weight": 1.0}, ["REF_energy"]),
        ("energy", {"E": 1.0, "step": 7}, ["E"]),
        ("energy", {"Energy": 1.0, "total_energy": 1.0}, ["Energy", "total_energy"]),
        ("energy", {"energies": np.zeros((3, 1))}, []),
    ],
)
def test_close_names_are_proposed(tmp_path, target, names, proposed):
    ase.io.write(tmp_path / "data.extxyz", frames_with(**names))
    error = missing(tmp_path / "data.extxyz", target)
    hint = f"; did you mean {' or '.join(f'data.keys.{target}={name}' for name in proposed)}?" if proposed else "."
    assert error.startswith(f"{tmp_path / 'data.extxyz'}: unknown target '{target}'{hint} It holds ")
    assert all(name in error for name in names)


def test_gradients_are_not_forces(tmp_path):
    ase.io.write(tmp_path / "data.extxyz", frames_with(gradient=np.zeros((3, 3))))
    assert "opposite sign of the forces: multiply 'gradient' by -1 if" in missing(tmp_path / "data.extxyz", "forces")


def test_what_is_there_but_no_number(tmp_path):
    path = tmp_path / "data.extxyz"
    ase.io.write(path, frames_with(energy_source="DFT", gap="-1.5 eV", mu=np.zeros(3)))
    assert "data.extxyz: 'gap' is text ('-1.5 eV'), expected a number for each molecule" in missing(path, "gap")
    assert "data.extxyz: 'mu' is (3,), expected a number for each molecule" in missing(path, "mu")
    ase.io.write(tmp_path / "nan.extxyz", frames_with(gap=np.nan))
    assert "'gap' is not finite in any molecule" in missing(tmp_path / "nan.extxyz", "gap")
    error = missing(path, "energy", keys={"energy": "energy_source"})
    assert "data.keys.energy=energy_source: 'energy_source' is text ('DFT'), expected a number for each molec" in error


def test_results_of_calculators_are_listed(tmp_path):
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=np.zeros((3, 3)))
    ase.io.write(tmp_path / "data.extxyz", [atoms, molecule("H2O")])
    error = missing(tmp_path / "data.extxyz", "dipole")
    assert "forces (atoms, 3) in 1 of 2 molecules, energy () in 1 of 2 molecules" in error


def test_arrays_of_npz_are_listed(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, **FLAT, dft_force=np.zeros((6, 3)), e_dft=[1.0, 2.0], mulliken=np.zeros(6), smiles=["O", "O"])
    error = missing(path, "forces")
    assert "did you mean data.keys.forces=dft_force? It holds N (2,), Z (6,), R (6, 3), dft_force (6, 3)" in error
    assert "smiles text (2,)" in error and "mulliken (6,)" in error
    units = {"forces": "eV/Ang", "R": "Ang"}
    assert read_file(path, {"forces": "dft_force"}, units, None).target("forces").shape == (6, 3)
    assert "'mulliken' is (6,), expected a number for each molecule" in missing(path, "mulliken")
    assert "data.keys.energy=smiles: 'smiles' is text (2,), not numbers" in missing(
        path, "energy", keys={"energy": "smiles"}
    )
    np.savez(path, **REPEATED, dft_forces=np.zeros((2, 3, 3)))
    with pytest.raises(UserError, match=r"did you mean data.keys.forces=dft_forces\?"):
        read_file(path, units={"energy": "eV", "R": "Ang"}).target("forces")


def test_what_json_may_hold(written):
    text = f"""3\ngap=1 a="_JSON [[1], [2]]" b="_JSON {{\\"x\\": 1}}" ok flag=F c="1 2 3"\n{WATER}"""
    found = both(written(text)).found
    assert found == {"gap": "()", "a": "(2, 1)", "b": "dict ()", "flag": "bool ()", "c": "(3,)"}


def test_what_was_found_and_noted_is_kept(written):
    """Also without the molecules that are dropped."""
    text = "2\ngap=1 config_weight=2\nH 0 0 0\nD 0 0 0.7\n2\ngap=2\nH 0 0 0\nD 0 0 0.1\n"
    data = load_container(DataConfig(path=str(written(text)), target="gap", on_bad="drop", units={"R": "Ang"}))
    assert len(data) == 1 and len(data.notes) == 2 and len(data.dropped) == 1 and data.found["gap"] == "()"
    assert isinstance(take(written(text))[0][0], Atoms)


def test_notes_reach_the_data_set(written):
    """`introduction` prints what `Dataset.notes` returns."""
    frame = "3\nenergy={}\nO 0 0 0\nD 0 0 {}\nD 0.96 0 -0.24\n"
    path = written("".join(frame.format(-2000 - 0.1 * i, 0.95 + 0.01 * i) for i in range(12)))
    dataset = load_dataset(DataConfig(path=str(path), target="energy"))
    assert dataset.container.notes and set(dataset.container.notes) <= set(dataset.notes())
