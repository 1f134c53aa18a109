"""Bases: Keras layers that turn distances and angles into features, by formulas of sympy."""

from dimenet_tf.basis.envelope import CUTOFFS, CosineCutoff, Envelope, make_cutoff
from dimenet_tf.basis.radial import (
    BARE_BASES,
    RADIAL_BASES,
    STORED_BASES,
    BareBessel,
    BareGaussians,
    BesselBasis,
    GaussianBasis,
    StoredGaussianBasis,
)
from dimenet_tf.basis.spherical import CircularBasis, SphericalBasis

__all__ = [
    "BARE_BASES",
    "CUTOFFS",
    "RADIAL_BASES",
    "STORED_BASES",
    "BareBessel",
    "BareGaussians",
    "BesselBasis",
    "CircularBasis",
    "CosineCutoff",
    "Envelope",
    "GaussianBasis",
    "SphericalBasis",
    "StoredGaussianBasis",
    "make_cutoff",
]
