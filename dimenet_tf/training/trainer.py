"""Training: steps by Keras `fit`, evaluation with averaged weights, checkpoints, early stopping."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from dimenet_tf.data.batching import TrainingBatches, check_budget
from dimenet_tf.data.dataset import Dataset
from dimenet_tf.data.pipeline import Batch, make_dataset
from dimenet_tf.errors import UserError
from dimenet_tf.graph import Graph
from dimenet_tf.predictor import Prediction, Predictor, load
from dimenet_tf.training.callbacks import (
    Diverged,
    Interrupted,
    NotFinite,
    Progress,
    SaveOften,
    Scalars,
    StopOnSignal,
    WatchLoss,
)
from dimenet_tf.training.checkpoints import Checkpoints
from dimenet_tf.training.diagnosis import FINITE, first_not_finite
from dimenet_tf.training.distribution import Workers, make_strategy
from dimenet_tf.training.events import forget_events_after
from dimenet_tf.training.folder import RunFolder
from dimenet_tf.training.losses import Loss
from dimenet_tf.training.memory import largest_batch, memory_line
from dimenet_tf.training.metrics import evaluate
from dimenet_tf.training.optimizer import (
    averaged_values,
    create_optimizer_weights,
    learning_rate,
    make_optimizer,
    steps_made,
)
from dimenet_tf.training.schedules import WarmupExponentialDecay
from dimenet_tf.training.state import RunState
from dimenet_tf.weights import assign_weights, named_variables

ON_NAN = ("stop", "rollback")
MAX_ROLLBACKS = 10
FITTED_BATCHES = 4  # whose variances GemNet's scaling factors are chosen by


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
    checkpoint_minutes : there is another checkpoint whenever so many minutes have gone by
    on_nan : what follows a step whose loss is not finite, or a million times the mean: "stop", or "rollback" (back to
        the last checkpoint and on with half of the learning rate, up to ten times)
    patience : validations without improvement after which training ends; None for never
    init_from : run or model whose weights training starts from (fine-tuning)
    strategy : "auto" (all GPUs if there are several), "none", "mirrored" or "multi_worker"; see `make_strategy`
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
    checkpoint_minutes: float = 10.0
    on_nan: str = "stop"
    patience: int | None = None
    init_from: str | None = None
    strategy: str = "auto"
    logdir: str = "runs"
    log_interval: int = 10
    histogram_interval: int = 10


class TrainingModel(tf.keras.Model):
    """A predictor with its training step.

    Parameters
    ----------
    predictor : what is trained
    loss : of each molecule
    max_grad_norm : see `TrainingConfig`
    rate : () variable that the learning rate is multiplied by; becomes 0 in a step that is not finite
    stop : () int variable: not 0 where this worker must stop
    """

    def __init__(self, predictor: Predictor, loss: Loss, max_grad_norm: float, rate, stop) -> None:
        super().__init__()
        self.predictor = predictor
        self.batch_loss = loss
        self.max_grad_norm = max_grad_norm
        self.rate, self.stop = rate, stop
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
        both = tf.stack([loss, tf.cast(self.stop, loss.dtype)])
        loss, stop = tf.unstack(replica.all_reduce(tf.distribute.ReduceOp.SUM, both))
        gradients, norm = tf.clip_by_global_norm(gradients, self.max_grad_norm)
        # a step that is not finite leaves the weights as they were: they are what must be looked at
        sound = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        gradients = [tf.where(sound, gradient, tf.zeros_like(gradient)) for gradient in gradients]
        self.rate.assign(tf.where(sound, self.rate, 0.0))
        self.optimizer.apply_gradients(zip(gradients, variables), experimental_aggregate_gradients=False)
        return {"loss": loss, "gradient_norm": norm, "stop": stop}


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
    strategy : made of `config` where left out; that of several workers must be made before anything else
    """

    def __init__(
        self,
        config: TrainingConfig,
        make_predictor: Callable[[], Predictor],
        dataset: Dataset,
        folder: RunFolder,
        seed: int = 42,
        on_validation: Callable[[dict], None] | None = None,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        check_budget(config.batch_size, config.budget)
        if config.on_nan not in ON_NAN:
            raise UserError(f"training.on_nan: '{config.on_nan}' is none of {', '.join(ON_NAN)}")
        self.config, self.dataset, self.folder = config, dataset, folder
        self.on_validation = on_validation or (lambda row: None)
        self.strategy = strategy or make_strategy(config.strategy)
        self.workers = Workers(self.strategy)
        self.state, self.interrupt = RunState(), StopOnSignal()
        self.rate = tf.Variable(1.0, trainable=False)  # the learning rate is multiplied by it; see `on_nan`
        with self.strategy.scope():
            self.predictor = make_predictor()
            head, energy = self.predictor.head, self.predictor.energy
            at = None if energy is None else head.targets.index(energy)
            self.loss = Loss(config.loss, config.rho_force, head.scale, at)
            self.training = TrainingModel(
                self.predictor, self.loss, config.max_grad_norm, self.rate, self.interrupt.flag
            )
            schedule = WarmupExponentialDecay(
                config.learning_rate, config.warmup_steps, config.decay_steps, config.decay_rate, self.rate
            )
            self.optimizer = make_optimizer(schedule, config.ema_decay)
            self.training.compile(optimizer=self.optimizer)
            checkpoint = tf.train.Checkpoint(
                model=self.predictor.model, optimizer=self.optimizer, rate=self.rate, state=self.state
            )
            self.checkpoints = Checkpoints(checkpoint, folder.checkpoints)
            if config.init_from is not None and not self.checkpoints.paths():
                initialize_from(self.predictor, config.init_from)
            create_optimizer_weights(self.optimizer, self.predictor.trainable_variables)
        self.averaged = self.predictor.clone()  # validated and kept: holds the moving average of the weights
        # only the molecules that are needed: a trajectory may have a million others
        train, valid = len(dataset.split.train), len(dataset.split.valid)
        used = dataset.container.select(np.concatenate([dataset.split.train, dataset.split.valid]))
        self.ids = used.id
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
        model = self.predictor.model
        if hasattr(model, "fit_scale_factors") and config.init_from is None and not self.checkpoints.paths():
            some = np.concatenate(self.batches.epoch(0)[:FITTED_BATCHES])
            model.fit_scale_factors(Graph(*map(tf.constant, self.store.batch(some))))
        self._go_back_to_checkpoint()
        self.workers.agree_on("step of the checkpoint", self.step)

    @property
    def step(self) -> int:
        """Training steps made so far, in all sessions of the run."""
        return steps_made(self.optimizer)

    def memory_line(self) -> str:
        """Return what the first epoch's largest batch needs of the machine's memory; a warning if it is too much."""
        return memory_line(self.predictor, *largest_batch(self.store, self.batches.epoch(0)))

    def run(self) -> int | None:
        """Train until the last step or early stopping.

        Returns
        -------
        None, or the number of the signal (Ctrl-C, SIGTERM) that ended it before; everything is saved then
        """
        with self.interrupt:
            self._forget_what_comes_again()
            if self.step == 0:
                self._save()  # something to go back to, and a full disk is noticed now
            while True:
                try:
                    return self._train()
                except NotFinite as event:
                    self._roll_back(f"{event}; {self._diagnosis()}")
                except Diverged as event:
                    self._roll_back(str(event))
                # a full disk, mostly: TensorBoard's writer has errors of its own
                except (OSError, tf.errors.ResourceExhaustedError, tf.errors.OutOfRangeError) as error:
                    reason = str(error).split("\n")[0]
                    raise UserError(f"step {self.step}: {reason}; the last checkpoint is whole") from None

    def _train(self) -> int | None:
        config, interrupt = self.config, self.interrupt
        with (
            contextlib.closing(self._writer()) as writer,
            Progress(self.step, config.num_steps, silent=not self.workers.is_chief) as progress,
        ):
            callbacks = [
                WatchLoss(self.optimizer, self.state),
                progress,
                Scalars(writer, self.optimizer, config.log_interval),
                SaveOften(self._save, config.checkpoint_minutes),
                interrupt,
            ]
            while not self._is_over():
                interval = config.evaluation_interval
                until = min((self.step // interval + 1) * interval, config.num_steps)
                if self.state.validated < self.step and (self.step % interval == 0 or self.step >= config.num_steps):
                    until = self.step  # the last session was ended when it should have validated
                if self.step < until:
                    steps = until - self.step
                    self.training.fit(
                        self._training_data(self.step), steps_per_epoch=steps, verbose=0, callbacks=callbacks
                    )
                with contextlib.suppress(Interrupted):
                    if self.step == until:  # a signal may have come before
                        self._validate(progress, writer)
                writer.flush()  # what is logged of steps up to a checkpoint is not lost
                self._save()
                # of several workers one that stopped by itself would leave the others waiting for it
                stop = interrupt.agreed if self.workers.several else interrupt.signal is not None
                if stop and not self._is_over():
                    return interrupt.signal
        return None

    def _is_over(self) -> bool:
        """Return whether the last step is made and validated, or early stopping has ended the run."""
        patience = self.config.patience
        if patience is not None and self.state.stale >= patience:
            return True
        return self.step >= self.config.num_steps and self.state.validated >= self.step

    def _writer(self) -> tf.summary.SummaryWriter:
        if not self.workers.is_chief:
            return tf.summary.create_noop_writer()
        return tf.summary.create_file_writer(str(self.folder.tensorboard))

    def _save(self) -> None:
        if self.workers.is_chief:
            self.checkpoints.save(self.step)

    def _go_back_to_checkpoint(self) -> None:
        """Read the last checkpoint, if there is one."""
        if not self.checkpoints.paths() and self.folder.has_results():
            raise UserError(
                f"{self.folder.path} has results but no checkpoint to go on from: choose another run folder, "
                f"with training.init_from={self.folder.path} to keep the best weights"
            )
        for line in self.checkpoints.restore(remove_damaged=self.workers.is_chief):
            self.workers.print(f"WARNING: {line}")

    def _forget_what_comes_again(self) -> None:
        """Remove what was written after the checkpoint from metrics.csv and TensorBoard's files."""
        if self.workers.is_chief:
            self.folder.forget_metrics_after(self.state.validated)
            forget_events_after(self.folder.tensorboard, self.step, self.state.validated)

    def _diagnosis(self) -> str:
        """Return the molecules of the last step and where their numbers stop being finite."""
        molecules = next(self.batches.from_step(self.step - 1))
        where = FINITE
        for part in np.array_split(molecules, self.strategy.num_replicas_in_sync):  # no more than fits a device
            if where == FINITE:
                where = first_not_finite(self.predictor, Graph(*map(tf.constant, self.store.batch(part))))
        return f"{where}; molecules (ids): {', '.join(map(str, self.ids[molecules]))}"

    def _roll_back(self, event: str) -> None:
        """Go on from the last checkpoint with half of its learning rate, or stop."""
        if self.config.on_nan == "stop":
            raise UserError(
                f"{event}. Training diverged: try a smaller training.learning_rate, or training.on_nan=rollback"
            )
        self._go_back_to_checkpoint()
        if self.state.rollbacks == MAX_ROLLBACKS:
            raise UserError(f"{event}. The learning rate has been halved {MAX_ROLLBACKS} times: giving up")
        self.rate.assign(self.rate / 2)
        self.state.rollbacks += 1
        self.workers.agree_on("step and learning rate to go back to", self.step + float(self.rate) / 2)
        self._forget_what_comes_again()
        self._save()  # not before all workers have read the last one
        rate = f"learning rate times {float(self.rate):.3g}"
        self.workers.print(f"WARNING: {event}. Back at step {self.step} with the {rate}")

    def _training_data(self, first_step: int) -> tf.data.Dataset:
        def make(pipeline: int, pipelines: int) -> tf.data.Dataset:
            own = replicas // pipelines  # replicas of this worker
            return make_dataset(
                self.store,
                self.targets,
                lambda: self.batches.from_step(first_step),
                replicas,
                slice(pipeline * own, (pipeline + 1) * own),
                self.predictor.dtype,
                self.forces,
            )

        replicas = self.strategy.num_replicas_in_sync
        if replicas == 1:
            return make(0, 1)
        # every replica takes whole graphs in turn; Keras would cut a batch along its first axis
        return self.strategy.distribute_datasets_from_function(
            lambda context: make(context.input_pipeline_id, context.num_input_pipelines)
        )

    def _validate(self, progress: Progress, writer: tf.summary.SummaryWriter) -> None:
        variables = self.predictor.trainable_variables
        for variable, value in zip(self.averaged.trainable_variables, averaged_values(self.optimizer, variables)):
            variable.assign(value)
        for variable, value in zip(self.averaged.non_trainable_variables, self.predictor.non_trainable_variables):
            variable.assign(value)  # scaling factors
        train, valid = len(self.dataset.split.train), len(self.valid)
        # several workers hear of a signal in the next step, together
        check = None if self.workers.several else self.interrupt.check
        prediction = self.averaged.predict_store(self.store, np.arange(train, train + valid), before_batch=check)
        table = evaluate(self.dataset, self.valid, prediction)
        targets = table["targets"]
        row = {
            "step": self.step,
            "loss": self.state.mean_loss,
            "validation_loss": self._validation_loss(prediction),
            "std_mae": table["std_mae"],
            "log_mae": table["log_mae"],
            "learning_rate": learning_rate(self.optimizer),
        }
        row |= {f"mae_{name}": t["mae"] for name, t in targets.items()}
        if self.workers.is_chief:
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
        # forces need the balance that training has; targets of different units the paper's mean
        error = self.workers.of_chief(row["validation_loss" if self.dataset.has_forces else "std_mae"])
        if not math.isfinite(error):
            raise Diverged(f"step {self.step}: the validation error is {error}")
        if error < self.state.best_error:
            self.state.best_error, self.state.stale = error, 0
            if self.workers.is_chief:
                self.folder.replace_best(self.averaged.to_folder)
        else:
            self.state.stale += 1
        self.state.validated = self.step
        self.state.forget_losses()

    def _validation_loss(self, prediction: Prediction) -> float:
        valid, targets = self.valid, self.targets[-len(self.valid) :]
        forces = valid.target("forces") if self.dataset.has_forces else None
        return float(tf.reduce_mean(self.loss(prediction, targets, forces, valid.molecule_of_atom, valid.N)))


def initialize_from(predictor: Predictor, source: str) -> None:
    """Start from the weights of another run or model of the same architecture and size."""
    other = load(source)
    mine, theirs = predictor.model.get_config(), other.model.get_config()
    for key in ("cutoff", "envelope_exponent", "conventions", "radial_basis", "extensive"):
        if key in mine and key in theirs and mine[key] != theirs[key]:
            raise UserError(f"training.init_from = {source}: its model.{key} is {theirs[key]}, here it is {mine[key]}")
    weights = {name: variable.numpy() for name, variable in named_variables(other.model).items()}
    assign_weights(predictor.model, weights, f"training.init_from = {source}")
