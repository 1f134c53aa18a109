"""TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event


def forget_events_after(folder: Path, step: int) -> None:
    """Remove what belongs to later steps, which the run will make again, and what a killed process left half written.

    TensorBoard would show the steps twice.
    """
    for path in sorted(folder.glob("events*")):
        records, whole = [], True
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                records.append(record)
        except tf.errors.DataLossError:
            whole = False
        wanted = [record for record in records if Event.FromString(record).step <= step]
        if whole and len(wanted) == len(records):
            continue
        new = path.with_name(f"new-{path.name}")
        with tf.io.TFRecordWriter(str(new)) as writer:
            for record in wanted:
                writer.write(record)
        new.replace(path)
