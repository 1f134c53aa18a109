"""TensorBoard's files."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event


def forget_events_after(folder: Path, step: int, validated: int) -> None:
    """Remove what belongs to later steps, which the run will make again, and what a killed process left half written.

    TensorBoard would show the steps twice. `validated` is the last step whose validation will not be made again.
    """

    def stays(record: bytes) -> bool:
        event = Event.FromString(record)
        validation = any(value.tag.startswith(("validation/", "weights/")) for value in event.summary.value)
        return event.step <= (validated if validation else step)

    for path in sorted(folder.glob("events*")):
        new, whole = path.with_name(f".{path.name}.new"), True
        with tf.io.TFRecordWriter(str(new)) as writer:
            try:
                for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                    if stays(record):
                        writer.write(record)
            except tf.errors.DataLossError:
                whole = False
        if whole and new.stat().st_size == path.stat().st_size:
            new.unlink()
        else:
            new.replace(path)
