"""DimeNet++: Klicpera, Giri, Margraf, Guennemann, "Fast and Uncertainty-Aware Directional Message Passing", 2020."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from dimenet_tf.basis import RADIAL_BASES, SphericalBasis
from dimenet_tf.graph import Graph
from dimenet_tf.layers.aggregation import AGGREGATION_OPTIONS, Aggregation, choose_aggregation
from dimenet_tf.layers.dense import BasisProjection, dense, linear
from dimenet_tf.layers.embedding import EmbeddingBlock
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.interaction import SkipUpdate, stored_by_blocks
from dimenet_tf.layers.neighbor_limit import LIMIT_JUMPS, NeighborLimit, check_limit
from dimenet_tf.layers.output import AtomOutputs, OutputBlock, SeparateOutputBlocks, atom_outputs
from dimenet_tf.layers.pictures import Diagram, Picture, directional_diagram, filter_disks
from dimenet_tf.layers.recompute import run
from dimenet_tf.models.hyperparameters import Hyperparameters

FEW_NEIGHBORS = 12  # below, sum_first is faster than harmonics (benchmarks/RESULTS.md)


class InteractionBlock(SkipUpdate):
    """Directional message passing with a Hadamard product in a smaller space.

    y_ji = swish(W m_ji + b) + up(sum_k sbf W1 W2 * down(rbf W1 W2 * swish(W m_kj + b))), then `SkipUpdate`.

    Parameters
    ----------
    emb_size, int_emb_size, basis_emb_size, num_before_skip, num_after_skip, seed : int
    recompute : bool, see `dimenet_tf.layers.recompute`
    """

    def __init__(
        self,
        emb_size: int,
        int_emb_size: int,
        basis_emb_size: int,
        num_before_skip: int,
        num_after_skip: int,
        seed: int,
        recompute: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.emb_size = emb_size
        self.int_emb_size = int_emb_size
        self.basis_emb_size = basis_emb_size
        self.num_before_skip = num_before_skip
        self.num_after_skip = num_after_skip
        self.seed = seed
        self.recompute = recompute
        seeds, policy = seed_stream(seed), self.dtype_policy
        self.dense_ji = dense(emb_size, next(seeds), dtype=policy)
        self.dense_kj = dense(emb_size, next(seeds), dtype=policy)
        self.dense_rbf1 = linear(basis_emb_size, next(seeds), dtype=self.dtype)
        self.dense_rbf2 = linear(emb_size, next(seeds), dtype=self.dtype)
        self.dense_sbf1 = BasisProjection(basis_emb_size, next(seeds), dtype=self.dtype)
        self.dense_sbf2 = linear(int_emb_size, next(seeds), dtype=self.dtype)
        self.down_projection = dense(int_emb_size, next(seeds), use_bias=False, dtype=policy)
        self.up_projection = dense(emb_size, next(seeds), use_bias=False, dtype=policy)
        self.make_update(emb_size, num_before_skip, num_after_skip, seeds)

    def build(self, input_shape: tf.TensorShape) -> None:
        # this layer is never called: the aggregation applies its kernel where that costs least
        self.dense_sbf2.build([None, self.basis_emb_size])
        super().build(input_shape)

    def call(self, m: tf.Tensor, rbf: tf.Tensor, radial: tf.Tensor, y: tf.Tensor, pairs: Aggregation) -> tf.Tensor:
        def directional(m: tf.Tensor, rbf: tf.Tensor, radial: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
            x_ji = self.dense_ji(m)  # (edges, emb_size)
            x_kj = self.dense_kj(m) * tf.cast(self.dense_rbf2(self.dense_rbf1(rbf)), x_ji.dtype)
            x_kj = tf.cast(self.down_projection(x_kj), rbf.dtype)  # (edges, int_emb_size)
            x_kj = pairs.sum_product(y, x_kj, self.dense_sbf1(radial), self.dense_sbf2.kernel)  # sum over k
            return x_ji + self.up_projection(x_kj)

        return self.update(m, run(directional, m, rbf, radial, y, again=self.recompute))

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "emb_size": self.emb_size,
            "int_emb_size": self.int_emb_size,
            "basis_emb_size": self.basis_emb_size,
            "num_before_skip": self.num_before_skip,
            "num_after_skip": self.num_after_skip,
            "seed": self.seed,
            "recompute": self.recompute,
        }


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class DimeNetPP(Hyperparameters, tf.keras.Model):
    """DimeNet++ model. `model(graph)` returns `AtomOutputs` with scalars (atoms, num_targets).

    Parameters
    ----------
    emb_size : int
        Size of the message embeddings.
    out_emb_size : int
        Width of the output blocks.
    int_emb_size : int
        Size of the messages while they are summed over neighbors.
    basis_emb_size : int
        Size to which the bases are reduced.
    num_blocks, num_spherical, num_radial, cutoff, envelope_exponent, num_before_skip, num_after_skip
        As `DimeNet`.
    aggregation : "auto", "harmonics", "sum_first" or "triplets"
        How sums over neighbors are computed. The numbers are the same. "auto" is "harmonics"; a configuration's "auto"
        is "sum_first" where atoms have few neighbors (see `suited_to`).
    num_dense_output, num_targets, output_init, extensive, recompute, radial_basis, separate_output_blocks, seed
        As `DimeNet`.
    conventions : "official", "corrected" or "oc20"
        Formulas of the released weights, or corrected ones: no further 1/x in the two-dimensional basis, its radial
        part from d_ji, linear radial basis in the embedding. "oc20" has the formulas of the models trained on OC20:
        those of the released weights, with a bias in the up-projection of the output blocks.
    max_neighbors : int
        Nearest neighbors of an atom that exchange messages with it, for weights of OC20 that were trained with such a
        limit (`conventions: oc20`). Without a limit, 0, all neighbors within the cutoff do.

    Examples
    --------
    >>> import dimenet_tf
    >>> sizes = {"emb_size": 16, "out_emb_size": 24, "int_emb_size": 8, "num_blocks": 2}
    >>> dimenet_tf.build_model("DimeNet++", **sizes).count_params()
    15894
    """

    choices = {
        "conventions": ("official", "corrected", "oc20"),
        "radial_basis": tuple(RADIAL_BASES),
        "aggregation": AGGREGATION_OPTIONS,
        "output_init": ("zeros", "GlorotOrthogonal"),
    }
    small = {"emb_size": 16, "out_emb_size": 24, "int_emb_size": 8, "basis_emb_size": 4, "num_blocks": 2}
    variants = (
        {},
        {"conventions": "corrected"},
        {"aggregation": "harmonics", "conventions": "corrected"},
        {"radial_basis": "gaussian", "num_radial": 16},
        {"separate_output_blocks": True, "num_targets": 2},
        {"recompute": True},
        {"conventions": "oc20"},
    )

    def __init__(
        self,
        emb_size: int = 128,
        out_emb_size: int = 256,
        int_emb_size: int = 64,
        basis_emb_size: int = 8,
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
        aggregation: str = "auto",
        recompute: bool = False,
        radial_basis: str = "bessel",
        separate_output_blocks: bool = False,
        max_neighbors: int = 0,
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        check_limit(max_neighbors, conventions)
        official = conventions != "corrected"
        self.angle = "supplement"
        self.radial_edge = "kj" if official else "ji"
        self.aggregation_class = choose_aggregation(aggregation, self.angle, best="harmonics")
        self.needs = self.aggregation_class.needs
        policy, seeds = self.dtype_policy, seed_stream(seed)

        self.rbf_layer = RADIAL_BASES[radial_basis](num_radial, cutoff, envelope_exponent, dtype=self.dtype)
        self.sbf_layer = SphericalBasis(
            num_spherical, num_radial, cutoff, envelope_exponent, radial_basis, over_x=official, dtype=self.dtype
        )
        self.emb_block = EmbeddingBlock(
            emb_size, activate_rbf=official, seed=next(seeds), recompute=recompute, dtype=policy
        )
        self.int_blocks = [
            InteractionBlock(
                emb_size,
                int_emb_size,
                basis_emb_size,
                num_before_skip,
                num_after_skip,
                seed=next(seeds),
                recompute=recompute,
                dtype=policy,
            )
            for _ in range(num_blocks)
        ]
        make_output = SeparateOutputBlocks if separate_output_blocks else OutputBlock
        self.output_blocks = [
            make_output(
                emb_size=emb_size,
                num_dense_output=num_dense_output,
                num_targets=num_targets,
                output_init=output_init,
                seed=next(seeds),
                out_emb_size=out_emb_size,
                up_bias=conventions == "oc20",
                recompute=recompute,
                dtype=self.dtype,
            )
            for _ in range(num_blocks + 1)
        ]

    def call(self, graph: Graph) -> AtomOutputs:
        vectors = edge_vectors(graph)  # (edges, 3)
        distance = safe_norm(vectors)  # (edges,)
        limit = NeighborLimit(graph, distance, self.max_neighbors, symmetric=False)
        rbf = limit.mask(self.rbf_layer(distance))  # (edges, num_radial)
        radial = limit.mask(self.sbf_layer.radial(distance))  # (edges, num_spherical, num_radial)
        pairs = self.aggregation_class(graph, self.angle, self.radial_edge)
        y = pairs.angular(vectors, self.sbf_layer)

        m = self.emb_block(rbf, graph)  # (edges, emb_size)
        outputs = self.output_blocks[0](m, rbf, graph)  # (atoms, num_targets)
        for interaction, output in zip(self.int_blocks, self.output_blocks[1:]):
            m = interaction(m, rbf, radial, y, pairs)
            outputs += output(m, rbf, graph)
        return atom_outputs(outputs, dropped=limit.dropped)

    @property
    def discontinuity(self) -> str:
        return LIMIT_JUMPS if self.max_neighbors else ""

    @classmethod
    def suited_to(cls, hyperparameters: Mapping[str, Any], neighbors: Callable[[], float]) -> dict[str, Any]:
        """Choose the `aggregation` for `auto`.

        The cost of harmonics does not depend on the number of neighbors; the cost of sum_first grows with it.
        """
        if hyperparameters["aggregation"] != "auto":
            return {}
        return {"aggregation": "sum_first" if neighbors() < FEW_NEIGHBORS else "harmonics"}

    def filter_pictures(self) -> dict[str, Picture]:
        """W_2 W_1 a_SBF in each block, as DimeNet, Fig. 5."""
        kernels = [block.dense_sbf1.kernel.numpy() @ block.dense_sbf2.kernel.numpy() for block in self.int_blocks]
        return {f"filters_{b}": filter_disks(self.sbf_layer, kernel) for b, kernel in enumerate(kernels)}

    def architecture(self) -> Diagram:
        return directional_diagram(self.num_blocks, "angle (SBF)")

    def kept_per_edge(self, neighbors: float) -> float:
        sizes = neighbors, self.basis_emb_size, self.int_emb_size, self.num_spherical
        return stored_by_blocks(self, self.aggregation_class.stored_by_product(*sizes))
