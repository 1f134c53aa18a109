import numpy as np
import pytest
import tensorflow as tf
from conftest import DIMENETS, SMALL, graph_of, molecules, randomize

from dimenet_tf.errors import UserError
from dimenet_tf.layers import aggregation
from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.dense import BasisProjection, ResidualLayer
from dimenet_tf.layers.gathers import NeighborSlots, gather, reverse_edges, segment_sum
from dimenet_tf.layers.geometry import ANGLES, cos_angle, edge_vectors, safe_norm
from dimenet_tf.layers.initializers import GlorotOrthogonal, output_initializer, seed_stream
from dimenet_tf.models import build_model
from dimenet_tf.predictor.weights import named_variables


@pytest.mark.parametrize("shape", [(128, 128), (42, 8), (8, 64), (5, 1), (1, 1)])
def test_glorot_orthogonal(shape):
    w = GlorotOrthogonal(seed=1)(shape, tf.float64).numpy()
    gram = w @ w.T if shape[0] < shape[1] else w.T @ w
    np.testing.assert_allclose(gram, gram[0, 0] * np.eye(min(shape)), atol=1e-12)
    if w.size > 1:
        assert w.var() == pytest.approx(2 / sum(shape))


def test_seeds_of_a_stream_differ_and_repeat():
    first, second = seed_stream(3), seed_stream(3)
    a = [next(first) for _ in range(100)]
    assert len(set(a)) == 100 and a == [next(second) for _ in range(100)]


def test_no_two_weights_of_a_model_start_equal(model_name):
    kernels = [v.numpy() for v in named_variables(build_model(model_name, **SMALL[model_name])).values()]
    kernels = [k for k in kernels if k.ndim > 1]
    for i, a in enumerate(kernels):
        assert not any(a.shape == b.shape and np.array_equal(a, b) for b in kernels[:i])


def test_the_seed_decides_the_weights(model_name):
    def weights(seed):
        return build_model(model_name, seed=seed, **SMALL[model_name]).get_weights()

    assert all(np.array_equal(a, b) for a, b in zip(weights(1), weights(1)))
    assert not any(np.array_equal(a, b) for a, b in zip(weights(1), weights(2)) if a.ndim > 1)


def test_output_init_zeros_gives_zero_output(model_name):
    model = build_model(model_name, output_init="zeros", **SMALL[model_name])
    assert not model(graph_of(*molecules("CH3CH2OH"), model)).scalars.numpy().any()
    with pytest.raises(UserError, match="output_init must be one of zeros"):
        output_initializer("ones", 0)


def test_norm_and_its_derivatives_at_zero():
    v = tf.constant([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]])
    with tf.GradientTape() as second, tf.GradientTape() as first:
        first.watch(v)
        second.watch(v)
        length = safe_norm(v)
        slope = first.gradient(length, v)
    np.testing.assert_allclose(length, [0, 5])
    np.testing.assert_allclose(slope, [[0, 0, 0], [0.6, 0.8, 0]])
    assert np.isfinite(second.gradient(slope, v)).all()


def test_angles_are_what_their_names_say():
    # i at the origin, j on the x axis, k up from j: a right angle at j, 45 degrees at i
    v_ji, v_kj = tf.constant([1.0, 0.0, 0.0]), tf.constant([0.0, 1.0, 0.0])
    assert float(cos_angle("interior", v_kj, v_ji)) == 0
    assert float(cos_angle("at_target", v_kj, v_ji)) == pytest.approx(np.sqrt(0.5))
    # k, j, i in a line
    straight = [float(cos_angle(angle, v_ji, v_ji)) for angle in ANGLES]
    assert straight == [-1, 1, 1]


@pytest.mark.parametrize("radial_edge", ["kj", "ji"])
@pytest.mark.parametrize("angle", ANGLES)
def test_all_aggregations_are_the_same_sum(angle, radial_edge):
    rng = np.random.default_rng(0)
    model = build_model("dimenet", dtype="float64", **SMALL["dimenet"])
    triplet_model = build_model("dimenet", dtype="float64", aggregation="triplets", **SMALL["dimenet"])
    inputs = molecules("CH3CH2OH", "H2", "H", "C6H6")
    results = {}
    for name, way in aggregation.AGGREGATIONS.items():
        if name == "harmonics" and angle == "at_target":
            continue
        graph = graph_of(*inputs, triplet_model if "triplets" in way.needs else model)
        pairs = way(graph, angle, radial_edge)
        y = pairs.angular(edge_vectors(graph), model.sbf_layer)
        edges = len(graph.edge_source)
        x = tf.constant(np.random.default_rng(1).standard_normal((edges, 6)))
        radial = tf.constant(np.random.default_rng(2).standard_normal((edges, 7, 3)))
        kernel = tf.constant(rng.standard_normal((3, 6))) if not results else kernel  # noqa: F821
        results[name] = pairs.sum_outer(y, x, radial), pairs.sum_product(y, x, radial, kernel)
    for name, (outer, product) in results.items():
        assert outer.shape[1:] == (3, 6) and np.abs(outer).max() > 1
        np.testing.assert_allclose(outer, results["triplets"][0], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(product, results["triplets"][1], atol=1e-12, err_msg=name)


def derivatives(function, x, order) -> list[np.ndarray]:
    """The function and its derivatives at x."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        values = [function(x)]
        for _ in range(order):
            values.append(tape.gradient(values[-1], x))
    return [np.asarray(value) for value in values]


def test_swish_and_its_derivatives_are_tensorflows():
    x = tf.constant(np.linspace(-30, 30, 101))
    for ours, theirs in zip(derivatives(swish, x, 4), derivatives(lambda x: x * tf.sigmoid(x), x, 4)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_swish_of_bfloat16():
    x = tf.constant(np.linspace(-5, 5, 21), tf.bfloat16)
    for ours, exact in zip(derivatives(swish, x, 2), derivatives(swish, tf.cast(x, tf.float64), 2)):
        assert ours.dtype == tf.bfloat16.as_numpy_dtype
        np.testing.assert_allclose(ours.astype(float), exact, atol=0.02)


def test_gathers_and_their_derivatives_are_tensorflows():
    model = build_model("dimenet", dtype="float64", **SMALL["dimenet"])
    graph = graph_of(*molecules("CH3CH2OH", "H2", "H", "C6H6"), model)
    target, reverse, atoms = graph.edge_target, graph.edge_reverse, len(graph.atomic_numbers)
    rng = np.random.default_rng(0)
    x, weights = (tf.constant(rng.standard_normal((len(target), 3))) for _ in range(2))
    slots, table = NeighborSlots(graph), np.maximum(graph.atom_edges, 0)
    used = tf.cast(slots.used, x.dtype)[..., None]
    pairs = [
        (lambda x: segment_sum(x, target, atoms), lambda x: tf.math.unsorted_segment_sum(x, target, atoms)),
        (lambda x: gather(x, target), lambda x: tf.gather(x, target)),
        (lambda x: reverse_edges(x, reverse), lambda x: tf.gather(x, reverse)),
        (lambda x: slots.pad(x) * used, lambda x: tf.gather(x, table) * used),
        (lambda x: slots.unpad(slots.pad(x) ** 2 * used), lambda x: x**2),
    ]
    for functions in pairs:
        ours, theirs = (derivatives(lambda x, f=f: tf.reduce_sum(f(weights * x) ** 4), x, 2) for f in functions)
        for a, b in zip(ours, theirs):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", DIMENETS)
def test_recomputing_changes_no_number(name):
    """Energies, forces, and the gradients of a loss of both."""
    results = []
    for recompute in (False, True):
        model = randomize(build_model(name, dtype="float64", recompute=recompute, **SMALL[name]))
        graph = graph_of(*molecules("CH3CH2OH", "H2O"), model)

        @tf.function
        def step(positions, model=model, graph=graph):
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    inner.watch(positions)
                    energy = tf.reduce_sum(model(graph._replace(positions=positions)).scalars)
                slope = tf.convert_to_tensor(inner.gradient(energy, positions))
                loss = energy**2 + tf.reduce_sum(slope**2)
            return energy, slope, *outer.gradient(loss, model.trainable_variables)

        results.append(step(tf.constant(graph.positions)))
    for plain, again in zip(*results):
        scale = np.abs(tf.convert_to_tensor(plain)).max()
        np.testing.assert_allclose(tf.convert_to_tensor(again), tf.convert_to_tensor(plain), rtol=0, atol=1e-11 * scale)


def test_basis_projection_is_a_dense_layer_on_the_full_basis():
    rng = np.random.default_rng(0)
    radial, y = tf.constant(rng.standard_normal((9, 7, 6))), tf.constant(rng.standard_normal((9, 7)))
    layer = BasisProjection(5, seed=1, dtype="float64")
    projected = tf.einsum("el,elb->eb", y, layer(radial))
    full = tf.reshape(y[:, :, None] * radial, [9, 42])
    np.testing.assert_allclose(projected, full @ layer.kernel, atol=1e-12)


@pytest.mark.parametrize("layer", [ResidualLayer(4, seed=1), BasisProjection(3, seed=2)], ids=lambda layer: layer.name)
def test_layer_configuration_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()


def test_block_configurations_round_trip(model_name):
    model = build_model(model_name, **SMALL[model_name], separate_output_blocks=True, num_targets=2)
    for block in (model.emb_block, model.int_blocks[0], model.output_blocks[0], model.rbf_layer, model.sbf_layer):
        assert type(block).from_config(block.get_config()).get_config() == block.get_config()


def test_harmonics_need_the_angle_at_the_shared_atom():
    with pytest.raises(
        ValueError, match="aggregation = 'harmonics' needs the angle at the shared atom; .* conventions = 'corrected'"
    ):
        build_model("dimenet", aggregation="harmonics", **SMALL["dimenet"])


def test_unknown_aggregation():
    with pytest.raises(UserError, match="aggregation must be one of auto"):
        aggregation.choose_aggregation("pairs", "interior", "sum_first")
