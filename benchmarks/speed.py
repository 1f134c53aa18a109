"""Steps of the published sizes side by side: `python benchmarks/speed.py [--data FILE.npz] [--threads N] [--against]`.

Every column in a process of its own, one after another: import, construction, first steps, medians of later ones, peak
memory. A batch is the first 32 molecules of the file (of the embedded sample where none is given). "floor" is the time
of the dense layers' matrix products alone, with the same shapes. GemNet's columns are `--columns
gemnet_t:sum_first,gemnet_q:sum_first`, SphereNet's `spherenet:published,spherenet:smooth`. `--against` adds PyTorch
Geometric's models, if torch and torch_geometric are installed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time

from common import in_its_own_process, peak_memory, print_machine, print_table, set_threads, small_molecules, timed

TASKS = ("predict", "training step", "energy + forces", "training step with forces")
PRODUCTS = (1, 3, 2, 6)  # matrix products of a dense layer in each: forward; its gradients; and theirs
COLUMNS = "dimenet_pp:triplets,dimenet_pp:sum_first,dimenet_pp:harmonics,dimenet_pp:floor"
COLUMNS += ",dimenet:triplets,dimenet:sum_first,dimenet:floor"
GEMNETS = {"gemnet_q": {}, "gemnet_t": {"triplets_only": True}}


def measure(options: dict) -> dict:
    model, way = options["column"].split(":")
    if way == "pyg":
        return against(model, small_molecules(options["data"]), options)
    start = time.perf_counter()
    import tensorflow  # noqa: F401

    result = {"import tensorflow / s": time.perf_counter() - start}
    start = time.perf_counter()
    import numpy as np

    from dimenet_tf.predictor import Predictor
    from dimenet_tf.properties.heads import scalar_head

    result["import dimenet_tf / s"] = time.perf_counter() - start
    start = time.perf_counter()
    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
    aggregation = "auto" if way == "floor" else way
    key = "torsion" if model == "spherenet" else "aggregation"
    hyperparameters = {key: aggregation, **GEMNETS.get(model, {})}
    name = "gemnet" if model in GEMNETS else model
    predictor = Predictor(name, hyperparameters, head, range(1, 95), options["precision"])
    result["construction / s"] = time.perf_counter() - start
    store = predictor.graph_store(*small_molecules(options["data"]))
    graph = store.batch(range(len(store))).to_tensors()
    if way == "floor":
        return floor(predictor, graph, options["repeats"])

    for with_forces in (False, True):
        predictor = predictor.with_forces("energy") if with_forces else predictor
        for task, function in zip(TASKS[2 * with_forces :], (predictor.predict_graph, training_step(predictor))):
            start = time.perf_counter()
            function(graph)
            result[f"first {task} / s"] = time.perf_counter() - start
            result[f"{task}, wall / s"], result[f"{task}, CPU / s"] = timed(function, options["repeats"], graph)
            result[f"peak memory after {task} / GB"] = peak_memory()
    result["edges"] = len(graph.edge_source)
    return result


def training_step(predictor, jit_compile: bool = False):
    """Return a function of a graph: loss, gradients, clipping, AMSGrad and moving average."""
    import tensorflow as tf

    from dimenet_tf.graph import graph_signature
    from dimenet_tf.graph.pipeline import Batch
    from dimenet_tf.properties.losses import Loss
    from dimenet_tf.training.optimizer import create_optimizer_weights, make_optimizer
    from dimenet_tf.training.schedules import WarmupDecay
    from dimenet_tf.training.step import TrainingModel

    forces = predictor.energy is not None
    rate, stop = tf.Variable(1.0, trainable=False), tf.Variable(0, trainable=False)
    loss = Loss("dimenet", None, predictor.head, "energy" if forces else None)
    training = TrainingModel(predictor, loss, 1000.0, None, rate, stop, jit_compile)
    optimizer = make_optimizer(WarmupDecay(1e-3, 100, 1000, 0.1, rate), 0.999, jit_compile=jit_compile)
    training.compile(optimizer=optimizer)
    create_optimizer_weights(optimizer, predictor.trainable_variables)

    @tf.function(input_signature=[graph_signature(predictor.dtype, predictor.model.needs)])
    def step(graph):
        zeros = tf.zeros([tf.size(graph.num_atoms), 1], tf.float64)
        labels = tf.zeros([tf.size(graph.atomic_numbers) if forces else 0, 3], tf.float64)
        weights = tf.ones_like(zeros[:, 0])
        return training.train_step(
            Batch(graph, zeros, labels, tf.zeros([0, 3, 3], tf.float64), tf.constant(1 / 32, tf.float64), weights)
        )

    return step


def floor(predictor, graph, repeats: int) -> dict:
    """Return the time of the matrix products of all dense layers."""
    import numpy as np
    import tensorflow as tf

    from dimenet_tf.predictor.weights import named_variables

    edges, atoms = len(graph.edge_source), len(graph.atomic_numbers)
    products = []
    for name, variable in named_variables(predictor.model).items():
        if name.endswith("bilinear"):
            out, units, features = variable.shape
            products.append((edges, units * features, out))
        elif name.endswith("kernel") and "sbf" not in name:
            on_atoms = name.startswith("output_blocks") and "rbf" not in name
            products.append((atoms if on_atoms else edges, *variable.shape))
    rng = np.random.default_rng(0)
    arrays = {
        shape: [tf.constant(rng.standard_normal(s), tf.float32) for s in (shape[:2], shape[1:], (shape[0], shape[2]))]
        for shape in set(products)
    }

    @tf.function(reduce_retracing=True)
    def multiply(x, kernel, upstream):
        forward = tf.matmul(x, kernel)
        return forward, tf.matmul(upstream, kernel, transpose_b=True), tf.matmul(x, upstream, transpose_a=True)

    def one_pass():
        for shape in products:
            multiply(*arrays[shape])

    one_pass()
    wall, cpu = timed(one_pass, repeats)  # of three products
    flops = sum(2 * rows * size * units for rows, size, units in products)
    result = {"forward GFLOP": flops / 1e9, "GFLOP/s": 3 * flops / 1e9 / wall}
    for task, count in zip(TASKS, PRODUCTS):
        result[f"{task}, wall / s"], result[f"{task}, CPU / s"] = wall * count / 3, cpu * count / 3
    return result


def against(model: str, molecules: tuple, options: dict, tasks: tuple[str, ...] = TASKS) -> dict:
    """Measure PyTorch Geometric's model of the same size on the same edges and triplets."""
    import numpy as np
    import torch
    import torch_geometric.nn.models.dimenet as theirs

    from dimenet_tf.graph import GraphStore

    torch.set_num_threads(options["threads"])
    cutoff = options.get("cutoff", 5.0)
    graph = GraphStore(*molecules, cutoff, ["triplets"]).batch(range(len(molecules[0])))
    index = {
        f: torch.from_numpy(getattr(graph, f).astype(np.int64))
        for f in ("edge_source", "edge_target", "triplet_kj", "triplet_ji", "atomic_numbers", "molecule_of_atom")
    }
    source = index["edge_source"]
    target, kj, ji = index["edge_target"], index["triplet_kj"], index["triplet_ji"]
    # their compiled extras are not needed where the indices are given
    theirs.radius_graph = lambda *args, **kwargs: torch.stack([source, target])
    theirs.triplets = lambda *args, **kwargs: (target, source, target[ji], source[ji], source[kj], kj, ji)
    sizes = {"hidden_channels": 128, "out_channels": 1, "num_spherical": 7, "num_radial": 6, "cutoff": cutoff}
    if model == "dimenet_pp":
        sizes.update(num_blocks=4, int_emb_size=64, basis_emb_size=8, out_emb_channels=256)
        network = theirs.DimeNetPlusPlus(**sizes, output_initializer="glorot_orthogonal")
    else:
        network = theirs.DimeNet(**sizes, num_blocks=6, num_bilinear=8, output_initializer="glorot_orthogonal")
    optimizer = torch.optim.Adam(network.parameters(), amsgrad=True)
    molecule, numbers = index["molecule_of_atom"], index["atomic_numbers"]
    positions = torch.from_numpy(graph.positions)

    def energies(with_forces: bool, training: bool):
        r = positions.clone().requires_grad_(with_forces)
        energy = network(numbers, r, molecule)
        forces = -torch.autograd.grad(energy.sum(), r, create_graph=training)[0] if with_forces else torch.zeros(1)
        return energy, forces

    def predict(with_forces: bool) -> None:
        with torch.set_grad_enabled(with_forces):
            energies(with_forces, False)

    def step(with_forces: bool) -> None:
        optimizer.zero_grad()
        energy, forces = energies(with_forces, True)
        (energy.abs().mean() + forces.abs().mean()).backward()
        optimizer.step()

    result = {}
    for with_forces in (False, True):
        for task, function in zip(TASKS[2 * with_forces :], (predict, step)):
            if task not in tasks:
                continue
            function(with_forces)
            wall, cpu = timed(function, options["repeats"], with_forces)
            result[f"{task}, wall / s"], result[f"{task}, CPU / s"] = wall, cpu
            result[f"peak memory after {task} / GB"] = peak_memory()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="npz file; its first 32 molecules are the batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--columns", default=COLUMNS, help="model:way, separated by commas")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--against", action="store_true")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        set_threads(args.worker["threads"])
        print(json.dumps(measure(args.worker)))
        return
    columns = args.columns.split(",") + (["dimenet_pp:pyg", "dimenet:pyg"] if args.against else [])
    shared = {"data": args.data, "threads": args.threads, "repeats": args.repeats, "precision": args.precision}
    print_machine(args.threads)
    print_table({column: in_its_own_process(sys.argv[0], {"column": column, **shared}) for column in columns})


if __name__ == "__main__":
    main()
