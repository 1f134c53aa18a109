"""Training: steps by Keras `fit`, evaluation with averaged weights, checkpoints, early stopping."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from dimenet_tf.data.batching import TrainingBatches, check_budget
from dimenet_tf.data.dataset import Dataset
from dimenet_tf.data.pipeline import Batch, make_dataset
from dimenet_tf.errors import UserError
from dimenet_tf.predictor import Prediction, Predictor, load
from dimenet_tf.training.callbacks import Progress, Scalars, StopOnInterrupt, StopOnNan
from dimenet_tf.training.folder import RunFolder
from dimenet_tf.training.losses import Loss
from dimenet_tf.training.memory import largest_batch, memory_line
from dimenet_tf.training.metrics import evaluate
from dimenet_tf.training.optimizer import averaged_values, create_optimizer_weights, make_optimizer, steps_made
from dimenet_tf.training.schedules import WarmupExponentialDecay
from dimenet_tf.weights import assign_weights, named_variables


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The `training` section. The defaults are the published settings.

    Parameters
    ----------
    num_steps : training steps
    batch_size : molecules in a step; None with a budget
    budget : instead, at most so many atoms, edges or triplets in a step, by name: {"edges": 10000}
    learning_rate, warmup_steps, decay_steps, decay_rate : see `WarmupExponentialDecay`
    loss : "dimenet" (Eq. 2) or "gemnet" (GemNet's Eq. 21); they differ for forces only
    rho_force : weight of the forces; None for the paper's: 100 (dimenet), 0.999 (gemnet)
    ema_decay : of the averaged weights that are validated, tested and kept
    max_grad_norm : gradients are scaled down to this global norm
    evaluation_interval : steps between validations; each is followed by a checkpoint
    patience : validations without improvement after which training ends; None for never
    init_from : run or model whose weights training starts from (fine-tuning)
    strategy : "auto" (all GPUs if there are several), "none" or "mirrored"
    logdir : where run folders are made
    log_interval : steps between TensorBoard scalars
    histogram_interval : validations between TensorBoard histograms of the weights; 0 for none
    """

    num_steps: int = 3_000_000
    batch_size: int | None = 32
    budget: Mapping[str, int] | None = None
    learning_rate: float = 1e-3
    warmup_steps: int = 3000
    decay_steps: int = 4_000_000
    decay_rate: float = 0.01
    loss: str = "dimenet"
    rho_force: float | None = None
    ema_decay: float = 0.999
    max_grad_norm: float = 1000.0
    evaluation_interval: int = 10_000
    patience: int | None = None
    init_from: str | None = None
    strategy: str = "auto"
    logdir: str = "runs"
    log_interval: int = 10
    histogram_interval: int = 10


class TrainingModel(tf.keras.Model):
    """A predictor with its training step."""

    def __init__(self, predictor: Predictor, loss: Loss, max_grad_norm: float) -> None:
        super().__init__()
        self.predictor = predictor
        self.batch_loss = loss
        self.max_grad_norm = max_grad_norm
        self.distribute_reduction_method = "first"  # what `train_step` returns is summed over replicas already

    def call(self, graph):
        return self.predictor.compute(graph)

    @tf.autograph.experimental.do_not_convert  # as `Predictor.compute`
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        variables = self.predictor.trainable_variables
        with tf.GradientTape() as tape:
            prediction, graph = self.predictor.compute(batch.graph), batch.graph
            losses = self.batch_loss(prediction, batch.targets, batch.forces, graph.molecule_of_atom, graph.num_atoms)
            loss = batch.weight * tf.reduce_sum(losses)  # this replica's share of the mean
        # dense: the norm of a gradient in slices would count repeated rows apart
        gradients = [tf.convert_to_tensor(g) for g in tape.gradient(loss, variables, unconnected_gradients="zero")]
        replica = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        loss = replica.all_reduce(tf.distribute.ReduceOp.SUM, loss)
        gradients, norm = tf.clip_by_global_norm(gradients, self.max_grad_norm)
        self.optimizer.apply_gradients(zip(gradients, variables), experimental_aggregate_gradients=False)
        return {"loss": loss, "gradient_norm": norm}


class Trainer:
    """Trains a predictor in a run folder.

    Parameters
    ----------
    config : TrainingConfig
    make_predictor : called in the strategy's scope
    dataset : molecules, split and targets
    folder : where everything is written; training goes on from a checkpoint that is there
    seed : of the order of the data
    on_validation : called with every line of metrics.csv
    """

    def __init__(
        self,
        config: TrainingConfig,
        make_predictor: Callable[[], Predictor],
        dataset: Dataset,
        folder: RunFolder,
        seed: int = 42,
        on_validation: Callable[[dict], None] | None = None,
    ) -> None:
        check_budget(config.batch_size, config.budget)
        self.config, self.dataset, self.folder = config, dataset, folder
        self.on_validation = on_validation or (lambda row: None)
        self.strategy = make_strategy(config.strategy)
        with self.strategy.scope():
            self.predictor = make_predictor()
            if config.init_from is not None and not tf.train.latest_checkpoint(str(folder.checkpoints)):
                initialize_from(self.predictor, config.init_from)
            head, energy = self.predictor.head, self.predictor.energy
            at = None if energy is None else head.targets.index(energy)
            self.loss = Loss(config.loss, config.rho_force, head.scale, at)
            self.training = TrainingModel(self.predictor, self.loss, config.max_grad_norm)
            schedule = WarmupExponentialDecay(
                config.learning_rate, config.warmup_steps, config.decay_steps, config.decay_rate
            )
            self.optimizer = make_optimizer(schedule, config.ema_decay)
            self.training.compile(optimizer=self.optimizer)
            create_optimizer_weights(self.optimizer, self.predictor.trainable_variables)
        self.averaged = self.predictor.clone()  # validated and kept: holds the moving average of the weights
        # only the molecules that are needed: a trajectory may have a million others
        train, valid = len(dataset.split.train), len(dataset.split.valid)
        used = dataset.container.select(np.concatenate([dataset.split.train, dataset.split.valid]))
        self.store = self.predictor.graph_store(used.N, used.Z, used.R)
        self.targets = dataset.labels(used)
        self.forces = used.target("forces") if dataset.has_forces else None
        self.valid = used.select(np.arange(train, train + valid))
        self.batches = TrainingBatches(
            np.arange(train),
            seed,
            batch_size=config.batch_size,
            budget=config.budget,
            sizes={name: self.store.sizes(name) for name in config.budget or {}},
        )
        self.best_error = tf.Variable(np.inf, dtype=tf.float64, trainable=False)
        self.stale = tf.Variable(0, dtype=tf.int64, trainable=False)  # validations since the best one
        checkpoint = tf.train.Checkpoint(
            model=self.predictor.model, optimizer=self.optimizer, best_error=self.best_error, stale=self.stale
        )
        self.checkpoints = tf.train.CheckpointManager(checkpoint, str(folder.checkpoints), max_to_keep=2)
        if self.checkpoints.latest_checkpoint:
            checkpoint.restore(self.checkpoints.latest_checkpoint).assert_consumed()
            folder.forget_metrics_after(self.step)

    @property
    def step(self) -> int:
        """Training steps made so far, in all sessions of the run."""
        return steps_made(self.optimizer)

    def memory_line(self) -> str:
        """Return what the first epoch's largest batch needs of the machine's memory; a warning if it is too much."""
        return memory_line(self.predictor, *largest_batch(self.store, self.batches.epoch(0)))

    def run(self) -> bool:
        """Train until the last step or early stopping; return False if Ctrl-C ended it before."""
        config = self.config
        writer = tf.summary.create_file_writer(str(self.folder.tensorboard))
        progress = Progress(self.step, config.num_steps)
        with progress.bar, StopOnInterrupt() as interrupt:
            callbacks = [StopOnNan(self.optimizer), progress, Scalars(writer, self.optimizer, config.log_interval)]
            while self.step < config.num_steps and not self._patience_is_over():
                until = min(
                    (self.step // config.evaluation_interval + 1) * config.evaluation_interval, config.num_steps
                )
                self.training.fit(
                    self._training_data(self.step),
                    steps_per_epoch=until - self.step,
                    verbose=0,
                    callbacks=[*callbacks, interrupt],
                )
                if self.step == until:  # Ctrl-C may have come before
                    self._validate(progress, writer)
                self.checkpoints.save(checkpoint_number=self.step)
                if interrupt.interrupted:
                    break
        return self.step >= config.num_steps or self._patience_is_over()

    def _patience_is_over(self) -> bool:
        return self.config.patience is not None and int(self.stale) >= self.config.patience

    def _training_data(self, first_step: int) -> tf.data.Dataset:
        replicas = self.strategy.num_replicas_in_sync
        data = make_dataset(
            self.store,
            self.targets,
            lambda: self.batches.from_step(first_step),
            replicas,
            self.predictor.dtype,
            self.forces,
        )
        if replicas == 1:
            return data
        # every replica takes whole graphs in turn; Keras would cut a batch along its first axis
        return self.strategy.distribute_datasets_from_function(lambda context: data)

    def _validate(self, progress: Progress, writer: tf.summary.SummaryWriter) -> None:
        variables = self.predictor.trainable_variables
        for variable, value in zip(self.averaged.trainable_variables, averaged_values(self.optimizer, variables)):
            variable.assign(value)
        train, valid = len(self.dataset.split.train), len(self.valid)
        prediction = self.averaged.predict_store(self.store, np.arange(train, train + valid))
        table = evaluate(self.dataset, self.valid, prediction)
        targets = table["targets"]
        row = {
            "step": self.step,
            "loss": float(progress.mean_loss()),
            "validation_loss": self._validation_loss(prediction),
            "std_mae": table["std_mae"],
            "log_mae": table["log_mae"],
        }
        row |= {f"mae_{name}": t["mae"] for name, t in targets.items()}
        self.folder.append_metrics(row)
        self.on_validation(row)
        shown = [f"{name} {t['mae']:.4g} {t['unit']}".strip() for name, t in targets.items()]
        progress.show_validation("MAE " + ", ".join(shown) if len(shown) <= 3 else f"std. MAE {table['std_mae']:.3g} %")
        with writer.as_default(step=self.step):
            tf.summary.scalar("validation/loss", row["validation_loss"])
            for name, t in targets.items():
                tf.summary.scalar(f"validation/mae_{name}", t["mae"])
                tf.summary.scalar(f"validation/log_mae_{name}", t["log_mae"])
            interval = self.config.histogram_interval * self.config.evaluation_interval
            if interval and self.step % interval == 0:
                for name, variable in named_variables(self.averaged.model).items():
                    tf.summary.histogram(f"weights/{name}", variable)
        writer.flush()
        # forces need the balance that training has; targets of different units the paper's mean
        error = row["validation_loss" if self.dataset.has_forces else "std_mae"]
        if error < float(self.best_error):
            self.best_error.assign(error)
            self.stale.assign(0)
            self.folder.replace_best(self.averaged.to_folder)
        else:
            self.stale.assign_add(1)

    def _validation_loss(self, prediction: Prediction) -> float:
        valid, targets = self.valid, self.targets[-len(self.valid) :]
        forces = valid.target("forces") if self.dataset.has_forces else None
        return float(tf.reduce_mean(self.loss(prediction, targets, forces, valid.molecule_of_atom, valid.N)))


def make_strategy(name: str) -> tf.distribute.Strategy:
    """Return how steps are distributed over devices.

    "mirrored": a copy of the model on every GPU, or on every logical CPU device where there is no GPU;
    "auto": that if there is more than one GPU; "none": one device.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
        return tf.distribute.MirroredStrategy(devices)
    if name in ("auto", "none"):
        return tf.distribute.get_strategy()
    raise UserError(f"training.strategy: '{name}' is none of auto, none, mirrored")


def initialize_from(predictor: Predictor, source: str) -> None:
    """Start from the weights of another run or model of the same architecture and size."""
    other = load(source)
    mine, theirs = predictor.model.get_config(), other.model.get_config()
    for key in ("cutoff", "envelope_exponent", "conventions", "radial_basis", "extensive"):
        if key in mine and key in theirs and mine[key] != theirs[key]:
            raise UserError(f"training.init_from = {source}: its model.{key} is {theirs[key]}, here it is {mine[key]}")
    weights = {name: variable.numpy() for name, variable in named_variables(other.model).items()}
    assign_weights(predictor.model, weights, f"training.init_from = {source}")
