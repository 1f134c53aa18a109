"""Training of small models on a few molecules."""

import numpy as np

from dimenet_tf.config.build import build_predictor, training_config
from dimenet_tf.config.schema import resolve
from dimenet_tf.data import DataContainer, Split, ethanol_xtb, load_dataset
from dimenet_tf.data.dataset import DataConfig, Dataset
from dimenet_tf.predictor.weights import named_variables
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.trainer import Trainer
from helpers.models import DIMENETS, SMALL


def configuration(name="dimenet_pp", **training) -> dict:
    """Configuration of a few steps of a small model."""
    steps = {"num_steps": 6, "warmup_steps": 2, "decay_steps": 4_000_000, "evaluation_interval": 3}
    training = {"batch_size": 8, **steps, **training}
    model = {"name": name, **SMALL[name]}
    if name in DIMENETS:
        model |= {"num_blocks": 1, "aggregation": "sum_first"}  # less to trace
    return resolve({"model": model, "training": {**training, "log_interval": 1}})


def dataset(train=40, valid=10, target="U0") -> Dataset:
    """Molecules of the sample of QM9, in a fixed random order."""
    everything = load_dataset(DataConfig(target=target))
    order = np.random.RandomState(0).permutation(len(everything.container))
    split = Split(order[:train], order[train : train + valid], order[train + valid : train + 2 * valid])
    return load_dataset(DataConfig(target=target), split)


def trainer_of(config, folder, data=None) -> Trainer:
    """Trainer of a configuration, with its run in a folder."""
    data = data or dataset()
    return Trainer(training_config(config), lambda: build_predictor(config, data), data, RunFolder(folder))


def weights_of(trainer) -> dict[str, np.ndarray]:
    """Weights of the model by name."""
    return {name: v.numpy() for name, v in named_variables(trainer.predictor.model).items()}


def assert_equal_weights(a, b, **tolerance) -> None:
    """Compare the weights of two trainers; tolerances are those of `assert_allclose`."""
    for name, value in weights_of(a).items():
        np.testing.assert_allclose(weights_of(b)[name], value, err_msg=name, **tolerance)


def force_dataset(train=12, valid=4, partial=False) -> Dataset:
    """Frames of two molecules: ethanol, and ethanol without its last hydrogen.

    With `partial`, some molecules lack their energy or their forces, and molecules have weights.
    """
    data = ethanol_xtb().select(range(0, 2000, 50))
    parts = [data, data.select(range(20))]
    keep = np.arange(9 * 20) % 9 != 8
    short = DataContainer(
        parts[1].N - 1,
        parts[1].Z[keep],
        parts[1].R[keep],
        {"energy": parts[1].target("energy") + 1, "forces": parts[1].target("forces")[keep]},
    )
    joined = DataContainer(
        *(np.concatenate([getattr(part, key) for part in (data, short)]) for key in ("N", "Z", "R")),
        {key: np.concatenate([part.target(key) for part in (data, short)]) for key in ("energy", "forces")},
    )
    if partial:
        joined.targets["energy"][::3] = np.nan
        joined.targets["forces"][(np.arange(len(joined)) % 3 == 1)[joined.molecule_of_atom]] = np.nan
        joined.weight[:] = 1 + np.arange(len(joined)) % 2
    order = np.random.RandomState(0).permutation(len(joined))
    split = Split(order[:train], order[train : train + valid], order[train + valid :])
    return load_dataset(DataConfig(target=["energy", "forces"]), split, joined)


def force_configuration(**training) -> dict:
    """Configuration of four steps of training with forces."""
    return configuration(**{"batch_size": 4, "num_steps": 4, "evaluation_interval": 2, **training})
