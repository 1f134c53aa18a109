"""The formulas behind the bases, written by sympy and turned into TensorFlow functions.

The textbook form of a spherical Bessel function, j_l(z) = a_l(1/z) sin z + b_l(1/z) cos z, cancels to nothing at small
arguments: in float32 j_6 has no correct digit below z = 1. Its power series is exact there. `spherical_bessel` uses
each where it is good, in value and in every derivative.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import tensorflow as tf
from scipy.optimize import brentq
from scipy.special import spherical_jn

SERIES_TERMS = 16  # enough for float64 below the argument where `spherical_bessel` changes over


@functools.cache
def spherical_bessel_coefficients(degree: int) -> tuple[list[float], list[float], list[float]]:
    """Return the coefficients of j_l in its two forms, lowest power first.

    Returns
    -------
    sine, cosine : coefficients of a_l and b_l, polynomials in 1/z
    series : coefficients c_k of j_l(z) = z^l sum_k c_k z^(2k)
    """
    import sympy  # here, not above: it costs half a second that a program which only loads data need not pay

    z, inverse = sympy.symbols("z inverse", positive=True)
    formula = sympy.expand(sympy.expand_func(sympy.jn(degree, z)))

    def polynomial(expression) -> list[float]:
        terms = sympy.Poly(expression.subs(z, 1 / inverse), inverse)
        return [float(c) for c in reversed(terms.all_coeffs())]

    double_factorial = sympy.factorial2
    series = [
        float(sympy.Rational((-1) ** k, 2**k * sympy.factorial(k) * double_factorial(2 * degree + 2 * k + 1)))
        for k in range(SERIES_TERMS)
    ]
    return polynomial(formula.coeff(sympy.sin(z))), polynomial(formula.coeff(sympy.cos(z))), series


def horner(coefficients: list[float], x: tf.Tensor) -> tf.Tensor:
    """Evaluate a polynomial given by its coefficients, lowest power first."""
    value = tf.fill(tf.shape(x), tf.constant(coefficients[-1], x.dtype))
    for c in reversed(coefficients[:-1]):
        value = value * x + tf.constant(c, x.dtype)
    return value


def spherical_bessel(degree: int, z: tf.Tensor) -> tf.Tensor:
    """Spherical Bessel function j_l of the first kind for z >= 0, any shape."""
    sine, cosine, series = spherical_bessel_coefficients(degree)
    change = tf.constant(0.75 * degree + 1, z.dtype)  # error of the closed form below 1e-6 of the maximum in float32
    small = z < change
    # two `where`: the branch not taken must be finite too, or its gradient is NaN times zero
    large_z = tf.where(small, change, z)
    small_z = tf.where(small, z, tf.zeros_like(z))
    inverse = 1 / large_z
    closed = horner(sine, inverse) * tf.sin(large_z) + horner(cosine, inverse) * tf.cos(large_z)
    power = tf.ones_like(z)
    for _ in range(degree):  # not small_z**degree, whose gradient at zero is NaN
        power *= small_z
    return tf.where(small, power * horner(series, small_z * small_z), closed)


@functools.cache
def spherical_bessel_zeros(num_spherical: int, num_radial: int) -> np.ndarray:
    """Return the first positive zeros z_ln of j_0 ... j_(num_spherical-1), (num_spherical, num_radial) float64.

    The zeros of j_0 are n pi, and between two zeros of j_l lies exactly one of j_(l+1).
    """
    count = num_radial + num_spherical - 1
    zeros = [np.arange(1, count + 1) * np.pi]
    for degree in range(1, num_spherical):
        bracket = zeros[-1]
        zeros.append(
            np.array(
                [
                    brentq(functools.partial(spherical_jn, degree), a, b, xtol=4e-15, rtol=9e-16)
                    for a, b in zip(bracket[:-1], bracket[1:])
                ]
            )
        )
    return np.stack([z[:num_radial] for z in zeros])


def legendre(num_spherical: int, x: tf.Tensor) -> tf.Tensor:
    """Legendre polynomials P_0(x) ... P_(num_spherical-1)(x), (..., num_spherical).

    By Bonnet's recursion: sympy's monomial form loses digits from degree 8 on.
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
