"""DIG's SphereNet: the state dict of a `dig.threedgraph.method.SphereNet`, as an npz file.

    import numpy as np, torch  # where DIG is installed
    state = torch.load("valid_checkpoint.pt", map_location="cpu")["model_state_dict"]
    np.savez("spherenet.npz", **{name: array.numpy() for name, array in state.items()})

Names that are understood, each with or without `w/` in front (b, n: numbers; t: init_v or update_vs.b):

    emb.dist_emb.freq                                     (num_radial,)
    init_e.emb.weight                                     (95, emb_size)
    init_e.{lin_rbf_0,lin}.{weight,bias}, init_e.lin_rbf_1.weight
    update_es.b.{lin_ji,lin_kj,lin}.{weight,bias}
    update_es.b.{lin_rbf,lin_rbf1,lin_rbf2,lin_sbf1,lin_sbf2,lin_t1,lin_t2,lin_down,lin_up}.weight
    update_es.b.layers_{before,after}_skip.n.{lin1,lin2}.{weight,bias}
    t.lin_up.{weight,bias}, t.lins.n.{weight,bias}, t.lin.weight

Sizes follow from them; cutoff, exponent of the envelope, target and unit are not in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dimenet_tf.basis.formulas import official_order, orders
from dimenet_tf.errors import UserError, unknown_name
from dimenet_tf.interop.dimenet import QM9_ELEMENTS
from dimenet_tf.interop.schnetpack import read_arrays
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import assign_weights
from dimenet_tf.properties.heads import scalar_head
from dimenet_tf.structures.quantities import PROPERTIES, conversion

BLOCK = r"update_es\.(\d+)\."
LAYERS = (
    (r"init_e\.lin_rbf_0", "emb_block/dense_rbf"),
    (r"init_e\.lin", "emb_block/dense"),
    (BLOCK + r"lin_(ji|kj)", r"int_blocks/\1/dense_\2"),
    (BLOCK + r"lin_(rbf|sbf)([12])", r"int_blocks/\1/dense_\2\3"),
    (BLOCK + r"lin_t([12])", r"int_blocks/\1/dense_tbf\2"),
    (BLOCK + r"lin_(down|up)", r"int_blocks/\1/\2_projection"),
    (BLOCK + r"lin", r"int_blocks/\1/final_before_skip"),
    (BLOCK + r"(layers_(?:before|after)_skip)\.(\d+)\.lin([12])", r"int_blocks/\1/\2/\3/dense_\4"),
    (r"init_e\.lin_rbf_1", "output_blocks/0/dense_rbf"),
    (BLOCK + r"lin_rbf", r"output_blocks/\1+1/dense_rbf"),
    (r"init_v\.lin_up", "output_blocks/0/up_projection"),
    (r"init_v\.lins\.(\d+)", r"output_blocks/0/dense_layers/\1"),
    (r"init_v\.lin", "output_blocks/0/dense_final"),
    (r"update_vs\.(\d+)\.lin_up", r"output_blocks/\1+1/up_projection"),
    (r"update_vs\.(\d+)\.lins\.(\d+)", r"output_blocks/\1+1/dense_layers/\2"),
    (r"update_vs\.(\d+)\.lin", r"output_blocks/\1+1/dense_final"),
)
NAMES = (
    (r"emb\.dist_emb\.freq", "rbf_layer/frequencies"),
    (r"init_e\.emb\.weight", "emb_block/embeddings"),
    *((rf"{theirs}\.weight", f"{ours}/kernel") for theirs, ours in LAYERS),
    *((rf"{theirs}\.bias", f"{ours}/bias") for theirs, ours in LAYERS),
)


def load_dig_spherenet(
    path: str | Path,
    target: str = "U0",
    elements: Sequence[int] = QM9_ELEMENTS,
    unit: str | None = None,
    cutoff: float = 5.0,
    envelope_exponent: int = 5,
    dtype: str = "float32",
) -> Predictor:
    """Load a SphereNet that DIG has trained.

    That the numbers are the same was tried on the reference weights, not on weights that DIG publishes. There, rounding
    decides torsions (docs/conventions.md): the rule that its code states is what is computed here.

    Parameters
    ----------
    path : npz file of the state dict, see the module's documentation
    target : the property that the model was trained on; "energy" gives forces too
    elements : atomic numbers of its training data; QM9's by default, others are refused
    unit : of its training data, where it is not that of QM9: "kcal/mol" for MD17
    cutoff : Angstrom
    envelope_exponent : int
    dtype : "float32" or "float64"

    Returns
    -------
    Predictor

    Raises
    ------
    UserError
        If an array is missing, unexpected or of another shape than the model's, names it; if the model predicts several
        properties.

    Examples
    --------
    With a file of your own, therefore not run as a test:

    >>> predictor = load_dig_spherenet("spherenet.npz", target="U0")  # doctest: +SKIP
    """
    weights, hyperparameters = from_dig(read_arrays(path), str(path))
    if hyperparameters["num_targets"] != 1:
        raise UserError(
            f"{path}: this model predicts {hyperparameters['num_targets']} properties; only a model of one can be read"
        )
    if target not in PROPERTIES:
        raise unknown_name("target", str(target), PROPERTIES)
    own = PROPERTIES[target].unit
    factor = conversion(target, unit, "unit") if unit else 1.0
    head = scalar_head([target], [own], np.zeros((1, 95)), [0.0], [factor])
    hyperparameters |= {"cutoff": cutoff, "envelope_exponent": envelope_exponent}
    energy = "energy" if target == "energy" else None
    predictor = Predictor("spherenet", hyperparameters, head, elements, dtype, energy=energy)
    assign_weights(predictor.model, weights, str(path))
    return predictor


def from_dig(arrays: Mapping[str, np.ndarray], source: str) -> tuple[dict[str, np.ndarray], dict]:
    """Return the weights under this library's names and in its layout, and the hyperparameters."""
    ours: dict[str, np.ndarray] = {}
    for theirs, array in arrays.items():
        inner = theirs.removeprefix("module.")  # of torch's DataParallel
        name = next((re.sub(f"^{a}$", b, inner) for a, b in NAMES if re.fullmatch(a, inner)), None)
        if name is None:
            raise UserError(f"{source}: unexpected array '{theirs}'; is this a SphereNet of DIG?")
        name = re.sub(r"(\d+)\+1", lambda number: str(int(number[1]) + 1), name)  # the first output is init_v's
        ours[name] = array.T if name.endswith("kernel") else array
    hyperparameters = sizes(ours, source)
    num_radial, num_spherical = hyperparameters["num_radial"], hyperparameters["num_spherical"]
    order = orders(num_spherical) - num_spherical + 1
    sign = (-1.0) ** order  # the release has the Condon-Shortley sign
    for name, array in ours.items():
        if name.endswith("dense_tbf1/kernel") and len(array) == num_spherical**2 * num_radial:
            kernel = array.reshape(num_spherical**2, num_radial, -1)[official_order(num_spherical)]
            ours[name] = (sign[:, None, None] * kernel).reshape(array.shape)
    return ours, hyperparameters


def sizes(weights: Mapping[str, np.ndarray], source: str) -> dict:
    """Infer the hyperparameters from the shapes of the weights."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in weights:
            raise UserError(f"{source}: no weight '{name}'; is this a SphereNet of DIG?")
        return weights[name].shape

    def count(prefix: str) -> int:
        """Return how many numbers follow a prefix."""
        numbers = [int(name[len(prefix) :].split("/")[0]) for name in weights if name.startswith(prefix)]
        return 1 + max(numbers, default=-1)

    num_radial = shape("rbf_layer/frequencies")[0]
    block, output = "int_blocks/0/", "output_blocks/0/"
    return {
        "emb_size": shape("emb_block/embeddings")[1],
        "out_emb_size": shape(output + "up_projection/kernel")[1],
        "int_emb_size": shape(block + "down_projection/kernel")[1],
        "basis_emb_size_dist": shape(block + "dense_rbf1/kernel")[1],
        "basis_emb_size_angle": shape(block + "dense_sbf1/kernel")[1],
        "basis_emb_size_torsion": shape(block + "dense_tbf1/kernel")[1],
        "num_blocks": count("int_blocks/"),
        "num_spherical": shape(block + "dense_sbf1/kernel")[0] // num_radial,
        "num_radial": num_radial,
        "num_before_skip": count(block + "layers_before_skip/"),
        "num_after_skip": count(block + "layers_after_skip/"),
        "num_dense_output": count(output + "dense_layers/"),
        "num_targets": shape(output + "dense_final/kernel")[1],
    }
