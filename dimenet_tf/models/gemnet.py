"""GemNet: Gasteiger, Becker, Guennemann, "GemNet: Universal Directional Graph Neural Networks for Molecules", 2021."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from dimenet_tf.basis import BesselBasis, SphericalBasis
from dimenet_tf.basis.formulas import degrees
from dimenet_tf.graph import Graph
from dimenet_tf.layers.aggregation import choose_aggregation
from dimenet_tf.layers.dense import BasisProjection
from dimenet_tf.layers.embedding import AtomEmbedding
from dimenet_tf.layers.gathers import gather, reverse_edges, segment_sum
from dimenet_tf.layers.geometry import edge_vectors, safe_norm, unit_vectors
from dimenet_tf.layers.initializers import HeOrthogonal, output_initializer, seed_stream
from dimenet_tf.layers.kept import kept_by_dense
from dimenet_tf.layers.messages import (
    QuadrupletBasis,
    QuadrupletInteraction,
    Sizes,
    TripletBasis,
    TripletInteraction,
)
from dimenet_tf.layers.output import AtomOutputs, atom_outputs
from dimenet_tf.layers.quadruplets import Quadruplets
from dimenet_tf.layers.scaled import ScaledResidual, ScaleFactor, scaled_dense, scaled_sum
from dimenet_tf.models.hyperparameters import Hyperparameters


def residuals(
    count: int, units: int, seeds: Iterator[int], dtype: tf.keras.mixed_precision.Policy
) -> list[ScaledResidual]:
    """Return a stack of residual layers."""
    return [ScaledResidual(units, next(seeds), dtype=dtype) for _ in range(count)]


def passed_through(layers: list, x: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        x = layer(x)
    return x


class EdgeEmbedding(tf.keras.layers.Layer):
    """Message from its two atoms and what the edge itself has: D [h_source, h_target, edge], (edges, units)."""

    def __init__(self, units: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.dense = scaled_dense(units, seed, dtype=self.dtype_policy)

    def call(self, h: tf.Tensor, edge: tf.Tensor, graph: Graph) -> tf.Tensor:
        h_source, h_target = gather(h, graph.edge_source), gather(h, graph.edge_target)
        return self.dense(tf.concat([h_source, h_target, tf.cast(edge, h.dtype)], axis=-1))


class AtomUpdate(tf.keras.layers.Layer):
    """Incoming messages, weighted by distance, summed and passed through dense layers, (atoms, emb_size_atom)."""

    def __init__(self, sizes: Sizes, num_atom: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        self.dense_rbf = scaled_dense(sizes.emb_size_edge, next(seeds), None, dtype=policy)
        self.scale_sum = ScaleFactor(dtype=policy)
        first = scaled_dense(sizes.emb_size_atom, next(seeds), dtype=policy)
        self.layers = [first, *residuals(num_atom, sizes.emb_size_atom, seeds, policy)]

    def call(self, m: tf.Tensor, rbf: tf.Tensor, graph: Graph) -> tf.Tensor:
        weighted = m * self.dense_rbf(rbf)  # (edges, emb_size_edge)
        x = segment_sum(weighted, graph.edge_target, tf.shape(graph.atomic_numbers)[0])
        return passed_through(self.layers, self.scale_sum(x, reference=m))


class OutputBlock(AtomUpdate):
    """Atoms' contributions to the targets, and where asked for the edges' to direct forces.

    Returns
    -------
    (atoms, num_targets) and (edges, num_targets) or no rows
    """

    def __init__(
        self,
        sizes: Sizes,
        num_atom: int,
        num_targets: int,
        output_init: str,
        direct_forces: bool,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(sizes, num_atom, seed, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed + 1)
        self.direct_forces = direct_forces

        def output() -> tf.keras.layers.Dense:
            initializer = output_initializer(output_init, next(seeds), HeOrthogonal)
            return tf.keras.layers.Dense(num_targets, use_bias=False, kernel_initializer=initializer, dtype=policy)

        self.out_energy = output()
        if direct_forces:
            emb_size_edge = sizes.emb_size_edge
            first = scaled_dense(emb_size_edge, next(seeds), dtype=policy)
            self.seq_forces = [first, *residuals(num_atom, emb_size_edge, seeds, policy)]
            self.dense_rbf_F = scaled_dense(emb_size_edge, next(seeds), None, dtype=policy)
            self.scale_rbf = ScaleFactor(dtype=policy)
            self.out_forces = output()

    def call(self, m: tf.Tensor, rbf: tf.Tensor, graph: Graph) -> tuple[tf.Tensor, tf.Tensor]:
        energy = self.out_energy(super().call(m, rbf, graph))  # (atoms, num_targets)
        if not self.direct_forces:
            return energy, energy[:0]
        x = passed_through(self.seq_forces, m)  # (edges, emb_size_edge)
        x = self.scale_rbf(x * self.dense_rbf_F(rbf), reference=x)
        return energy, self.out_forces(x)


class InteractionBlock(tf.keras.layers.Layer):
    """GemNet, Fig. 3: messages from triplets (and quadruplets), then atoms from messages and messages from atoms."""

    def __init__(
        self,
        sizes: Sizes,
        num_before_skip: int,
        num_after_skip: int,
        num_concat: int,
        num_atom: int,
        triplets_only: bool,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        emb_size_edge = sizes.emb_size_edge
        self.dense_ca = scaled_dense(emb_size_edge, next(seeds), dtype=policy)
        self.trip_interaction = TripletInteraction(sizes, next(seeds), dtype=policy)
        self.quad_interaction = None if triplets_only else QuadrupletInteraction(sizes, next(seeds), dtype=policy)
        self.layers_before_skip = residuals(num_before_skip, emb_size_edge, seeds, policy)
        self.layers_after_skip = residuals(num_after_skip, emb_size_edge, seeds, policy)
        self.atom_update = AtomUpdate(sizes, num_atom, next(seeds), dtype=self.dtype)  # few rows
        self.concat_layer = EdgeEmbedding(emb_size_edge, next(seeds), dtype=policy)
        self.residual_m = residuals(num_concat, emb_size_edge, seeds, policy)

    def call(
        self,
        h: tf.Tensor,
        m: tf.Tensor,
        rbf: tf.Tensor,
        triplets: TripletBasis,
        quadruplets: QuadrupletBasis | None,
        graph: Graph,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        branches = [self.dense_ca(m), self.trip_interaction(m, triplets, graph)]  # (edges, emb_size_edge) each
        if self.quad_interaction is not None:
            branches.append(self.quad_interaction(m, quadruplets, graph))
        x = passed_through(self.layers_before_skip, scaled_sum(*branches))
        m = passed_through(self.layers_after_skip, scaled_sum(m, x))
        h = scaled_sum(h, self.atom_update(m, rbf, graph))  # (atoms, emb_size_atom)
        m = scaled_sum(m, passed_through(self.residual_m, self.concat_layer(h, m, graph)))
        return h, m


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class GemNet(Hyperparameters, tf.keras.Model):
    """GemNet-Q, and with `triplets_only` GemNet-T; with `direct_forces` GemNet-dQ and -dT.

    `model(graph)` returns `AtomOutputs` with scalars (atoms, num_targets), and forces (atoms, num_targets, 3) where
    they are direct.

    Parameters
    ----------
    triplets_only : bool
        GemNet-T: without quadruplets.
    direct_forces : bool
        Predict forces as a sum over edges instead of the energy's gradient: faster, but they conserve no energy.
    forces_coupled : bool
        Direct forces of the two directions of a pair are made equal and opposite.
    num_spherical, num_radial : int
        Degrees of the spherical harmonics, and radial functions of each.
    num_blocks : int
        Interaction blocks.
    emb_size_atom, emb_size_edge, emb_size_trip, emb_size_quad, emb_size_rbf, emb_size_cbf, emb_size_sbf : int
        Sizes of the embeddings of atoms and edges, of messages while they are summed over triplets and quadruplets, and
        of the reduced radial, circular and spherical bases.
    emb_size_bil_trip, emb_size_bil_quad : int
        Sizes of what the bilinear layers make.
    num_before_skip, num_after_skip, num_concat, num_atom : int
        Residual layers.
    cutoff : float
        Embedding cutoff, Angstrom: which atoms exchange messages.
    int_cutoff : float
        Interaction cutoff, Angstrom: a and b of quadruplets c -> a, b <- d.
    envelope_exponent : int
        p of the smooth cutoff.
    num_targets : int
    output_init : "HeOrthogonal" or "zeros"
    extensive : bool
        Used by the head: sum or mean over atoms.
    aggregation : "auto", "sum_first", "harmonics" or "triplets"
        How sums over neighbors are computed. The numbers are the same; "auto" is "sum_first".
    seed : int
    """

    has_scale_factors = True

    meaning = ("cutoff", "int_cutoff", "envelope_exponent", "extensive", "forces_coupled")

    def __init__(
        self,
        triplets_only: bool = False,
        direct_forces: bool = False,
        forces_coupled: bool = False,
        num_spherical: int = 7,
        num_radial: int = 6,
        num_blocks: int = 4,
        emb_size_atom: int = 128,
        emb_size_edge: int = 128,
        emb_size_trip: int = 64,
        emb_size_quad: int = 32,
        emb_size_rbf: int = 16,
        emb_size_cbf: int = 16,
        emb_size_sbf: int = 32,
        emb_size_bil_trip: int = 64,
        emb_size_bil_quad: int = 32,
        num_before_skip: int = 1,
        num_after_skip: int = 1,
        num_concat: int = 1,
        num_atom: int = 2,
        cutoff: float = 5.0,
        int_cutoff: float = 10.0,
        envelope_exponent: int = 5,
        num_targets: int = 1,
        output_init: str = "HeOrthogonal",
        extensive: bool = True,
        aggregation: str = "auto",
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.set_hyperparameters(locals())
        self.aggregation_class = choose_aggregation(aggregation, "interior", best="sum_first")
        self.needs = self.aggregation_class.needs | (frozenset() if triplets_only else {"atom_edges"})
        dtype, seeds = self.dtype, seed_stream(seed)
        sizes = Sizes(**{field: self._hyperparameters[field] for field in Sizes._fields})
        size: dict[str, Any] = {
            "num_spherical": num_spherical,
            "num_radial": num_radial,
            "envelope_exponent": envelope_exponent - 1,
        }

        def shared(units: int) -> tf.keras.layers.Layer:
            return scaled_dense(units, next(seeds), None, dtype=dtype)

        def projection(units: int) -> BasisProjection:
            return BasisProjection(units, next(seeds), HeOrthogonal, dtype=dtype)

        self.rbf_basis = BesselBasis(num_radial, cutoff, envelope_exponent - 1, dtype=dtype)
        self.cbf_basis = SphericalBasis(cutoff=cutoff, dtype=dtype, **size)
        self.mlp_rbf3, self.mlp_rbf_h, self.mlp_rbf_out = (shared(emb_size_rbf) for _ in range(3))
        self.mlp_cbf3 = projection(emb_size_cbf)
        if not triplets_only:
            self.int_cbf_basis = SphericalBasis(cutoff=int_cutoff, dtype=dtype, **size)
            self.mlp_rbf4, self.mlp_cbf4 = shared(emb_size_rbf), projection(emb_size_cbf)
            self.mlp_sbf4 = projection(emb_size_sbf)
        self.atom_emb = AtomEmbedding(emb_size_atom, next(seeds), dtype=dtype)
        self.edge_emb = EdgeEmbedding(emb_size_edge, next(seeds), dtype=dtype)
        self.int_blocks = [
            InteractionBlock(
                sizes,
                num_before_skip,
                num_after_skip,
                num_concat,
                num_atom,
                triplets_only,
                seed=next(seeds),
                dtype=self.dtype_policy,
            )
            for _ in range(num_blocks)
        ]
        self.out_blocks = [
            OutputBlock(sizes, num_atom, num_targets, output_init, direct_forces, seed=next(seeds), dtype=dtype)
            for _ in range(num_blocks + 1)
        ]

    def call(self, graph: Graph) -> AtomOutputs:
        vectors = edge_vectors(graph)  # (edges, 3)
        distance = safe_norm(vectors)  # (edges,)
        rbf = self.rbf_basis(distance) * (math.sqrt(2 / self.cutoff) / self.cutoff)  # (edges, num_radial)
        triplets, quadruplets = self.bases(graph, vectors, distance, rbf)
        rbf_h, rbf_out = self.mlp_rbf_h(rbf), self.mlp_rbf_out(rbf)  # (edges, emb_size_rbf)

        h = self.atom_emb(graph.atomic_numbers)  # (atoms, emb_size_atom)
        m = self.edge_emb(h, rbf, graph)  # (edges, emb_size_edge)
        outputs = [self.out_blocks[0](m, rbf_out, graph)]  # (atoms, num_targets), (edges, num_targets)
        for interaction, output in zip(self.int_blocks, self.out_blocks[1:]):
            h, m = interaction(h, m, rbf_h, triplets, quadruplets, graph)
            outputs.append(output(m, rbf_out, graph))
        energy, along_edge = (tf.add_n(list(parts)) for parts in zip(*outputs))
        forces = self.forces(along_edge, vectors, graph) if self.direct_forces else None
        return atom_outputs(energy, forces=forces)

    def bases(
        self, graph: Graph, vectors: tf.Tensor, distance: tf.Tensor, rbf: tf.Tensor
    ) -> tuple[TripletBasis, QuadrupletBasis | None]:
        """Return what the geometry gives all interaction blocks, reduced by the projections that they share."""
        radial = self.cbf_basis.radial(distance) * self.cutoff**-1.5  # (edges, num_spherical, num_radial)
        pairs = self.aggregation_class(graph, "interior", radial_edge="ji", updates="ij")
        angular = pairs.angular(vectors, self.cbf_basis)
        triplets = TripletBasis(pairs, angular, rbf=self.mlp_rbf3(rbf), cbf=self.mlp_cbf3(radial))
        if self.triplets_only:
            return triplets, None
        quadruplets = Quadruplets(graph, vectors, self.int_cutoff, self.num_spherical)
        distance_ab = tf.reshape(quadruplets.distance_ab, [-1])
        radial_ab = self.int_cbf_basis.radial(distance_ab) * self.int_cutoff**-1.5
        by_harmonic = tf.gather(radial, degrees(self.num_spherical), axis=1)  # (edges, num_spherical^2, num_radial)
        cbf = quadruplets.circular(self.mlp_cbf4(radial_ab))
        return triplets, QuadrupletBasis(quadruplets, rbf=self.mlp_rbf4(rbf), cbf=cbf, sbf=self.mlp_sbf4(by_harmonic))

    def forces(self, along_edge: tf.Tensor, vectors: tf.Tensor, graph: Graph) -> tf.Tensor:
        """Direct forces on the atoms, (atoms, num_targets, 3): sums over edges of numbers times directions."""
        if self.forces_coupled:
            along_edge = (along_edge + reverse_edges(along_edge, graph.edge_reverse)) / 2
        directions = -unit_vectors(vectors)  # from source to target
        forces = along_edge[:, :, None] * directions[:, None]  # (edges, num_targets, 3)
        flat = tf.reshape(forces, [-1, 3 * self.num_targets])
        summed = segment_sum(flat, graph.edge_target, tf.shape(graph.atomic_numbers)[0])
        return tf.reshape(summed, [-1, self.num_targets, 3])

    @property
    def cutoffs(self) -> list[float]:
        return [self.cutoff] if self.triplets_only else sorted([self.cutoff, self.int_cutoff])

    def shared_weights(self) -> list[tuple[tf.Variable, int]]:
        """The down-projections of the bases (App. F)."""
        of_blocks = [self.mlp_rbf3, self.mlp_cbf3, self.mlp_rbf_h]
        if not self.triplets_only:
            of_blocks += [self.mlp_rbf4, self.mlp_cbf4, self.mlp_sbf4]
        shared = [(layer.kernel, self.num_blocks) for layer in of_blocks]
        return [*shared, (self.mlp_rbf_out.kernel, self.num_blocks + 1)]

    def kept_per_edge(self, neighbors: float) -> float:
        triplets = 3 * neighbors * self.emb_size_cbf + 3 * self.emb_size_cbf * self.emb_size_trip
        if self.triplets_only:
            return kept_by_dense(self) + self.num_blocks * triplets
        harmonics, messages = self.num_spherical**2, self.emb_size_quad
        quadruplets = (2 * harmonics + 3 * self.emb_size_sbf + 4 * neighbors) * messages
        of_blocks = self.num_blocks * (triplets + quadruplets)
        return kept_by_dense(self) + of_blocks + 3 * harmonics * neighbors**2  # a and b are taken to be neighbors
