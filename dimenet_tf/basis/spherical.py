"""Two-dimensional spherical Fourier-Bessel basis: features of distances and angles."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dimenet_tf.basis.envelope import Envelope
from dimenet_tf.basis.formulas import bessel_series, chebyshev, spherical_harmonics, zonal_harmonics
from dimenet_tf.basis.radial import STORED_BASES, GaussianBasis


class SphericalBasis(tf.keras.layers.Layer):
    """Spherical Fourier-Bessel basis, DimeNet Eq. 6, times the envelope.

    a_ln(d, angle) = u(x) B_ln(x) Y_l0(angle), B_ln(x) = sqrt(2)/|j_(l+1)(z_ln)| j_l(z_ln x), x = d/cutoff. The paper's
    constant factor cutoff^(-3/2) is left to the weights, as in the release.

    The basis is a product, and models use its two factors (`radial` per edge, `angular` per pair of edges). So they
    never store num_spherical * num_radial numbers per triplet.

    Parameters
    ----------
    num_spherical, num_radial : int
    cutoff : float, Angstrom
    envelope_exponent : int
    radial_basis : "bessel" or "gaussian" (the ablation of DimeNet, Table 3: Gaussians instead of u(x) B_ln(x))
    over_x : bool
        Multiply by a further 1/x, as the released DimeNet does.
    enveloped : bool
        Multiply by the envelope. False gives the Bessel functions of the released SphereNet, whose slope at the cutoff
        is not zero.
    """

    def __init__(
        self,
        num_spherical: int,
        num_radial: int,
        cutoff: float,
        envelope_exponent: int = 5,
        radial_basis: str = "bessel",
        over_x: bool = False,
        enveloped: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_spherical = num_spherical
        self.num_radial = num_radial
        self.cutoff = cutoff
        self.envelope_exponent = envelope_exponent
        self.radial_basis = radial_basis
        self.over_x = over_x
        self.enveloped = enveloped
        self.built = True  # no weights; models use its factors without calling it
        self.make_radial()

    def make_radial(self) -> None:
        """Make what `radial` needs."""
        if self.radial_basis == "gaussian":
            self.gaussians = GaussianBasis(self.num_radial, self.cutoff, self.envelope_exponent, dtype=self.dtype)
            return
        self.envelope = Envelope(self.envelope_exponent, over_x=self.over_x, dtype=self.dtype)
        self.series = bessel_series(self.num_spherical, self.num_radial)

    def radial(self, distance: tf.Tensor) -> tf.Tensor:
        """Return the radial factor, (edges,) Angstrom -> (edges, num_spherical, num_radial)."""
        if self.radial_basis == "gaussian":
            return tf.repeat(self.gaussians(distance)[:, None], self.num_spherical, axis=1)
        x = tf.minimum(distance / self.cutoff, 1)  # the series ends there, and the envelope is zero beyond
        bessel = chebyshev(self.series.reshape(len(self.series), -1), x)  # (edges, num_spherical * num_radial)
        product = self.envelope(x)[:, None] * bessel if self.enveloped else bessel
        return tf.reshape(product, [-1, self.num_spherical, self.num_radial])

    def angular(self, cos_angle: tf.Tensor) -> tf.Tensor:
        """Return the angular factor Y_l0, cosines of any shape -> (..., num_spherical)."""
        return zonal_harmonics(self.num_spherical, cos_angle)

    def harmonics(self, directions: tf.Tensor) -> tf.Tensor:
        """Return harmonics of all orders of unit vectors, (n, 3) -> (n, num_spherical^2)."""
        return spherical_harmonics(self.num_spherical, directions)

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Evaluate at distances and cosines, (n,) each: (n, num_spherical * num_radial), index l * num_radial + n."""
        distance, cos_angle = inputs
        product = self.angular(cos_angle)[:, :, None] * self.radial(distance)
        return tf.reshape(product, [-1, self.num_spherical * self.num_radial])

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "num_spherical": self.num_spherical,
            "num_radial": self.num_radial,
            "cutoff": self.cutoff,
            "envelope_exponent": self.envelope_exponent,
            "radial_basis": self.radial_basis,
            "over_x": self.over_x,
            "enveloped": self.enveloped,
        }


class CircularBasis(SphericalBasis):
    """Radial basis times Y_l0(angle): the same radial functions for every degree (GemNet of OC20).

    The frequencies of the Bessel functions are trained, as those of `BesselBasis`.

    Parameters
    ----------
    num_spherical, num_radial : int
    cutoff : float, Angstrom
    envelope_exponent : int
    radial_basis : "bessel" or "gaussian"
    """

    def make_radial(self) -> None:
        self.functions = STORED_BASES[self.radial_basis](
            self.num_radial, self.cutoff, self.envelope_exponent, dtype=self.dtype
        )

    def radial(self, distance: tf.Tensor) -> tf.Tensor:
        return tf.repeat(self.functions(distance)[:, None], self.num_spherical, axis=1)
