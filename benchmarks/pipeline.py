"""Whether the input pipeline slows the step: `python benchmarks/pipeline.py [--steps 60] [--emb-size 64]`.

DimeNet++ on the embedded sample, batches of 32: training steps on batches as the pipeline makes them, and on the same
batches held ready.
"""

import argparse
import itertools
import time

from common import print_machine, set_threads

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--emb-size", type=int, default=64)
parser.add_argument("--threads", type=int, default=2)
args = parser.parse_args()
set_threads(args.threads)

import numpy as np  # noqa: E402
from speed import training_step  # noqa: E402

from dimenet_tf.data import sample  # noqa: E402
from dimenet_tf.graph.batching import TrainingBatches  # noqa: E402
from dimenet_tf.graph.pipeline import make_dataset  # noqa: E402
from dimenet_tf.predictor import Predictor  # noqa: E402
from dimenet_tf.properties.heads import scalar_head  # noqa: E402

data = sample()
head = scalar_head(["U0"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
predictor = Predictor("dimenet_pp", {"emb_size": args.emb_size, "out_emb_size": args.emb_size}, head, range(1, 10))
store = predictor.graph_store(data.N, data.Z, data.R)
batches = TrainingBatches(np.arange(len(data)), seed=0, batch_size=32)
dataset = make_dataset(store, data.target("U0")[:, None], lambda: batches.from_step(0)).take(args.steps)
step = training_step(predictor)
ready = [batch.graph for batch in dataset]
step(ready[0])


def seconds(graphs) -> float:
    begin = time.perf_counter()
    for graph in graphs:
        step(graph)
    return time.perf_counter() - begin


times = [(seconds(batch.graph for batch in dataset), seconds(ready)) for _ in range(3)]
begin = time.perf_counter()
count = sum(1 for _ in itertools.islice(dataset, args.steps))
print_machine(args.threads)
pipeline, held = np.median(times, axis=0)
print(f"{args.steps / pipeline:.2f} steps/s with the pipeline, {args.steps / held:.2f} steps/s on batches held ready")
print(f"the pipeline alone: {count / (time.perf_counter() - begin):.0f} batches/s")
