"""Small models, and predictors with weights that were never trained."""

import numpy as np
import tensorflow as tf

from dimenet_tf.graph import Graph, GraphStore
from dimenet_tf.models import MODELS
from dimenet_tf.predictor import Predictor
from dimenet_tf.predictor.weights import named_variables
from dimenet_tf.properties.heads import Dipole, Head, Polarizability, Sum, scalar_head

SMALL = {name: dict(kind.small) for name, kind in MODELS.items()}
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
    store = GraphStore(N, Z, R, model.cutoff, model.needs, model.dtype, far_cutoff=model.far_cutoff)
    return store.batch(range(len(N)))


def energies(model: tf.keras.Model, N: np.ndarray, Z: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Sum of the atoms' scalars, (molecules, targets) float64."""
    graph = graph_of(N, Z, R, model)
    return tf.math.unsorted_segment_sum(model(graph).scalars, graph.molecule_of_atom, len(N)).numpy()


def force_field(
    name="dimenet_pp",
    dtype="float64",
    seed=0,
    energy="energy",
    targets=("energy",),
    randomized=True,
    periodic=False,
    **options,
) -> Predictor:
    """Predictor of energies and forces of molecules of H, C and O."""
    references = np.zeros((len(targets), 95))
    references[0, [1, 6, 8]] = [-13.0, -1000.0, -2000.0]
    head = scalar_head(targets, ["eV"] * len(targets), references, np.zeros(len(targets)), [0.5] * len(targets))
    hyperparameters = {**SMALL[name], "num_blocks": 1, "num_targets": len(targets), "seed": seed, **options}
    predictor = Predictor(name, hyperparameters, head, [1, 6, 8], dtype, energy, periodic=periodic)
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
