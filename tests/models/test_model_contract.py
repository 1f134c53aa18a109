"""Contract of all models (parametrized over `MODELS` and the options that change the path)."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from ase import Atoms
from ase.build import molecule
from scipy.spatial.transform import Rotation

from dimenet_tf.errors import UserError
from dimenet_tf.graph import NEEDS, GraphStore, graph_signature
from dimenet_tf.md import DimeNetCalculator
from dimenet_tf.models import MODELS, build_model
from dimenet_tf.models.hyperparameters import hyperparameters
from dimenet_tf.structures.molecules import join_atoms
from helpers.models import SMALL, energies, force_field, graph_of, randomize
from helpers.molecules import molecules

VARIANTS = [(name, dict(options)) for name, kind in MODELS.items() for options in kind.variants]


def option(variant, key):
    """Value of a hyperparameter in a variant, None for models that do not have it."""
    name, options = variant
    return {**hyperparameters(MODELS[name]), **options}.get(key)


# the published torsion has a sense of rotation and jumps where the neighbor it is measured to changes
# (docs/conventions.md)
JUMPING = [variant for variant in VARIANTS if option(variant, "torsion") == "published"]
AGGREGATED = [variant for variant in VARIANTS if option(variant, "aggregation") is not None]
WITH_VECTORS = [variant for variant in VARIANTS if option(variant, "num_vectors")]
# the published form of each model, other kinds of forces, and forces that do not jump
SERVED = [
    (name, {key: value for key, value in options.items() if key != "num_targets"})
    for name, options in VARIANTS
    if not options or options.get("direct_forces") or options.get("torsion") == "smooth"
]


def name_of(variant) -> str:
    return f"{variant[0]}-{'-'.join(map(str, variant[1].values())) or 'default'}"


# the published form of each model is tested on every Python
@pytest.fixture(params=[pytest.param(v, id=name_of(v), marks=() if v[1] else pytest.mark.smoke) for v in VARIANTS])
def variant(request):
    return request.param


def make(variant, dtype="float64"):
    """Return a model of random weights, to be changed as a test likes."""
    name, options = variant
    return randomize(build_model(name, dtype=dtype, **{**SMALL[name], **options}))


@functools.cache
def made(number: int, dtype: str):
    return make(VARIANTS[number], dtype)


def model_of(variant, dtype="float64"):
    """Return the model that all tests share: leave its weights as they are."""
    return made(VARIANTS.index(variant), dtype)


@pytest.fixture
def model(variant):
    return model_of(variant)


def assert_same(found, expected):
    """Two computations of the same sums are identical, but on GPUs, which add in any order."""
    if tf.config.list_physical_devices("GPU"):
        tolerance = 1e-12 if expected.dtype == tf.float64 else 1e-5
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()
    else:
        np.testing.assert_array_equal(found, expected)


ETHANOL = molecules("CH3CH2OH")


@pytest.mark.parametrize("handedness", [1, -1])
def test_rotation_reflection_translation(variant, model, handedness):
    N, Z, R = ETHANOL  # looks like its mirror image
    R = R + 0.2 * np.random.default_rng(0).standard_normal(R.shape)
    moved = handedness * R @ Rotation.random(random_state=0).as_matrix().T + [3.0, -5.0, 8.0]
    before, after = energies(model, N, Z, R), energies(model, N, Z, moved)
    if variant in JUMPING and handedness == -1:
        assert np.abs(after - before).max() > 1e-4 * np.abs(before).max()
    else:
        np.testing.assert_allclose(after, before, rtol=1e-11)


@pytest.mark.parametrize("handedness", [1, -1])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("variant", WITH_VECTORS, ids=name_of)
def test_vectors_turn_with_the_molecule(variant, dtype, tolerance, handedness):
    model, (N, Z, R) = model_of(variant, dtype), ETHANOL
    turn = handedness * Rotation.random(random_state=0).as_matrix().T
    before = model(graph_of(N, Z, R, model)).vectors.numpy()
    after = model(graph_of(N, Z, R @ turn, model)).vectors.numpy()
    assert before.shape == (len(Z), variant[1]["num_vectors"], 3) and np.abs(before).max() > 1e-3
    assert np.abs(after - before @ turn).max() <= tolerance * np.abs(before).max()


def test_permutation_of_atoms(model):
    N, Z, R = ETHANOL
    order = np.random.default_rng(0).permutation(len(Z))
    before = model(graph_of(N, Z, R, model)).scalars.numpy()
    after = model(graph_of(N, Z[order], R[order], model)).scalars.numpy()
    np.testing.assert_allclose(after, before[order], rtol=1e-11, atol=1e-12)


def test_a_batch_is_its_molecules(model):
    names = ["CH3CH2OH", "H", "H2", "C6H6"]
    single = np.concatenate([energies(model, *molecules(name)) for name in names])
    np.testing.assert_allclose(energies(model, *molecules(*names)), single, rtol=1e-11)


def test_padding_atoms_change_nothing(model):
    """A padding atom is an ordinary atom with Z = 0, far from all others, in a molecule of its own."""
    N, Z, R = ETHANOL
    padded = np.append(N, 3), np.append(Z, [0, 0, 0]), np.concatenate([R, 1e4 * np.eye(3)])
    np.testing.assert_allclose(energies(model, *padded)[:1], energies(model, N, Z, R), rtol=1e-11)


def test_isolated_atoms_and_no_edges_at_all(model):
    assert np.isfinite(energies(model, *molecules("O", "H"))).all()
    far = np.array([[0.0, 0, 0], [100, 0, 0]])
    apart = energies(model, [2], np.array([8, 1]), far)
    np.testing.assert_allclose(apart, energies(model, *molecules("O", "H")).sum(axis=0, keepdims=True), atol=1e-12)


def test_every_weight_has_a_gradient(model):
    graph = graph_of(*molecules("CH3CH2OH", "C6H6"), model)
    with tf.GradientTape() as tape:
        outputs = model(graph)
        loss = sum(tf.reduce_sum(array**2) for array in outputs)
    for variable, gradient in zip(model.trainable_variables, tape.gradient(loss, model.trainable_variables)):
        assert gradient is not None, variable.name
        assert np.isfinite(tf.convert_to_tensor(gradient)).all(), variable.name
        assert np.any(tf.convert_to_tensor(gradient)), variable.name


def gradient_of(model, N, Z, R, second: bool = False):
    """Gradient of the first target's sum and, if asked, of the squared gradient."""
    graph = graph_of(N, Z, R, model)
    positions = tf.constant(graph.positions)
    with tf.GradientTape() as outer:
        outer.watch(positions)
        with tf.GradientTape() as inner:
            inner.watch(positions)
            energy = tf.reduce_sum(model(graph._replace(positions=positions)).scalars[:, 0])
        slope = tf.convert_to_tensor(inner.gradient(energy, positions))
        square = tf.reduce_sum(slope**2)
    return slope.numpy(), tf.convert_to_tensor(outer.gradient(square, positions)).numpy() if second else None


def test_forces_are_finite_differences(model):
    N, Z, R = ETHANOL
    slope, _ = gradient_of(model, N, Z, R)
    step, places = 1e-5, [(0, 0), (3, 1), (8, 2)]
    moved = []
    for atom, axis in places:
        for factor in (-2, -1, 1, 2):
            moved.append(R.copy())
            moved[-1][atom, axis] += factor * step
    copies = len(moved)
    values = energies(model, np.tile(N, copies), np.tile(Z, copies), np.concatenate(moved))[:, 0]
    for (atom, axis), (a, b, c, d) in zip(places, values.reshape(-1, 4)):
        numeric = (a - 8 * b + 8 * c - d) / (12 * step)
        assert slope[atom, axis] == pytest.approx(numeric, rel=1e-6, abs=1e-6 * np.abs(slope).max())


@pytest.mark.parametrize("name", ["CO2", "HCN", "C2H2", "H2"])
def test_linear_molecules_have_finite_derivatives(model, name):
    slope, curvature = gradient_of(model, *molecules(name), second=True)
    assert np.isfinite(slope).all() and np.isfinite(curvature).all()


def derivatives(model, distance: float) -> np.ndarray:
    """Energy of water and a hydroxyl group, whose oxygens have this distance, and its first two derivatives."""
    N, Z, R = molecules("H2O")
    R = np.concatenate([R, R[:1] + [[0, 0, distance], [0.9, 0, distance + 0.3]]])
    graph, shift = graph_of(N + 2, np.append(Z, [8, 1]), R, model), tf.zeros([], tf.float64)
    with tf.GradientTape() as outer:
        outer.watch(shift)
        with tf.GradientTape() as inner:
            inner.watch(shift)
            positions = tf.constant(R) + shift * tf.constant([[0, 0, 0]] * 3 + [[0, 0, 1]] * 2, tf.float64)
            energy = tf.reduce_sum(model(graph._replace(positions=positions)).scalars[:, 0])
        slope = inner.gradient(energy, shift)
    return np.array([energy, slope, outer.gradient(slope, shift)])


@pytest.mark.parametrize("variant", [variant for variant in VARIANTS if variant not in JUMPING], ids=name_of)
def test_energy_is_smooth_where_an_atom_crosses_a_cutoff(variant, model):
    """Value, first and second derivative on both sides come together with the distance; the cosine's second do not."""
    jumps = [bool(model.discontinuity), False, option(variant, "envelope") == "cosine"]
    for cutoff in model.cutoffs:
        assert np.abs(derivatives(model, 0.9 * cutoff)[1:]).min() > 1e-6
        wide, narrow = (np.abs(derivatives(model, cutoff + h) - derivatives(model, cutoff - h)) for h in (1e-2, 1e-4))
        assert (narrow > 0.05 * wide + 1e-9).tolist() == jumps


# other options change no shapes
SUMS = {"aggregation", "conventions", "torsion", "triplets_only"}
COMPILED = [variant for variant in VARIANTS if SUMS.issuperset(variant[1])]


@pytest.mark.parametrize("variant", COMPILED, ids=name_of)
def test_xla_computes_the_same_energies_and_forces(variant):
    """The graph of a crystal and a molecule has all index arrays."""
    model = model_of(variant)
    graph = crystals_of([CRYSTAL, METHANOL], model).batch([0, 1]).to_tensors()

    def energies_and_slopes(graph):
        with tf.GradientTape() as tape:
            tape.watch(graph.positions)
            scalars = model(graph).scalars
        return scalars, tape.gradient(scalars, graph.positions)

    # the graph is an argument: XLA would fold a constant one away
    signature = graph_signature(model.dtype, model.needs, periodic=True)
    compiled = tf.function(energies_and_slopes, [signature], jit_compile=True)
    for found, expected in zip(compiled(graph), energies_and_slopes(graph)):
        assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


# lattice vectors as long as the cutoffs: many edges join the same atoms, and atoms to themselves
CRYSTAL = Atoms(
    "OCH",
    cell=[[2.9, 0.2, 0.1], [0.7, 3.1, 0], [-0.5, 0.3, 3.3]],
    pbc=True,
    scaled_positions=[[0.12, 0.1, 0.1], [0.5, 0.43, 0.62], [0.9, 0.8, 0.3]],
)
METHANOL = molecule("CH3OH")


def crystals_of(frames, model) -> GraphStore:
    """Store of crystals and molecules."""
    some = join_atoms(frames)
    return model.graph_store(*some[:3], *some.cell_arrays())


def sums(frames, model) -> np.ndarray:
    """Sum of the atoms' first scalars of each crystal or molecule, (structures,)."""
    graph = crystals_of(frames, model).batch(range(len(frames)))
    return tf.math.unsorted_segment_sum(model(graph).scalars[:, 0], graph.molecule_of_atom, len(frames)).numpy()


def test_crystals(model):
    """Supercells, other cells of the lattice, other images of atoms, molecules in a large cell, mixed batches."""
    other = CRYSTAL.copy()
    other.set_cell(np.array([[1, 0, 0], [2, 1, 0], [0, -1, -1]]) @ CRYSTAL.cell.array)  # skewed, left-handed
    moved = CRYSTAL.copy()
    moved.positions[0] += 5 * CRYSTAL.cell.array[0] - 3 * CRYSTAL.cell.array[2]
    boxed = METHANOL.copy()
    boxed.set_cell([40, 41, 42])
    boxed.pbc = True
    boxed.positions += 39
    frames = [CRYSTAL, CRYSTAL * (2, 2, 2), other, moved, METHANOL, boxed]
    one, eight, left, shifted, free, inside = sums(frames, model)
    np.testing.assert_allclose([eight / 8, left, shifted], one, rtol=1e-11)
    assert inside == pytest.approx(free, rel=1e-11)
    np.testing.assert_allclose([sums([frame], model)[0] for frame in (CRYSTAL, METHANOL)], [one, free], rtol=1e-11)
    wire = CRYSTAL.copy()
    wire.pbc = [True, False, True]
    assert abs(sums([wire], model)[0] - one) > 1e-6 * abs(one)


CONSERVATIVE = [variant for variant in VARIANTS if not option(variant, "direct_forces") and variant not in JUMPING]


@pytest.mark.parametrize("variant", CONSERVATIVE, ids=name_of)
def test_stress_is_a_finite_difference(variant):
    """In float64, of the energy of strained crystals, 1e-7 relative."""
    name, options = variant
    options = {key: value for key, value in options.items() if key not in ("num_targets", "num_vectors")}
    predictor = force_field(name, periodic=True, **options)
    step, factors, strains = 1e-4, (-2, -1, 1, 2), []
    for i, j in ((0, 0), (1, 2)):
        for factor in factors:
            strains.append(np.eye(3))
            strains[-1][i, j] += factor * step / 2
            strains[-1][j, i] += factor * step / 2
    frames = [CRYSTAL]
    for strain in strains:
        frames.append(CRYSTAL.copy())
        frames[-1].set_cell(CRYSTAL.cell.array @ strain, scale_atoms=True)
    predicted = predictor.predict(frames)
    stress = predicted["stress"][0]
    np.testing.assert_allclose(stress, stress.T, atol=0)
    for (i, j), (a, b, c, d) in zip(((0, 0), (1, 2)), predicted["energy"][1:].reshape(-1, 4)):
        numeric = (a - 8 * b + 8 * c - d) / (12 * step) / CRYSTAL.get_volume()
        assert abs(stress[i, j] - numeric) < 1e-7 * np.abs(stress).max() + 1e-8
    assert np.abs(predicted["forces"][0].sum(axis=0)).max() < 1e-9 * np.abs(predicted["forces"][0]).max()


@pytest.mark.parametrize("variant", AGGREGATED, ids=name_of)
def test_aggregations_agree(variant):
    name, options = variant
    if options.get("embeddings") == "nodes":
        options = {}
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        results = []
        for way in ("triplets", "sum_first", "harmonics"):
            if way == "harmonics" and getattr(model_of(variant), "angle", None) == "at_target":
                continue
            model = randomize(build_model(name, dtype=dtype, **{**SMALL[name], **options, "aggregation": way}))
            results.append(energies(model, *molecules("CH3CH2OH", "C6H6", "CO2", "H")))
        for result in results[1:]:
            assert np.abs(result - results[0]).max() <= tolerance * np.abs(results[0]).max()


def test_float32_is_close_to_float64(variant):
    single, double = model_of(variant, "float32"), make(variant, "float64")
    double.set_weights(single.get_weights())
    inputs = molecules("CH3CH2OH", "C6H6")
    a, b = energies(single, *inputs), energies(double, *inputs)
    assert a.dtype == np.float32 and b.dtype == np.float64
    assert np.abs(a - b).max() <= 1e-5 * np.abs(b).max()


def test_mixed_precision_stays_finite_and_close(variant):
    if variant[1].get("embeddings") == "nodes":
        with pytest.raises(UserError, match="embeddings = 'nodes' is not available in mixed_bfloat16"):
            make(variant, "mixed_bfloat16")
        return
    single, mixed = model_of(variant, "float32"), make(variant, "mixed_bfloat16")
    mixed.set_weights(single.get_weights())
    inputs = molecules("CH3CH2OH", "C6H6", "CO2", "H")
    expected, got = energies(single, *inputs), energies(mixed, *inputs)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - expected).max() <= 0.1 * np.abs(expected).max()
    slope, curvature = gradient_of(mixed, *molecules("CO2"), second=True)
    assert np.isfinite(slope).all() and np.isfinite(curvature).all()
    assert {v.dtype for v in mixed.variables} == {tf.float32}


def test_one_trace_for_all_sizes(variant):
    model = model_of(variant, "float32")
    traces = []

    @tf.function(input_signature=[graph_signature("float32", model.needs)])
    def call(graph):
        traces.append(1)
        return model(graph).scalars

    for names in (["CH3CH2OH"], ["H"], ["C6H6", "H2O"], ["CO2", "H", "H2"]):
        inputs = molecules(*names)
        graph = graph_of(*inputs, model)
        np.testing.assert_allclose(call(graph), model(graph).scalars, rtol=1e-4, atol=1e-5)
    assert len(traces) == 1


def test_graph_store_makes_what_the_model_takes(variant):
    for dtype in ("float32", "float64"):
        model = model_of(variant, dtype)
        store, expected = model.graph_store(*ETHANOL), graph_of(*ETHANOL, model)
        assert (store.cutoff, store.needs, store.dtype) == (model.cutoff, model.needs, dtype)
        for ours, theirs in zip(store.batch([0]), expected):
            np.testing.assert_array_equal(ours, theirs)
        assert_same(model(store.batch([0])).scalars, model(expected).scalars)
        model(expected.to_tensors()._replace(cutoff=tf.constant(np.float32(model.cutoff), tf.float64)))


def test_graphs_of_another_cutoff_are_refused(model):
    """A symbolic cutoff is checked when the function runs."""
    called = tf.function(lambda graph: model(graph).scalars, input_signature=[graph_signature("float64", model.needs)])
    called(graph_of(*ETHANOL, model))
    for factor in (0.8, 1.0001, 1.2):
        cutoff = factor * model.cutoff
        graph = GraphStore(*ETHANOL, cutoff, model.needs, "float64", far_cutoff=model.far_cutoff).batch([0])
        message = rf"graph_store\(N, Z, R\)\): expected a cutoff of {model.cutoff:g}, received"
        for given in (graph, graph.to_tensors()):
            with pytest.raises(UserError, match=f"{message} {cutoff:.9g} .Angstrom.$"):
                model(given)
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            called(graph)


def test_graphs_of_another_dtype_or_without_what_is_needed_are_refused(model):
    incomplete = [needed for needed in [(), *NEEDS] if not model.needs <= {needed}] if model.needs else []
    wrong = [("float32", model.needs, "expected float64 positions, received float32")]
    wrong += [("float64", needs, "expected .*, received none") for needs in incomplete]
    for dtype, needs, message in wrong:
        message = rf"graph_store\(N, Z, R\)\): {message}"
        graph = GraphStore(*ETHANOL, model.cutoff, needs, dtype, far_cutoff=2 * model.cutoff).batch([0])
        for given in (graph, graph.to_tensors()):
            with pytest.raises(UserError, match=f"{message}$"):
                model(given)
        for autograph, error in ((False, UserError), (True, Exception)):  # AutoGraph raises errors of its own type
            called = tf.function(model, input_signature=[graph_signature(dtype, needs)], autograph=autograph)
            with pytest.raises(error, match=message):
                called(graph)


def test_configuration_round_trip(model):
    twin = type(model).from_config(model.get_config())
    assert twin.get_config() == model.get_config()
    graph = graph_of(*ETHANOL, model)
    twin(graph)
    twin.set_weights(model.get_weights())
    assert_same(twin(graph).scalars, model(graph).scalars)


def test_keras_saves_and_loads(variant, tmp_path):
    model = model_of(variant, "float32")
    model.save(tmp_path / "model.keras")
    loaded = tf.keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model) and loaded.get_config() == model.get_config()
    graph = graph_of(*ETHANOL, model)
    assert_same(loaded(graph).scalars, model(graph).scalars)


@pytest.mark.parametrize(
    "name, options",
    [pytest.param(*v, id=name_of(v), marks=() if len(v[1]) > 1 else pytest.mark.smoke) for v in SERVED],
)
def test_served_and_moved_by_ase(name, options, tmp_path):
    """Predictor, SavedModel and ASE's calculator give the same energy and forces."""
    predictor, atoms = force_field(name, **options), molecule("CH3CH2OH")
    atoms.rattle(0.1, seed=0)
    expected = predictor.predict([atoms])
    predictor.export(tmp_path / "1")
    served = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    answer = served(Z=tf.constant(atoms.numbers[None], tf.int32), R=tf.constant(atoms.positions[None], tf.float64))
    atoms.calc = DimeNetCalculator(predictor)
    for name, own in (("energy", atoms.get_potential_energy()), ("forces", atoms.get_forces())):
        np.testing.assert_allclose(answer[name][0], expected[name][0], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(own, expected[name][0], rtol=1e-9, atol=1e-9)


def test_every_model_has_sizes_for_tests():
    for kind in MODELS.values():
        assert set(kind.small) <= set(hyperparameters(kind)) and {} in kind.variants


def test_wrong_choices_are_named():
    for name in MODELS:
        for key in MODELS[name].choices:
            with pytest.raises(ValueError, match=f"^{key} must be one of .*; got 'nonsense'"):
                build_model(name, **{key: "nonsense"})
    with pytest.raises(UserError, match="unknown model 'dimnet'; did you mean 'dimenet'"):
        build_model("dimnet")


def test_molecules_of_ase_are_what_the_helper_says():
    assert molecule("CH3CH2OH").numbers.tolist() == ETHANOL[1].tolist()
