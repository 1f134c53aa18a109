"""SphereNet: Liu, Wang, Liu, Zhang, Oztekin, Ji, "Spherical Message Passing for 3D Graph Networks", 2021."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from dimenet_tf.basis import BesselBasis, SphericalBasis
from dimenet_tf.basis.formulas import degrees, official_order
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.layers.activations import dense_activations
from dimenet_tf.layers.dense import BasisProjection, dense, linear
from dimenet_tf.layers.embedding import EmbeddingBlock
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.interaction import SkipUpdate
from dimenet_tf.layers.output import AtomOutputs, OutputBlock, atom_outputs
from dimenet_tf.layers.pictures import Diagram, Picture, directional_diagram, filter_disks, torsion_disks
from dimenet_tf.layers.torsions import JUMPS, SphericalSums, kept_harmonics
from dimenet_tf.models.hyperparameters import Hyperparameters

NUM_TORSION_FILTERS = 6  # of a picture, as in Fig. 8


class InteractionBlock(SkipUpdate):
    """Spherical message passing (Fig. 7): that of DimeNet++, times a factor for the torsion.

    y_ji = swish(W m_ji + b) + up(sum_k sbf W1 W2 * tbf W3 W4 * down(rbf W5 W6 * swish(W m_kj + b))), then `SkipUpdate`.

    Parameters
    ----------
    emb_size, int_emb_size, num_before_skip, num_after_skip, seed : int
    basis_emb_size_dist, basis_emb_size_angle, basis_emb_size_torsion : int
    torsion : bool
    """

    def __init__(
        self,
        emb_size: int,
        int_emb_size: int,
        basis_emb_size_dist: int,
        basis_emb_size_angle: int,
        basis_emb_size_torsion: int,
        num_before_skip: int,
        num_after_skip: int,
        torsion: bool,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.torsion = torsion
        seeds, policy, dtype = seed_stream(seed), self.dtype_policy, self.dtype
        self.dense_ji = dense(emb_size, next(seeds), dtype=policy)
        self.dense_kj = dense(emb_size, next(seeds), dtype=policy)
        self.dense_rbf1 = linear(basis_emb_size_dist, next(seeds), dtype=dtype)
        self.dense_rbf2 = linear(emb_size, next(seeds), dtype=dtype)
        self.dense_sbf1 = BasisProjection(basis_emb_size_angle, next(seeds), dtype=dtype)
        self.dense_sbf2 = linear(int_emb_size, next(seeds), dtype=dtype)
        if torsion:
            self.dense_tbf1 = BasisProjection(basis_emb_size_torsion, next(seeds), dtype=dtype)
            self.dense_tbf2 = linear(int_emb_size, next(seeds), dtype=dtype)
        self.down_projection = dense(int_emb_size, next(seeds), use_bias=False, dtype=policy)
        self.up_projection = dense(emb_size, next(seeds), use_bias=False, dtype=policy)
        self.make_update(emb_size, num_before_skip, num_after_skip, seeds)

    def build(self, input_shape: tf.TensorShape) -> None:
        # Never called: `SphericalSums` uses the kernels directly.
        self.dense_sbf2.build([None, self.dense_sbf1.units])
        if self.torsion:
            self.dense_tbf2.build([None, self.dense_tbf1.units])
        super().build(input_shape)

    def call(
        self, m: tf.Tensor, rbf: tf.Tensor, sbf: tf.Tensor, tbf: tf.Tensor | None, sums: SphericalSums
    ) -> tf.Tensor:
        x_ji = self.dense_ji(m)  # (edges, emb_size)
        x_kj = self.dense_kj(m) * tf.cast(self.dense_rbf2(self.dense_rbf1(rbf)), x_ji.dtype)
        x_kj = tf.cast(self.down_projection(x_kj), rbf.dtype)  # (edges, int_emb_size)
        gates = [(sums.zonal, self.dense_sbf1(sbf), self.dense_sbf2.kernel)]
        if self.torsion:
            gates.append((sums.harmonics, self.dense_tbf1(tbf), self.dense_tbf2.kernel))
        x_kj = sums.sum_gated(x_kj, gates)  # sum over k
        return self.update(m, x_ji + self.up_projection(x_kj))


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class SphereNet(Hyperparameters, tf.keras.Model):
    """SphereNet model. `model(graph)` returns `AtomOutputs` with scalars (atoms, num_targets).

    The published torsion of k about j -> i is measured to the next neighbor of j. Where two neighbors change their
    order, the energy jumps, and a mirror image has another energy: for forces choose `torsion: smooth`.

    Parameters
    ----------
    emb_size : int
        Size of the message embeddings.
    out_emb_size : int
        Width of the output blocks.
    int_emb_size : int
        Size of the messages while they are summed over neighbors.
    basis_emb_size_dist, basis_emb_size_angle, basis_emb_size_torsion : int
        Sizes to which the bases are reduced.
    num_blocks : int
        Interaction blocks.
    num_spherical, num_radial : int
        Degrees of the spherical harmonics, and radial functions of each.
    cutoff : float
        Angstrom.
    envelope_exponent : int
        p - 1 of the envelope (DimeNet, Eq. 8).
    num_before_skip, num_after_skip : int
        Residual layers.
    num_dense_output : int
        Dense layers of the output blocks.
    num_targets : int
    output_init : "GlorotOrthogonal" or "zeros"
    extensive : bool
        Used by the head: sum or mean over atoms.
    conventions : "official" or "corrected"
        Formulas of the released weights, or of the paper: Bessel functions of the harmonics' degree (Eq. 4), torsions
        as in Fig. 4, and the envelope on all bases. The embedding block is that of the release in both.
    torsion : "published", "smooth" or "none"
        Torsion to one neighbor; a mean over all, continuous and the same for mirror images (see
        `dimenet_tf.layers.torsions.smooth_torsions`); none, the ablations of Table 4: "w/o phi", and with
        `num_spherical: 1` "w/o (theta, phi)".
    seed : int

    Examples
    --------
    >>> import dimenet_tf
    >>> sizes = {"emb_size": 16, "out_emb_size": 24, "num_blocks": 2}
    >>> dimenet_tf.build_model("SphereNet", **sizes).discontinuity
    'model.torsion: published makes energies jump where neighbors change their order; ...'
    >>> dimenet_tf.build_model("SphereNet", torsion="smooth", **sizes).discontinuity
    ''
    """

    choices = {
        "conventions": ("official", "corrected"),
        "torsion": ("published", "smooth", "none"),
        "output_init": ("zeros", "GlorotOrthogonal"),
    }
    meaning = ("cutoff", "envelope_exponent", "conventions", "torsion", "extensive")
    small = {
        "num_spherical": 4,
        "num_radial": 4,
        "num_blocks": 2,
        "emb_size": 16,
        "out_emb_size": 24,
        "int_emb_size": 8,
        "basis_emb_size_dist": 4,
        "basis_emb_size_angle": 5,
        "basis_emb_size_torsion": 6,
        "num_dense_output": 2,
        "cutoff": 3.0,
    }
    variants = (
        {},
        {"conventions": "corrected"},
        {"conventions": "corrected", "torsion": "smooth"},
        {"conventions": "corrected", "torsion": "none", "num_spherical": 1},
    )

    def __init__(
        self,
        emb_size: int = 128,
        out_emb_size: int = 256,
        int_emb_size: int = 64,
        basis_emb_size_dist: int = 8,
        basis_emb_size_angle: int = 8,
        basis_emb_size_torsion: int = 8,
        num_blocks: int = 4,
        num_spherical: int = 7,
        num_radial: int = 6,
        cutoff: float = 5.0,
        envelope_exponent: int = 5,
        num_before_skip: int = 1,
        num_after_skip: int = 2,
        num_dense_output: int = 3,
        num_targets: int = 1,
        output_init: str = "GlorotOrthogonal",
        extensive: bool = True,
        conventions: str = "official",
        torsion: str = "published",
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        if num_spherical == 1 and torsion != "none":
            raise UserError(
                "num_spherical = 1 leaves no angles and no torsions; set torsion to 'none'", "num_spherical"
            )
        official = conventions == "official"
        published = "next" if official else "previous"
        self.torsion_rule = published if torsion == "published" else torsion
        self.needs = SphericalSums.needs
        policy, seeds = self.dtype_policy, seed_stream(seed)

        self.rbf_layer = BesselBasis(num_radial, cutoff, envelope_exponent, dtype=self.dtype)
        self.sbf_layer = SphericalBasis(
            num_spherical, num_radial, cutoff, envelope_exponent, enveloped=not official, dtype=self.dtype
        )
        self.bessel_degrees = self.degrees_of_harmonics(official)
        self.emb_block = EmbeddingBlock(emb_size, activate_rbf=True, seed=next(seeds), dtype=policy)
        self.int_blocks = [
            InteractionBlock(
                emb_size,
                int_emb_size,
                basis_emb_size_dist,
                basis_emb_size_angle,
                basis_emb_size_torsion,
                num_before_skip,
                num_after_skip,
                torsion != "none",
                seed=next(seeds),
                dtype=policy,
            )
            for _ in range(num_blocks)
        ]
        self.output_blocks = [
            OutputBlock(
                emb_size=emb_size,
                num_dense_output=num_dense_output,
                num_targets=num_targets,
                output_init=output_init,
                seed=next(seeds),
                out_emb_size=out_emb_size,
                up_bias=True,
                dtype=self.dtype,
            )
            for _ in range(num_blocks + 1)
        ]

    def degrees_of_harmonics(self, official: bool) -> np.ndarray:
        """Return the degree of the Bessel functions that multiply each harmonic, (num_harmonics,) int.

        The release takes the degree from the place of the harmonic in its list instead of from the harmonic.
        """
        listed = np.array(official_order(self.num_spherical)) % self.num_spherical
        degree = listed if official else degrees(self.num_spherical)
        return degree[kept_harmonics(self.num_spherical, self.torsion)]

    def call(self, graph: Graph) -> AtomOutputs:
        vectors = edge_vectors(graph)  # (edges, 3)
        distance = safe_norm(vectors)  # (edges,)
        rbf = self.rbf_layer(distance)  # (edges, num_radial)
        sbf = self.sbf_layer.radial(distance)  # (edges, num_spherical, num_radial)
        tbf = None if self.torsion == "none" else tf.gather(sbf, self.bessel_degrees, axis=1)  # (edges, h, num_radial)
        sums = SphericalSums(graph, vectors, self.sbf_layer, self.torsion_rule)

        m = self.emb_block(rbf, graph)  # (edges, emb_size)
        outputs = self.output_blocks[0](m, rbf, graph)  # (atoms, num_targets)
        for interaction, output in zip(self.int_blocks, self.output_blocks[1:]):
            m = interaction(m, rbf, sbf, tbf, sums)
            outputs += output(m, rbf, graph)
        return atom_outputs(outputs)

    @property
    def discontinuity(self) -> str:
        return JUMPS if self.torsion == "published" else ""

    def filter_pictures(self) -> dict[str, Picture]:
        """Return the filters W_2 W_1 a_TBF of distance, angle and torsion in each block (Fig. 6).

        Torsions other than the published one involve several neighbors, so these are filters of distance and angle.
        """
        pictures: dict[str, Picture] = {}
        for b, block in enumerate(self.int_blocks):
            if self.torsion == "published":
                kernel = block.dense_tbf1.kernel.numpy() @ block.dense_tbf2.kernel.numpy()
                disks = torsion_disks(self.sbf_layer, self.bessel_degrees, kernel, NUM_TORSION_FILTERS)
            else:
                disks = filter_disks(self.sbf_layer, block.dense_sbf1.kernel.numpy() @ block.dense_sbf2.kernel.numpy())
            pictures[f"filters_{b}"] = disks
        return pictures

    def architecture(self) -> Diagram:
        angles = "angle (SBF)" if self.torsion == "none" else "angle, torsion\n(SBF, TBF)"
        return directional_diagram(self.num_blocks, angles)

    def kept_per_edge(self, neighbors: float) -> float:
        harmonics = 0 if self.torsion == "none" else len(self.bessel_degrees)
        gates = 1 if self.torsion == "none" else 2
        # measured; the torsion takes several steps
        per_pair = 3 * self.num_spherical + 6 * harmonics + self.num_blocks * (3 * gates - 1) * self.int_emb_size
        return dense_activations(self) + neighbors * per_pair
