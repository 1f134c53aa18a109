"""SchNetPack's PaiNN and SchNet: the state dict of a `NeuralNetworkPotential` with `Atomwise` energies, as an npz file.

    import numpy as np, torch  # where SchNetPack is installed
    model = torch.load("best_model", map_location="cpu")
    np.savez("painn.npz", **{name: array.numpy() for name, array in model.state_dict().items()})

Names that are understood, each with or without `w/` in front (b, p, o: numbers):

    representation.embedding.weight                                 (100, F)
    representation.radial_basis.freqs                               (n_rbf,), or
    representation.radial_basis.offsets, .widths                    (n_rbf,)
    representation.cutoff_fn.cutoff                                 (1,), Angstrom
    output_modules.o.outnet.{0,1}.*                                 (F/2, F), (1, F/2)
    postprocessors.p.mean                                           energy of an atom
    postprocessors.p.atomref                                        (100,), all zero

of PaiNN

    representation.filter_net.weight, .bias                         (blocks 3F, n_rbf) or, shared, (3F, n_rbf)
    representation.interactions.b.interatomic_context_net.{0,1}.*   (F, F), (3F, F)
    representation.mixing.b.intraatomic_context_net.{0,1}.*         (F, 2F), (3F, F)
    representation.mixing.b.mu_channel_mix.weight                   (2F, F)

and of SchNet

    representation.interactions.b.in2f.weight                       (n_filters, F)
    representation.interactions.b.filter_network.{0,1}.*            (n_filters, n_rbf), (n_filters, n_filters)
    representation.interactions.b.f2out.{0,1}.*                     (F, n_filters), (F, F)

All hyperparameters follow from them. A state dict does not contain the following, which are assumed: silu in the
read-out, sums over atoms, cosine cutoff, epsilon 1e-8, and positions in Angstrom.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import assign_weights
from dimenet_tf.properties.heads import scalar_head
from dimenet_tf.structures.quantities import conversion
from dimenet_tf.structures.readers import load_npz

Weights = dict[str, np.ndarray]
EMBEDDINGS = "atom_emb/embeddings"


def dense_names(theirs: str, layer: str) -> list[tuple[str, str]]:
    """Return patterns for the names of two dense layers in a row, and their names here."""
    parts = (("weight", "kernel"), ("bias", "bias"))
    return [(rf"{theirs}\.{n}\.{a}", f"{layer}_{n + 1}/{b}") for n in (0, 1) for a, b in parts]


NAMES = (
    (r"representation\.embedding\.weight", EMBEDDINGS),
    (r"representation\.radial_basis\.freqs", "rbf_basis/frequencies"),
    (r"representation\.radial_basis\.offsets", "rbf_basis/centers"),
    (r"representation\.radial_basis\.widths", "rbf_basis/widths"),
    (r"representation\.cutoff_fn\.cutoff", "cutoff"),
    (r"postprocessors\.\d+\.mean", "mean"),
    (r"postprocessors\.\d+\.atomref", "atomref"),
    *dense_names(r"output_modules\.\d+\.outnet", "out"),
    # PaiNN
    (r"representation\.filter_net\.weight", "filters/kernel"),
    (r"representation\.filter_net\.bias", "filters/bias"),
    (r"representation\.mixing\.(\d+)\.mu_channel_mix\.weight", r"update_blocks/\1/mix/kernel"),
    *dense_names(r"representation\.interactions\.(\d+)\.interatomic_context_net", r"message_blocks/\1/dense"),
    *dense_names(r"representation\.mixing\.(\d+)\.intraatomic_context_net", r"update_blocks/\1/dense"),
    # SchNet
    (r"representation\.interactions\.(\d+)\.in2f\.weight", r"int_blocks/\1/dense_in/kernel"),
    *dense_names(r"representation\.interactions\.(\d+)\.filter_network", r"int_blocks/\1/filter"),
    *dense_names(r"representation\.interactions\.(\d+)\.f2out", r"int_blocks/\1/dense"),
)


def load_schnetpack(path: str | Path, elements: Sequence[int], energy_unit: str, dtype: str = "float32") -> Predictor:
    """Load a PaiNN or SchNet that SchNetPack has trained. Which one it is follows from the names of its weights.

    Parameters
    ----------
    path : npz file of the state dict, see the module's documentation; if names begin with `w/`, the file may
        also contain other arrays
    elements : atomic numbers of its training data; others are refused
    energy_unit : of its training data: kcal/mol (MD17), eV, ...
    dtype : "float32" or "float64"

    Returns
    -------
    Predictor
        of `energy` (eV) and `forces` (eV/Angstrom)

    Raises
    ------
    UserError
        If an array is missing, unexpected or of another shape than the model's, and for energies of single atoms
        (`atomref`) that are not zero: the file does not specify whether the model adds them.

    Examples
    --------
    With a file of your own, therefore not run as a test:

    >>> predictor = load_schnetpack("painn.npz", [1, 6, 8], "kcal/mol")  # doctest: +SKIP
    """
    name, weights, hyperparameters, mean = from_schnetpack(read_arrays(path), str(path))
    factor = conversion("energy", energy_unit)
    head = scalar_head(["energy"], ["eV"], np.full((1, 95), mean * factor), [0.0], [factor])
    predictor = Predictor(name, hyperparameters, head, elements, dtype, energy="energy")
    assign_weights(predictor.model, weights, str(path))
    return predictor


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict by their names there."""
    arrays = load_npz(path, str(path))
    marked = {name[2:]: array for name, array in arrays.items() if name.startswith("w/")}
    return marked or arrays


def painn_sizes(ours: Weights) -> dict[str, Any]:
    num_blocks = count(ours, "message_blocks")
    shared = num_blocks > 1 and ours["filters/kernel"].shape[1] == 3 * ours[EMBEDDINGS].shape[1]
    return {"num_blocks": num_blocks, "shared_filters": shared}


def schnet_sizes(ours: Weights) -> dict[str, Any]:
    return {"num_blocks": count(ours, "int_blocks"), "num_filters": ours["int_blocks/0/dense_in/kernel"].shape[1]}


class Kind(NamedTuple):
    """How the state dict of a model is recognized and measured."""

    model: str
    mark: str
    """A weight that only this model has, under this library's name."""
    sizes: Callable[[Weights], dict[str, Any]]


KINDS = (
    Kind("painn", "filters/kernel", painn_sizes),
    Kind("schnet", "int_blocks/0/dense_in/kernel", schnet_sizes),
)


def count(weights: Weights, blocks: str) -> int:
    """Return the number of blocks in the names of weights."""
    return 1 + max((int(name.split("/")[1]) for name in weights if name.startswith(f"{blocks}/")), default=-1)


def from_schnetpack(arrays: Mapping[str, np.ndarray], source: str) -> tuple[str, Weights, dict, float]:
    """Return the model's name, its weights under this library's names, hyperparameters, and the energy per atom."""
    ours: Weights = {}
    for theirs, array in arrays.items():
        name = next((re.sub(f"^{a}$", b, theirs) for a, b in NAMES if re.fullmatch(a, theirs)), None)
        if name is None:
            raise UserError(f"{source}: unexpected array '{theirs}'; is this a PaiNN or SchNet of SchNetPack?")
        if name in ours:
            raise UserError(f"{source}: '{theirs}' is there a second time under another number: one energy can be read")
        ours[name] = array.T if name.endswith("kernel") else array
    mean, atomref = float(ours.pop("mean", 0.0)), ours.pop("atomref", np.zeros(1))
    if np.any(atomref):
        raise UserError(
            f"{source}: atomref is not zero, and the file does not specify whether it is added; "
            "set it to zero if it is not"
        )
    gaussian = "rbf_basis/centers" in ours
    radial = "rbf_basis/centers" if gaussian else "rbf_basis/frequencies"
    kind = next((kind for kind in KINDS if kind.mark in ours), None)
    for name, theirs in {radial: "radial_basis", "cutoff": "cutoff_fn", EMBEDDINGS: "embedding"}.items():
        if name not in ours:
            raise UserError(f"{source}: no array 'representation.{theirs}'; is this a PaiNN or SchNet of SchNetPack?")
    if kind is None:
        raise UserError(
            f"{source}: no array 'representation.filter_net' (PaiNN) or 'representation.interactions.0.in2f' (SchNet)"
        )
    hyperparameters = {
        "emb_size": ours[EMBEDDINGS].shape[1],
        "num_radial": len(ours[radial]),
        "cutoff": float(ours.pop("cutoff").item()),
        "radial_basis": "gaussian" if gaussian else "bessel",
        **kind.sizes(ours),
    }
    return kind.model, ours, hyperparameters, mean
