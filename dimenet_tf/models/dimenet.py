"""DimeNet: Klicpera, Gross, Guennemann, "Directional Message Passing for Molecular Graphs", ICLR 2020."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from dimenet_tf.basis import RADIAL_BASES, SphericalBasis
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.layers.aggregation import AGGREGATION_OPTIONS, Aggregation, choose_aggregation
from dimenet_tf.layers.dense import BasisProjection, dense, linear
from dimenet_tf.layers.embedding import EmbeddingBlock
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.interaction import SkipUpdate, stored_by_blocks
from dimenet_tf.layers.nodes import NodeEmbeddingBlock, NodeInteractionBlock, NodeOutputBlock
from dimenet_tf.layers.output import AtomOutputs, OutputBlock, SeparateOutputBlocks, atom_outputs
from dimenet_tf.layers.pictures import (
    NUM_FILTERS,
    Curves,
    Diagram,
    Picture,
    directional_diagram,
    distances,
    filter_disks,
)
from dimenet_tf.layers.recompute import run
from dimenet_tf.models.hyperparameters import Hyperparameters


class InteractionBlock(SkipUpdate):
    """Directional message passing with a bilinear layer, DimeNet Eq. 4 and Fig. 4.

    y_ji = swish(W m_ji + b) + sum_k sbf^T W_bilinear (rbf W * swish(W m_kj + b)), then `SkipUpdate`.

    Parameters
    ----------
    emb_size, num_bilinear, num_before_skip, num_after_skip, seed : int
    rbf_edge : "kj" (the release) or "ji" (the paper), the edge whose radial basis weights the messages m_kj
    recompute : bool, see `dimenet_tf.layers.recompute`
    """

    def __init__(
        self,
        emb_size: int,
        num_bilinear: int,
        num_before_skip: int,
        num_after_skip: int,
        rbf_edge: str,
        seed: int,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.emb_size = emb_size
        self.num_bilinear = num_bilinear
        self.num_before_skip = num_before_skip
        self.num_after_skip = num_after_skip
        self.rbf_edge = rbf_edge
        self.seed = seed
        self.recompute = recompute
        seeds = seed_stream(seed)
        self.dense_ji = dense(emb_size, next(seeds), dtype=self.dtype_policy)
        self.dense_kj = dense(emb_size, next(seeds), dtype=self.dtype_policy)
        self.dense_rbf = linear(emb_size, next(seeds), dtype=self.dtype)
        self.dense_sbf = BasisProjection(num_bilinear, next(seeds), dtype=self.dtype)
        self._bilinear_seed = next(seeds)
        self.make_update(emb_size, num_before_skip, num_after_skip, seeds)

    def build(self, input_shape: tf.TensorShape) -> None:
        self.bilinear = self.add_weight(
            "bilinear",
            shape=[self.emb_size, self.num_bilinear, self.emb_size],  # (out, bilinear, in)
            initializer=tf.keras.initializers.RandomNormal(0.0, 2 / self.emb_size, seed=self._bilinear_seed),
            experimental_autocast=False,
        )
        super().build(input_shape)

    def call(
        self, m: tf.Tensor, rbf: tf.Tensor, radial: tf.Tensor, y: tf.Tensor, pairs: Aggregation, graph: Graph
    ) -> tf.Tensor:
        def directional(m: tf.Tensor, rbf: tf.Tensor, radial: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            x_ji = self.dense_ji(m)  # (edges, emb_size)
            x_kj = tf.cast(self.dense_kj(m), rbf.dtype)
            weight = self.dense_rbf(rbf)
            if self.rbf_edge == "kj":
                x_kj = x_kj * weight
            summed = pairs.sum_outer(y, x_kj, self.dense_sbf(radial))  # (edges, num_bilinear, emb_size)
            if self.rbf_edge == "ji":
                summed = summed * weight[:, None]  # the weight of m_ji is common to all terms of the sum
            # the bilinear layer is linear in the messages, so it is applied once per edge, to their sum
            flat = tf.reshape(summed, [tf.shape(m)[0], self.num_bilinear * self.emb_size])
            kernel = tf.reshape(self.bilinear, [self.emb_size, self.num_bilinear * self.emb_size])
            flat, kernel = tf.cast(flat, x_ji.dtype), tf.cast(kernel, x_ji.dtype)
            return x_ji + tf.matmul(flat, kernel, transpose_b=True)

        return self.update(m, run(directional, m, rbf, radial, y, again=self.recompute))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "emb_size": self.emb_size,
            "num_bilinear": self.num_bilinear,
            "num_before_skip": self.num_before_skip,
            "num_after_skip": self.num_after_skip,
            "rbf_edge": self.rbf_edge,
            "seed": self.seed,
            "recompute": self.recompute,
        }


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class DimeNet(Hyperparameters, tf.keras.Model):
    """DimeNet model. `model(graph)` returns `AtomOutputs` with scalars (atoms, num_targets).

    Parameters
    ----------
    emb_size : int
        Size of the message embeddings.
    num_blocks : int
        Interaction blocks.
    num_bilinear : int
        Size of the bilinear layer.
    num_spherical, num_radial : int
        Size of the bases: spherical harmonics of degree 0 ... num_spherical-1, num_radial Bessel functions for each.
    cutoff : float
        Distance up to which atoms are neighbors, Angstrom.
    envelope_exponent : int
        Shape of the smooth cutoff; the paper's p minus one.
    num_before_skip, num_after_skip : int
        Residual layers of an interaction block before and after its skip connection.
    num_dense_output : int
        Dense layers of an output block.
    num_targets : int
        Properties predicted at once.
    output_init : "GlorotOrthogonal" or "zeros"
        Initial weights of the output blocks' last layers. Published: zeros for mu, homo, lumo and zpve.
    extensive : bool
        Properties are sums over atoms; False for means.
    conventions : "official" or "corrected"
        Formulas of the released weights, or of the paper: interior angle at j, no further 1/x in the two-dimensional
        basis, radial basis of d_ji in the interaction, linear radial basis in the embedding.
    aggregation : "auto", "sum_first", "harmonics" or "triplets"
        How sums over neighbors are computed. The numbers are the same. "harmonics" needs `conventions: corrected`;
        "auto" is "sum_first", which is always the fastest for DimeNet.
    recompute : bool
        Compute features of edges again in the backward pass instead of storing them, which saves memory and costs time.
    radial_basis : "bessel" or "gaussian"
        Ablation of Table 3; the paper used num_radial = 64 for Gaussians.
    embeddings : "messages" or "nodes"
        Ablation of Table 3; see `dimenet_tf.layers.nodes`. Embeddings of nodes use no angles.
    separate_output_blocks : bool
        One output block per target (Table 4) instead of one for all.
    seed : int
        Seed of the initial weights.

    Examples
    --------
    >>> import dimenet_tf
    >>> sizes = {"emb_size": 16, "num_blocks": 2, "num_bilinear": 4}
    >>> model = dimenet_tf.build_model("DimeNet", **sizes)
    >>> model.count_params(), model.cutoffs
    (12678, [5.0])
    >>> dimenet_tf.build_model("DimeNet", conventions="corrected", **sizes).count_params()  # one bias fewer
    12662
    """

    choices = {
        "conventions": ("official", "corrected"),
        "radial_basis": tuple(RADIAL_BASES),
        "embeddings": ("messages", "nodes"),
        "aggregation": AGGREGATION_OPTIONS,
        "output_init": ("zeros", "GlorotOrthogonal"),
    }
    small = {"emb_size": 16, "num_blocks": 2, "num_bilinear": 4}
    variants = (
        {},
        {"conventions": "corrected"},
        {"aggregation": "harmonics", "conventions": "corrected"},
        {"aggregation": "triplets"},
        {"num_spherical": 1},
        {"embeddings": "nodes"},
    )

    def __init__(
        self,
        emb_size: int = 128,
        num_blocks: int = 6,
        num_bilinear: int = 8,
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
        aggregation: str = "auto",
        recompute: bool = False,
        radial_basis: str = "bessel",
        embeddings: str = "messages",
        separate_output_blocks: bool = False,
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        official = conventions == "official"
        on_nodes = embeddings == "nodes"
        if on_nodes and separate_output_blocks:
            raise UserError(
                "separate_output_blocks is not available with embeddings = 'nodes'", "separate_output_blocks"
            )
        if on_nodes and self.compute_dtype == "bfloat16":
            raise UserError("embeddings = 'nodes' is not available in mixed_bfloat16", "embeddings")
        if on_nodes and recompute:
            raise UserError("recompute is not available with embeddings = 'nodes'", "recompute")
        self.angle = "at_target" if official else "interior"
        self.aggregation_class = choose_aggregation(aggregation, self.angle, best="sum_first")
        self.needs = frozenset() if on_nodes else self.aggregation_class.needs
        policy, seeds = self.dtype_policy, seed_stream(seed)

        self.rbf_layer = RADIAL_BASES[radial_basis](num_radial, cutoff, envelope_exponent, dtype=self.dtype)
        self.sbf_layer = SphericalBasis(
            num_spherical, num_radial, cutoff, envelope_exponent, radial_basis, over_x=official, dtype=self.dtype
        )
        update = {"emb_size": emb_size, "num_before_skip": num_before_skip, "num_after_skip": num_after_skip}
        output: dict[str, Any] = {
            "emb_size": emb_size,
            "num_dense_output": num_dense_output,
            "num_targets": num_targets,
            "output_init": output_init,
        }
        if on_nodes:
            self.emb_block = NodeEmbeddingBlock(emb_size, next(seeds), dtype=policy)
            self.int_blocks = [
                NodeInteractionBlock(**update, seed=next(seeds), dtype=policy) for _ in range(num_blocks)
            ]
            make_output: type[tf.keras.layers.Layer] = NodeOutputBlock
        else:
            output["recompute"] = recompute
            self.emb_block = EmbeddingBlock(
                emb_size, activate_rbf=official, seed=next(seeds), recompute=recompute, dtype=policy
            )
            self.int_blocks = [
                InteractionBlock(
                    **update,
                    num_bilinear=num_bilinear,
                    rbf_edge="kj" if official else "ji",
                    seed=next(seeds),
                    recompute=recompute,
                    dtype=policy,
                )
                for _ in range(num_blocks)
            ]
            make_output = SeparateOutputBlocks if separate_output_blocks else OutputBlock
        self.output_blocks = [make_output(**output, seed=next(seeds), dtype=self.dtype) for _ in range(num_blocks + 1)]

    def call(self, graph: Graph) -> AtomOutputs:
        vectors = edge_vectors(graph)  # (edges, 3)
        distance = safe_norm(vectors)  # (edges,)
        rbf = self.rbf_layer(distance)  # (edges, num_radial)
        radial = y = pairs = None
        if self.embeddings == "messages":
            radial = self.sbf_layer.radial(distance)  # (edges, num_spherical, num_radial)
            pairs = self.aggregation_class(graph, self.angle)
            y = pairs.angular(vectors, self.sbf_layer)

        m = self.emb_block(rbf, graph)  # (edges, emb_size)
        outputs = self.output_blocks[0](m, rbf, graph)  # (atoms, num_targets)
        for interaction, output in zip(self.int_blocks, self.output_blocks[1:]):
            m = interaction(m, rbf, radial, y, pairs, graph)
            outputs += output(m, rbf, graph)
        return atom_outputs(outputs)

    def filter_pictures(self) -> dict[str, Picture]:
        """f_filter2,n(d, angle) = (W_SBF a_SBF)^T W_n, tensor slice n = 1 (App. D and Fig. 5).

        With `embeddings = nodes`, which uses no angles, they are the radial filters.
        """
        if self.embeddings == "nodes":
            d = distances(self.cutoff, self.dtype)
            rbf = self.rbf_layer(d)
            return {
                f"filters_{b}": Curves(d.numpy(), {"W rbf": block.dense_rbf(rbf).numpy()[:, :NUM_FILTERS]})
                for b, block in enumerate(self.int_blocks)
            }
        kernels = [block.dense_sbf.kernel.numpy() @ block.bilinear.numpy()[:, :, 0].T for block in self.int_blocks]
        return {f"filters_{b}": filter_disks(self.sbf_layer, kernel) for b, kernel in enumerate(kernels)}

    def architecture(self) -> Diagram:
        return directional_diagram(self.num_blocks, "angle (SBF)")

    def kept_per_edge(self, neighbors: float) -> float:
        per_block = 0.0
        if self.needs:
            per_block = self.aggregation_class.stored_by_outer(
                neighbors, self.num_bilinear, self.emb_size, self.num_spherical
            )
        return stored_by_blocks(self, per_block)
