"""Energies with their forces: losses, predictors, second derivatives."""

import numpy as np
import pytest
import tensorflow as tf
from ase.build import molecule
from ase.optimize import BFGS
from ase.vibrations import Vibrations, VibrationsData

from dimenet_tf.errors import UserError
from dimenet_tf.graph import GraphStore, SkinList
from dimenet_tf.md import DimeNetCalculator
from dimenet_tf.predictor import Prediction, load
from dimenet_tf.properties.heads import Dipole, Head, Polarizability, Sum, scalar_head
from dimenet_tf.properties.losses import Loss
from helpers.models import force_field, graph_of
from helpers.molecules import closed_shell, molecules
from helpers.numerics import slope
from helpers.pretrained import FORCES


def test_forces_are_minus_the_gradient_of_the_predicted_energy(model_name):
    predictor, atoms = force_field(model_name), molecule("CH3CH2OH")
    forces = predictor.predict([atoms])["forces"][0]
    numeric = -slope(predictor, atoms, "energy").reshape(-1, 3)
    np.testing.assert_allclose(forces, numeric, rtol=0, atol=1e-6 * np.abs(forces).max())
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-10)
    assert predictor.units == {"energy": "eV", "forces": "eV/Ang"}


def test_forces_have_the_shape_of_the_positions_and_zeros_for_padding():
    predictor = force_field(dtype="float32")
    names = ["H2O", "CH3CH2OH", "H"]
    listed = predictor.predict([closed_shell(name) for name in names])
    Z, R = np.zeros((3, 11), int), np.zeros((3, 11, 3))
    for i, name in enumerate(names):
        atoms = closed_shell(name)
        Z[i, : len(atoms)], R[i, : len(atoms)] = atoms.numbers, atoms.positions
    padded = predictor.predict({"Z": Z, "R": R}, batch_size=2)
    assert listed["forces"].shape == (3, 9, 3) and padded["forces"].shape == (3, 11, 3)
    np.testing.assert_allclose(padded["forces"][:, :9], listed["forces"], atol=1e-5)
    assert not padded["forces"][Z == 0].any() and not padded["forces"][2].any()  # padding; an atom alone
    assert predictor.graph_function.experimental_get_tracing_count() == 1


def test_linear_molecules_and_atoms_have_finite_forces_and_curvature(model_name):
    predictor = force_field(model_name, "float32")
    predictor.elements = [1, 6, 7, 8]
    for name in ("CO2", "HCN", "C2H2", "H", "H2"):
        atoms = closed_shell(name)
        assert np.isfinite(predictor.predict([atoms])["forces"]).all()
        assert np.isfinite(predictor.hessian(atoms)).all()


def test_atoms_beyond_the_cutoff_feel_nothing_and_beginning_to_feel_is_smooth(model_name):
    predictor = force_field(model_name)
    distances = np.array([4.99, 4.9999, 5.0, 5.0001, 6.0])
    frames = []
    for d in distances:
        dimer = molecule("H2")
        dimer.positions = [[0, 0, 0], [d, 0, 0]]
        frames.append(dimer)
    result = predictor.predict(frames)
    alone = 2 * predictor.predict([closed_shell("H")])["energy"][0]
    pull = np.abs(result["forces"][:, 0, 0])
    assert not pull[2:].any() and (result["energy"][3:] == alone).all()  # exactly zero from the cutoff on
    assert 0 < pull[1] < 1e-3 * pull[0] and abs(result["energy"][1] - alone) < 1e-9


def test_hessian_is_the_slope_of_the_forces(model_name):
    predictor, atoms = force_field(model_name), molecule("H2O")
    hessian = predictor.hessian(atoms)
    np.testing.assert_array_equal(hessian, hessian.T)
    numeric = -slope(predictor, atoms, "forces", step=1e-6).reshape(9, 9)
    np.testing.assert_allclose(hessian, numeric, rtol=0, atol=1e-6 * np.abs(hessian).max())
    assert hessian.shape == (9, 9)


def test_frequencies_are_those_of_differences_of_forces(tmp_path):
    atoms = molecule("CH3CH2OH")
    predictor = load(FORCES).clone("float64")
    atoms.calc = DimeNetCalculator(predictor)
    BFGS(atoms, logfile=None).run(fmax=1e-4, steps=500)
    numeric = Vibrations(atoms, name=str(tmp_path / "vibrations"), delta=1e-3)
    numeric.run()
    analytic = VibrationsData.from_2d(atoms, predictor.hessian(atoms)).get_frequencies()
    np.testing.assert_allclose(analytic[6:].real, numeric.get_frequencies()[6:].real, atol=0.5)
    assert (analytic[6:].imag == 0).all()  # a minimum
    assert 3200 < analytic[-1].real < 3900  # O-H
    assert ((analytic.real > 2800) & (analytic.real < 3200)).sum() == 5  # C-H


def test_hessian_of_many_atoms_comes_in_pieces():
    predictor, atoms = force_field(), molecule("C6H6")
    hessian = predictor.hessian(atoms)  # 36 columns, more than one batch
    np.testing.assert_allclose(hessian.reshape(36, 12, 3).sum(axis=1), 0, atol=1e-8 * np.abs(hessian).max())


def test_forces_survive_saving_cloning_and_another_precision(tmp_path):
    predictor, atoms = force_field(), molecule("CH3CH2OH")
    predictor.to_folder(tmp_path)
    for other in (load(tmp_path), predictor.clone()):
        np.testing.assert_array_equal(other.predict([atoms])["forces"], predictor.predict([atoms])["forces"])
    single, double = predictor.clone("float32").predict([atoms])["forces"], predictor.predict([atoms])["forces"]
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-4 * np.abs(double).max())


def test_forces_of_a_model_that_was_trained_without():
    predictor = force_field(energy=None, targets=("U0", "H"))
    assert "forces" not in predictor.predict([molecule("H2O")])
    with pytest.raises(UserError, match="no forces: with_forces"):
        predictor.hessian(molecule("H2O"))
    with pytest.raises(UserError, match="forces need an energy, one of U0, H; got 'mu'"):
        predictor.with_forces("mu")
    forces = predictor.with_forces("H").predict([molecule("H2O")])["forces"]
    assert np.isfinite(forces).all() and forces.any()


def test_predictors_refuse_graphs_made_for_another_model():
    """A graph with more arrays than are needed fits."""
    predictor = force_field()
    cutoff, needs, inputs = predictor.model.cutoff, predictor.model.needs, molecules("CH3CH2OH", "H2O")
    stores = [
        (GraphStore(*inputs, cutoff, (), "float64"), "expected atom_edges, received none$"),
        (GraphStore(*inputs, cutoff, needs, "float32"), "expected float64 positions, received float32$"),
        (GraphStore(*inputs, 0.9 * cutoff, needs, "float64"), "expected a cutoff of 5, received 4.5 .Angstrom.$"),
    ]
    for store, message in stores:
        graph = store.batch([0])
        for predict in (predictor.predict_graph, predictor.compute):
            for given in (graph, graph.to_tensors()):
                with pytest.raises(UserError, match=message):
                    predict(given)
        with pytest.raises(UserError, match=message):
            predictor.predict_store(store, np.arange(2))
    expected = predictor.predict_store(predictor.graph_store(*inputs), np.arange(2))
    more = GraphStore(*inputs, cutoff, ("atom_edges", "triplets"), "float64")
    for ours, theirs in zip(predictor.predict_store(more, np.arange(2)), expected):
        np.testing.assert_array_equal(ours, theirs)


def test_atom_shares_sum_to_the_property():
    predictor = force_field()
    N, Z, R = molecules("CH3CH2OH", "H2O")
    prediction = predictor.predict_store(predictor.graph_store(N, Z, R), np.arange(2))
    np.testing.assert_allclose(np.add.reduceat(prediction.shares[:, 0], [0, 9]), prediction.values[:, 0], rtol=1e-14)


def energy_head(scale=1.0):
    return scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [scale])


def random_errors(seed=0):
    """Predictions, labels and a graph of two molecules of 9 and 3 atoms."""
    rng = np.random.default_rng(seed)
    model = force_field().model
    graph = graph_of(*molecules("CH3CH2OH", "H2O"), model)
    prediction = Prediction(rng.normal(size=(2, 1)), np.zeros((12, 1)), rng.normal(size=(12, 3)))
    return prediction, rng.normal(size=(2, 1)), rng.normal(size=(12, 3)), graph


def test_loss_of_dimenet_is_equation_2():
    prediction, targets, forces, graph = random_errors()
    rho = 7.0
    loss = Loss("dimenet", rho, energy_head(2.0), "energy")
    loss = loss(prediction, targets, forces, graph.molecule_of_atom, graph.num_atoms).numpy()
    for m, atoms in enumerate((slice(0, 9), slice(9, 12))):
        expected = abs(prediction.values[m, 0] - targets[m, 0])
        expected += rho / (3 * (atoms.stop - atoms.start)) * np.abs(prediction.forces - forces)[atoms].sum()
        assert loss[m] == pytest.approx(expected / 2.0, rel=1e-12)


def test_loss_of_gemnet_is_equation_21():
    prediction, targets, forces, graph = random_errors()
    rho = 0.9
    loss = Loss("gemnet", rho, energy_head(), "energy")(
        prediction, targets, forces, graph.molecule_of_atom, graph.num_atoms
    ).numpy()
    for m, atoms in enumerate((slice(0, 9), slice(9, 12))):
        lengths = np.linalg.norm((prediction.forces - forces)[atoms], axis=1)
        expected = (1 - rho) * abs(prediction.values[m, 0] - targets[m, 0]) + rho * lengths.mean()
        assert loss[m] == pytest.approx(expected, rel=1e-12)


def test_squared_loss():
    prediction, targets, forces, graph = random_errors()
    loss = Loss("mse", None, energy_head(2.0), "energy")
    loss = loss(prediction, targets, forces, graph.molecule_of_atom, graph.num_atoms).numpy()
    for m, atoms in enumerate((slice(0, 9), slice(9, 12))):
        expected = 0.05 * (prediction.values[m, 0] - targets[m, 0]) ** 2
        expected += 0.95 * np.mean((prediction.forces - forces)[atoms] ** 2)
        assert loss[m] == pytest.approx(expected / 4.0, rel=1e-12)


@pytest.mark.parametrize("name", ["dimenet", "gemnet", "mse"])
def test_every_target_counts_once_and_leaves_the_balance_of_energy_and_forces(name):
    """The mean over targets of weight times mean over components; forces belong to the energy's term."""
    _, _, forces, graph = random_errors()
    rng = np.random.default_rng(1)
    parts = [Dipole("dipole", "e*Ang", 0.3), Sum("energy", "eV", 2.0), Polarizability("polarizability", "a0^3", 5.0)]
    prediction = Prediction(rng.normal(size=(2, 13)), np.zeros((12, 13)), rng.normal(size=(12, 3)))
    targets = rng.normal(size=(2, 13))
    weights = {"dipole": 0.1, "energy": 3.0}
    arguments = (graph.molecule_of_atom, graph.num_atoms)
    total = Loss(name, None, Head(parts), "energy", weights)(prediction, targets, forces, *arguments)
    alone = Prediction(prediction.values[:, 3:4], None, prediction.forces)
    energy = Loss(name, None, energy_head(2.0), "energy")(alone, targets[:, 3:4], forces, *arguments)
    size = np.square if name == "mse" else np.abs
    error = prediction.values - targets
    dipole, tensor = size(error[:, :3] / 0.3).mean(axis=1), size(error[:, 4:] / 5.0).mean(axis=1)
    np.testing.assert_allclose(total, (0.1 * dipole + 3.0 * energy + tensor) / 3, rtol=1e-12)


@pytest.mark.parametrize("name", ["dimenet", "gemnet", "mse"])
def test_loss_of_exact_forces_has_a_finite_slope(name):
    prediction, targets, forces, graph = random_errors()
    forces = tf.Variable(forces)
    with tf.GradientTape() as tape:
        exact = prediction._replace(forces=tf.concat([forces[:5], prediction.forces[5:]], axis=0))
        loss = Loss(name, None, energy_head(), "energy")
        total = tf.reduce_sum(loss(exact, targets, tf.constant(forces), graph.molecule_of_atom, graph.num_atoms))
    assert np.isfinite(tape.gradient(total, forces)).all()


def test_losses_without_forces():
    values = Prediction(np.array([[1.0, 4.0]]), np.zeros((9, 2)), np.zeros((0, 3)))
    head = scalar_head(["U0", "mu"], ["eV", "D"], np.zeros((2, 95)), [0.0, 0.0], [1.0, 2.0])
    loss = Loss("dimenet", None, head, None)(values, np.zeros((1, 2)), None, np.zeros(9), [9])
    assert loss.numpy().tolist() == [1.5]
    squared = Loss("mse", None, head, None, {"mu": 0.5})(values, np.zeros((1, 2)), None, np.zeros(9), [9])
    assert squared.numpy().tolist() == [(1.0 + 0.5 * 4.0) / 2]
    for arguments, message in (
        (("dimnet", None, head, "U0"), "training.loss must be one of dimenet, gemnet, mse; got 'dimnet'"),
        (("dimenet", 3.0, head, None), "needs forces"),
        (("gemnet", None, head, None), "needs forces"),
        (("gemnet", 100.0, head, "U0"), "must be at most 1"),
        (("mse", 100.0, head, "U0"), "must be at most 1"),
        (("mse", None, head, None, {"mv": 2.0}), "unknown target in training.weights 'mv'; did you mean 'mu'"),
        (("mse", None, head, "U0", {"forces": 2.0}), "the weight of the forces is training.rho_force"),
    ):
        with pytest.raises(UserError, match=message):
            Loss(*arguments)


@pytest.mark.parametrize("needs", [{"atom_edges"}, {"triplets"}, set()])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_skin_list_gives_the_graphs_of_a_fresh_search(needs, dtype):
    rng = np.random.default_rng(0)
    numbers, R = rng.integers(1, 9, 40), rng.uniform(0, 9, (40, 3))
    neighbors = SkinList(numbers, 4.0, 0.6, needs, dtype)
    for _ in range(30):
        R = R + rng.normal(0, 0.03, R.shape)
        R -= R.mean(axis=0)  # as a store centers them
        fresh = GraphStore([40], numbers, R, 4.0, needs, dtype).batch([0])
        for name, ours, theirs in zip(fresh._fields, neighbors.graph(R), fresh):
            if name == "positions":
                np.testing.assert_allclose(ours, theirs, atol=1e-6)
            else:
                np.testing.assert_array_equal(ours, theirs, err_msg=name)
            assert type(ours) is type(theirs) is tuple or ours.dtype == theirs.dtype, name
    assert 1 < neighbors.searches < 30
