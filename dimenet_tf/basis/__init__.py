"""sympy formulas as Keras layers."""

from dimenet_tf.basis.envelope import Envelope
from dimenet_tf.basis.radial import RADIAL_BASES, BesselBasis, GaussianBasis
from dimenet_tf.basis.spherical import SphericalBasis

__all__ = ["RADIAL_BASES", "BesselBasis", "Envelope", "GaussianBasis", "SphericalBasis"]
