"""SchNet: Schuett et al., "SchNet: A continuous-filter convolutional neural network", NeurIPS 2017."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from dimenet_tf.basis import BARE_BASES, CUTOFFS, make_cutoff
from dimenet_tf.graph import Graph
from dimenet_tf.layers.activation import swish
from dimenet_tf.layers.equivariant import output_dense, xavier_dense
from dimenet_tf.layers.gathers import gather, segment_sum
from dimenet_tf.layers.geometry import edge_vectors, safe_norm
from dimenet_tf.layers.initializers import seed_stream
from dimenet_tf.layers.output import AtomOutputs, atom_outputs
from dimenet_tf.layers.pictures import NUM_FILTERS, Curves, Picture, distances, radial_curves
from dimenet_tf.models.hyperparameters import Hyperparameters

NUM_EMBEDDINGS = 100  # rows of the published table of atoms


def shifted_softplus(x: tf.Tensor) -> tf.Tensor:
    """ln(0.5 e^x + 0.5), Sec. 4.2: smooth, and zero at zero."""
    return tf.nn.softplus(x) - math.log(2.0)


class Interaction(tf.keras.layers.Layer):
    """Residual of the atoms by a continuous-filter convolution, Eq. 2 and Fig. 2.

    x_i + W3 ssp(W2 sum_j (W1 x_j) * W(d_ij) + b2) + b3 with the filters W(d) = (W5 ssp(W4 rbf + b4) + b5) f_cut(d).

    Parameters
    ----------
    emb_size : int
    num_filters : int
    seed : int
    """

    def __init__(self, emb_size: int, num_filters: int, seed: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        policy, seeds = self.dtype_policy, seed_stream(seed)
        self.dense_in = xavier_dense(num_filters, next(seeds), use_bias=False, dtype=policy)
        self.filter_1 = xavier_dense(num_filters, next(seeds), shifted_softplus, dtype=self.dtype)
        self.filter_2 = xavier_dense(num_filters, next(seeds), dtype=self.dtype)
        self.dense_1 = xavier_dense(emb_size, next(seeds), shifted_softplus, dtype=policy)
        self.dense_2 = xavier_dense(emb_size, next(seeds), dtype=policy)

    def filters(self, rbf: tf.Tensor, f_cut: tf.Tensor) -> tf.Tensor:
        """Return the filters of edges, (edges, num_filters)."""
        return self.filter_2(self.filter_1(rbf)) * f_cut

    def call(self, x: tf.Tensor, rbf: tf.Tensor, f_cut: tf.Tensor, graph: Graph) -> tf.Tensor:
        neighbors = gather(tf.cast(self.dense_in(x), x.dtype), graph.edge_source)  # (edges, num_filters)
        messages = neighbors * self.filters(rbf, f_cut)
        summed = segment_sum(messages, graph.edge_target, tf.shape(x)[0])  # (atoms, num_filters)
        return x + tf.cast(self.dense_2(self.dense_1(summed)), x.dtype)


@tf.keras.utils.register_keras_serializable("dimenet_tf")
class SchNet(Hyperparameters, tf.keras.Model):
    """SchNet model, which uses distances alone. `model(graph)` returns scalars (atoms, num_targets) in `AtomOutputs`.

    Parameters
    ----------
    emb_size : int
        Features of an atom.
    num_filters : int
        Features of the messages.
    num_blocks : int
        Interaction blocks.
    num_radial : int
        Radial functions.
    cutoff : float
        Distance up to which atoms are neighbors, Angstrom.
    radial_basis : "gaussian" (the paper) or "bessel"
        Centers, widths and frequencies are not trained.
    envelope : "cosine" (SchNetPack) or "polynomial"
        Smooth cutoff of the filters. The cosine's second derivative jumps at the cutoff; that of the polynomial
        (DimeNet, Eq. 8, p = envelope_exponent + 1) does not.
    envelope_exponent : int
        Of the polynomial envelope.
    num_targets : int
        Properties predicted at once.
    output_init : "GlorotUniform" or "zeros"
        Initial weights of the last layer.
    extensive : bool
        Properties are sums over atoms; False for means.
    seed : int
        Seed of the initial weights.

    Examples
    --------
    >>> import dimenet_tf
    >>> model = dimenet_tf.build_model("SchNet", emb_size=16, num_filters=16, num_blocks=2)
    >>> model.count_params()
    5621
    """

    choices = {
        "radial_basis": tuple(BARE_BASES),
        "envelope": tuple(CUTOFFS),
        "output_init": ("zeros", "GlorotUniform"),
    }
    may_be_zero = ("envelope_exponent",)
    meaning = ("cutoff", "radial_basis", "envelope", "envelope_exponent", "extensive")
    small = {"emb_size": 12, "num_filters": 8, "num_blocks": 2, "num_radial": 8, "cutoff": 3.0}
    variants = ({}, {"radial_basis": "bessel", "envelope": "polynomial", "extensive": False})

    def __init__(
        self,
        emb_size: int = 128,
        num_filters: int = 128,
        num_blocks: int = 6,
        num_radial: int = 50,
        cutoff: float = 5.0,
        radial_basis: str = "gaussian",
        envelope: str = "cosine",
        envelope_exponent: int = 5,
        num_targets: int = 1,
        output_init: str = "GlorotUniform",
        extensive: bool = True,
        seed: int = 42,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.set_hyperparameters(locals())
        dtype, policy, seeds = self.dtype, self.dtype_policy, seed_stream(seed)  # the policy may be mixed_bfloat16
        self.rbf_basis = BARE_BASES[radial_basis](num_radial, cutoff, dtype=dtype)
        self.cutoff_function = make_cutoff(envelope, envelope_exponent, dtype=dtype)
        normal = tf.keras.initializers.RandomNormal(0.0, 1.0, seed=next(seeds))
        self.atom_emb = tf.keras.layers.Embedding(NUM_EMBEDDINGS, emb_size, normal, dtype=dtype)
        self.int_blocks = [Interaction(emb_size, num_filters, next(seeds), dtype=policy) for _ in range(num_blocks)]
        self.out_1 = xavier_dense(emb_size // 2, next(seeds), swish, dtype=dtype)
        self.out_2 = output_dense(num_targets, output_init, next(seeds), dtype=dtype)

    def call(self, graph: Graph) -> AtomOutputs:
        distance = safe_norm(edge_vectors(graph))  # (edges,)
        rbf = self.rbf_basis(distance)  # (edges, num_radial)
        f_cut = self.cutoff_function(distance[:, None] / self.cutoff)  # (edges, 1)

        x = self.atom_emb(graph.atomic_numbers)  # (atoms, emb_size)
        for interaction in self.int_blocks:
            x = interaction(x, rbf, f_cut, graph)
        return atom_outputs(self.out_2(self.out_1(x)))

    def basis_pictures(self) -> dict[str, Picture]:
        return {"basis_radial": radial_curves(self.rbf_basis, self.cutoff, self.dtype)}

    def filter_pictures(self) -> dict[str, Picture]:
        """Return the filters W(d) of each block."""
        d = distances(self.cutoff, self.dtype)
        rbf, f_cut = self.rbf_basis(d), self.cutoff_function(d[:, None] / self.cutoff)
        curves = (block.filters(rbf, f_cut).numpy()[:, :NUM_FILTERS] for block in self.int_blocks)
        return {f"filters_{b}": Curves(d.numpy(), {"$W$": values}) for b, values in enumerate(curves)}
