"""Models of the Open Catalyst Project: GemNet-T, GemNet-dT, DimeNet++ and PaiNN, trained on OC20.

`load_oc20_checkpoint` reads the PyTorch archive, or an npz file of its state dict, written where PyTorch is installed:

    import numpy as np, torch
    checkpoint = torch.load("checkpoint.pt", map_location="cpu")
    np.savez("weights.npz", **{name: array.numpy() for name, array in checkpoint["state_dict"].items()})

Names of weights may begin with `module.`, once or several times, and with `w/`; if some do, the others are ignored. The
npz file has neither hyperparameters nor normalizers: pass them as keywords, under the names of
`dimenet_tf.build_model`. Sizes follow from the shapes of the weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dimenet_tf.errors import UserError
from dimenet_tf.interop.gemnet import NAMES as GEMNET_NAMES
from dimenet_tf.interop.gemnet import from_torch
from dimenet_tf.interop.schnetpack import read_arrays
from dimenet_tf.models import MODELS
from dimenet_tf.models.hyperparameters import hyperparameters as hyperparameters_of
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import assign_weights
from dimenet_tf.properties.heads import scalar_head
from dimenet_tf.structures.torch_archive import read_torch_archive

Weights = dict[str, np.ndarray]


def load_oc20_checkpoint(
    path: str | Path,
    elements: Sequence[int],
    dtype: str = "float32",
    energy_mean: float | None = None,
    energy_std: float | None = None,
    forces_std: float | None = None,
    max_neighbors: int = 0,
    **hyperparameters: Any,
) -> Predictor:
    """Load a GemNet-T, GemNet-dT, DimeNet++ or PaiNN that was trained on OC20.

    Which model it is follows from the names of its weights. OC20's models were trained with a limit of the number of
    neighbors of an atom. The model here uses all within the cutoff, unless `max_neighbors` is passed.

    Parameters
    ----------
    path : PyTorch archive (`.pt`), or npz file of its state dict, see the module's documentation
    elements : atomic numbers of its training data; others are refused
    dtype : "float32" or "float64"
    energy_mean, energy_std : eV
        Normalizer of the energies: energy = mean + std * output of the network. By default that of the archive
        (`normalizers: target`), or 0 and 1.
    forces_std : eV/Angstrom
        Normalizer of direct forces (`normalizers: grad_target`), by default that of the archive, or 1. Other forces are
        the gradient of the energy, and have its scale.
    max_neighbors : int
        Neighbors that an atom exchanges messages with, the nearest ones, as in training (`max_neighbors` of the
        archive's configuration, usually 50). The energy then jumps where neighbors change places in their order.
        `neighbors_dropped` of a prediction counts what was left out. 0 keeps all.
    **hyperparameters : of the model where they are not in the archive
        An npz file needs `cutoff`, and `extensive` for GemNet. A size must agree with the shapes of the weights.

    Returns
    -------
    Predictor
        of `energy` (eV) and `forces` (eV/Angstrom)

    Raises
    ------
    UserError
        If a weight is missing, unexpected or of another shape than the model's, names it; if a size contradicts the
        weights; for hyperparameters that are missing, and for functions that the models here do not have.

    Examples
    --------
    With a file of your own, therefore not run as a test:

    >>> predictor = load_oc20_checkpoint("gemnet.npz", [1, 6, 8, 29], cutoff=6.0, extensive=False)  # doctest: +SKIP
    """
    normalizer = {"energy_mean": energy_mean, "energy_std": energy_std, "forces_std": forces_std}
    given = {name: value for name, value in normalizer.items() if value is not None}
    hyperparameters["max_neighbors"] = max_neighbors
    return from_checkpoint(read_checkpoint(path), str(path), elements, dtype, given, hyperparameters)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return the contents of a checkpoint: `state_dict` and, of an archive, `config` and `normalizers`."""
    if str(path).endswith(".npz"):
        return {"state_dict": read_arrays(path)}
    checkpoint = read_torch_archive(path)
    if "state_dict" not in checkpoint:
        raise UserError(f"{path}: expected an entry 'state_dict', found {', '.join(map(repr, checkpoint)) or 'none'}")
    return checkpoint


def from_checkpoint(
    checkpoint: Mapping[str, Any],
    source: str,
    elements: Sequence[int],
    dtype: str,
    normalizer: Mapping[str, float],
    hyperparameters: Mapping[str, Any],
) -> Predictor:
    """Make the predictor of a checkpoint; `normalizer` and `hyperparameters` take precedence over its entries."""
    state = {re.sub(r"^(module\.)+", "", name): array for name, array in checkpoint["state_dict"].items()}
    kind = next((kind for kind in KINDS if kind.mark in state), None)
    if kind is None:
        marks = ", ".join(repr(kind.mark) for kind in KINDS)
        raise UserError(f"{source}: expected a weight {marks}, found none; is this a GemNet-T, DimeNet++ or PaiNN?")
    config = checkpoint.get("config") or {}
    attributes = config.get("model_attributes") or config.get("model") or {}
    if not isinstance(attributes, Mapping):  # the name of the model
        attributes = {}
    settings = {**configured(kind, attributes, source), **hyperparameters}
    for name in ("cutoff", *(kind.required if not attributes else ())):
        if name not in settings:
            raise UserError(f"{source}: {name} is not in the file; pass {name}=... as the model was trained", name)
    try:
        weights, found = kind.read(state, settings["cutoff"])
    except KeyError as error:
        raise UserError(f"{source}: no weight {error}; is this another model?") from None
    for name, value in found.items():
        if settings.get(name, value) != value:
            raise UserError(f"{source}: {name} = {settings[name]!r}, but the weights have {value!r}", name)
    settings = {**kind.defaults, **settings, **found, "conventions": "oc20"}
    scale = {"energy_mean": 0.0, "energy_std": 1.0, "forces_std": 1.0, **normalizers(checkpoint), **normalizer}
    if settings.get("direct_forces"):  # the head multiplies them by the scale of the energy
        weights = kind.scale_forces(weights, scale["forces_std"] / scale["energy_std"])
    extensive = settings.get("extensive", True)
    shift = [scale["energy_mean"]], [scale["energy_std"]]
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), *shift, extensive)
    predictor = Predictor(kind.model, settings, head, elements, dtype, energy="energy", periodic=True)
    assign_weights(predictor.model, weights, source)
    return predictor


def normalizers(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """Return the normalizers of a checkpoint as the arguments of `load_oc20_checkpoint`."""
    entries = checkpoint.get("normalizers") or {}
    names = {"energy_mean": ("target", "mean"), "energy_std": ("target", "std"), "forces_std": ("grad_target", "std")}
    return {
        name: float(np.asarray(entries[entry][key]).item())
        for name, (entry, key) in names.items()
        if key in entries.get(entry, {})
    }


SIZES = {"hidden_channels": "emb_size", "out_emb_channels": "out_emb_size", "num_output_layers": "num_dense_output"}
SIZES |= {"num_layers": "num_blocks", "num_rbf": "num_radial"}
# `num_targets` is that of the weights; a limit of neighbors is asked for by who wants it
NOT_NEEDED = ("name", "output_init", "num_targets", "max_neighbors")
FUNCTIONS = {
    "rbf": ("gaussian", "spherical_bessel"),
    "cbf": ("spherical_harmonics",),
    "envelope": ("polynomial",),
    "activation": ("silu", "swish", "scaled_silu"),
}


def configured(kind: Kind, attributes: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the hyperparameters in a checkpoint's configuration of the model under this library's names.

    Settings that the model here does not have, such as `otf_graph`, are about the search for edges.
    """
    for key, known in FUNCTIONS.items():
        value = attributes.get(key)
        name = value.get("name") if isinstance(value, Mapping) else value
        if name is not None and name not in known:
            raise UserError(f"{source}: {key} must be {' or '.join(known)} in the model's configuration; got {name!r}")
    own = {SIZES.get(key, key): value for key, value in attributes.items() if key not in FUNCTIONS}
    found = {
        key: value
        for key, value in own.items()
        if key in hyperparameters_of(MODELS[kind.model]) and key not in NOT_NEEDED
    }
    envelope = attributes.get("envelope")
    if isinstance(envelope, Mapping) and "exponent" in envelope:
        found["envelope_exponent"] = envelope["exponent"] + kind.exponent_shift
    return found


def count(state: Mapping[str, np.ndarray], prefix: str) -> int:
    """Return how many numbers follow a prefix in the names of weights."""
    matches = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in state)
    return 1 + max((int(match[1]) for match in matches if match), default=-1)


def table(embeddings: np.ndarray, rows: int) -> np.ndarray:
    """Return an embedding table whose row is Z, of one whose row is Z - 1."""
    return np.pad(embeddings, [(1, rows - 1 - len(embeddings)), (0, 0)])


def scale_factors(weights: Weights) -> Weights:
    """Return weights with scale factors of 1 instead of 0: a factor of 0 means that nothing is multiplied."""
    return {
        name: np.where(array == 0, np.ones_like(array), array) if name.endswith("scale_factor") else array
        for name, array in weights.items()
    }


def read_gemnet(state: Weights, cutoff: float) -> tuple[Weights, dict[str, Any]]:
    gaussian = "radial_basis.rbf.offset" in state
    block = "int_blocks.0"
    hyperparameters = {
        "triplets_only": True,
        "direct_forces": "out_blocks.0.out_forces.linear.weight" in state,
        "radial_basis": "gaussian" if gaussian else "bessel",
        "num_spherical": state["mlp_cbf3.weight"].shape[0],
        "num_radial": state["mlp_cbf3.weight"].shape[1],
        "num_blocks": count(state, "int_blocks"),
        "emb_size_atom": state["atom_emb.embeddings.weight"].shape[1],
        "emb_size_edge": state["edge_emb.dense.linear.weight"].shape[0],
        "emb_size_rbf": state["mlp_rbf3.linear.weight"].shape[0],
        "emb_size_trip": state[f"{block}.trip_interaction.mlp_cbf.weight"].shape[0],
        "emb_size_cbf": state[f"{block}.trip_interaction.mlp_cbf.weight"].shape[1],
        "emb_size_bil_trip": state[f"{block}.trip_interaction.mlp_cbf.weight"].shape[2],
        "num_before_skip": count(state, f"{block}.layers_before_skip"),
        "num_after_skip": count(state, f"{block}.layers_after_skip"),
        "num_concat": count(state, f"{block}.residual_m"),
        "num_atom": count(state, f"{block}.atom_update.layers") - 1,
        "num_targets": state["out_blocks.0.out_energy.linear.weight"].shape[0],
    }
    ours: Weights = {}
    for name, array in from_torch(state).items():
        for theirs, own in (
            *GEMNET_NAMES,
            (r"rbf/offset$", "rbf/centers"),
            (r"^cbf_basis3/radial_basis/rbf", "cbf_basis/functions"),
            (r"^radial_basis/rbf", "rbf_basis"),
            (r"scale_rbf_F", "scale_rbf"),
            (r"seq_energy", "layers"),  # the same weights under two names
        ):
            name = re.sub(theirs, own, name)
        if name == "atom_emb/embeddings":
            array = table(array, 95)
        elif name.endswith("/centers"):  # of distances over the cutoff
            array = array.astype(np.float64) * cutoff
        elif name == "mlp_cbf3/kernel":
            array = array.reshape(-1, array.shape[-1])
        if name in ours and not np.array_equal(ours[name], array):
            raise UserError(f"the weights 'layers' and 'seq_energy' of '{name}' differ; they must be the same")
        ours[name] = array
    return scale_factors(ours), hyperparameters


DIMENET_NAMES = (
    (r"^rbf/freq$", "rbf_layer/frequencies"),
    (r"^emb/emb/kernel$", "emb_block/embeddings"),
    (r"^emb/lin_rbf/", "emb_block/dense_rbf/"),
    (r"^emb/lin/", "emb_block/dense/"),
    (r"^interaction_blocks/", "int_blocks/"),
    (r"/lin_(rbf|sbf)(\d)/", r"/dense_\1\2/"),
    (r"/lin_(kj|ji|rbf)/", r"/dense_\1/"),
    (r"/lin_(up|down)/", r"/\1_projection/"),
    (r"(skip/\d+)/lin(\d)/", r"\1/dense_\2/"),
    (r"^(output_blocks/\d+)/lins/", r"\1/dense_layers/"),
    (r"^(output_blocks/\d+)/lin/", r"\1/dense_final/"),
    (r"^(int_blocks/\d+)/lin/", r"\1/final_before_skip/"),
)


def renamed(state: Weights, names: Sequence[tuple[str, str]]) -> Weights:
    """Return the arrays of dense layers under this library's names and transposed."""
    ours: Weights = {}
    for name, array in state.items():
        path = re.sub(r"/weight$", "/kernel", name.replace(".", "/"))
        array = array.T if path.endswith("/kernel") and array.ndim == 2 else array
        for theirs, own in names:
            path = re.sub(theirs, own, path)
        ours[path] = array
    return ours


def read_dimenet_pp(state: Weights, cutoff: float) -> tuple[Weights, dict[str, Any]]:
    ours = renamed(state, DIMENET_NAMES)
    ours["emb_block/embeddings"] = ours["emb_block/embeddings"].T  # a table, no kernel
    block, output = "int_blocks/0", "output_blocks/0"
    num_radial = len(ours["rbf_layer/frequencies"])
    return ours, {
        "emb_size": ours["emb_block/embeddings"].shape[1],
        "out_emb_size": ours[f"{output}/up_projection/kernel"].shape[1],
        "int_emb_size": ours[f"{block}/down_projection/kernel"].shape[1],
        "basis_emb_size": ours[f"{block}/dense_rbf1/kernel"].shape[1],
        "num_blocks": count(state, "interaction_blocks"),
        "num_radial": num_radial,
        "num_spherical": ours[f"{block}/dense_sbf1/kernel"].shape[0] // num_radial,
        "num_before_skip": count(state, "interaction_blocks.0.layers_before_skip"),
        "num_after_skip": count(state, "interaction_blocks.0.layers_after_skip"),
        "num_dense_output": count(state, "output_blocks.0.lins"),
        "num_targets": ours[f"{output}/dense_final/kernel"].shape[1],
    }


PAINN_NAMES = (
    (r"^message_layers/(\d+)/x_proj/0/", r"message_blocks/\1/dense_1/"),
    (r"^message_layers/(\d+)/x_proj/2/", r"message_blocks/\1/dense_2/"),
    (r"^message_layers/(\d+)/x_layernorm/kernel", r"message_blocks/\1/norm/gamma"),
    (r"^message_layers/(\d+)/x_layernorm/bias", r"message_blocks/\1/norm/beta"),
    (r"^update_layers/(\d+)/vec_proj/", r"update_blocks/\1/mix/"),
    (r"^update_layers/(\d+)/xvec_proj/0/", r"update_blocks/\1/dense_1/"),
    (r"^update_layers/(\d+)/xvec_proj/2/", r"update_blocks/\1/dense_2/"),
    (r"^upd_out_scalar_scale_(\d+)/", r"update_blocks/\1/scale/"),
    (r"^out_energy/0/", "out_1/"),
    (r"^out_energy/2/", "out_2/"),
    (r"^out_forces/output_network/(\d)/update_net/0/", r"out_forces/\1/dense_1/"),
    (r"^out_forces/output_network/(\d)/update_net/2/", r"out_forces/\1/dense_2/"),
    (r"^out_forces/output_network/(\d)/vec(\d)_proj/", r"out_forces/\1/vec\2/"),
    (r"^atom_emb/embeddings/kernel$", "atom_emb/embeddings"),
)


def read_painn(state: Weights, cutoff: float) -> tuple[Weights, dict[str, Any]]:
    ours = renamed(state, PAINN_NAMES)
    num_blocks, direct = count(state, "message_layers"), "out_forces.output_network.0.vec1_proj.weight" in state

    def reordered(name: str, order: Sequence[int]) -> None:
        parts = np.split(ours[name], len(order), axis=-1)
        ours[name] = np.concatenate([parts[i] for i in order], axis=-1)

    embeddings, offsets = ours["atom_emb/embeddings"].T, ours.pop("radial_basis/rbf/offset")
    ours["atom_emb/embeddings"] = table(embeddings, 100)
    ours["rbf_basis/centers"] = offsets.astype(np.float64) * cutoff
    ours["rbf_basis/widths"] = np.full(len(offsets), cutoff / (len(offsets) - 1))
    for b in range(num_blocks):
        message, update = f"message_blocks/{b}/", f"update_blocks/{b}/"
        for part in ("kernel", "bias"):
            # x, from vectors, from scalars -> x, from scalars, from vectors
            reordered(f"{message}dense_2/{part}", (0, 2, 1))
            reordered(f"message_layers/{b}/rbf_proj/{part}", (0, 2, 1))
            reordered(f"{update}dense_2/{part}", (0, 2, 1))
        reordered(f"{update}mix/kernel", (1, 0))
    for part in ("kernel", "bias"):
        filters = [ours.pop(f"message_layers/{b}/rbf_proj/{part}") for b in range(num_blocks)]
        ours[f"filters/{part}"] = np.concatenate(filters, axis=-1)
    if direct:
        for b in range(2):
            vectors = [ours.pop(f"out_forces/{b}/vec{n}/kernel") for n in (1, 2)]
            ours[f"out_forces/{b}/mix/kernel"] = np.concatenate(vectors, axis=-1)
    return scale_factors(ours), {
        "emb_size": embeddings.shape[1],
        "num_blocks": num_blocks,
        "num_radial": len(offsets),
        "radial_basis": "gaussian",
        "envelope": "polynomial",
        "direct_forces": direct,
        "num_targets": ours["out_2/kernel"].shape[1],
    }


def scale_gemnet_forces(weights: Weights, factor: float) -> Weights:
    return {name: array * factor if name.endswith("out_forces/kernel") else array for name, array in weights.items()}


def scale_painn_forces(weights: Weights, factor: float) -> Weights:
    name = "out_forces/1/mix/kernel"  # the second part of its columns makes the vectors linearly
    kernel = np.concatenate([weights[name][:, :-1], weights[name][:, -1:] * factor], axis=1)
    return {**weights, name: kernel}


class Kind(NamedTuple):
    """How the state dict of a model is read."""

    model: str
    mark: str
    """A weight that only this model has."""
    read: Callable[[Weights, float], tuple[Weights, dict[str, Any]]]
    """Function of the state dict and the cutoff: weights under this library's names, hyperparameters."""
    defaults: Mapping[str, Any] = {}
    """Hyperparameters of OC20's models that do not follow from weights and are not this library's defaults."""
    required: tuple[str, ...] = ()
    """Hyperparameters that must be given if the file has no configuration."""
    exponent_shift: int = 0
    """Difference of this library's `envelope_exponent` and OC20's."""
    scale_forces: Callable[[Weights, float], Weights] = lambda weights, factor: weights
    """Multiply direct forces by a factor."""


KINDS = (
    Kind("gemnet", "mlp_cbf3.weight", read_gemnet, required=("extensive",), scale_forces=scale_gemnet_forces),
    Kind("dimenet_pp", "interaction_blocks.0.lin_sbf1.weight", read_dimenet_pp),
    Kind(
        "painn",
        "message_layers.0.x_proj.0.weight",
        read_painn,
        {"envelope_exponent": 4},
        exponent_shift=-1,
        scale_forces=scale_painn_forces,
    ),
)
