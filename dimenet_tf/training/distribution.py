"""Devices and machines that train one run together."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping

import tensorflow as tf

from dimenet_tf.errors import UserError, check_choice

STRATEGIES = ("auto", "none", "mirrored", "multi_worker")


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Return how steps are distributed over devices.

    "mirrored": a copy of the model on every GPU, or on every logical CPU device where there is no GPU;
    "multi_worker": that on several machines; they find each other by the environment variable TF_CONFIG or by Slurm's;
    "auto": "mirrored" if there is more than one GPU; "none": one device.
    """
    if name == "multi_worker":  # before anything else asks TensorFlow for its devices
        try:
            return tf.distribute.MultiWorkerMirroredStrategy(cluster_resolver=find_workers())
        except tf.errors.OpError as error:
            reason = " ".join(error.message.split())[:200]
            raise UserError(f"training.strategy: multi_worker could not start ({reason}); is the port free?") from None
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
        return tf.distribute.MirroredStrategy(devices)
    check_choice("training.strategy", name, STRATEGIES)
    return tf.distribute.get_strategy()


def find_workers() -> tf.distribute.cluster_resolver.ClusterResolver:
    """Return who takes part, from TF_CONFIG or from Slurm's variables of a job step."""
    if "TF_CONFIG" in os.environ:
        try:
            config = json.loads(os.environ["TF_CONFIG"])
            addresses, task = list(config["cluster"]["worker"]), int(config["task"]["index"])
            usable = config["task"]["type"] == "worker" and set(config["cluster"]) == {"worker"}
        except (ValueError, LookupError, TypeError):
            usable = False
        if not usable or not 0 <= task < len(addresses):
            raise UserError(
                'TF_CONFIG must be like {"cluster": {"worker": ["host1:12345", "host2:12345"]}, '
                '"task": {"type": "worker", "index": 0}}, not ' + os.environ["TF_CONFIG"]
            )
    elif "SLURM_STEP_NODELIST" in os.environ:
        addresses, task = slurm_addresses(os.environ), int(os.environ["SLURM_PROCID"])
    else:
        raise UserError("training.strategy: multi_worker needs TF_CONFIG, or Slurm's srun; see docs/distributed.md")
    cluster = tf.train.ClusterSpec({"worker": addresses})
    return tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, "", "worker", task, rpc_layer="grpc")


def slurm_addresses(environment: Mapping[str, str]) -> list[str]:
    """Return host and port of every task of a job step, in the order of their ranks.

    TensorFlow's own resolver sorts hosts as texts (node10 before node2), which Slurm does not, and has one port for all
    jobs.
    """
    from tensorflow.python.distribute.cluster_resolver import slurm_cluster_resolver as slurm

    hosts = slurm.expand_hostlist(environment["SLURM_STEP_NODELIST"])
    tasks = slurm.expand_tasks_per_node(environment["SLURM_STEP_TASKS_PER_NODE"])
    first = 20000 + 16 * (int(environment.get("SLURM_JOB_ID", 0)) % 2000)
    return [f"{host}:{first + i}" for host, count in zip(hosts, tasks) for i in range(count)]


class Workers:
    """The processes that train one run together, of which the chief alone writes; mostly there is one."""

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy = strategy
        resolver = strategy.cluster_resolver
        self.addresses = list(resolver.cluster_spec().as_dict().get("worker", [])) if resolver else []
        self.several = len(self.addresses) > 1
        self.is_chief = not self.several or resolver.task_id == 0

        @tf.function(input_signature=[tf.TensorSpec([], tf.float64)])
        def gather(value: tf.Tensor) -> tf.Tensor:
            """Return every replica's value, the chief's first."""

            def one() -> tf.Tensor:
                return tf.distribute.get_replica_context().all_gather(value[None], axis=0)

            return strategy.experimental_local_results(strategy.run(one))[0]

        self._gather = gather

    def print(self, line: str) -> None:
        """Print a line, once for all workers."""
        if self.is_chief:
            print(line)

    def of_chief(self, value: float) -> float:
        """Return the chief's value: what decides must be the same number for all."""
        return float(self._gather(value)[0]) if self.several else value

    def agree_on(self, what: str, value: float) -> None:
        """Raise a UserError unless the value is the same everywhere."""
        if not self.several:
            return
        values = self._gather(value).numpy()
        if (values != values[0]).any():
            raise UserError(f"workers differ in the {what}: {values.tolist()}; do all see the same run folder?")

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Say in one line that another worker is gone."""
        try:
            yield
        except tf.errors.OpError as error:
            lost = re.search(r"Collective ops is aborted by: (.*)", error.message)
            if not lost:
                raise
            named = re.search(r"remote target \S*/task:(\d+)", error.message)
            worker = named or re.search(r"/task:(\d+)", lost[1])
            who = f"worker {worker[1]} ({self.addresses[int(worker[1])]})" if worker else "another worker"
            raise UserError(
                f"the connection to {who} is lost: {lost[1]}. Start all workers again: "
                "they resume from the last checkpoint"
            ) from None
