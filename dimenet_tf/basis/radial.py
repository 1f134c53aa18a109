"""Radial bases: features of distances, (edges,) Angstrom -> (edges, num_radial)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tensorflow as tf

from dimenet_tf.basis.envelope import Envelope
from dimenet_tf.errors import UserError


class BesselBasis(tf.keras.layers.Layer):
    """Radial Bessel basis with trainable frequencies, DimeNet Eq. 7, times the envelope.

    e_n(d) = u(x)/x sin(f_n x) with x = d/cutoff and f_n = n pi at the start. The paper's constant factor
    sqrt(2/cutoff)/cutoff is left to the weights, as in the release.

    Parameters
    ----------
    num_radial : int
    cutoff : float, Angstrom
    envelope_exponent : int
    """

    def __init__(self, num_radial: int, cutoff: float, envelope_exponent: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_radial = num_radial
        self.cutoff = cutoff
        self.envelope_exponent = envelope_exponent
        self.envelope = Envelope(envelope_exponent, over_x=True, dtype=self.dtype)

    def build(self, input_shape: tf.TensorShape) -> None:
        frequencies = math.pi * np.arange(1, self.num_radial + 1)
        self.frequencies = self.add_weight(
            "frequencies", shape=[self.num_radial], initializer=tf.constant_initializer(frequencies)
        )

    def call(self, distance: tf.Tensor) -> tf.Tensor:
        x = (distance / self.cutoff)[:, None]  # (edges, 1)
        return self.envelope(x) * tf.sin(self.frequencies * x)  # (edges, num_radial)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_radial": self.num_radial,
            "cutoff": self.cutoff,
            "envelope_exponent": self.envelope_exponent,
        }


class GaussianBasis(tf.keras.layers.Layer):
    """Gaussians with evenly spaced centers, times the envelope: the ablation of DimeNet, Table 3.

    g_n(d) = u(x) exp(-(d - o_n)^2 / (2 w^2)), centers o_n from 0 to the cutoff, width w = their spacing.

    Parameters
    ----------
    num_radial : int, at least 2 (64 in the paper's ablation)
    cutoff : float, Angstrom
    envelope_exponent : int
    """

    def __init__(self, num_radial: int, cutoff: float, envelope_exponent: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_radial < 2:
            raise UserError(f"num_radial must be at least 2 for Gaussians; got {num_radial}", "num_radial")
        self.num_radial = num_radial
        self.cutoff = cutoff
        self.envelope_exponent = envelope_exponent
        self.envelope = Envelope(envelope_exponent, dtype=self.dtype)

    def call(self, distance: tf.Tensor) -> tf.Tensor:
        d = distance[:, None]  # (edges, 1)
        width = self.cutoff / (self.num_radial - 1)
        gaussians = tf.exp(-((d - self.center(d.dtype)) ** 2) / (2 * width**2))
        return self.envelope(d / self.cutoff) * gaussians  # (edges, num_radial)

    def center(self, dtype: tf.DType) -> tf.Tensor:
        """Return the centers, (num_radial,)."""
        return tf.constant(np.linspace(0, self.cutoff, self.num_radial), dtype)

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_radial": self.num_radial,
            "cutoff": self.cutoff,
            "envelope_exponent": self.envelope_exponent,
        }


class StoredGaussianBasis(GaussianBasis):
    """`GaussianBasis` whose centers are weights that are not trained, because published files have them rounded."""

    def build(self, input_shape: tf.TensorShape) -> None:
        self.centers = fixed(self, "centers", np.linspace(0, self.cutoff, self.num_radial))

    def center(self, dtype: tf.DType) -> tf.Tensor:
        return tf.cast(self.centers, dtype)


class BareBessel(tf.keras.layers.Layer):
    """Radial Bessel functions without an envelope and with fixed frequencies: PaiNN, Sec. 4.1.

    e_n(d) = sin(f_n d)/d with f_n = n pi/cutoff, without a prefactor. The frequencies are weights that are not trained,
    because published files contain them as rounded numbers.

    Parameters
    ----------
    num_radial : int
    cutoff : float, Angstrom
    """

    def __init__(self, num_radial: int, cutoff: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_radial = num_radial
        self.cutoff = cutoff

    def build(self, input_shape: tf.TensorShape) -> None:
        frequencies = math.pi * np.arange(1, self.num_radial + 1) / self.cutoff
        self.frequencies = fixed(self, "frequencies", frequencies)

    def call(self, distance: tf.Tensor) -> tf.Tensor:
        d = distance[:, None]  # (edges, 1)
        # only padding has a distance of zero; the basis is zero there, without a division by zero
        positive = d > 0
        inverse = tf.where(positive, 1 / tf.where(positive, d, tf.ones_like(d)), tf.zeros_like(d))
        return tf.sin(self.frequencies * d) * inverse  # (edges, num_radial)

    def get_config(self) -> dict:
        return {**super().get_config(), "num_radial": self.num_radial, "cutoff": self.cutoff}


class BareGaussians(tf.keras.layers.Layer):
    """Gaussians without an envelope, as PaiNN's published weights have them.

    g_n(d) = exp(-(d - o_n)^2 / (2 w_n^2)), centers o_n from 0 to the cutoff, widths w_n = their spacing; both are
    weights that are not trained.

    Parameters
    ----------
    num_radial : int, at least 2
    cutoff : float, Angstrom
    """

    def __init__(self, num_radial: int, cutoff: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_radial < 2:
            raise UserError(f"num_radial must be at least 2 for Gaussians; got {num_radial}", "num_radial")
        self.num_radial = num_radial
        self.cutoff = cutoff

    def build(self, input_shape: tf.TensorShape) -> None:
        centers, width = np.linspace(0, self.cutoff, self.num_radial, retstep=True)
        self.centers = fixed(self, "centers", centers)
        self.widths = fixed(self, "widths", np.full(self.num_radial, width))

    def call(self, distance: tf.Tensor) -> tf.Tensor:
        return tf.exp(-0.5 * ((distance[:, None] - self.centers) / self.widths) ** 2)  # (edges, num_radial)

    def get_config(self) -> dict:
        return {**super().get_config(), "num_radial": self.num_radial, "cutoff": self.cutoff}


def fixed(layer: tf.keras.layers.Layer, name: str, values: np.ndarray) -> tf.Variable:
    """Add a weight that is not trained to a layer."""
    return layer.add_weight(name, values.shape, initializer=tf.constant_initializer(values), trainable=False)


RADIAL_BASES: dict[str, type[tf.keras.layers.Layer]] = {"bessel": BesselBasis, "gaussian": GaussianBasis}
STORED_BASES: dict[str, type[tf.keras.layers.Layer]] = {"bessel": BesselBasis, "gaussian": StoredGaussianBasis}
BARE_BASES: dict[str, type[tf.keras.layers.Layer]] = {"bessel": BareBessel, "gaussian": BareGaussians}
