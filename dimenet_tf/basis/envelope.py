"""Smooth cutoff functions."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from dimenet_tf.basis.formulas import horner


class Envelope(tf.keras.layers.Layer):
    """Polynomial envelope u(x) of DimeNet, Eq. 8, with u = u' = u'' = 0 at x = 1 and beyond.

    With p = `exponent` + 1 (the release's exponent 5 is the paper's p = 6),
    u(x) = 1 - (p+1)(p+2)/2 x^p + p(p+2) x^(p+1) - p(p+1)/2 x^(p+2). It is evaluated in the equal form
    (1-x)^3 sum_(k<p) (k+1)(k+2)/2 x^k, which has no cancellation near the cutoff.

    Parameters
    ----------
    exponent : int, at least 0
    over_x : bool
        Return u(x)/x, as the released DimeNet does. It diverges for small x; at x = 0 it is set to zero.
    """

    def __init__(self, exponent: int = 5, over_x: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.exponent = exponent
        self.over_x = over_x
        self._coefficients = [(k + 1) * (k + 2) / 2 for k in range(exponent + 1)]

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Evaluate at x = distance / cutoff, any shape -> same shape."""
        rest = tf.nn.relu(1 - x)
        u = rest * rest * rest * horner(self._coefficients, x)
        if not self.over_x:
            return u
        # only padding has a distance of zero; the result is zero there instead of infinity
        positive = x > 0
        return tf.where(positive, u / tf.where(positive, x, tf.ones_like(x)), tf.zeros_like(x))

    def get_config(self) -> dict:
        return {**super().get_config(), "exponent": self.exponent, "over_x": self.over_x}


class CosineCutoff(tf.keras.layers.Layer):
    """Behler's cutoff, 0.5 (1 + cos(pi x)) for x < 1 and 0 beyond (PaiNN, Sec. 4.1).

    Value and slope vanish at x = 1, the curvature jumps there from pi^2/2 to 0: energies and forces are continuous, the
    second derivative of the energy is not.
    """

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Evaluate at x = distance / cutoff, any shape -> same shape."""
        return tf.cos(math.pi / 2 * tf.minimum(x, tf.ones_like(x))) ** 2  # without cancellation near x = 1


CUTOFFS: dict[str, type[tf.keras.layers.Layer]] = {"cosine": CosineCutoff, "polynomial": Envelope}


def make_cutoff(envelope: str, envelope_exponent: int, **kwargs: Any) -> tf.keras.layers.Layer:
    """Return the smooth cutoff of a name in `CUTOFFS`; the exponent is that of the polynomial."""
    polynomial = {"exponent": envelope_exponent} if envelope == "polynomial" else {}
    return CUTOFFS[envelope](**polynomial, **kwargs)
