"""Small models, and predictors with weights that were never trained."""

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import Graph, GraphStore
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import named_variables
from dimenet_tf.properties.heads import Dipole, Head, Polarizability, Sum, scalar_head

SMALL = {
    "dimenet": {"emb_size": 16, "num_blocks": 2, "num_bilinear": 4},
    "dimenet_pp": {"emb_size": 16, "out_emb_size": 24, "int_emb_size": 8, "basis_emb_size": 4, "num_blocks": 2},
    "dpgn": {
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
    },
    "gemnet": {
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
    },
    "painn": {"emb_size": 16, "num_blocks": 2, "num_radial": 8, "cutoff": 3.0},
    "spherenet": {
        "num_spherical": 4,
        "num_radial": 4,
        "num_blocks": 2,
        "emb_size": 16,
        "out_emb_size": 24,
        "int_emb_size": 8,
        "basis_emb_size_dist": 4,
        "basis_emb_size_angle": 5,
        "basis_emb_size_torsion": 6,
        "num_dense_output": 2,
        "cutoff": 3.0,
    },
}
DIMENETS = ("dimenet", "dimenet_pp")


def randomize(model: tf.keras.Model, seed: int = 0) -> tf.keras.Model:
    """Change every weight, also biases and outputs of zeros, so that each one matters. Basis functions stay."""
    rng = np.random.default_rng(seed)
    for name, variable in named_variables(model).items():
        if not name.endswith(("frequencies", "centers", "widths")):
            variable.assign(variable + 0.1 * rng.standard_normal(variable.shape))
    return model


def graph_of(N: np.ndarray, Z: np.ndarray, R: np.ndarray, model: tf.keras.Model) -> Graph:
    """All molecules in one graph, as the model needs it."""
    store = GraphStore(N, Z, R, model.cutoff, model.needs, model.dtype)
    return store.batch(range(len(N)))


def energies(model: tf.keras.Model, N: np.ndarray, Z: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Sum of the atoms' scalars, (molecules, targets) float64."""
    graph = graph_of(N, Z, R, model)
    return tf.math.unsorted_segment_sum(model(graph).scalars, graph.molecule_of_atom, len(N)).numpy()


def force_field(
    name="dimenet_pp", dtype="float64", seed=0, energy="energy", targets=("energy",), randomized=True, **options
) -> Predictor:
    """Predictor of energies and forces of molecules of H, C and O."""
    references = np.zeros((len(targets), 95))
    references[0, [1, 6, 8]] = [-13.0, -1000.0, -2000.0]
    head = scalar_head(targets, ["eV"] * len(targets), references, np.zeros(len(targets)), [0.5] * len(targets))
    hyperparameters = {**SMALL[name], "num_blocks": 1, "num_targets": len(targets), "seed": seed, **options}
    predictor = Predictor(name, hyperparameters, head, [1, 6, 8], dtype, energy)
    if randomized:
        randomize(predictor.model, seed)
    return predictor


def two_targets(name="dimenet_pp", extensive=True, dtype="float32", offset=0.0) -> Predictor:
    """Predictor of U0 and mu of molecules of H, C and O."""
    per_element = np.zeros((2, 95))
    per_element[0, [1, 6, 8]] = [-13.0, -1000.0, -2000.0]
    head = scalar_head(["U0", "mu"], ["eV", "D"], per_element, [offset, 1.5], [0.5, 2.0], extensive)
    hyperparameters = {**SMALL[name], "num_targets": 2, "extensive": extensive}
    predictor = Predictor(name, hyperparameters, head, [1, 6, 8], dtype)
    randomize(predictor.model)
    return predictor


def painn(dtype="float64") -> Predictor:
    """PaiNN that predicts energies, forces, dipoles and polarizabilities."""
    head = Head(
        [
            Sum("energy", "eV", 0.1, np.zeros(95)),
            Dipole("dipole", "e*Ang", 0.5, vector=True),
            Polarizability("polarizability", "a0^3", 2.0, np.zeros(95)),
        ]
    )
    sizes = {"emb_size": 8, "num_blocks": 1, "num_targets": 3, "num_vectors": 2}
    predictor = Predictor("painn", sizes, head, [1, 6, 8], dtype, energy="energy")
    randomize(predictor.model)
    return predictor
