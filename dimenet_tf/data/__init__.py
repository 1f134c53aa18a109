"""Containers, the embedded sample, splits and batches."""

from dimenet_tf.data.container import DataContainer, sample
from dimenet_tf.data.dataset import DataConfig, Dataset, load_dataset
from dimenet_tf.data.splits import Split, random_split

__all__ = ["DataConfig", "DataContainer", "Dataset", "Split", "load_dataset", "random_split", "sample"]
