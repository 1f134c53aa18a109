"""SavedModels that take atoms and return properties and forces: no Python, no custom operations.

Three signatures; each property is [molecules] float64 (a dipole [molecules, 3], a polarizability [molecules, 3, 3]),
`forces` are there where the predictor has them, and `in_domain` [molecules] bool where its domain is recorded:

`serving_default`
    Z [molecules, atoms] int32, padded with 0 after each molecule's atoms; R [molecules, atoms, 3].
    forces [molecules, atoms, 3], 0 for padding.
`flat`
    Z [atoms], R [atoms, 3], molecule_of_atom [atoms] int32, ascending from 0. forces [atoms, 3].
`edges`
    The same and edge_source, edge_target [edges] int32: both directions of every pair within the cutoff, in any order
    (pairs farther apart are dropped). forces [atoms, 3].

A model that was trained on periodic structures takes `cell` [molecules, 3, 3] (Angstrom, rows are lattice vectors, zero
for molecules) and `pbc` [molecules, 3] bool in every signature, and `edge_image` [edges, 3] int32 in `edges`: the image
of the source, for positions as they are sent. Its output `stress` [molecules, 3, 3] is zero for structures without a
volume, since JSON has no NaN. A model with `max_neighbors` has the output `neighbors_dropped` [molecules] int32: pairs
within the cutoff that it left out.

R in Angstrom, float32 (float64 for a predictor of that precision). What cannot be computed fails with INVALID_ARGUMENT
and the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from dimenet_tf.errors import UserError, import_optional
from dimenet_tf.graph import find_edges, ingraph
from dimenet_tf.predictor.domain import NOT_RECORDED
from dimenet_tf.predictor.property_model import PropertyModel
from dimenet_tf.predictor.watch import DomainWatch
from dimenet_tf.runs.catalog import DESCRIPTION, WEIGHTS
from dimenet_tf.structures.elements import SYMBOLS
from dimenet_tf.version import __version__

METADATA = "metadata.json"
WARMUP = "assets.extra/tf_serving_warmup_requests"
CELL_SHAPES = {"cell": (3, 3), "pbc": (3,)}
SPACING = 1.45  # Ang, between the atoms of a chain: as bonds of any element it fits no unit but Angstrom
NO_GRADIENT = (
    "a served model's forces are outputs; for other derivatives make the model again with dimenet_tf.load(path)"
)


class ServedModel(tf.Module):
    """Content of a SavedModel: a predictor's variables and its three signatures.

    Parameters
    ----------
    predictor : PropertyModel
    max_atoms : int
        Of a molecule; larger ones are refused by `serving_default` and `flat`, so that no single request takes a
        server's memory. The `edges` signature has no limit.
    domain : str
        "flag" or "error"; see `export`
    """

    def __init__(self, predictor: PropertyModel, max_atoms: int, domain: str = "flag") -> None:
        super().__init__()
        self.max_atoms, self.domain = max_atoms, domain
        self.get_predictor = lambda: predictor  # as an attribute Keras would write it a second time, with its layers
        self.weights = predictor.model.variables
        spec = tf.TensorSpec
        padded = {"Z": spec([None, None], tf.int32, "Z"), "R": spec([None, None, 3], predictor.dtype, "R")}
        flat = {
            "Z": spec([None], tf.int32, "Z"),
            "R": spec([None, 3], predictor.dtype, "R"),
            "molecule_of_atom": spec([None], tf.int32, "molecule_of_atom"),
        }
        edges = {**flat, **{name: spec([None], tf.int32, name) for name in ("edge_source", "edge_target")}}
        if predictor.takes_cells:
            for inputs in (padded, flat, edges):
                inputs["cell"] = spec([None, 3, 3], predictor.dtype, "cell")
                inputs["pbc"] = spec([None, 3], tf.bool, "pbc")
            edges["edge_image"] = spec([None, 3], tf.int32, "edge_image")
        self.served = {
            "serving_default": tf.function(self.serve_padded).get_concrete_function(**padded),
            "flat": tf.function(self.serve_flat).get_concrete_function(**flat),
            "edges": tf.function(self.serve_edges).get_concrete_function(**edges),
        }
        self.describe_inputs = lambda: {"serving_default": padded, "flat": flat, "edges": edges}

    def serve_padded(self, Z: tf.Tensor, R: tf.Tensor, **cells: tf.Tensor) -> dict[str, tf.Tensor]:
        numbers, positions, num_atoms = ingraph.unpad(Z, R)
        named = self._serve(numbers, positions, num_atoms, self.max_atoms, cells=cells)
        if "forces" in named:
            named["forces"] = ingraph.pad(named["forces"], Z)
        return named

    def serve_flat(
        self, Z: tf.Tensor, R: tf.Tensor, molecule_of_atom: tf.Tensor, **cells: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        Z, R, molecule_of_atom = ingraph.check_lengths(Z=Z, R=R, molecule_of_atom=molecule_of_atom)
        return self._serve(Z, R, ingraph.count_atoms(molecule_of_atom), self.max_atoms, cells=cells)

    def serve_edges(
        self,
        Z: tf.Tensor,
        R: tf.Tensor,
        molecule_of_atom: tf.Tensor,
        edge_source: tf.Tensor,
        edge_target: tf.Tensor,
        edge_image: tf.Tensor | None = None,
        **cells: tf.Tensor,
    ) -> dict[str, tf.Tensor]:
        Z, R, molecule_of_atom = ingraph.check_lengths(Z=Z, R=R, molecule_of_atom=molecule_of_atom)
        edges = [edge_source, edge_target] if edge_image is None else [edge_source, edge_target, edge_image]
        return self._serve(Z, R, ingraph.count_atoms(molecule_of_atom), None, edges, cells)

    def _serve(
        self,
        Z: tf.Tensor,
        R: tf.Tensor,
        num_atoms: tf.Tensor,
        max_atoms: int | None,
        edges: Sequence[tf.Tensor] | None = None,
        cells: Mapping[str, tf.Tensor] | None = None,
    ) -> dict[str, tf.Tensor]:
        predictor = self.get_predictor()
        lattice = (cells["cell"], cells["pbc"]) if cells else None
        prediction = predictor.predict_graph(predictor.make_graph(Z, R, num_atoms, max_atoms, edges, lattice))
        if not isinstance(prediction.stress, tuple):
            prediction = prediction._replace(stress=zero_for_nan(tf.convert_to_tensor(prediction.stress)))
        named: dict[str, tf.Tensor] = predictor.named(prediction)
        if predictor.domain is not None:
            named["in_domain"] = prediction.in_domain
        if self.domain == "error":
            outside = ingraph.refuse(tf.logical_not(prediction.in_domain), "outside of the model's domain: molecule")
            named = dict(zip(named, ingraph.after([outside], *named.values())))
        return {
            name: tf.raw_ops.PreventGradient(input=value, message=NO_GRADIENT) if value.dtype.is_floating else value
            for name, value in named.items()
        }


def zero_for_nan(values: tf.Tensor) -> tf.Tensor:
    """Return numbers with 0 in place of what is not finite."""
    return tf.where(tf.math.is_finite(values), values, tf.zeros_like(values))


def export(predictor: PropertyModel, path: str | Path, max_atoms: int = 1000, domain: str = "flag") -> None:
    """Write a SavedModel with all that belongs to it; see the table at the top of this module.

    Assets: `metadata.json` (properties, units, elements, cutoff, limits, versions), `predictor.json` and `weights.h5`
    (from which `dimenet_tf.load` makes the predictor again); `assets.extra` has TensorFlow Serving's warm-up requests.
    Without the extra `serving` these are left out, with a warning.

    Parameters
    ----------
    predictor : PropertyModel
    path : folder to write; TensorFlow Serving wants a number for its name: served/1
    max_atoms : of a molecule
    domain : "flag" for an output `in_domain`, "error" to refuse molecules outside of the model's domain

    Raises
    ------
    UserError
        If something is there already, or for `domain="error"` of a model that does not record its domain.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists already: a served model is never overwritten; take the next number")
    if max_atoms < 1:
        raise UserError(f"max_atoms = {max_atoms} must be at least 1")
    DomainWatch(predictor.domain, predictor.model.cutoff, domain)  # refuses what is impossible
    path.parent.mkdir(parents=True, exist_ok=True)
    # written next to its place and then renamed, so that a server that watches the folder never sees a part of it
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        module = ServedModel(predictor, max_atoms, domain)
        files = unfinished / "files"
        predictor.to_folder(files)
        (files / METADATA).write_text(json.dumps(_metadata(predictor, module), indent=1))
        module.assets = [tf.saved_model.Asset(str(files / name)) for name in (METADATA, DESCRIPTION, WEIGHTS)]
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(module, str(unfinished / "model"), signatures=module.served, options=options)
        _forget_custom_gradients(unfinished / "model" / "saved_model.pb")
        try:
            _write_warmup(predictor, unfinished / "model" / WARMUP)
        except UserError as error:
            warnings.warn(f"exported without warm-up requests for TensorFlow Serving: {error}", stacklevel=2)
        (unfinished / "model").rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _forget_custom_gradients(path: Path) -> None:
    """Take the names of custom gradients, which are not saved, out of a SavedModel: loading it would warn of each."""
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for meta_graph in model.meta_graphs:
        graph = meta_graph.graph_def
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            for node in nodes:
                node.attr.pop("_gradient_op_type", None)
    path.write_bytes(model.SerializeToString(deterministic=True))
    path.with_name("fingerprint.pb").unlink()  # of the file as it was


def _metadata(predictor: PropertyModel, module: ServedModel) -> dict:
    def describe(spec: tf.TensorSpec) -> dict:
        return {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}

    inputs = module.describe_inputs()
    return {
        "properties": predictor.units,
        "positions": "Ang",
        "periodic": predictor.takes_cells,
        "elements": [SYMBOLS[z] for z in predictor.elements],
        "model": predictor.model_name,
        "cutoff": predictor.model.cutoff,  # of `edges`
        "cutoffs": predictor.model.cutoffs,  # of all that acts between atoms
        "max_neighbors": predictor.model.max_neighbors or "all",
        "max_atoms": module.max_atoms,
        "domain": NOT_RECORDED if predictor.domain is None else predictor.domain.describe(),
        "outside of the domain": module.domain,
        "signatures": {
            name: {
                "inputs": {key: describe(spec) for key, spec in inputs[name].items()},
                "outputs": {key: describe(spec) for key, spec in function.structured_outputs.items()},
            }
            for name, function in module.served.items()
        },
        "versions": {"dimenet_tf": __version__, "tensorflow": tf.__version__},
    }


def _write_warmup(predictor: PropertyModel, path: Path) -> None:
    """Write a request for each signature, with a molecule in the domain; servers run them before they are ready."""
    prediction_log_pb2 = import_optional("tensorflow_serving.apis.prediction_log_pb2", "serving")
    if predictor.domain is not None:
        Z, R = (np.array(predictor.domain.example[name]) for name in ("Z", "R"))
    else:
        Z = np.resize(predictor.elements, 8)
        R = SPACING * np.arange(8)[:, None] * [1.0, 0.0, 0.0]
    Z, R, atoms = Z.astype(np.int32), R.astype(predictor.dtype), len(Z)
    lattice: dict[str, np.ndarray] = {}
    if predictor.takes_cells:
        example = {} if predictor.domain is None else predictor.domain.example
        cell, pbc = (example.get(key, np.zeros(shape)) for key, shape in CELL_SHAPES.items())
        lattice = {"cell": np.array(cell, predictor.dtype)[None], "pbc": np.array(pbc, bool)[None]}
    edges = find_edges(R, predictor.model.cutoff, *(array[0] for array in lattice.values()))
    images = {} if edges.image is None else {"edge_image": edges.image}
    flat = {"Z": Z, "R": R, "molecule_of_atom": np.zeros(atoms, np.int32), **lattice}
    requests = {
        "serving_default": {"Z": Z[None], "R": R[None], **lattice},
        "flat": flat,
        "edges": {**flat, "edge_source": edges.source, "edge_target": edges.target, **images},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for signature, inputs in requests.items():
            log = prediction_log_pb2.PredictionLog()
            request = log.predict_log.request
            request.model_spec.signature_name = signature
            for name, array in inputs.items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
            writer.write(log.SerializeToString())
