import sys

import numpy as np
import pytest
import sympy
import tensorflow as tf
from scipy.special import spherical_jn

from dimenet_tf.basis import (
    BareBessel,
    BareGaussians,
    BesselBasis,
    CosineCutoff,
    Envelope,
    GaussianBasis,
    SphericalBasis,
)
from dimenet_tf.basis.formulas import (
    bessel_series,
    chebyshev,
    legendre,
    make_bessel_series,
    spherical_bessel_zeros,
    spherical_harmonics,
    zonal_harmonics,
)

CUTOFF = 5.0
DISTANCES = np.linspace(0.05, CUTOFF, 20001)


def envelope64(x: np.ndarray, exponent: int = 5) -> np.ndarray:
    """DimeNet Eq. 8, as printed."""
    p = exponent + 1
    return 1 - (p + 1) * (p + 2) / 2 * x**p + p * (p + 2) * x ** (p + 1) - p * (p + 1) / 2 * x ** (p + 2)


def bessel64(num_spherical: int, num_radial: int, x: np.ndarray) -> np.ndarray:
    """(n, num_spherical, num_radial) from SciPy."""
    zeros = spherical_bessel_zeros(num_spherical, num_radial)
    return np.stack(
        [
            np.stack([spherical_jn(d, z * x) * np.sqrt(2) / abs(spherical_jn(d + 1, z)) for z in zeros[d]], axis=-1)
            for d in range(num_spherical)
        ],
        axis=1,
    )


@pytest.mark.parametrize("over_x", [False, True])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-13)])
def test_spherical_basis_is_scipys(dtype, tolerance, over_x):
    basis = SphericalBasis(7, 6, CUTOFF, over_x=over_x, dtype=dtype)
    d = DISTANCES.astype(dtype)
    x = d.astype(float) / CUTOFF
    expected = bessel64(7, 6, x) * (envelope64(x) / (x if over_x else 1))[:, None, None]
    error = np.abs(basis.radial(tf.constant(d)).numpy() - expected)
    assert (error.max(axis=0) / np.abs(expected).max(axis=0)).max() < tolerance


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-13)])
def test_radial_basis(dtype, tolerance):
    d = DISTANCES.astype(dtype)
    x = d.astype(float)[:, None] / CUTOFF
    expected = envelope64(x) / x * np.sin(np.pi * np.arange(1, 7) * x)
    error = np.abs(BesselBasis(6, CUTOFF, dtype=dtype)(tf.constant(d)).numpy() - expected)
    assert (error.max(axis=0) / np.abs(expected).max(axis=0)).max() < tolerance


def test_derivatives_of_the_series_are_scipys():
    """Value, first and, by the differential equation of the Bessel functions, second and third derivative."""
    x = np.array([0.0, 1e-3, 0.1, 0.7, 1.0])
    series = bessel_series(7, 6).reshape(-1, 42)
    for column in (0, 5, 14, 41):
        degree, zero = column // 6, spherical_bessel_zeros(7, 6).ravel()[column]
        norm = np.sqrt(2) / abs(spherical_jn(degree + 1, zero))
        point = tf.constant(x)
        values = []
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(point)
            values.append(chebyshev(series[:, column : column + 1], point)[:, 0])
            for _ in range(3):
                values.append(tape.gradient(values[-1], point))
        j, slope = spherical_jn(degree, zero * x) * norm, spherical_jn(degree, zero * x, derivative=True) * norm * zero
        np.testing.assert_allclose(values[0], j, atol=1e-13 * norm)
        np.testing.assert_allclose(values[1], slope, atol=1e-10 * norm)
        curvature = degree * (degree + 1) * j - 2 * x * slope - (zero * x) ** 2 * j
        np.testing.assert_allclose(x**2 * values[2], curvature, atol=1e-9 * norm)
        # the derivative of that equation; digits are lost from derivative to derivative
        third = (degree * (degree + 1) - 2 - (zero * x) ** 2) * slope - 2 * x * (values[2] + zero**2 * j)
        np.testing.assert_allclose(x**2 * values[3] + 2 * x * values[2], third, atol=1e-5 * norm)


@pytest.mark.parametrize("content", [None, b"", b"no array"])
def test_series_are_kept_on_disk(tmp_path, monkeypatch, content):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    if content is not None:
        (tmp_path / "dimenet_tf").mkdir()
        (tmp_path / "dimenet_tf" / "bessel_series_1_2_3.npy").write_bytes(content)
    made = bessel_series.__wrapped__(2, 3)
    (file,) = (tmp_path / "dimenet_tf").iterdir()
    assert file.name == "bessel_series_1_2_3.npy"
    np.testing.assert_array_equal(np.load(file), made)
    np.save(file, made + 1)  # it is read
    np.testing.assert_array_equal(bessel_series.__wrapped__(2, 3), made + 1)


def test_what_is_kept_is_what_sympy_makes():
    np.testing.assert_allclose(bessel_series(7, 6), make_bessel_series(7, 6), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nothing_is_left_far_beyond_the_cutoff(dtype):
    d = tf.constant([CUTOFF, 1.01 * CUTOFF, 10 * CUTOFF, 1e4 * CUTOFF], dtype)
    assert np.abs(SphericalBasis(7, 16, CUTOFF, dtype=dtype).radial(d)).max() == 0


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "dimenet_tf").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert bessel_series.__wrapped__(2, 3).shape[1:] == (2, 3)


def test_zeros_are_zeros_and_none_is_missing():
    zeros = spherical_bessel_zeros(7, 6)
    assert zeros.shape == (7, 6)
    for degree, row in enumerate(zeros):
        assert np.abs(spherical_jn(degree, row)).max() < 1e-14
        grid = np.linspace(1e-3, row[-1] + 0.1, 10_000)
        assert (np.diff(np.sign(spherical_jn(degree, grid))) != 0).sum() == 6


def test_legendre_is_sympys():
    x = np.linspace(-1, 1, 101)
    ours = legendre(11, tf.constant(x)).numpy()
    for degree in range(11):
        np.testing.assert_allclose(ours[:, degree], [float(sympy.legendre(degree, sympy.Float(v, 30))) for v in x])


def test_spherical_harmonics_are_sympys():
    rng = np.random.default_rng(0)
    u = np.concatenate([rng.standard_normal((5, 3)), np.eye(3), -np.eye(3)])
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    ours = spherical_harmonics(5, tf.constant(u)).numpy()
    theta, phi = np.arccos(u[:, 2]), np.arctan2(u[:, 1], u[:, 0])
    for degree in range(5):
        for m in range(-degree, degree + 1):
            for value, a, b in zip(ours[:, degree**2 + degree + m], theta, phi):
                y = complex(sympy.Ynm(degree, abs(m), sympy.Float(a, 30), sympy.Float(b, 30)).evalf(20))
                expected = y.real if m == 0 else (-1) ** m * np.sqrt(2) * (y.real if m > 0 else y.imag)
                assert value == pytest.approx(expected, abs=1e-14)


@pytest.mark.parametrize("num_spherical", [1, 2, 7, 10])
def test_addition_theorem(num_spherical):
    rng = np.random.default_rng(0)
    u, v = rng.standard_normal((2, 20, 3))
    u, v = (w / np.linalg.norm(w, axis=1, keepdims=True) for w in (u, v))
    products = spherical_harmonics(num_spherical, tf.constant(u)) * spherical_harmonics(num_spherical, tf.constant(v))
    cosine = tf.constant((u * v).sum(axis=1))
    for degree, y in enumerate(tf.unstack(zonal_harmonics(num_spherical, cosine), axis=1)):
        total = tf.reduce_sum(products[:, degree**2 : (degree + 1) ** 2], axis=1)
        np.testing.assert_allclose(total, y * np.sqrt((2 * degree + 1) / (4 * np.pi)), atol=1e-13)


@pytest.mark.parametrize("num_spherical", [1, 2, 7])
def test_harmonics_are_orthonormal_on_the_sphere(num_spherical):
    nodes, weights = np.polynomial.legendre.leggauss(20)
    y = zonal_harmonics(num_spherical, tf.constant(nodes)).numpy()
    gram = 2 * np.pi * np.einsum("q,qa,qb->ab", weights, y, y)
    np.testing.assert_allclose(gram, np.eye(num_spherical), atol=1e-13)


def test_radial_functions_are_orthonormal_on_the_unit_ball():
    nodes, weights = np.polynomial.legendre.leggauss(60)
    x, w = (nodes + 1) / 2, weights / 2
    basis = SphericalBasis(7, 6, 1.0, dtype="float64")
    without_envelope = basis.radial(tf.constant(x)).numpy() / envelope64(x)[:, None, None]
    gram = np.einsum("q,qla,qlb->lab", w * x**2, without_envelope, without_envelope)
    np.testing.assert_allclose(gram, np.broadcast_to(np.eye(6), (7, 6, 6)), atol=1e-8)


@pytest.mark.parametrize("exponent", [0, 1, 5, 8])
def test_envelope_is_the_papers_polynomial(exponent):
    x = np.linspace(0, 1, 101)
    np.testing.assert_allclose(Envelope(exponent, dtype="float64")(tf.constant(x)), envelope64(x, exponent), atol=1e-12)


LAYERS = [
    BesselBasis(6, CUTOFF, dtype="float64"),
    GaussianBasis(8, CUTOFF, dtype="float64"),
    SphericalBasis(7, 6, CUTOFF, dtype="float64"),
    SphericalBasis(7, 6, CUTOFF, over_x=True, dtype="float64"),
    SphericalBasis(3, 8, CUTOFF, radial_basis="gaussian", dtype="float64"),
]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: f"{layer.name}")
def test_value_and_two_derivatives_vanish_at_the_cutoff(layer):
    function = layer.radial if isinstance(layer, SphericalBasis) else layer
    for distance in (CUTOFF * (1 - 1e-12), CUTOFF, CUTOFF + 0.3):
        d = tf.constant([distance], tf.float64)
        direction = tf.ones_like(function(d))
        with tf.GradientTape() as second, tf.GradientTape() as first:
            first.watch(d)
            second.watch(d)
            value = tf.reduce_sum(function(d) * direction)
            slope = first.gradient(value, d)
        curvature = second.gradient(slope, d)
        assert abs(float(value)) < 1e-9 and abs(float(slope[0])) < 1e-9 and abs(float(curvature[0])) < 1e-6


def test_zero_distance_of_padding_is_finite():
    d = tf.constant([0.0])
    for layer in (BesselBasis(6, CUTOFF), BareBessel(6, CUTOFF), SphericalBasis(7, 6, CUTOFF, over_x=True)):
        function = layer.radial if isinstance(layer, SphericalBasis) else layer
        with tf.GradientTape() as tape:
            tape.watch(d)
            value = function(d)
        assert np.isfinite(value).all() and np.isfinite(tape.gradient(value, d)).all()


def test_two_dimensional_basis_is_the_product_in_the_documented_order():
    basis = SphericalBasis(7, 6, CUTOFF, dtype="float64")
    d, cos = tf.constant([1.3, 2.9], tf.float64), tf.constant([-0.4, 0.7], tf.float64)
    flat = basis((d, cos)).numpy()
    for degree, n in [(0, 0), (2, 5), (6, 1)]:
        expected = basis.radial(d).numpy()[:, degree, n] * zonal_harmonics(7, cos).numpy()[:, degree]
        np.testing.assert_allclose(flat[:, degree * 6 + n], expected)


def test_frequencies_are_trainable_and_start_at_multiples_of_pi():
    basis = BesselBasis(4, CUTOFF)
    basis(tf.constant([1.0]))
    np.testing.assert_allclose(basis.trainable_variables[0], np.pi * np.arange(1, 5), rtol=1e-6)


def test_cosine_cutoff():
    x = tf.constant([0.0, 0.3, 1 - 1e-9, 1.0, 1.2], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = CosineCutoff(dtype="float64")(x)
    slope = tape.gradient(value, x).numpy()
    inside = x.numpy()[:3]
    np.testing.assert_allclose(value, [*0.5 * (1 + np.cos(np.pi * inside)), 0, 0], atol=1e-16)
    np.testing.assert_allclose(slope, [*-np.pi / 2 * np.sin(np.pi * inside), 0, 0], atol=1e-14)


BARE = [BareBessel(6, CUTOFF), BareGaussians(8, CUTOFF)]


@pytest.mark.parametrize("layer", [*LAYERS, *BARE, Envelope(3, over_x=True)], ids=lambda layer: f"{layer.name}")
def test_configuration_round_trip(layer):
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
