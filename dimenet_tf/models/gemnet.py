"""GemNet: Gasteiger, Becker, Guennemann, "GemNet: Universal Directional Graph Neural Networks for Molecules", 2021."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from dimenet_tf.basis import STORED_BASES, CircularBasis, SphericalBasis
from dimenet_tf.basis.formulas import degrees
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.layers.activations import dense_activations
from dimenet_tf.layers.aggregation import AGGREGATION_OPTIONS, choose_aggregation
from dimenet_tf.layers.dense import BasisProjection
from dimenet_tf.layers.embedding import AtomEmbedding
from dimenet_tf.layers.gathers import reverse_edges, segment_sum
from dimenet_tf.layers.geometry import edge_vectors, safe_norm, unit_vectors
from dimenet_tf.layers.initializers import HeOrthogonal, output_initializer, seed_stream
from dimenet_tf.layers.messages import (
    AtomUpdate,
    EdgeEmbedding,
    QuadrupletBasis,
    QuadrupletInteraction,
    Settings,
    TripletBasis,
    TripletInteraction,
)
from dimenet_tf.layers.neighbor_limit import LIMIT_JUMPS, NeighborLimit, check_limit
from dimenet_tf.layers.output import AtomOutputs, atom_outputs
from dimenet_tf.layers.pictures import (
    BASIS,
    DIRECTIONS,
    NUM_FILTERS,
    Curves,
    Diagram,
    Picture,
    distances,
    filter_disks,
    harmonic_disks,
    radial_curves,
    spherical_disks,
    torsion_disks,
)
from dimenet_tf.layers.quadruplets import Quadruplets
from dimenet_tf.layers.scaled import NORMALIZATIONS, passed_through, scaled_dense, scaled_sum
from dimenet_tf.models.hyperparameters import Hyperparameters


class OutputBlock(AtomUpdate):
    """Contributions of atoms to the targets and, with `direct_forces`, of edges to forces.

    Returns
    -------
    (atoms, num_targets) and (edges, num_targets) or no rows
    """

    def __init__(
        self,
        settings: Settings,
        num_atom: int,
        num_targets: int,
        output_init: str,
        direct_forces: bool,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings, num_atom, seed, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed + 1)
        self.direct_forces = direct_forces

        def output() -> tf.keras.layers.Dense:
            initializer = output_initializer(output_init, next(seeds), HeOrthogonal)
            return tf.keras.layers.Dense(num_targets, use_bias=False, kernel_initializer=initializer, dtype=policy)

        self.out_energy = output()
        if direct_forces:
            emb_size_edge = settings.emb_size_edge
            first = settings.dense(emb_size_edge, next(seeds), dtype=policy)
            self.seq_forces = [first, *settings.residuals(num_atom, emb_size_edge, seeds, policy)]
            self.dense_rbf_F = scaled_dense(emb_size_edge, next(seeds), None, dtype=policy)
            self.scale_rbf = settings.scale(dtype=policy)
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
        settings: Settings,
        num_before_skip: int,
        num_after_skip: int,
        num_concat: int,
        num_atom: int,
        one_hop: bool,
        two_hop: bool,
        atom_updates: bool,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        emb_size_edge = settings.emb_size_edge
        self.dense_ca = settings.dense(emb_size_edge, next(seeds), dtype=policy)
        self.trip_interaction = TripletInteraction(settings, next(seeds), dtype=policy) if one_hop else None
        self.quad_interaction = QuadrupletInteraction(settings, next(seeds), dtype=policy) if two_hop else None
        self.layers_before_skip = settings.residuals(num_before_skip, emb_size_edge, seeds, policy)
        self.layers_after_skip = settings.residuals(num_after_skip, emb_size_edge, seeds, policy)
        self.atom_update = None
        if atom_updates:
            self.atom_update = AtomUpdate(settings, num_atom, next(seeds), dtype=self.dtype)  # few rows
        self.concat_layer = EdgeEmbedding(settings, next(seeds), dtype=policy)
        self.residual_m = settings.residuals(num_concat, emb_size_edge, seeds, policy)

    def call(
        self,
        h: tf.Tensor,
        m: tf.Tensor,
        rbf: tf.Tensor | None,
        triplets: TripletBasis | None,
        quadruplets: QuadrupletBasis | None,
        graph: Graph,
    ) -> tuple[tf.Tensor, tf.Tensor]:
        branches = [self.dense_ca(m)]  # (edges, emb_size_edge) each
        if self.trip_interaction is not None:
            branches.append(self.trip_interaction(m, triplets, graph))
        if self.quad_interaction is not None:
            branches.append(self.quad_interaction(m, quadruplets, graph))
        x = passed_through(self.layers_before_skip, scaled_sum(*branches))
        m = passed_through(self.layers_after_skip, scaled_sum(m, x))
        if self.atom_update is not None:
            h = scaled_sum(h, self.atom_update(m, rbf, graph))  # (atoms, emb_size_atom)
        m = scaled_sum(m, passed_through(self.residual_m, self.concat_layer(h, m, graph)))
        return h, m


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class GemNet(Hyperparameters, tf.keras.Model):
    """GemNet-Q model, or GemNet-T with `triplets_only`, and GemNet-dQ or -dT with `direct_forces`.

    `model(graph)` returns `AtomOutputs` with scalars (atoms, num_targets), and forces (atoms, num_targets, 3) where
    they are direct.

    Parameters
    ----------
    triplets_only : bool
        Leave out quadruplets (GemNet-T).
    direct_forces : bool
        Predict forces as a sum over edges instead of the energy's gradient. They are faster, but do not conserve
        energy.
    forces_coupled : bool
        Make direct forces of the two directions of a pair equal and opposite.
    num_spherical, num_radial : int
        Degrees of the spherical harmonics, and radial functions of each.
    num_blocks : int
        Interaction blocks.
    emb_size_atom, emb_size_edge, emb_size_trip, emb_size_quad, emb_size_rbf, emb_size_cbf, emb_size_sbf : int
        Sizes of the embeddings of atoms and edges, of messages while they are summed over triplets and quadruplets, and
        of the reduced radial, circular and spherical bases.
    emb_size_bil_trip, emb_size_bil_quad : int
        Output sizes of the bilinear layers.
    num_before_skip, num_after_skip, num_concat, num_atom : int
        Residual layers.
    cutoff : float
        Embedding cutoff, Angstrom, up to which atoms exchange messages.
    int_cutoff : float
        Interaction cutoff, Angstrom, up to which a and b form quadruplets c -> a, b <- d.
    envelope_exponent : int
        p of the smooth cutoff.
    num_targets : int
    output_init : "HeOrthogonal" or "zeros"
    extensive : bool
        Used by the head: sum or mean over atoms.
    conventions : "official" or "oc20"
        "official" has the formulas of the paper and its released weights. "oc20" has those of the models trained on
        OC20: the circular basis consists of the same radial functions for every degree, with frequencies of their own.
    radial_basis : "bessel" or "gaussian"
        Gaussians need `conventions: oc20`.
    max_neighbors : int
        Nearest neighbors of an atom that exchange messages with it, for weights of OC20 that were trained with such a
        limit (`conventions: oc20`). Without a limit, 0, all neighbors within the cutoff do.
    aggregation : "auto", "sum_first", "harmonics" or "triplets"
        How sums over neighbors are computed. The numbers are the same. "auto" is "sum_first".
    symmetric, bilinear, atom_updates, one_hop : bool
        Ablations of Table 4: without symmetric message passing, with Hadamard products in place of bilinear layers,
        without updates of the atom embeddings, without the messages of triplets. `triplets_only` is the ablation of
        two-hop message passing.
    normalization : "scaling", "none" or "layer_norm"
        Ablations of Table 4: no scaling factors, or layer normalization without centering in their place.
    bias : bool
        Ablation of Table 4: dense layers on embeddings have a bias. Layers that would not vanish at the cutoff with a
        bias have none.
    seed : int

    Examples
    --------
    >>> import dimenet_tf
    >>> sizes = {"num_blocks": 1, "emb_size_atom": 16, "emb_size_edge": 16}
    >>> dimenet_tf.build_model("GemNet", **sizes).count_params()  # GemNet-Q
    124926
    >>> dimenet_tf.build_model("GemNet", triplets_only=True, **sizes).count_params()  # GemNet-T
    79419
    """

    choices = {
        "conventions": ("official", "oc20"),
        "radial_basis": tuple(STORED_BASES),
        "aggregation": AGGREGATION_OPTIONS,
        "output_init": ("zeros", "HeOrthogonal"),
        "normalization": tuple(NORMALIZATIONS),
    }
    may_be_zero = ("envelope_exponent", "num_before_skip", "num_after_skip")
    meaning = (
        "cutoff",
        "int_cutoff",
        "envelope_exponent",
        "radial_basis",
        "conventions",
        "extensive",
        "forces_coupled",
        "max_neighbors",
    )
    has_scale_factors = True
    small = {
        "num_spherical": 4,
        "num_radial": 4,
        "num_blocks": 2,
        "emb_size_atom": 12,
        "emb_size_edge": 16,
        "emb_size_trip": 8,
        "emb_size_quad": 6,
        "emb_size_rbf": 5,
        "emb_size_cbf": 4,
        "emb_size_sbf": 6,
        "emb_size_bil_trip": 8,
        "emb_size_bil_quad": 6,
        "num_atom": 1,
        "cutoff": 3.0,
        "int_cutoff": 4.0,
    }
    variants = (
        {},
        {"triplets_only": True},
        {"triplets_only": True, "aggregation": "harmonics"},
        {"direct_forces": True, "forces_coupled": True, "num_targets": 2},
        {"conventions": "oc20", "triplets_only": True, "radial_basis": "gaussian", "extensive": False},
        {"symmetric": False, "bilinear": False, "normalization": "none"},
        {"one_hop": False, "atom_updates": False, "normalization": "layer_norm", "bias": True},
    )

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
        conventions: str = "official",
        radial_basis: str = "bessel",
        max_neighbors: int = 0,
        aggregation: str = "auto",
        symmetric: bool = True,
        bilinear: bool = True,
        atom_updates: bool = True,
        one_hop: bool = True,
        normalization: str = "scaling",
        bias: bool = False,
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        oc20 = conventions == "oc20"
        check_limit(max_neighbors, conventions)
        if oc20 and not triplets_only:
            raise UserError("conventions = 'oc20' needs triplets_only = True: OC20 has no GemNet-Q", "conventions")
        if radial_basis == "gaussian" and not oc20:
            raise UserError("radial_basis = 'gaussian' needs conventions = 'oc20'", "radial_basis")
        self.aggregation_class = choose_aggregation(aggregation, "interior", best="sum_first")
        self.needs = self.aggregation_class.needs | (
            frozenset() if triplets_only else {"atom_edges", "far_edges", "far_table"}
        )
        dtype, seeds = self.dtype, seed_stream(seed)
        settings = Settings(**{field: self._hyperparameters[field] for field in Settings._fields})
        size: dict[str, Any] = {
            "num_spherical": num_spherical,
            "num_radial": num_radial,
            "envelope_exponent": envelope_exponent - 1,
        }

        def shared(units: int) -> tf.keras.layers.Layer:
            return scaled_dense(units, next(seeds), None, dtype=dtype)

        def projection(units: int) -> BasisProjection:
            return BasisProjection(units, next(seeds), HeOrthogonal, dtype=dtype)

        self.rbf_basis = STORED_BASES[radial_basis](num_radial, cutoff, envelope_exponent - 1, dtype=dtype)
        if oc20:
            self.cbf_basis = CircularBasis(cutoff=cutoff, radial_basis=radial_basis, dtype=dtype, **size)
        else:
            self.cbf_basis = SphericalBasis(cutoff=cutoff, dtype=dtype, **size)
        # prefactors of the bases, which are defined without them
        self._rbf_norm = 1.0 if radial_basis == "gaussian" else math.sqrt(2 / cutoff) / cutoff
        self._cbf_norm = self._rbf_norm if oc20 else cutoff**-1.5
        self.mlp_rbf3, self.mlp_rbf_h, self.mlp_rbf_out = (shared(emb_size_rbf) for _ in range(3))
        self.mlp_cbf3 = projection(emb_size_cbf)
        if not triplets_only:
            self.int_cbf_basis = SphericalBasis(cutoff=int_cutoff, dtype=dtype, **size)
            self.mlp_rbf4, self.mlp_cbf4 = shared(emb_size_rbf), projection(emb_size_cbf)
            self.mlp_sbf4 = projection(emb_size_sbf)
        self.atom_emb = AtomEmbedding(emb_size_atom, next(seeds), dtype=dtype)
        self.edge_emb = EdgeEmbedding(settings, next(seeds), dtype=dtype)
        self.int_blocks = [
            InteractionBlock(
                settings,
                num_before_skip,
                num_after_skip,
                num_concat,
                num_atom,
                one_hop,
                not triplets_only,
                atom_updates,
                seed=next(seeds),
                dtype=self.dtype_policy,
            )
            for _ in range(num_blocks)
        ]
        self.out_blocks = [
            OutputBlock(settings, num_atom, num_targets, output_init, direct_forces, seed=next(seeds), dtype=dtype)
            for _ in range(num_blocks + 1)
        ]

    def call(self, graph: Graph) -> AtomOutputs:
        vectors = edge_vectors(graph)  # (edges, 3)
        distance = safe_norm(vectors)  # (edges,)
        limit = NeighborLimit(graph, distance, self.max_neighbors, symmetric=True)
        rbf = limit.mask(self.rbf_basis(distance)) * self._rbf_norm  # (edges, num_radial)
        triplets, quadruplets = self.bases(graph, vectors, distance, rbf)
        rbf_h = self.mlp_rbf_h(rbf) if self.atom_updates else None  # (edges, emb_size_rbf)
        rbf_out = self.mlp_rbf_out(rbf)  # (edges, emb_size_rbf)

        h = self.atom_emb(graph.atomic_numbers)  # (atoms, emb_size_atom)
        m = self.edge_emb(h, rbf, graph)  # (edges, emb_size_edge)
        outputs = [self.out_blocks[0](m, rbf_out, graph)]  # (atoms, num_targets), (edges, num_targets)
        for interaction, output in zip(self.int_blocks, self.out_blocks[1:]):
            h, m = interaction(h, m, rbf_h, triplets, quadruplets, graph)
            outputs.append(output(m, rbf_out, graph))
        energy, along_edge = (tf.add_n(list(parts)) for parts in zip(*outputs))
        forces = self.forces(along_edge, vectors, graph) if self.direct_forces else None
        return atom_outputs(energy, forces=forces, dropped=limit.dropped)

    def bases(
        self, graph: Graph, vectors: tf.Tensor, distance: tf.Tensor, rbf: tf.Tensor
    ) -> tuple[TripletBasis | None, QuadrupletBasis | None]:
        """Return the bases of triplets and quadruplets, reduced by the projections that all blocks share."""
        radial = self.cbf_basis.radial(distance) * self._cbf_norm  # (edges, num_spherical, num_radial)
        triplets = None
        if self.one_hop:
            pairs = self.aggregation_class(graph, "interior", radial_edge="ji", updates="ij")
            angular = pairs.angular(vectors, self.cbf_basis)
            triplets = TripletBasis(pairs, angular, rbf=self.mlp_rbf3(rbf), cbf=self.mlp_cbf3(radial))
        if self.triplets_only:
            return triplets, None
        quadruplets = Quadruplets(graph, vectors, self.num_spherical)
        distance_ab = tf.reshape(quadruplets.distance_ab, [-1])
        radial_ab = self.int_cbf_basis.radial(distance_ab) * self.int_cutoff**-1.5
        by_harmonic = tf.gather(radial, degrees(self.num_spherical), axis=1)  # (edges, num_spherical^2, num_radial)
        cbf = quadruplets.circular(self.mlp_cbf4(radial_ab))
        return triplets, QuadrupletBasis(quadruplets, rbf=self.mlp_rbf4(rbf), cbf=cbf, sbf=self.mlp_sbf4(by_harmonic))

    def forces(self, along_edge: tf.Tensor, vectors: tf.Tensor, graph: Graph) -> tf.Tensor:
        """Return direct forces on the atoms, (atoms, num_targets, 3): sums over edges of numbers times directions."""
        if self.forces_coupled:
            along_edge = (along_edge + reverse_edges(along_edge, graph.edge_reverse)) / 2
        directions = -unit_vectors(vectors)  # from source to target
        forces = along_edge[:, :, None] * directions[:, None]  # (edges, num_targets, 3)
        flat = tf.reshape(forces, [-1, 3 * self.num_targets])
        summed = segment_sum(flat, graph.edge_target, tf.shape(graph.atomic_numbers)[0])
        return tf.reshape(summed, [-1, self.num_targets, 3])

    @property
    def far_cutoff(self) -> float | None:
        return None if self.triplets_only else self.int_cutoff

    @property
    def discontinuity(self) -> str:
        return LIMIT_JUMPS if self.max_neighbors else ""

    def shared_weights(self) -> list[tuple[tf.Variable, int]]:
        """Return the down-projections of the bases (App. F)."""
        in_blocks = [self.mlp_rbf3, self.mlp_cbf3] if self.one_hop else []
        if self.atom_updates:
            in_blocks.append(self.mlp_rbf_h)
        if not self.triplets_only:
            in_blocks += [self.mlp_rbf4, self.mlp_cbf4, self.mlp_sbf4]
        shared = [(layer.kernel, self.num_blocks) for layer in in_blocks]
        return [*shared, (self.mlp_rbf_out.kernel, self.num_blocks + 1)]

    def basis_pictures(self) -> dict[str, Picture]:
        """Return radial and circular bases, and the spherical basis of the quadruplets' torsion (Sec. 4)."""
        pictures: dict[str, Picture] = {
            "basis_radial": radial_curves(self.rbf_basis, self.cutoff, self.dtype),
            "basis_circular": spherical_disks(self.cbf_basis),
        }
        if not self.triplets_only:
            pictures["basis_circular_quadruplets"] = spherical_disks(self.int_cbf_basis)
            pictures["basis_spherical"] = harmonic_disks(self.cbf_basis)
        return pictures

    def filter_pictures(self) -> dict[str, Picture]:
        """Return the filters of each block: the projections of the bases that the block learns, after the shared ones.

        Circular and spherical filters are those of the first feature of the messages (bilinear layers).
        """
        d = distances(self.cutoff, self.dtype)
        rbf = self.rbf_basis(d)
        pictures: dict[str, Picture] = {}
        for b, block in enumerate(self.int_blocks):
            triplets, quadruplets = block.trip_interaction, block.quad_interaction
            radial = {}
            if triplets is not None:
                radial["triplets"] = self.mlp_rbf3, triplets.mlp_rbf
                kernel = self.mlp_cbf3.kernel.numpy() @ triplets.mlp_cbf.filters()
                pictures[f"filters_{b}_circular"] = filter_disks(self.cbf_basis, kernel)
            if block.atom_update is not None:
                radial["sum onto atoms"] = self.mlp_rbf_h, block.atom_update.dense_rbf
            if quadruplets is not None:
                radial["quadruplets"] = self.mlp_rbf4, quadruplets.mlp_rbf
                kernel = self.mlp_cbf4.kernel.numpy() @ quadruplets.mlp_cbf.kernel.numpy()
                pictures[f"filters_{b}_circular_quadruplets"] = filter_disks(self.int_cbf_basis, kernel)
                kernel = self.mlp_sbf4.kernel.numpy() @ quadruplets.mlp_sbf.filters()
                pictures[f"filters_{b}_spherical"] = torsion_disks(
                    self.cbf_basis, degrees(self.num_spherical), kernel, 6, mirrored=True
                )
            panels = {
                title: tf.cast(layer(shared(rbf)), tf.float64).numpy()[:, :NUM_FILTERS]
                for title, (shared, layer) in radial.items()
            }
            pictures[f"filters_{b}_radial"] = Curves(d.numpy(), panels)
        return pictures

    def architecture(self) -> Diagram:
        """Return the diagram of Fig. 3."""
        diagram = Diagram(5.2, 10.4)
        box, arrow = diagram.box, diagram.arrow
        box(0.2, 6.3, 3.0, 1.6, "atoms\n$Z$, $R$", "input")
        box(0.2, 2.3, 3.0, 1.6, "graph\nedges within\nthe cutoff", "input")
        box(4.4, 6.3, 4.0, 1.6, "radial basis\nof $d_{ca}$ (RBF)", "basis")
        circular = "circular basis of\n$d_{ca}$, angle $cab$ (CBF)"
        directional = "CBF to triplets $c, b \\to a$"
        if not self.triplets_only:
            circular += "\nand spherical basis of\n$d_{ca}$, $cab$, torsion $cabd$ (SBF)"
            directional += "; CBF, SBF to quadruplets $c \\to a, b \\leftarrow d$"
        box(4.4, 2.1, 4.0, 2.0, circular, "basis")
        columns = [(9.4, "embeddings of\natoms, edges"), (12.6, "interaction\nblock 1")]
        columns.append((16.2, f"interaction\nblock {self.num_blocks}"))
        for x, text in columns:
            box(x, 6.3, 2.4, 1.6, text, "block")
            box(x, 2.3, 2.4, 1.6, "output\nblock", "block")
            arrow((x + 1.2, 6.1), (x + 1.2, 4.1))
            arrow((x + 1.2, 2.1), (x + 1.2, 1.1))
            diagram.text(x + 1.35, 5.0, "$m_{ca}$", 9)
        diagram.text(11.8, 8.15, "$h, m$", 8)
        diagram.text(15.3, 7.0, "...", 14)
        result = "energy and forces" if self.direct_forces else "energy"
        box(9.4, 0.1, 9.2, 0.8, "sum over blocks, then over atoms", "head")
        box(19.3, 0.1, 2.5, 0.8, result, "head")
        arrow((18.8, 0.5), (19.1, 0.5))
        arrow((1.7, 6.1), (1.7, 4.1))
        arrow((3.4, 3.6), (4.2, 6.7))
        arrow((3.4, 3.1), (4.2, 3.1))
        arrow((8.6, 7.1), (9.2, 7.1))
        arrow((12.0, 7.1), (12.4, 7.1))
        arrow((15.8, 7.1), (16.0, 7.1))
        diagram.line([6.4, 6.4, 17.4], [8.1, 9.0, 9.0], BASIS)
        diagram.line([6.4, 6.4, 8.9, 8.9, 17.9], [4.3, 4.9, 4.9, 9.7, 9.7], DIRECTIONS)
        for x in (13.6, 17.2):
            arrow((x, 9.0), (x, 8.1))
            arrow((x + 0.5, 9.7), (x + 0.5, 8.1))
        diagram.text(9.2, 9.1, "RBF")
        diagram.text(9.2, 9.8, directional)
        return diagram

    def kept_per_edge(self, neighbors: float) -> float:
        triplets = 3 * neighbors * self.emb_size_cbf + 3 * self.emb_size_cbf * self.emb_size_trip
        if self.triplets_only:
            return dense_activations(self) + self.num_blocks * triplets
        harmonics, messages = self.num_spherical**2, self.emb_size_quad
        quadruplets = (2 * harmonics + 3 * self.emb_size_sbf + 4 * neighbors) * messages
        blocks = self.num_blocks * (triplets + quadruplets)
        # assume as many atoms b within the interaction cutoff as neighbors
        return dense_activations(self) + blocks + 3 * harmonics * neighbors**2
