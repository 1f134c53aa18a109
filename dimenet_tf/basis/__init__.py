"""Bases: Keras layers that turn distances and angles into features, by formulas of sympy."""

from dimenet_tf.basis.envelope import CUTOFFS, CosineCutoff, Envelope
from dimenet_tf.basis.radial import BARE_BASES, RADIAL_BASES, BareBessel, BareGaussians, BesselBasis, GaussianBasis
from dimenet_tf.basis.spherical import SphericalBasis

__all__ = [
    "BARE_BASES",
    "CUTOFFS",
    "RADIAL_BASES",
    "BareBessel",
    "BareGaussians",
    "BesselBasis",
    "CosineCutoff",
    "Envelope",
    "GaussianBasis",
    "SphericalBasis",
]
