"""PaiNN: Schuett, Unke, Gastegger, "Equivariant Message Passing for the Prediction of Tensorial Properties", 2021."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from dimenet_tf.basis import BARE_BASES, CUTOFFS, make_cutoff
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.activations import dense_activations
from dimenet_tf.layers.equivariant import GatedEquivariantBlock, exact_norm, output_dense, smooth_norm, xavier_dense
from dimenet_tf.layers.gathers import NeighborSlots, gather, segment_sum
from dimenet_tf.layers.geometry import edge_vectors, safe_norm, unit_vectors
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.neighbor_limit import LIMIT_JUMPS, NeighborLimit, check_limit
from dimenet_tf.layers.output import AtomOutputs, atom_outputs
from dimenet_tf.layers.pictures import BASIS, NUM_FILTERS, Curves, Diagram, Picture, distances, radial_curves
from dimenet_tf.layers.scaled import ScaleFactor, scaled_swish
from dimenet_tf.models.hyperparameters import Hyperparameters

NUM_EMBEDDINGS = 100  # rows of the published table of atoms


JUMPS = (
    "conventions = 'oc20' does not cut the bias of the filters off: energies jump where a distance crosses the cutoff; "
    "conventions = 'official' is continuous"
)


class Filters(tf.keras.layers.Layer):
    """Filters W(d) = (W rbf + b) f_cut of all messages: `count` arrays (edges, units).

    With `cut_bias` False, the cutoff does not multiply the bias: W(d) = W rbf f_cut + b (OC20).
    """

    def __init__(self, units: int, count: int, cut_bias: bool, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.count = count
        self.cut_bias = cut_bias
        self.seed = seed

    def build(self, input_shape: tf.TensorShape) -> None:
        shape = [input_shape[-1], self.count * self.units]
        self.kernel = self.add_weight("kernel", shape, initializer=tf.keras.initializers.GlorotUniform(self.seed))
        self.bias = self.add_weight("bias", shape[1:], initializer="zeros")
        super().build(input_shape)

    def call(self, rbf: tf.Tensor, f_cut: tf.Tensor) -> list[tf.Tensor]:
        # The bias is treated as the kernel of an extra constant radial function. One matmul per filter avoids splitting
        # a large array.
        constant = f_cut if self.cut_bias else tf.ones_like(f_cut)
        radial = tf.concat([rbf * f_cut, constant], axis=-1)  # (edges, num_radial + 1)
        kernel = tf.concat([self.kernel, self.bias[None]], axis=0)
        return [tf.matmul(radial, part) for part in tf.split(kernel, self.count, axis=-1)]


class Neighborhood:
    """Sums over the neighbors j of every atom i.

    Parameters
    ----------
    graph : with `atom_edges`
    directions : (edges, 3), unit vectors from i to j
    """

    def __init__(self, graph: Graph, directions: tf.Tensor) -> None:
        self.graph = graph
        self.slots = NeighborSlots(graph)
        used = tf.cast(self.slots.used, directions.dtype)[..., None]
        self.directions = self.slots.pad(directions) * used  # (atoms, k, 3)

    def sum(self, filters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return sum_j W_ij x_j; (edges, units), (atoms, units) -> (atoms, units)."""
        return segment_sum(filters * gather(x, self.graph.edge_source), self.graph.edge_target, tf.shape(x)[0])

    def sum_along(self, filters: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Return sum_j W_ij x_j r_ij/|r_ij|; (edges, units), (atoms, units) -> (atoms, 3, units)."""
        product = filters * gather(x, self.graph.edge_source)  # (edges, units)
        return tf.matmul(self.directions, self.slots.pad(product), transpose_a=True)


class Message(tf.keras.layers.Layer):
    """Residuals of scalars and vectors from the neighbors, Eqs. 7 and 8, Fig. 2b.

    Parameters
    ----------
    units : int
    kinds : int
        1 updates scalars only, 2 also vectors by scalars (phi_vs), 3 also vectors by vectors (phi_vv).
    scaled : bool
        Normalize the scalars and scale the sums (OC20).
    seed : int
    """

    def __init__(self, units: int, kinds: int, scaled: bool, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.kinds = kinds
        self.scaled = scaled
        seeds = seed_stream(seed)
        if scaled:
            self.norm = tf.keras.layers.LayerNormalization(epsilon=1e-5, dtype=self.dtype)
        self.dense_1 = xavier_dense(units, next(seeds), scaled_swish if scaled else swish, dtype=self.dtype_policy)
        self.dense_2 = xavier_dense(kinds * units, next(seeds), dtype=self.dtype_policy)

    def call(
        self, s: tf.Tensor, v: tf.Tensor | None, filters: list[tf.Tensor], neighborhood: Neighborhood
    ) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Return the residuals of scalars and vectors; `v` is None while all vectors are zero."""
        x = self.dense_2(self.dense_1(self.norm(s) if self.scaled else s))
        phi = tf.split(tf.cast(x, s.dtype), self.kinds, axis=-1)  # (atoms, units) each
        s = s + neighborhood.sum(filters[0], phi[0])
        if self.scaled:
            s, units = s / math.sqrt(2), phi[0].shape[-1]
            phi = [phi[0], *(kind / math.sqrt(factor * units) for kind, factor in zip(phi[1:], (1, 3)))]
        if self.kinds == 1:
            return s, None
        from_scalars = neighborhood.sum_along(filters[1], phi[1])  # (atoms, 3, units)
        if v is None:
            return s, from_scalars
        if self.kinds == 2:
            return s, v + from_scalars
        components = [neighborhood.sum(filters[2], phi[2] * component) for component in tf.unstack(v, axis=1)]
        return s, v + from_scalars + tf.stack(components, axis=1)


class Update(tf.keras.layers.Layer):
    """Residuals of scalars and vectors from each other, Eqs. 9 and 10, Fig. 2c.

    Parameters
    ----------
    units : int
    vectors : bool
    scalar_product : bool, the second term of Eq. 9
    scaled : bool
        Scale sums, and the resulting scalars by a constant factor (OC20).
    seed : int
    """

    def __init__(self, units: int, vectors: bool, scalar_product: bool, scaled: bool, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        self.count = 1 if not vectors else 3 if scalar_product else 2
        self.scale = ScaleFactor(dtype=self.dtype) if scaled else None
        self.dense_1 = xavier_dense(units, next(seeds), scaled_swish if scaled else swish, dtype=policy)
        self.dense_2 = xavier_dense(self.count * units, next(seeds), dtype=policy)
        if vectors:
            self.mix = xavier_dense(2 * units, next(seeds), use_bias=False, dtype=policy)

    def call(self, s: tf.Tensor, v: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor | None]:
        if v is None:
            return self.added(s, self.scaling(s)[0]), None
        Vv, Uv = tf.split(tf.cast(self.mix(v), v.dtype), 2, axis=-1)  # (atoms, 3, units)
        a_ss, a_vv, *a_sv = self.scaling(tf.concat([s, smooth_norm(Vv)], axis=-1))  # (atoms, units)
        ds = a_ss
        if a_sv:
            product = tf.reduce_sum(Uv * Vv, axis=1)
            ds += a_sv[0] * (product / math.sqrt(s.shape[-1]) if self.scale else product)
        return self.added(s, ds), v + a_vv[:, None] * Uv

    def added(self, s: tf.Tensor, ds: tf.Tensor) -> tf.Tensor:
        """Return the scalars with their residual added, (atoms, units)."""
        return self.scale(s + ds / math.sqrt(2), reference=s) if self.scale else s + ds

    def scaling(self, x: tf.Tensor) -> list[tf.Tensor]:
        """Return the functions a of Eqs. 9 and 10, (atoms, units) each."""
        return tf.split(tf.cast(self.dense_2(self.dense_1(x)), x.dtype), self.count, axis=-1)


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class PaiNN(Hyperparameters, tf.keras.Model):
    """PaiNN model.

    `model(graph)` returns `AtomOutputs` with scalars (atoms, num_targets) and vectors (atoms, num_vectors, 3). Scalars
    are read out of the atoms' scalar features; the last `num_vectors` of them come from gated equivariant blocks, each
    with the vector of the same number (Sec. 4.2).

    Parameters
    ----------
    emb_size : int
        Features of an atom, scalar and vectorial (F).
    num_blocks : int
        Message and update blocks.
    num_radial : int
        Radial functions.
    cutoff : float
        Distance up to which atoms are neighbors, Angstrom.
    radial_basis : "bessel" (the paper) or "gaussian"
        Frequencies, centers and widths are not trained.
    envelope : "cosine" (the paper) or "polynomial"
        Smooth cutoff of the filters. The cosine's second derivative jumps at the cutoff; that of the polynomial
        (DimeNet, Eq. 8, p = envelope_exponent + 1) does not.
    envelope_exponent : int
        Of the polynomial envelope.
    shared_filters : bool
        Use the same filters in all blocks.
    scalar_product, vector_propagation, vectors : bool
        Ablations of Table 4: without the scalar product of Eq. 9, without the convolution of vectors in Eq. 8
        (W_vv = 0), without any vectors: only Eq. 7 and a_ss(s) of Eq. 9 are left.
    num_targets : int
    num_vectors : int
        At most num_targets.
    direct_forces : bool
        Predict forces by gated equivariant blocks instead of the energy's gradient. They do not conserve energy.
    conventions : "official" or "oc20"
        "official" has the formulas of the paper. "oc20" has those of the models trained on OC20: layer normalization,
        scaled sums, swish / 0.6, and a cutoff that does not multiply the bias of the filters. Their basis is
        `radial_basis: gaussian` with `envelope: polynomial` and `envelope_exponent: 4`.
    max_neighbors : int
        Nearest neighbors of an atom that exchange messages with it, for weights of OC20 that were trained with such a
        limit (`conventions: oc20`). Without a limit, 0, all neighbors within the cutoff do.
    output_init : "GlorotUniform" or "zeros"
        Initial weights of the last layers.
    extensive : bool
        Used by the head: sum or mean over atoms.
    seed : int

    Examples
    --------
    >>> import dimenet_tf
    >>> model = dimenet_tf.build_model("PaiNN", emb_size=16, num_targets=2, num_vectors=1)
    >>> water = model.graph_store([3], [8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    >>> outputs = model(water.batch([0]).to_tensors())
    >>> outputs.scalars.shape, outputs.vectors.shape
    (TensorShape([3, 2]), TensorShape([3, 1, 3]))
    """

    choices = {
        "radial_basis": tuple(BARE_BASES),
        "envelope": tuple(CUTOFFS),
        "conventions": ("official", "oc20"),
        "output_init": ("zeros", "GlorotUniform"),
    }
    may_be_zero = ("envelope_exponent",)
    meaning = ("cutoff", "radial_basis", "envelope", "envelope_exponent", "conventions", "extensive", "max_neighbors")
    small = {"emb_size": 16, "num_blocks": 2, "num_radial": 8, "cutoff": 3.0}
    variants = (
        {},
        {"radial_basis": "gaussian", "num_targets": 2, "num_vectors": 1},
        {"envelope": "polynomial", "vector_propagation": False, "scalar_product": False},
        {"conventions": "oc20", "radial_basis": "gaussian", "envelope": "polynomial", "envelope_exponent": 4},
    )

    def __init__(
        self,
        emb_size: int = 128,
        num_blocks: int = 3,
        num_radial: int = 20,
        cutoff: float = 5.0,
        radial_basis: str = "bessel",
        envelope: str = "cosine",
        envelope_exponent: int = 5,
        shared_filters: bool = False,
        scalar_product: bool = True,
        vector_propagation: bool = True,
        vectors: bool = True,
        num_targets: int = 1,
        num_vectors: int = 0,
        direct_forces: bool = False,
        conventions: str = "official",
        max_neighbors: int = 0,
        output_init: str = "GlorotUniform",
        extensive: bool = True,
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        check_limit(max_neighbors, conventions)
        if not vectors and num_vectors:
            raise UserError(f"vectors = False leaves no vectors, but num_vectors = {num_vectors}", "vectors")
        if not 0 <= num_vectors <= num_targets:
            raise UserError(
                f"num_vectors must be between 0 and num_targets = {num_targets}; got {num_vectors}", "num_vectors"
            )
        if direct_forces and (num_targets > 1 or not vectors):
            raise UserError("direct_forces = True needs num_targets = 1 and vectors = True", "direct_forces")
        self.needs = frozenset({"atom_edges"})
        oc20 = conventions == "oc20"
        activation = scaled_swish if oc20 else swish
        dtype, policy, seeds = self.dtype, self.dtype_policy, seed_stream(seed)
        self.kinds = 1 if not vectors else 3 if vector_propagation else 2

        self.rbf_basis = BARE_BASES[radial_basis](num_radial, cutoff, dtype=dtype)
        self.cutoff_function = make_cutoff(envelope, envelope_exponent, dtype=dtype)
        count = self.kinds * (1 if shared_filters else num_blocks)
        self.filters = Filters(emb_size, count, not oc20, next(seeds), dtype=dtype)
        normal = tf.keras.initializers.RandomNormal(0.0, 1.0, seed=next(seeds))
        self.atom_emb = tf.keras.layers.Embedding(NUM_EMBEDDINGS, emb_size, normal, dtype=dtype)
        self.message_blocks = [
            Message(emb_size, self.kinds, oc20, next(seeds), dtype=policy) for _ in range(num_blocks)
        ]
        self.update_blocks = [
            Update(emb_size, vectors, scalar_product, oc20, next(seeds), dtype=policy) for _ in range(num_blocks)
        ]
        half = emb_size // 2
        if num_targets > num_vectors:
            self.out_1 = xavier_dense(half, next(seeds), activation, dtype=dtype)
            self.out_2 = output_dense(num_targets - num_vectors, output_init, next(seeds), dtype=dtype)
        self.out_gated = [
            [
                GatedEquivariantBlock(emb_size, half, next(seeds), swish, dtype=dtype),
                GatedEquivariantBlock(half, 1, next(seeds), output_init=output_init, dtype=dtype),
            ]
            for _ in range(num_vectors)
        ]
        if direct_forces:
            norm = exact_norm if oc20 else smooth_norm
            self.out_forces = [
                GatedEquivariantBlock(emb_size, half, next(seeds), activation, norms=emb_size, norm=norm, dtype=dtype),
                GatedEquivariantBlock(
                    half, 1, next(seeds), activation, output_init, norms=half, norm=norm, dtype=dtype
                ),
            ]

    def call(self, graph: Graph) -> AtomOutputs:
        r_ij = edge_vectors(graph)  # (edges, 3)
        neighborhood = Neighborhood(graph, unit_vectors(r_ij))
        distance = safe_norm(r_ij)
        limit = NeighborLimit(graph, distance, self.max_neighbors, symmetric=True)
        filters = [[limit.mask(W) for W in block] for block in self.edge_filters(distance)]  # (edges, emb_size) each

        s, v = self.atom_emb(graph.atomic_numbers), None  # (atoms, emb_size), (atoms, 3, emb_size)
        for message, update, block_filters in zip(self.message_blocks, self.update_blocks, filters):
            s, v = message(s, v, block_filters, neighborhood)
            s, v = update(s, v)
        return self.read_out(s, v, limit.dropped)

    def edge_filters(self, distance: tf.Tensor) -> list[list[tf.Tensor]]:
        """Return the filters of every block, one for each kind of message, (edges, emb_size)."""
        rbf = self.rbf_basis(distance)  # (edges, num_radial)
        f_cut = self.cutoff_function(distance[:, None] / self.cutoff)  # (edges, 1)
        filters = self.filters(rbf, f_cut)
        blocks = [filters[start : start + self.kinds] for start in range(0, len(filters), self.kinds)]
        return blocks * self.num_blocks if self.shared_filters else blocks

    def read_out(self, s: tf.Tensor, v: tf.Tensor | None, dropped: tf.Tensor | None) -> AtomOutputs:
        scalars, vectors = [], []
        if self.num_targets > self.num_vectors:
            scalars.append(self.out_2(self.out_1(s)))
        for first, second in self.out_gated:
            scalar, vector = second(*first(s, v))  # (atoms, 1), (atoms, 3, 1)
            scalars.append(scalar)
            vectors.append(vector)
        forces = None
        if self.direct_forces:
            first, second = self.out_forces
            forces = tf.transpose(second(*first(s, v))[1], [0, 2, 1])  # (atoms, 1, 3)
        joined = tf.transpose(tf.concat(vectors, axis=-1), [0, 2, 1]) if vectors else None
        return atom_outputs(tf.concat(scalars, axis=-1), joined, forces, dropped)

    @classmethod
    def gives_vectors(cls, hyperparameters: Mapping[str, Any]) -> bool:
        return bool(hyperparameters.get("vectors", True))

    @property
    def discontinuity(self) -> str:
        if self.max_neighbors:
            return LIMIT_JUMPS
        return JUMPS if self.conventions == "oc20" else ""

    def basis_pictures(self) -> dict[str, Picture]:
        def enveloped(d: tf.Tensor) -> tf.Tensor:
            return self.rbf_basis(d) * self.cutoff_function(d / self.cutoff)[:, None]

        return {"basis_radial": radial_curves(enveloped, self.cutoff, self.dtype)}

    def filter_pictures(self) -> dict[str, Picture]:
        """Return the filters W_s, W_vs and W_vv of each block."""
        d, titles = distances(self.cutoff, self.dtype), ("$W_s$", "$W_{vs}$", "$W_{vv}$")
        pictures: dict[str, Picture] = {}
        for b, block_filters in enumerate(self.edge_filters(d)):
            panels = {title: values.numpy()[:, :NUM_FILTERS] for title, values in zip(titles, block_filters)}
            pictures[f"filters_{b}"] = Curves(d.numpy(), panels)
        return pictures

    def architecture(self) -> Diagram:
        """Return the diagram of Fig. 2."""
        diagram = Diagram(3.6, 7.8)
        box, arrow = diagram.box, diagram.arrow
        box(0.2, 5.3, 3.0, 1.6, "atoms\n$Z$, $R$", "input")
        box(0.2, 1.3, 3.0, 1.6, "graph\nedges within\nthe cutoff", "input")
        box(4.4, 5.3, 2.8, 1.6, "embedding\n$s_i$; $\\vec v_i = 0$", "block")
        box(4.4, 1.3, 2.8, 1.6, "radial basis of $d_{ij}$,\nfilters $W$", "basis")
        for x, number in ((8.6, "1"), (13.9, self.num_blocks)):
            box(x, 5.3, 1.9, 1.6, f"message\n{number}", "block")
            box(x + 2.3, 5.3, 1.9, 1.6, f"update\n{number}", "block")
            arrow((x + 2.05, 6.1), (x + 2.2, 6.1))
            diagram.line([7.4, x + 0.95], [2.1, 2.1], BASIS)
            arrow((x + 0.95, 2.1), (x + 0.95, 5.1))
        diagram.text(10.4, 2.3, "$W_s, W_{vs}, W_{vv}$ and directions $\\vec r_{ij}/d_{ij}$")
        diagram.text(13.0, 6.1, "...", 14)
        box(18.9, 5.3, 2.8, 1.6, "read-out of $s_i$,\ngated blocks of $s_i, \\vec v_i$", "head")
        box(18.9, 1.3, 2.8, 1.6, "scalars and vectors\nof the atoms", "head")
        arrow((1.7, 5.1), (1.7, 3.1))
        arrow((3.4, 6.1), (4.2, 6.1))
        arrow((3.4, 2.1), (4.2, 2.1))
        arrow((7.4, 6.1), (8.4, 6.1))
        arrow((18.2, 6.1), (18.7, 6.1))
        arrow((20.3, 5.1), (20.3, 3.1))
        diagram.text(16.9, 7.3, "$s_i, \\vec v_i$", 9)
        return diagram

    def kept_per_edge(self, neighbors: float) -> float:
        vectors = {1: 0, 2: 1, 3: 4}[self.kinds]  # arrays of the size of a filter that are summed into vectors
        per_edge = self.num_blocks * (self.kinds + 1 + vectors) * self.emb_size
        # dense layers are applied to atoms; `mix` has a row for each of the three components of a vector
        mixing = sum(dense_activations(block.mix) for block in self.update_blocks) if self.kinds > 1 else 0
        per_atom = dense_activations(self) + 2 * mixing
        return per_edge + per_atom / max(neighbors, 1.0)
