"""Formulas of the bases, written by sympy and turned into TensorFlow functions.

The textbook form of a spherical Bessel function, j_l(z) = a_l(1/z) sin z + b_l(1/z) cos z, loses all digits to
cancellation at small arguments: in float32 j_6 has no correct digit below z = 1. Here sympy's formula is evaluated with
60 digits and becomes a Chebyshev series. The series is accurate to the dtype's precision on the whole interval, costs
one small matrix product, and its derivatives are series too.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pooch
import tensorflow as tf
from scipy.special import spherical_jn


@functools.cache
def bessel_series(num_spherical: int, num_radial: int) -> np.ndarray:
    """Return the Chebyshev coefficients of sqrt(2)/|j_(l+1)(z_ln)| j_l(z_ln x) on 0 <= x <= 1.

    The factor normalises the functions on the unit ball (DimeNet, Eq. 6). The coefficients are kept in the user's cache
    folder, because sympy takes longer for them than all other steps of making a model.

    Returns
    -------
    (terms, num_spherical, num_radial) float64, for the polynomials T_k(2x - 1)
    """
    file = Path(pooch.os_cache("dimenet_tf")) / f"bessel_series_1_{num_spherical}_{num_radial}.npy"
    try:
        series = np.load(file)
        if series.shape[1:] == (num_spherical, num_radial) and np.isfinite(series).all():
            return series
    except (OSError, ValueError, EOFError):  # missing or damaged
        pass
    series = make_bessel_series(num_spherical, num_radial)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}.npy")
        np.save(unfinished, series)
        unfinished.replace(file)
    except OSError:
        pass  # a read-only home: the next process computes them again
    return series


def make_bessel_series(num_spherical: int, num_radial: int) -> np.ndarray:
    """Compute the coefficients that `bessel_series` returns."""
    import sympy  # slow to import
    from mpmath import mp

    zeros = spherical_bessel_zeros(num_spherical, num_radial)
    terms = int(zeros.max() / 2) + 30  # from there on coefficients are below 1e-17
    angles = np.pi * (np.arange(terms) + 0.5) / terms
    nodes = (1 + np.cos(angles)) / 2
    z = sympy.Symbol("z", positive=True)
    values = np.empty((terms, num_spherical, num_radial))
    with mp.workdps(60):
        for degree, row in enumerate(zeros):
            formula = sympy.lambdify(z, sympy.expand_func(sympy.jn(degree, z)), "mpmath")
            for n, zero in enumerate(row):
                values[:, degree, n] = [formula(mp.mpf(zero) * mp.mpf(x)) for x in nodes]
    degrees = np.arange(num_spherical)[:, None]
    values *= np.sqrt(2) / np.abs(spherical_jn(degrees + 1, zeros))
    series = 2 / terms * np.tensordot(np.cos(np.outer(np.arange(terms), angles)), values, axes=1)
    series[0] /= 2
    series[np.abs(series) < 1e-15 * np.abs(series).max(axis=0)] = 0  # rounding errors that derivatives would amplify
    return series


def chebyshev(series: np.ndarray, x: tf.Tensor) -> tf.Tensor:
    """Evaluate Chebyshev series on 0 <= x <= 1: sum_k c_k T_k(2x - 1).

    Its gradient is the series of the derivative, to any order, and does not pass through the recursion of T_k.

    Parameters
    ----------
    series : (terms, functions) float64
    x : (n,)

    Returns
    -------
    (n, functions)
    """
    small = np.finfo(x.dtype.as_numpy_dtype).eps / 16 * np.abs(series).max(axis=0)
    terms = np.nonzero((np.abs(series) > small).any(axis=1))[0].max() + 1
    t = 2 * x - 1
    polynomials = [tf.ones_like(t), t]
    for _ in range(terms - 2):
        polynomials.append(2 * t * polynomials[-1] - polynomials[-2])
    polynomials = tf.stop_gradient(tf.stack(polynomials[:terms], axis=1))  # (n, terms)

    def derivative(order: int) -> Callable[[tf.Tensor], tf.Tensor]:
        coefficients = np.polynomial.chebyshev.chebder(series[:terms], order, scl=2)

        @tf.custom_gradient
        def value(x: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            def gradient(upstream: tf.Tensor) -> tf.Tensor:
                return tf.reduce_sum(upstream * derivative(order + 1)(x), axis=1)

            return polynomials[:, : len(coefficients)] @ tf.constant(coefficients, x.dtype), gradient

        return value

    return derivative(0)(x)


def horner(coefficients: list[float], x: tf.Tensor) -> tf.Tensor:
    """Evaluate a polynomial given by its coefficients, in ascending powers."""
    value = tf.fill(tf.shape(x), tf.constant(coefficients[-1], x.dtype))
    for c in reversed(coefficients[:-1]):
        value = value * x + tf.constant(c, x.dtype)
    return value


@functools.cache
def spherical_bessel_zeros(num_spherical: int, num_radial: int) -> np.ndarray:
    """Return the first positive zeros z_ln of j_0 ... j_(num_spherical-1), (num_spherical, num_radial) float64.

    The zeros of j_0 are n pi. Between two zeros of j_l lies exactly one zero of j_(l+1), which bisection finds.
    """
    count = num_radial + num_spherical - 1
    zeros = [np.arange(1, count + 1) * np.pi]
    for degree in range(1, num_spherical):
        low, high = zeros[-1][:-1], zeros[-1][1:]
        sign = np.sign(spherical_jn(degree, low))
        for _ in range(60):
            middle = (low + high) / 2
            before = np.sign(spherical_jn(degree, middle)) == sign
            low, high = np.where(before, middle, low), np.where(before, high, middle)
        zeros.append((low + high) / 2)
    return np.stack([z[:num_radial] for z in zeros])


def legendre(num_spherical: int, x: tf.Tensor) -> tf.Tensor:
    """Legendre polynomials P_0(x) ... P_(num_spherical-1)(x), (..., num_spherical).

    They are computed by Bonnet's recursion, because sympy's monomial form loses digits from degree 8 on.
    """
    values = [tf.ones_like(x), x]
    for degree in range(1, num_spherical - 1):
        a, b = (2 * degree + 1) / (degree + 1), degree / (degree + 1)
        values.append(a * x * values[-1] - b * values[-2])
    return tf.stack(values[:num_spherical], axis=-1)


def zonal_harmonics(num_spherical: int, cos_angle: tf.Tensor) -> tf.Tensor:
    """Real spherical harmonics with m = 0, Y_l0 = sqrt((2l+1)/(4 pi)) P_l(cos angle), (..., num_spherical)."""
    prefactors = [math.sqrt((2 * degree + 1) / (4 * math.pi)) for degree in range(num_spherical)]
    return legendre(num_spherical, cos_angle) * tf.constant(prefactors, cos_angle.dtype)


def spherical_harmonics(num_spherical: int, directions: tf.Tensor) -> tf.Tensor:
    """Real spherical harmonics Y_lm of unit vectors as polynomials in x, y, z, (..., 3) -> (..., num_spherical^2).

    The flat index is l^2 + l + m, m = -l ... l. With the polynomials Q_lm(z) = d^m P_l / dz^m and (x + iy)^m =
    A_m + i B_m, Y_lm = N_lm Q_lm(z) A_m for m >= 0 and N_l|m| Q_l|m|(z) B_|m| for m < 0. No angle is computed, so
    nothing is singular at the poles.
    """
    x, y, z = tf.unstack(directions, axis=-1)
    of_order = tf.gather(azimuthal_factors(num_spherical, x, y, axis=-1), orders(num_spherical), axis=-1)
    return polar_factors(num_spherical, z) * of_order


def degrees(num_spherical: int) -> np.ndarray:
    """Return the degree l of every harmonic, (num_spherical^2,) int."""
    return np.repeat(np.arange(num_spherical), 2 * np.arange(num_spherical) + 1)


def orders(num_spherical: int) -> np.ndarray:
    """Return the index in `azimuthal_factors` of the order m of every harmonic, (num_spherical^2,) int."""
    degree = degrees(num_spherical)
    return np.arange(num_spherical**2) - degree**2 - degree + num_spherical - 1


def official_order(num_spherical: int) -> list[int]:
    """Return the harmonics' indices in GemNet's and SphereNet's order: for each degree, m = 0 ... l, -l ... -1."""
    return [l**2 + m % (2 * l + 1) for l in range(num_spherical) for m in range(-l, l + 1)]  # noqa: E741


def azimuthal_factors(num_spherical: int, x: tf.Tensor, y: tf.Tensor, axis: int) -> tf.Tensor:
    """Return the factors of the harmonics that depend on x and y, stacked on an axis of 2 num_spherical - 1 orders m.

    They are A_m for m >= 0 and B_|m| for m < 0, with A_m + i B_m = (x + iy)^m. Shapes are arbitrary.
    """
    cosines, sines = circular_powers(num_spherical, x, y)
    return tf.stack([*sines[:0:-1], *cosines], axis=axis)


def circular_powers(count: int, x: tf.Tensor, y: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Return real and imaginary parts of (x + iy)^m, m = 0, 1, ..., count - 1, for any shapes."""
    cosines, sines = [tf.ones_like(x)], [tf.zeros_like(x)]
    for _ in range(1, count):
        a, b = cosines[-1], sines[-1]
        cosines.append(x * a - y * b)
        sines.append(x * b + y * a)
    return cosines, sines


def polar_factors(num_spherical: int, z: tf.Tensor) -> tf.Tensor:
    """Return the factors of the harmonics that depend on z, N_l|m| Q_l|m|(z), (...) -> (..., num_spherical^2).

    Derivatives of Legendre polynomials are sums of Legendre polynomials, so one product with constants gives them.
    """
    return legendre(num_spherical, z) @ tf.constant(polar_coefficients(num_spherical), z.dtype)


@functools.cache
def polar_coefficients(num_spherical: int) -> np.ndarray:
    """Return the coefficients of N_l|m| Q_l|m| in Legendre polynomials, (num_spherical, num_spherical^2)."""
    columns = []
    for degree in range(num_spherical):
        for m in np.abs(np.arange(-degree, degree + 1)):
            norm = (2 if m else 1) * (2 * degree + 1) / (4 * math.pi * math.perm(degree + m, 2 * m))
            derivative = np.polynomial.legendre.legder(np.eye(num_spherical)[degree], m)
            columns.append(np.pad(math.sqrt(norm) * derivative, (0, m)))
    return np.stack(columns, axis=1)


def by_harmonic(around: tf.Tensor, order: np.ndarray) -> tf.Tensor:
    """Gather `order` from the last axis, (..., orders) -> (..., harmonics), fast for large arrays.

    It is a product with zeros and ones, whose gradient is a product too. The gradient of a gather is a slow sum over
    rows.
    """
    return around @ tf.constant(np.eye(around.shape[-1])[:, order], around.dtype)
