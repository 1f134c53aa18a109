"""PaiNN of the published size as a force field: `python benchmarks/painn.py [--threads N] [--against PYTHON]`.

A batch is the first 100 frames of the embedded trajectory of ethanol. Medians of predictions (energies and forces) and
training steps with forces, every column in a process of its own, one after another. `--against` names a Python that has
SchNetPack (2.1.1 was tried): the two want different versions of NumPy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import in_its_own_process, peak_memory, print_machine, print_table, set_threads, timed

CUTOFF = 5.0  # Angstrom
OURS, THEIRS = "dimenet_tf", "SchNetPack"
TASKS = ("energy + forces", "training step with forces")


def ours(Z: np.ndarray, R: np.ndarray) -> tuple[list, int]:
    """Return functions without arguments for the tasks and the number of edges; Z (atoms,), R (frames, atoms, 3)."""
    from speed import training_step

    from dimenet_tf.predictor import Predictor
    from dimenet_tf.properties.heads import scalar_head

    head = scalar_head(["energy"], ["eV"], np.zeros((1, 95)), [0.0], [1.0])
    predictor = Predictor("painn", {"cutoff": CUTOFF}, head, range(1, 95), energy="energy")
    store = predictor.graph_store(np.full(len(R), len(Z)), np.tile(Z, len(R)), R.reshape(-1, 3))
    graph = store.batch(range(len(R))).to_tensors()
    step = training_step(predictor)
    return [lambda: predictor.predict_graph(graph), lambda: step(graph)], len(graph.edge_source)


def theirs(Z: np.ndarray, R: np.ndarray, threads: int) -> tuple[list, int]:
    """The same with SchNetPack."""
    import schnetpack
    import torch
    from schnetpack import properties

    torch.set_num_threads(threads)
    atoms = len(Z)
    near = np.linalg.norm(R[:, :, None] - R[:, None], axis=-1) <= CUTOFF
    frame, i, j = np.nonzero(near & ~np.eye(atoms, dtype=bool))
    integers = {
        properties.Z: np.tile(Z, len(R)),
        properties.idx_i: frame * atoms + i,
        properties.idx_j: frame * atoms + j,
        properties.idx_m: np.repeat(np.arange(len(R)), atoms),
        properties.n_atoms: np.full(len(R), atoms),
    }
    inputs = {name: torch.from_numpy(array.astype(np.int64)) for name, array in integers.items()}
    positions = torch.from_numpy(R.reshape(-1, 3).astype(np.float32))
    shifts = torch.zeros(len(frame), 3)
    representation = schnetpack.representation.PaiNN(
        n_atom_basis=128,
        n_interactions=3,
        radial_basis=schnetpack.nn.BesselRBF(20, CUTOFF),
        cutoff_fn=schnetpack.nn.CosineCutoff(CUTOFF),
    )
    model = schnetpack.model.NeuralNetworkPotential(
        representation,
        input_modules=[schnetpack.atomistic.PairwiseDistances()],
        output_modules=[schnetpack.atomistic.Atomwise(128, output_key="energy"), schnetpack.atomistic.Forces()],
    )
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)

    def outputs() -> dict:
        return model({**inputs, properties.R: positions.clone(), properties.offsets: shifts})

    def predict() -> None:
        model.eval()
        outputs()

    def step() -> None:
        model.train()
        optimizer.zero_grad()
        found = outputs()
        (found["energy"].abs().mean() + found["forces"].abs().mean()).backward()
        optimizer.step()

    return [predict, step], len(frame)


def measure(options: dict) -> dict:
    with np.load(options["frames"]) as file:
        Z, R = file["Z"], file["R"]
    functions, edges = ours(Z, R) if options["column"] == OURS else theirs(Z, R, options["threads"])
    result = {"edges": edges}
    for task, function in zip(TASKS, functions):
        start = time.perf_counter()
        function()
        result[f"first {task} / s"] = time.perf_counter() - start
        function()
        result[f"{task}, wall / s"], result[f"{task}, CPU / s"] = timed(function, options["repeats"])
        result[f"peak memory after {task} / GB"] = peak_memory()
    return result


def frames() -> tuple[np.ndarray, np.ndarray]:
    """Return Z, R of the first 100 frames of the embedded trajectory."""
    from dimenet_tf.data import ethanol_xtb

    data = ethanol_xtb().select(np.arange(100))
    return data.Z[: data.N[0]], data.R.reshape(100, -1, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--against", metavar="PYTHON", help="a Python that has SchNetPack")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        set_threads(args.worker["threads"])
        print(json.dumps(measure(args.worker)))
        return
    print_machine(args.threads)
    Z, R = frames()
    with tempfile.TemporaryDirectory() as folder:
        batch = str(Path(folder) / "frames.npz")
        np.savez(batch, Z=Z, R=R)
        shared = {"frames": batch, "threads": args.threads, "repeats": args.repeats}
        columns = {OURS: in_its_own_process(sys.argv[0], {"column": OURS, **shared})}
        if args.against:
            columns[THEIRS] = in_its_own_process(sys.argv[0], {"column": THEIRS, **shared}, args.against)
            columns["ratio"] = {
                row: columns[THEIRS][row] / value for row, value in columns[OURS].items() if row in columns[THEIRS]
            }
    print_table(columns)


if __name__ == "__main__":
    main()
