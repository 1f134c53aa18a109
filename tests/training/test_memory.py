"""The memory forecast, against a real process."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from dimenet_tf.data import sample
from dimenet_tf.graph import GraphStore
from dimenet_tf.layers.activations import activation_counter
from dimenet_tf.layers.output import atom_outputs
from dimenet_tf.models import MODELS, build_model
from dimenet_tf.models.hyperparameters import Hyperparameters
from dimenet_tf.training import memory
from helpers.models import DIMENETS, SMALL, force_field

STEP = """
    import json, sys
    import numpy as np, tensorflow as tf
    from dimenet_tf.data import sample
    from dimenet_tf.properties.heads import scalar_head
    from dimenet_tf.predictor import Predictor
    from dimenet_tf.training import memory

    def used():  # at most so far; the figure of `resource` would include the parent's memory
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))

    options = json.loads(sys.argv[1])
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
    model = {"num_blocks": 2, **options["model"]}
    energy = "energy" if options["forces"] else None
    predictor = Predictor(options["name"], model, head, range(1, 10), energy=energy)
    count = options["molecules"]
    data = sample().select(np.arange(count))

    @tf.function(input_signature=[predictor.graph_function.input_signature[0]])
    def step(graph):
        with tf.GradientTape() as tape:
            prediction = predictor.compute(graph)
            loss = tf.reduce_sum(prediction.values) + tf.cast(tf.reduce_sum(prediction.forces**2), tf.float64)
        return [tf.reduce_sum(g) for g in tape.gradient(loss, predictor.trainable_variables)]

    store = predictor.graph_store(data.N, data.Z, data.R)
    step(store.batch([0]))
    before = used()
    step(store.batch(range(count)))
    forecast = memory.forecast(predictor, *memory.largest_batch(store, [np.arange(count)]))
    print(json.dumps([used() - before, forecast]))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux says how much memory a process has used")
@pytest.mark.parametrize(
    "name, model, forces, molecules",
    [
        ("dimenet_pp", {"aggregation": "harmonics"}, False, 120),
        ("dimenet_pp", {"aggregation": "sum_first"}, True, 120),
        ("dimenet", {}, False, 120),
        ("dimenet_pp", {"aggregation": "triplets"}, False, 120),
        ("gemnet", {"triplets_only": True}, True, 120),
        ("gemnet", {}, True, 24),
        ("painn", {}, True, 120),
        ("spherenet", {}, True, 60),
        ("dpgn", {}, True, 24),
    ],
)
def test_forecast_is_what_a_step_needs(name, model, forces, molecules):
    options = json.dumps({"name": name, "model": model, "forces": forces, "molecules": molecules})
    command = [sys.executable, "-c", textwrap.dedent(STEP), options]
    needed, forecast = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert 0.4 < needed / forecast < 1.3  # about


@pytest.mark.parametrize("name", ["dimenet_pp", "gemnet", "painn"])
def test_what_is_counted_by_default_is_about_what_models_state(name):
    """Models have formulas that were fitted to processes; a model without one has its activations counted."""
    model = build_model(name, **{**MODELS[name].small, "num_blocks": 1})
    assert 0.5 < Hyperparameters.kept_per_edge(model, 6) / model.kept_per_edge(6) < 2


def test_activations_are_counted_exactly():
    """A square keeps its input, a view keeps nothing."""
    once = count_of(lambda dense, x: tf.square(dense(x)))
    assert once >= 3 * 4 + 3 * 5  # input and output of the dense layer
    assert count_of(lambda dense, x: tf.square(tf.square(dense(x)))) == once + 3 * 5
    assert count_of(lambda dense, x: tf.square(tf.reshape(dense(x), [-1]))) == once


def count_of(function) -> int:
    class Model(Hyperparameters, tf.keras.Model):
        def __init__(self, cutoff=5.0, **kwargs):
            super().__init__(**kwargs)
            self.set_hyperparameters(locals())
            self.dense = tf.keras.layers.Dense(5, use_bias=False)

        def call(self, graph):
            x = tf.concat([graph.positions, graph.positions[:, :1]], axis=1)
            return atom_outputs(tf.reshape(function(self.dense, x), [-1, 5]))

    model = Model()
    model.make_weights()
    return int(activation_counter(model)(model.graph_store([3], [8, 1, 1], np.eye(3)).batch([0])))


def test_the_largest_batch_is_found():
    data = sample().select(np.arange(60))
    store = GraphStore(data.N, data.Z, data.R, 5.0)
    batches = [np.arange(i, i + 20) for i in (0, 20, 40)]
    edges = [len(store.batch(batch).edge_source) for batch in batches]
    most = int(np.argmax(edges))
    assert memory.largest_batch(store, batches) == (edges[most], edges[most] / data.N[batches[most]].sum())


def test_recomputing_and_forces_change_the_forecast():
    predictor = force_field()
    with_forces = memory.forecast(predictor, 10_000, 20)
    predictor.energy = None
    assert memory.forecast(predictor, 10_000, 20) < with_forces
    for name in DIMENETS:
        predictor.model = build_model(name, **{**SMALL[name], "num_blocks": 6})
        kept = memory.forecast(predictor, 10_000, 20)
        predictor.model = build_model(name, recompute=True, **{**SMALL[name], "num_blocks": 6})
        assert memory.forecast(predictor, 10_000, 20) < kept


def test_what_the_user_is_told(monkeypatch):
    predictor = force_field()
    monkeypatch.setattr(memory, "available_memory", lambda: 1e12)
    assert memory.memory_line(predictor, 10_000, 20).endswith("(10,000 edges); 1000.0 GB are free")
    monkeypatch.setattr(memory, "available_memory", lambda: 0.1e9)
    line = memory.memory_line(predictor, 10_000_000, 20)
    assert line.startswith("WARNING: memory: about") and "training.batch_size=None training.budget.edges=" in line
    edges = int(line.split("training.budget.edges=")[1].split(",")[0])
    assert memory.forecast(predictor, edges, 20) == pytest.approx(0.1e9, rel=1e-3)
    assert memory.memory_line(predictor, 0, 0.0).startswith("memory: about 0 MB")
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    assert memory.memory_line(predictor, 10, 20).endswith("(10 edges)")
