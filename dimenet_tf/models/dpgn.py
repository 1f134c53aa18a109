"""DPGN: Svoedstein, "Geometric Message Passing to utilize local and non-local information in 3D Graph Networks"."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import tensorflow as tf

from dimenet_tf.basis import BesselBasis, SphericalBasis
from dimenet_tf.basis.formulas import degrees
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.activations import dense_activations
from dimenet_tf.layers.dense import BasisProjection, dense, linear
from dimenet_tf.layers.embedding import EmbeddingBlock
from dimenet_tf.layers.gathers import gather
from dimenet_tf.layers.geometry import edge_vectors, far_vectors, safe_norm
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.interaction import SkipUpdate
from dimenet_tf.layers.nodes import NodeOutputBlock
from dimenet_tf.layers.nonlocal_blocks import GlobalEdges, NonLocalBlock, PBlock, projections
from dimenet_tf.layers.output import AtomOutputs, OutputBlock, atom_outputs
from dimenet_tf.layers.pictures import ATOMS, Diagram, Picture, directional_diagram, filter_disks
from dimenet_tf.layers.torsions import JUMPS, SphericalSums, kept_harmonics
from dimenet_tf.models.hyperparameters import Hyperparameters


class Bases(NamedTuple):
    """Basis functions of the edges' distances, shared by all blocks."""

    rbf: tf.Tensor
    """(edges, num_radial)."""
    cbf: tf.Tensor
    """(edges, num_spherical, num_radial), radial part of the circular representation."""
    sbf: tf.Tensor | None
    """(edges, num_harmonics, num_radial), radial part of the spherical representation; None without torsions."""


class InteractionBlock(SkipUpdate):
    """Geometric message passing (Sec. V-A), combined with features of atoms, then residual layers and P-block.

    x_kj = swish(W (rbf_kj W W * swish(W m_kj + b)))
    s_ji = sum_k sum_b sbf_b W_b (cbf W W * x_kj)              (without bilinear layer: sbf W W * cbf W W * x_kj)
    y_ji = swish(W m_ji + b) + swish(W [s_ji, v_j, v_i]), then `SkipUpdate`, then `PBlock`

    Parameters
    ----------
    emb_size, int_emb_size, basis_emb_size, num_bilinear, num_before_skip, num_after_skip : int
    torsion, bilinear, p_block : bool
    seed : int
    """

    def __init__(
        self,
        emb_size: int,
        int_emb_size: int,
        basis_emb_size: int,
        num_bilinear: int,
        num_before_skip: int,
        num_after_skip: int,
        torsion: bool,
        bilinear: bool,
        p_block: bool,
        seed: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.int_emb_size = int_emb_size
        self.num_bilinear = num_bilinear
        self.with_torsion = torsion
        self.with_bilinear = bilinear
        seeds, policy, dtype = seed_stream(seed), self.dtype_policy, self.dtype
        self.dense_ji = dense(emb_size, next(seeds), dtype=policy)
        self.dense_kj = dense(emb_size, next(seeds), dtype=policy)
        self.dense_rbf1, self.dense_rbf2 = projections(basis_emb_size, emb_size, seeds, dtype)
        self.dense_cbf1 = BasisProjection(basis_emb_size, next(seeds), dtype=dtype)
        self.dense_cbf2 = linear(int_emb_size, next(seeds), dtype=dtype)
        if bilinear:
            self.dense_sbf = BasisProjection(num_bilinear, next(seeds), dtype=dtype)
            self._bilinear_seed = next(seeds)
        elif torsion:
            self.dense_sbf1 = BasisProjection(basis_emb_size, next(seeds), dtype=dtype)
            self.dense_sbf2 = linear(int_emb_size, next(seeds), dtype=dtype)
        self.down_projection = dense(int_emb_size, next(seeds), use_bias=False, dtype=policy)
        self.up_projection = linear(emb_size, next(seeds), dtype=policy)
        self.dense_source = linear(emb_size, next(seeds), dtype=dtype)
        self.dense_target = linear(emb_size, next(seeds), dtype=dtype)
        self.make_update(emb_size, num_before_skip, num_after_skip, seeds)
        self.p_block = PBlock(emb_size, next(seeds), dtype=policy) if p_block else None

    def build(self, input_shape: tf.TensorShape) -> None:
        # Never called: `SphericalSums` uses the kernels directly.
        self.dense_cbf2.build([None, self.dense_cbf1.units])
        if self.with_bilinear:
            self.bilinear = self.add_weight(
                "bilinear",
                shape=[self.int_emb_size, self.num_bilinear, self.int_emb_size],  # (out, bilinear, in)
                initializer=tf.keras.initializers.RandomNormal(0.0, 2 / self.int_emb_size, seed=self._bilinear_seed),
                experimental_autocast=False,
            )
        elif self.with_torsion:
            self.dense_sbf2.build([None, self.dense_sbf1.units])
        super().build(input_shape)

    def call(self, m: tf.Tensor, v: tf.Tensor, bases: Bases, sums: SphericalSums, graph: Graph) -> tf.Tensor:
        x_ji = self.dense_ji(m)  # (edges, emb_size)
        x_kj = self.dense_kj(m) * tf.cast(self.dense_rbf2(self.dense_rbf1(bases.rbf)), x_ji.dtype)
        x_kj = tf.cast(self.down_projection(x_kj), m.dtype)  # (edges, int_emb_size)
        local = self.sum_over_neighbors(x_kj, bases, sums)  # (edges, int_emb_size)
        m = self.update(m, x_ji + self.unified(local, v, graph))
        return m if self.p_block is None else self.p_block(m)

    def unified(self, local: tf.Tensor, v: tf.Tensor, graph: Graph) -> tf.Tensor:
        """Return swish(W [s_ji, v_j, v_i]), (edges, emb_size); the parts of v are multiplied by W once per atom."""
        from_atoms = gather(self.dense_source(v), graph.edge_source) + gather(self.dense_target(v), graph.edge_target)
        x = self.up_projection(local)
        return swish(x + tf.cast(from_atoms, x.dtype))

    def sum_over_neighbors(self, x_kj: tf.Tensor, bases: Bases, sums: SphericalSums) -> tf.Tensor:
        """Sum over the neighbors k of j that are not i, (edges, int_emb_size)."""
        circular = sums.zonal, self.dense_cbf1(bases.cbf), self.dense_cbf2.kernel
        if self.with_bilinear:
            bilinear = tf.cast(self.bilinear, self.compute_dtype)
            return sums.sum_bilinear(x_kj, circular, self.dense_sbf(bases.sbf), bilinear)
        if self.with_torsion:
            spherical = sums.harmonics, self.dense_sbf1(bases.sbf), self.dense_sbf2.kernel
            return sums.sum_gated(x_kj, [circular, spherical])
        return sums.sum_gated(x_kj, [circular])


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class DPGN(Hyperparameters, tf.keras.Model):
    """DPGN model. `model(graph)` returns `AtomOutputs` with scalars (atoms, num_targets).

    DPGN has been published without code; docs/conventions.md lists the choices where the paper is silent or contradicts
    itself. Every block updates the edges, then the atoms (Eq. 7). The energy is E_local + E_non-local (Eq. 1): output
    blocks read the messages of the local edges, as DimeNet++'s, one more reads the atoms after the last block.

    The published torsion of k about j -> i is measured from the neighbor of j before it. Where two neighbors change
    their order, the energy jumps, and a mirror image has another energy: for forces choose `torsion: smooth`.

    Parameters
    ----------
    emb_size : int
        Size of the embeddings of messages and atoms.
    out_emb_size : int
        Width of the output blocks.
    int_emb_size : int
        Size of the messages while they are summed over neighbors.
    basis_emb_size : int
        Size to which the bases are reduced.
    num_bilinear : int
        Size to which the spherical representation is reduced before it meets the circular one in the bilinear layer;
        without that layer it has no meaning.
    num_blocks : int
        Interaction blocks.
    num_spherical, num_radial : int
        Degrees of the spherical harmonics, and radial functions of each.
    cutoff : float
        Of local edges, which have distances, angles and torsions, Angstrom.
    global_cutoff : float
        Of global edges, which have distances only, Angstrom; at least `cutoff`. Images of
        atoms in a periodic cell are among them.
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
    global_embedding : bool
        Use the radial basis of the global cutoff in the first messages too, as in MPNet (Table III).
    torsion : "published", "smooth" or "none"
        Torsion to one neighbor; a mean over all, continuous and the same for mirror images (see
        `dimenet_tf.layers.torsions.smooth_torsions`); none (Table III).
    bilinear : bool
        Bilinear layer of the circular and the spherical representation, or their Hadamard product (Table III). It must
        be False without torsion.
    p_blocks : bool
        P-blocks after the residual layers (Table III).
    seed : int

    Examples
    --------
    >>> import dimenet_tf
    >>> model = dimenet_tf.build_model("DPGN", emb_size=16, out_emb_size=24, num_blocks=2)
    >>> model.cutoffs  # of local and global edges, Angstrom
    [5.0, 7.0]
    """

    choices = {"torsion": ("published", "smooth", "none"), "output_init": ("zeros", "GlorotOrthogonal")}
    meaning = ("cutoff", "global_cutoff", "envelope_exponent", "torsion", "extensive")
    small = {
        "num_spherical": 4,
        "num_radial": 4,
        "num_blocks": 2,
        "emb_size": 16,
        "out_emb_size": 24,
        "int_emb_size": 8,
        "basis_emb_size": 4,
        "num_bilinear": 6,
        "num_dense_output": 2,
        "cutoff": 3.0,
        "global_cutoff": 4.0,
    }
    variants = (
        {},
        {"torsion": "smooth"},
        {"torsion": "none", "bilinear": False, "p_blocks": False, "global_embedding": True},
    )

    def __init__(
        self,
        emb_size: int = 128,
        out_emb_size: int = 256,
        int_emb_size: int = 64,
        basis_emb_size: int = 8,
        num_bilinear: int = 32,
        num_blocks: int = 4,
        num_spherical: int = 7,
        num_radial: int = 6,
        cutoff: float = 5.0,
        global_cutoff: float = 7.0,
        envelope_exponent: int = 5,
        num_before_skip: int = 1,
        num_after_skip: int = 2,
        num_dense_output: int = 3,
        num_targets: int = 1,
        output_init: str = "GlorotOrthogonal",
        extensive: bool = True,
        global_embedding: bool = False,
        torsion: str = "published",
        bilinear: bool = True,
        p_blocks: bool = True,
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        if num_spherical == 1 and torsion != "none":
            raise UserError(
                "num_spherical = 1 leaves no angles and no torsions; set torsion to 'none'", "num_spherical"
            )
        if bilinear and torsion == "none":
            raise UserError("bilinear has no use without torsion; set it to False", "bilinear")
        if global_cutoff < cutoff:
            raise UserError(f"global_cutoff = {global_cutoff} must be at least the cutoff, {cutoff}", "global_cutoff")
        self.torsion_rule = "previous" if torsion == "published" else torsion
        self.needs = SphericalSums.needs | {"far_edges"}
        dtype, policy, seeds = self.dtype, self.dtype_policy, seed_stream(seed)

        self.rbf_layer = BesselBasis(num_radial, cutoff, envelope_exponent, dtype=dtype)
        self.global_rbf_layer = BesselBasis(num_radial, global_cutoff, envelope_exponent, dtype=dtype)
        self.sbf_layer = SphericalBasis(num_spherical, num_radial, cutoff, envelope_exponent, dtype=dtype)
        # of the Bessel functions that multiply each harmonic
        self.bessel_degrees = degrees(num_spherical)[kept_harmonics(num_spherical, torsion)]
        self.emb_block = EmbeddingBlock(emb_size, activate_rbf=False, seed=next(seeds), dtype=policy)
        interaction = {
            "emb_size": emb_size,
            "int_emb_size": int_emb_size,
            "basis_emb_size": basis_emb_size,
            "num_bilinear": num_bilinear,
            "num_before_skip": num_before_skip,
            "num_after_skip": num_after_skip,
            "torsion": torsion != "none",
            "bilinear": bilinear,
            "p_block": p_blocks,
            "dtype": policy,
        }
        self.int_blocks = [InteractionBlock(seed=next(seeds), **interaction) for _ in range(num_blocks)]
        self.nonlocal_blocks = [
            NonLocalBlock(emb_size, int_emb_size, basis_emb_size, next(seeds), dtype=dtype) for _ in range(num_blocks)
        ]
        output: dict[str, Any] = {
            "num_dense_output": num_dense_output,
            "num_targets": num_targets,
            "output_init": output_init,
            "dtype": dtype,
        }
        self.output_blocks = [
            OutputBlock(emb_size=emb_size, out_emb_size=out_emb_size, seed=next(seeds), **output)
            for _ in range(num_blocks + 1)
        ]
        self.nonlocal_output = NodeOutputBlock(emb_size=out_emb_size, seed=next(seeds), **output)

    def call(self, graph: Graph) -> AtomOutputs:
        vectors = edge_vectors(graph)  # (edges, 3)
        distance = safe_norm(vectors)  # (edges,)
        bases, far = self.bases(distance), self.global_edges(graph)
        sums = SphericalSums(graph, vectors, self.sbf_layer, self.torsion_rule)

        first = [bases.rbf, self.radial(self.global_rbf_layer, distance)] if self.global_embedding else [bases.rbf]
        m = self.emb_block(tf.concat(first, axis=-1), graph)  # (edges, emb_size)
        v = self.emb_block.atoms(graph)  # (atoms, emb_size)
        outputs = self.output_blocks[0](m, bases.rbf, graph)  # (atoms, num_targets)
        for interaction, exchange, output in zip(self.int_blocks, self.nonlocal_blocks, self.output_blocks[1:]):
            m = interaction(m, v, bases, sums, graph)  # from edges ...
            v = exchange(v, m, bases.rbf, far, graph)  # ... to atoms ...
            outputs += output(m, bases.rbf, graph)  # ... to the molecule
        return atom_outputs(outputs + self.nonlocal_output(v, None, graph))

    def bases(self, distance: tf.Tensor) -> Bases:
        radial = self.sbf_layer.radial(distance)  # (edges, num_spherical, num_radial)
        sbf = None if self.torsion == "none" else tf.gather(radial, self.bessel_degrees, axis=1)
        return Bases(self.radial(self.rbf_layer, distance), radial, sbf)

    def global_edges(self, graph: Graph) -> GlobalEdges:
        distance = safe_norm(far_vectors(graph))
        return GlobalEdges(graph.far_source, graph.far_target, self.radial(self.global_rbf_layer, distance))

    @staticmethod
    def radial(layer: BesselBasis, distance: tf.Tensor) -> tf.Tensor:
        """Return the radial basis times the constant of Eq. 4, which keeps features from growing with each block."""
        return layer(distance) * (math.sqrt(2 / layer.cutoff) / layer.cutoff)

    @property
    def far_cutoff(self) -> float:
        return self.global_cutoff

    @property
    def discontinuity(self) -> str:
        return JUMPS if self.torsion == "published" else ""

    def filter_pictures(self) -> dict[str, Picture]:
        """Filters of distance and angle: the circular representation in each block, W_2 W_1 a_CBF."""
        kernels = [block.dense_cbf1.kernel.numpy() @ block.dense_cbf2.kernel.numpy() for block in self.int_blocks]
        return {f"filters_{b}": filter_disks(self.sbf_layer, kernel) for b, kernel in enumerate(kernels)}

    def architecture(self) -> Diagram:
        """Directional message passing over local edges, and features of atoms exchanged over global edges."""
        angles = "angle (CBF)" if self.torsion == "none" else "angle, torsion\n(CBF, SBF)"
        diagram = directional_diagram(self.num_blocks, angles)
        text = "atoms: sums of messages, exchanged up to the\nglobal cutoff, after every interaction block"
        diagram.box(0.2, 0.1, 7.8, 1.0, text, "block")
        diagram.arrow((1.7, 2.1), (1.7, 1.3))
        diagram.arrow((8.2, 0.5), (9.0, 0.5))
        for x in (12.2, 16.0):  # messages go to the atoms, which return with the next block's input
            diagram.line([x + 0.3, x + 0.3], [6.1, 5.5], ATOMS)
        diagram.line([8.3, 8.3, 16.3], [1.0, 5.5, 5.5], ATOMS)
        diagram.arrow((15.7, 5.5), (15.9, 6.3), ATOMS)
        diagram.text(11.0, 5.65, "$v_i$", 9)
        return diagram

    def kept_per_edge(self, neighbors: float) -> float:
        harmonics = 0 if self.torsion == "none" else len(self.bessel_degrees)
        if self.bilinear:
            per_pair = 2 * self.int_emb_size + 2 * self.num_bilinear
            per_edge = 2 * self.num_bilinear * self.int_emb_size
        else:
            per_pair, per_edge = (2 if self.torsion == "none" else 5) * self.int_emb_size, 0
        geometry = neighbors * (3 * self.num_spherical + 6 * harmonics)
        return dense_activations(self) + self.num_blocks * (per_edge + neighbors * per_pair) + geometry
