"""Containers, embedded data sets, readers, splits and batches."""

from dimenet_tf.data.dataset import DataConfig, Dataset, datasets, load_dataset
from dimenet_tf.data.embedded import ethanol_xtb, oc20_sample, sample, water_xtb
from dimenet_tf.structures.checks import Checks
from dimenet_tf.structures.container import DataContainer
from dimenet_tf.structures.readers import from_atoms, read_file
from dimenet_tf.structures.splits import Split, random_split

__all__ = [
    "Checks",
    "DataConfig",
    "DataContainer",
    "Dataset",
    "Split",
    "datasets",
    "ethanol_xtb",
    "from_atoms",
    "load_dataset",
    "oc20_sample",
    "random_split",
    "read_file",
    "sample",
    "water_xtb",
]
