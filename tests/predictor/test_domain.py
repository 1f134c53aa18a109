"""Domains: their record of the training data, structures that are refused or marked as outside."""

import json
import warnings

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import bulk, molecule

import dimenet_tf
from dimenet_tf.config.build import build_predictor
from dimenet_tf.config.schema import resolve
from dimenet_tf.data import DataConfig, DataContainer, ethanol_xtb, from_atoms, load_dataset
from dimenet_tf.data.embedded import sample
from dimenet_tf.errors import UserError
from dimenet_tf.graph import GraphStore
from dimenet_tf.predictor.domain import Domain
from dimenet_tf.predictor.watch import DomainWatch
from dimenet_tf.structures.elements import composition_of
from helpers.models import SMALL

CUTOFF = 5.0
ETHANOL = "dimenet_pp-ethanol_xtb-forces"


def container(*names: str) -> DataContainer:
    return from_atoms([molecule(name) for name in names], checks=None)


def contains(domain: Domain, data: DataContainer) -> list[bool]:
    graph = GraphStore(data.N, data.Z, data.R, CUTOFF, ()).batch(range(len(data)))
    return domain.contains(graph).numpy().tolist()


def reasons(domain: Domain, atoms: Atoms) -> dict[str, str]:
    return domain.reasons(atoms.numbers, atoms.positions, CUTOFF)


def test_a_domain_says_what_the_data_were():
    data = ethanol_xtb()
    domain = Domain.of(data, CUTOFF, ["energy", "forces"])
    assert (domain.molecules, domain.max_atoms, domain.formulas) == (2000, 9, ("C2H6O",))
    per_atom = data.target("energy") / 9
    assert domain.ranges["energy"] == [per_atom.min(), per_atom.max()]
    assert domain.ranges["forces"] == [data.target("forces").min(), data.target("forces").max()]
    # against all pairs, one by one
    R = data.R.reshape(-1, 9, 3).astype(np.float64)
    distance = np.linalg.norm(R[:, :, None] - R[:, None], axis=-1) + np.where(np.eye(9), np.inf, 0)
    Z = data.Z[:9]
    for pair, (a, b) in {"C-H": (6, 1), "H-O": (1, 8), "C-C": (6, 6), "H-H": (1, 1), "C-O": (6, 8)}.items():
        smallest = distance[:, (a == Z)[:, None] & (b == Z)].min()
        assert 0 <= smallest - domain.closest[pair] <= 1e-4
    assert "O-O" not in domain.closest and not domain.lone_atoms


def test_a_domain_survives_json():
    domain = Domain.of(sample(), CUTOFF, ["U0"])
    assert domain.formulas is None and len(domain.independent) == 5
    assert Domain.from_config(json.loads(json.dumps(domain.get_config()))) == domain


@pytest.mark.parametrize("data", [sample, ethanol_xtb])
def test_training_molecules_lie_inside(data):
    data = data()
    assert all(contains(Domain.of(data, CUTOFF), data))


def squeezed(atoms: Atoms, i: int, j: int, distance: float) -> Atoms:
    atoms.set_distance(i, j, distance, fix=0)
    return atoms


OUTSIDE = {
    "distance H-O": squeezed(molecule("CH3CH2OH"), 2, 3, 0.80),
    "formula": molecule("H2O2"),
    "distance C-O": Atoms("COH6C", [[0, 0, 0], [0, 0, 1.1], *np.eye(3) * 3, *np.eye(3) * -3, [9, 9, 9]]),
    "size": Atoms("C6H18O3", np.concatenate([molecule("CH3CH2OH").positions + [0, 0, 9 * i] for i in range(3)])),
    "lone atom": Atoms("C2H6O", np.concatenate([molecule("CH3CH2OH").positions[:8], [[20, 0, 0]]])),
}


@pytest.mark.parametrize("reason", OUTSIDE)
def test_reasons_and_graph_agree(reason):
    """The words come from NumPy, the decision from TensorFlow."""
    domain, atoms = Domain.of(ethanol_xtb(), CUTOFF), OUTSIDE[reason]
    assert reason in reasons(domain, atoms)
    assert contains(domain, from_atoms([atoms], checks=None)) == [False]


def test_five_percent_below_the_smallest_distance():
    domain = Domain.of(ethanol_xtb(), CUTOFF)
    for factor, inside in ((0.96, True), (0.94, False)):
        atoms = squeezed(molecule("CH3CH2OH"), 2, 3, factor * domain.closest["H-O"])
        assert contains(domain, from_atoms([atoms])) == [inside]
        assert ("distance H-O" in reasons(domain, atoms)) == (not inside)


def test_twice_the_largest_molecule():
    domain = Domain.of(container("C2H6", "CH4", "C2H4", "H2"), CUTOFF)
    for size, inside in ((16, True), (17, False)):
        chain = Atoms(f"C{size}", np.arange(size)[:, None] * [1.6, 0, 0])
        assert ("size" in reasons(domain, chain)) == (not inside)


def test_supercells_lie_inside():
    """A lattice has many cells, so neither their size nor their formula is limited, but the proportions are."""
    salt, other = bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "rocksalt", a=5.6).repeat(3)
    del other[0]
    domain = Domain.of(from_atoms([salt]), CUTOFF)
    for atoms, expected in ((salt, []), (salt.repeat(3), []), (other, ["formula"])):
        data = from_atoms([atoms], checks=None)
        assert list(domain.reasons(atoms.numbers, atoms.positions, CUTOFF, data.cells)) == expected
        graph = GraphStore(data.N, data.Z, data.R, CUTOFF, (), "float64", *data.cells).batch([0])
        assert domain.contains(graph).numpy().tolist() == [not expected]
    assert {"size", "formula", "molecule"} <= set(reasons(domain, Atoms(salt.repeat(3), pbc=False)))


def test_compositions_that_the_data_determine():
    """One formula determines its multiples, as many formulas as elements determine all."""
    one = Domain.of(container("CH3CH2OH"), CUTOFF)
    alkanes = Domain.of(container("CH4", "C2H6", "C3H8"), CUTOFF)
    all_of_them = Domain.of(container("CH4", "C2H2"), CUTOFF)
    cases = {"C2H6O": (1, 0, 0), "C4H12O2": (1, 0, 0), "H2O": (0, 0, 0)}
    cases |= {"C4H10": (0, 1, 1), "H2": (0, 1, 1), "C": (0, 1, 1)}
    for formula, expected in cases.items():
        composition = composition_of(formula)[None]
        for domain, determined in zip((one, alkanes, all_of_them), expected):
            known = set(np.flatnonzero(composition)) <= set(
                np.flatnonzero(sum(map(composition_of, domain.independent)))
            )
            if known:  # other elements are refused as such
                assert domain.is_determined(composition)[0] == bool(determined), formula
                Z = tf.constant(np.repeat(np.arange(95), composition[0]), tf.int32)
                bad = domain.undetermined(Z, tf.zeros_like(Z), tf.constant(1))
                assert bad.numpy().tolist() == [not determined]
    assert not all_of_them.has_undetermined and one.has_undetermined
    only_methane = Domain.of(container("CH4"), CUTOFF)
    assert not only_methane.is_determined(composition_of("C2H6")[None])[0]


def test_what_several_models_have_in_common():
    a = Domain.of(container("CH4", "C2H6", "CH3CH2OH"), CUTOFF)
    b = Domain.of(container("C2H6", "CH4", "CH3OH"), CUTOFF)
    both = Domain.common([a, b])
    assert both.formulas == ("CH4", "C2H6") and both.independent == ("CH4", "C2H6", "C2H6O")
    assert both.closest["C-H"] == max(a.closest["C-H"], b.closest["C-H"]) and both.max_atoms == 8
    assert Domain.common([a]) is a
    with pytest.raises(UserError, match="no composition in common"):
        Domain.common([Domain.of(container("CH4"), CUTOFF), Domain.of(container("H2O"), CUTOFF)])


def test_a_watch_warns_once_of_each_reason():
    domain = Domain.of(ethanol_xtb(), CUTOFF)
    close, other = OUTSIDE["distance H-O"], OUTSIDE["formula"]
    watch = DomainWatch(domain, CUTOFF)

    def look(atoms, inside=False):
        watch.look(np.array([inside]), [len(atoms)], atoms.numbers, atoms.positions)

    with pytest.warns(UserWarning, match=r"molecule 0 lies outside .* H-O distance of 0.8 Ang \(atoms . and .\)"):
        look(close)
    with pytest.warns(UserWarning, match="its formula is H2O2, which is not among those trained on"):
        look(other)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        look(close)
        look(molecule("CH3CH2OH"), inside=True)
    with pytest.raises(UserError, match="domain must be one of flag, error; got 'warn'"):
        DomainWatch(domain, CUTOFF, "warn")
    with pytest.raises(UserError, match=r"domain='error' needs a model that records its domain"):
        DomainWatch(None, CUTOFF, "error")
    with pytest.raises(UserError, match="molecule 7 lies outside of the model's domain: .*H-O"):
        strict = DomainWatch(domain, CUTOFF, "error")
        strict.look(np.array([False]), [9], close.numbers, close.positions, first=7)


@pytest.fixture(scope="module")
def trained_on_a_sample():
    """An untrained model of the embedded sample, made by the configuration as a training does."""
    config = resolve({"model": {"name": "dimenet_pp", **SMALL["dimenet_pp"]}, "data": {"num_train": 300}})
    return build_predictor(config, load_dataset(DataConfig(num_train=300)))


def test_training_records_the_domain(trained_on_a_sample, tmp_path):
    predictor = trained_on_a_sample
    assert predictor.domain.molecules == 300 and set(predictor.domain.ranges) == {"U0"}
    predictor.to_folder(tmp_path / "a")
    again = dimenet_tf.load(tmp_path / "a")
    assert again.domain == predictor.domain == predictor.clone("float64").domain
    assert again.with_forces("U0").domain == predictor.domain
    predictor.save(tmp_path / "b.keras")
    assert tf.keras.models.load_model(tmp_path / "b.keras").domain == predictor.domain


def test_models_of_earlier_versions_say_that_they_have_none(trained_on_a_sample, tmp_path):
    trained_on_a_sample.to_folder(tmp_path)
    path = tmp_path / "predictor.json"
    description = json.loads(path.read_text())
    del description["domain"]
    path.write_text(json.dumps(description))
    old = dimenet_tf.load(tmp_path)
    atoms = molecule("CH3CH2OH")
    assert old.domain is None and set(old.predict([atoms])) == {"U0"}
    with pytest.raises(UserError, match="its domain; this one's is not recorded"):
        old.predict([atoms], domain="error")
    with pytest.raises(UserError, match="not recorded"):
        old.export(tmp_path / "served", domain="error")


def test_a_model_of_one_formula_refuses_others():
    predictor = dimenet_tf.load(ETHANOL)
    with pytest.raises(
        UserError, match=r"molecule 1 has the formula H2O, but the training data \(C2H6O\) do not determ"
    ):
        predictor.predict([molecule("CH3CH2OH"), molecule("H2O")])
    two = molecule("CH3CH2OH")
    two.extend(Atoms(two.symbols, two.positions + [0, 0, 8]))
    predicted = predictor.predict([molecule("CH3CH2OH"), two])
    assert predicted["in_domain"].tolist() == [True, False]
    assert predicted["energy"][1] == pytest.approx(2 * predicted["energy"][0], abs=1e-3)


def test_predict_refuses_what_lies_outside_when_asked():
    predictor, close = dimenet_tf.load(ETHANOL), OUTSIDE["distance H-O"]
    inputs = [molecule("CH3CH2OH"), close]
    assert predictor.predict(inputs, domain="flag")["in_domain"].tolist() == [True, False]
    for size in (1, 2):
        with pytest.raises(UserError, match="molecule 1 lies outside of the model's domain: a H-O distance of 0.8 Ang"):
            predictor.predict(inputs, size, domain="error")
