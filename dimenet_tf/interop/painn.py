"""SchNetPack's PaiNN: the state dict of a `NeuralNetworkPotential` with `Atomwise` energies, as an npz file.

    import numpy as np, torch  # where SchNetPack is installed
    model = torch.load("best_model", map_location="cpu")
    np.savez("painn.npz", **{name: array.numpy() for name, array in model.state_dict().items()})

Names that are understood, each with or without `w/` in front (b, p, o: numbers):

    representation.embedding.weight                                 (100, F)
    representation.radial_basis.freqs                               (n_rbf,), or
    representation.radial_basis.offsets, .widths                    (n_rbf,)
    representation.cutoff_fn.cutoff                                 (1,), Angstrom
    representation.filter_net.weight, .bias                         (blocks 3F, n_rbf) or, shared, (3F, n_rbf)
    representation.interactions.b.interatomic_context_net.{0,1}.*   (F, F), (3F, F)
    representation.mixing.b.intraatomic_context_net.{0,1}.*         (F, 2F), (3F, F)
    representation.mixing.b.mu_channel_mix.weight                   (2F, F)
    output_modules.o.outnet.{0,1}.*                                 (F/2, F), (1, F/2)
    postprocessors.p.mean                                           energy of an atom
    postprocessors.p.atomref                                        (100,), all zero

All hyperparameters follow from them. What no state dict says is taken for granted: silu, sums over atoms, cosine
cutoff, epsilon 1e-8, and positions in Angstrom.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import assign_weights
from dimenet_tf.properties.heads import scalar_head
from dimenet_tf.structures.quantities import conversion
from dimenet_tf.structures.readers import load_npz

EMBEDDINGS = "atom_emb/embeddings"
DENSE = (
    (r"representation\.interactions\.(\d+)\.interatomic_context_net", r"message_blocks/\1/dense"),
    (r"representation\.mixing\.(\d+)\.intraatomic_context_net", r"update_blocks/\1/dense"),
    (r"output_modules\.\d+\.outnet", "out"),
)
NAMES = (
    (r"representation\.embedding\.weight", EMBEDDINGS),
    (r"representation\.radial_basis\.freqs", "rbf_basis/frequencies"),
    (r"representation\.radial_basis\.offsets", "rbf_basis/centers"),
    (r"representation\.radial_basis\.widths", "rbf_basis/widths"),
    (r"representation\.filter_net\.weight", "filters/kernel"),
    (r"representation\.filter_net\.bias", "filters/bias"),
    (r"representation\.mixing\.(\d+)\.mu_channel_mix\.weight", r"update_blocks/\1/mix/kernel"),
    (r"representation\.cutoff_fn\.cutoff", "cutoff"),
    (r"postprocessors\.\d+\.mean", "mean"),
    (r"postprocessors\.\d+\.atomref", "atomref"),
    *((rf"{net}\.{n}\.weight", f"{layer}_{n + 1}/kernel") for net, layer in DENSE for n in (0, 1)),
    *((rf"{net}\.{n}\.bias", f"{layer}_{n + 1}/bias") for net, layer in DENSE for n in (0, 1)),
)


def load_schnetpack_painn(
    path: str | Path, elements: Sequence[int], energy_unit: str, dtype: str = "float32"
) -> Predictor:
    """Load a PaiNN that SchNetPack has trained.

    Parameters
    ----------
    path : npz file of the state dict, see the module's documentation; if names begin with `w/`, other arrays may lie
        beside them
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
        (`atomref`) that are not zero: the file does not say whether the model adds them.

    Examples
    --------
    With a file of your own, therefore not run as a test:

    >>> predictor = load_schnetpack_painn("painn.npz", [1, 6, 8], "kcal/mol")  # doctest: +SKIP
    """
    weights, hyperparameters, mean = from_schnetpack(read_arrays(path), str(path))
    factor = conversion("energy", energy_unit)
    head = scalar_head(["energy"], ["eV"], np.full((1, 95), mean * factor), [0.0], [factor])
    predictor = Predictor("painn", hyperparameters, head, elements, dtype, energy="energy")
    assign_weights(predictor.model, weights, str(path))
    return predictor


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict by their names there."""
    arrays = load_npz(path, str(path))
    marked = {name[2:]: array for name, array in arrays.items() if name.startswith("w/")}
    return marked or arrays


def from_schnetpack(arrays: Mapping[str, np.ndarray], source: str) -> tuple[dict[str, np.ndarray], dict, float]:
    """Return the weights under this library's names, the hyperparameters and the mean energy of an atom."""
    ours: dict[str, np.ndarray] = {}
    for theirs, array in arrays.items():
        name = next((re.sub(f"^{a}$", b, theirs) for a, b in NAMES if re.fullmatch(a, theirs)), None)
        if name is None:
            raise UserError(f"{source}: unexpected array '{theirs}'; is this a PaiNN of SchNetPack?")
        if name in ours:
            raise UserError(f"{source}: '{theirs}' is there a second time under another number: one energy can be read")
        ours[name] = array.T if name.endswith("kernel") else array
    mean, atomref = float(ours.pop("mean", 0.0)), ours.pop("atomref", np.zeros(1))
    if np.any(atomref):
        raise UserError(
            f"{source}: atomref is not zero, and no file says whether it is added; set it to zero if it is not"
        )
    gaussian = "rbf_basis/centers" in ours
    radial = "rbf_basis/centers" if gaussian else "rbf_basis/frequencies"
    sizes = {radial: "radial_basis", "cutoff": "cutoff_fn", "filters/kernel": "filter_net", EMBEDDINGS: "embedding"}
    for name, theirs in sizes.items():
        if name not in ours:
            raise UserError(f"{source}: no array 'representation.{theirs}'; is this a PaiNN of SchNetPack?")
    num_blocks = 1 + max((int(name.split("/")[1]) for name in ours if "_blocks/" in name), default=0)
    emb_size = ours[EMBEDDINGS].shape[1]
    hyperparameters = {
        "emb_size": emb_size,
        "num_blocks": num_blocks,
        "num_radial": len(ours[radial]),
        "cutoff": float(ours.pop("cutoff").item()),
        "radial_basis": "gaussian" if gaussian else "bessel",
        "shared_filters": num_blocks > 1 and ours["filters/kernel"].shape[1] == 3 * emb_size,
    }
    return ours, hyperparameters, mean
