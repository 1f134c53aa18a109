"""Training: steps by Keras `fit`, evaluation with averaged weights, checkpoints, early stopping."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from dimenet_tf.config.settings import LENGTHS, SHARES, Length, TrainingConfig, check_length
from dimenet_tf.data.dataset import Dataset
from dimenet_tf.errors import UserError, check_choice
from dimenet_tf.graph.batching import TrainingBatches, check_budget
from dimenet_tf.graph.pipeline import make_dataset
from dimenet_tf.layers.scaled import fit_scale_factors
from dimenet_tf.predictor import Predictor, load
from dimenet_tf.predictor.weights import assign_weights, named_variables
from dimenet_tf.properties.losses import Loss
from dimenet_tf.runs.events import forget_events_after
from dimenet_tf.runs.folder import RunFolder
from dimenet_tf.training.callbacks import (
    Diverged,
    Interrupted,
    NotFinite,
    Progress,
    SaveOften,
    Scalars,
    StepTimes,
    StopOnSignal,
    WatchLoss,
)
from dimenet_tf.training.checkpoints import Checkpoints
from dimenet_tf.training.diagnosis import FINITE, first_not_finite
from dimenet_tf.training.distribution import Workers, make_strategy
from dimenet_tf.training.memory import largest_batch, memory_line
from dimenet_tf.training.optimizer import (
    create_optimizer_weights,
    learning_rate,
    make_optimizer,
    steps_made,
)
from dimenet_tf.training.schedules import WarmupDecay
from dimenet_tf.training.state import RunState
from dimenet_tf.training.step import TrainingModel
from dimenet_tf.training.validation import Errors, Validation

ON_NAN = ("stop", "rollback")
MAX_ROLLBACKS = 10
LENGTH_KEYS = (*LENGTHS, *SHARES, "batch_size", "budget")  # settings on which the length in steps depends
MEASURED_STEPS, MEASURED_SHARE = 50, 0.02  # at most, by whose time `hours` become steps; and of the hours
WASTED = 1e-5  # share of the learning rate below which steps hardly change a weight any more
JUDGED_STEPS = 500  # at least, before errors are compared with those of the baseline
FITTED_BATCHES, FITTED_ATOMS = 4, 400  # at most, to fit scaling factors (`ScaleFactor`)


class Trainer:
    """Trains a predictor in a run folder.

    Parameters
    ----------
    config : TrainingConfig
    make_predictor : called in the strategy's scope
    dataset : molecules, split and targets
    folder : where everything is written; training resumes from an existing checkpoint
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
        check_length(vars(config))
        check_choice("training.on_nan", config.on_nan, ON_NAN)
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()  # for the rest of this process
        self.config, self.dataset, self.folder = config, dataset, folder
        self.on_validation = on_validation or (lambda row: None)
        self.strategy = strategy or make_strategy(config.strategy)
        self.workers = Workers(self.strategy)
        self.state, self.interrupt = RunState(), StopOnSignal()
        self.rate = tf.Variable(1.0, trainable=False)  # the learning rate is multiplied by it; see `on_nan`
        self._make_model(make_predictor)
        self._prepare_data(seed)
        if config.init_from is None and not self.checkpoints.paths():
            some = np.concatenate(self.batches.epoch(0)[:FITTED_BATCHES])
            fitting = np.cumsum(self.store.sizes("atoms")[some]) <= FITTED_ATOMS
            some = some[: max(fitting.sum(), 1)]
            fit_scale_factors(self.predictor.model, self.store.batch(some).to_tensors())
        self._go_back_to_checkpoint()
        self.workers.agree_on("step of the checkpoint", self.step)
        self.length: Length | None = None  # None until the speed of a run of `hours` is measured
        self.speed: tuple[float, float] | None = None  # seconds of a step and of a validation, if measured
        self.length_lines: list[str] = []
        self._choose_length()

    def _make_model(self, make_predictor: Callable[[], Predictor]) -> None:
        """Make predictor, training step, optimizer and what is saved of them."""
        config = self.config
        with self.strategy.scope():
            self.predictor = make_predictor()
            head, energy = self.predictor.head, self.predictor.energy
            has_stress = self.dataset.has_stress
            if has_stress and self.predictor.model.direct_forces:
                raise UserError(
                    f"data.target: stress is a derivative of the energy, but {self.predictor.model_name} predicts "
                    "forces directly; set model.direct_forces: false, or leave out stress"
                )
            self.loss = Loss(config.loss, config.rho_force, head, energy, config.weights, config.rho_stress, has_stress)
            self.training = TrainingModel(
                self.predictor, self.loss, config.max_grad_norm, config.max_grad_ratio, self.rate, self.interrupt.flag
            )

            # its steps follow in `_use`
            self.schedule = WarmupDecay(config.learning_rate, 1, 1, config.decay_rate, self.rate, config.decay)
            self.optimizer = make_optimizer(self.schedule, config.ema_decay, config.weight_decay)
            self.training.compile(optimizer=self.optimizer)
            checkpoint = tf.train.Checkpoint(
                model=self.predictor.model, optimizer=self.optimizer, rate=self.rate, state=self.state
            )
            self.checkpoints = Checkpoints(checkpoint, self.folder.checkpoints)
            if config.init_from is not None and not self.checkpoints.paths():
                initialize_from(self.predictor, config.init_from)
            create_optimizer_weights(self.optimizer, self.predictor.trainable_variables)

    def _prepare_data(self, seed: int) -> None:
        """Make graphs, labels and batches of the molecules that are needed: a trajectory may have a million others."""
        config, dataset = self.config, self.dataset
        train, valid = len(dataset.split.train), len(dataset.split.valid)
        used = dataset.container.select(np.concatenate([dataset.split.train, dataset.split.valid]))
        self.ids = used.id
        self.store = self.predictor.graph_store(used.N, used.Z, used.R, *used.cell_arrays())
        self.targets = dataset.labels(used)
        self.forces = used.labels("forces") if dataset.has_forces else None
        self.stress = used.labels("stress") if dataset.has_stress else None
        self.molecule_weights = used.weight
        self.validation = Validation(
            self.predictor.clone(), dataset, self.loss, self.store, np.arange(train, train + valid)
        )
        self.batches = TrainingBatches(
            np.arange(train),
            seed,
            batch_size=config.batch_size,
            budget=config.budget,
            sizes={name: self.store.sizes(name) for name in config.budget or {}},
        )

    def _choose_length(self) -> None:
        """Resolve the length of the run, or take that of its checkpoint, and collect the lines to print about it."""
        config, known = self.config, self.state.length or {}
        self.speed = known.get("speed")
        before = Length(**known["steps"]) if known.get("steps") else self._length_of_earlier_version()
        unchanged = bool(known.get("steps")) and known["settings"] == self._length_settings()
        if unchanged and before is not None:
            length = before
        elif config.num_steps is not None:
            length = Length.of(config.num_steps, config)
        elif config.epochs is not None:
            length = Length.of(max(round(config.epochs * len(self.batches.epoch(0))), 1), config)
        elif self.speed is not None and config.hours is not None:
            per_step, per_validation = self.speed
            length = Length.in_time(3600 * config.hours, per_step, per_validation, config)
        elif self.step == 0:
            self.length_lines = [f"length: {config.hours:g} hours; the speed of the first steps decides their number"]
            return
        else:
            raise UserError(
                f"training.hours = {config.hours:g} needs a run that was started with training.hours, because its "
                "speed is measured before the first step; set training.num_steps or training.epochs"
            )
        if before is not None and self.step:
            self._use(before)
            rate = learning_rate(self.optimizer)
        self._use(length)
        self.length_lines = [f"length: {length.summary(config)}"]
        if length.num_steps < self.step:
            self.length_lines.append(
                f"length: the run has already made {self.step} steps, so it makes no further one; "
                f"to continue, set a length of more than {self.step} steps"
            )
        elif before is not None and before != length and self.step:
            self.length_lines.append(self._change_of_schedule(before, length, rate))
        end = config.decay_rate ** (length.num_steps / length.decay_steps)
        if config.decay == "exponential" and end < WASTED:
            self.length_lines.append(
                f"WARNING: training.decay_steps = {length.decay_steps}: the learning rate falls to {end:.0e} of its "
                "start; training.decay_steps=auto follows the length"
            )

    def _change_of_schedule(self, before: Length, length: Length, rate: float) -> str:
        """Describe in one line how a new length of a started run changes its learning rate."""
        change = f"length: {length.num_steps} steps instead of {before.num_steps}"
        if (before.warmup_steps, before.decay_steps) == (length.warmup_steps, length.decay_steps):
            return f"{change}; the schedule of the learning rate is unchanged (decay over {length.decay_steps})"
        new = learning_rate(self.optimizer)
        verb = "rises" if new > rate else "falls"
        return (
            f"{change}; from step {self.step} on the learning rate follows the schedule of the new length "
            f"(decay over {length.decay_steps} instead of {before.decay_steps}): it {verb} from {rate:.3g} to {new:.3g}"
        )

    def _length_settings(self) -> dict:
        return {key: getattr(self.config, key) for key in LENGTH_KEYS}

    def _length_of_earlier_version(self) -> Length | None:
        """Return the length of a run whose checkpoints do not have it: its configuration has the numbers."""
        if not self.step or not self.folder.config_file.exists():
            return None
        training = self.folder.read_config().get("training", {})
        numbers = {key: training.get(key) for key in ("num_steps", *SHARES)}
        return Length(**numbers) if all(isinstance(number, int) for number in numbers.values()) else None

    def _use(self, length: Length) -> None:
        """Set length and schedules."""
        self.length = length
        self.schedule.warmup_steps, self.schedule.decay_steps = length.warmup_steps, length.decay_steps
        self.training.train_function = None  # a step that is traced already has the former numbers

    def _measure(self) -> None:
        """Fix the number of steps of a run of `hours` from its speed; the steps that are made for it are undone."""
        start, config = time.monotonic(), self.config
        assert config.hours is not None
        self._use(Length.of(1_000_000, config))  # for the measured steps only
        seconds = 3600 * config.hours
        first, per_step = self._time_steps(4)
        number = min(max(MEASURED_SHARE * seconds / per_step, 4), MEASURED_STEPS)
        if not self._is_stopped():
            _, per_step = self._time_steps(int(number))
        per_validation = 0.0
        check = None if self.workers.several else self.interrupt.check
        with contextlib.suppress(Interrupted):
            self.validation.run(self.predictor, self.optimizer, check)  # traces
            before = time.monotonic()
            self.validation.run(self.predictor, self.optimizer, check)
            per_validation = self.workers.of_chief(time.monotonic() - before)
        self._go_back_to_checkpoint()
        self.length = None
        self.workers.agree_on("step to start from", self.step)  # all have read the checkpoint that `_save` replaces
        if self._is_stopped():
            return
        # the step is traced once more
        left = self.workers.of_chief(max(seconds - (time.monotonic() - start) - first, 0.0))
        self.speed = per_step, per_validation
        length = Length.in_time(left, per_step, per_validation, config)
        self._use(length)
        self._save()
        self.workers.print(
            f"length: {config.hours:g} hours at {per_step:.3g} s for a step and {per_validation:.3g} s for a "
            f"validation: {length.summary(config)}"
        )

    def _time_steps(self, number: int) -> tuple[float, float]:
        """Make steps from the first one on; return the seconds until the first was made, and those of one more."""
        clock, start = StepTimes(), time.monotonic()
        data = self._training_data(0)
        self.training.fit(data, steps_per_epoch=number, verbose=0, callbacks=[clock, self.interrupt])
        return clock.times[0] - start, self.workers.of_chief(clock.per_step)

    def _is_stopped(self) -> bool:
        """Return whether a signal has asked for the end of the session."""
        # of several workers one that stopped by itself would leave the others waiting for it
        return self.interrupt.agreed if self.workers.several else self.interrupt.signal is not None

    @property
    def step(self) -> int:
        """Training steps made so far, in all sessions of the run."""
        return steps_made(self.optimizer)

    def memory_line(self) -> str:
        """Estimate the memory of the first epoch's largest batch, with a warning if it is too much."""
        return memory_line(self.predictor, *largest_batch(self.store, self.batches.epoch(0)))

    def run(self) -> int | None:
        """Train until the last step or early stopping.

        Returns
        -------
        None, or the number of the signal (Ctrl-C, SIGTERM) that ended it before; everything is saved then
        """
        with self.interrupt:
            self._forget_what_comes_again()
            self.save_first()
            if self.length is None:
                self._measure()
                if self.length is None:
                    return self.interrupt.signal
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

    def save_first(self) -> None:
        """Save a run that has made no step: something to go back to, and a full disk is noticed now."""
        if self.step == 0:
            self._save()

    def _train(self) -> int | None:
        config, interrupt, length = self.config, self.interrupt, self.length
        assert length is not None
        with (
            contextlib.closing(self._writer()) as writer,
            Progress(self.step, length.num_steps, silent=not self.workers.is_chief) as progress,
        ):
            callbacks = [
                WatchLoss(self.optimizer, self.state),
                progress,
                Scalars(writer, self.optimizer, config.log_interval),
                SaveOften(self._save, config.checkpoint_minutes),
                interrupt,
            ]
            while not self._is_over():
                interval = length.evaluation_interval
                until = min((self.step // interval + 1) * interval, length.num_steps)
                if self.state.validated < self.step and (self.step % interval == 0 or self.step >= length.num_steps):
                    until = self.step  # the last session was ended when it should have validated
                if self.step < until:
                    steps = until - self.step
                    self.training.fit(
                        self._training_data(self.step), steps_per_epoch=steps, verbose=0, callbacks=callbacks
                    )
                with contextlib.suppress(Interrupted):
                    if self.step == until:  # a signal may have come before
                        self._validate(progress, writer, length)
                writer.flush()  # what is logged of steps up to a checkpoint is not lost
                self._save()
                if self._is_stopped() and not self._is_over():
                    return interrupt.signal
        return None

    def _is_over(self) -> bool:
        """Return whether the last step is made and validated, or early stopping has ended the run."""
        patience = self.config.patience
        if patience is not None and self.state.stale >= patience:
            return True
        assert self.length is not None
        return self.step >= self.length.num_steps and self.state.validated >= self.step

    def _writer(self) -> tf.summary.SummaryWriter:
        if not self.workers.is_chief:
            return tf.summary.create_noop_writer()
        return tf.summary.create_file_writer(str(self.folder.tensorboard))

    def _save(self) -> None:
        steps = dataclasses.asdict(self.length) if self.length else None
        self.state.length = {"settings": self._length_settings(), "steps": steps, "speed": self.speed}
        if self.workers.is_chief:
            self.checkpoints.save(self.step)

    def _go_back_to_checkpoint(self) -> None:
        """Read the last checkpoint, if there is one."""
        if not self.checkpoints.paths() and self.folder.has_results():
            raise UserError(
                f"{self.folder.path} has results but no checkpoint to resume from: choose another run folder, "
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
                where = first_not_finite(self.predictor, self.store.batch(part).to_tensors())
        return f"{where}; molecules (ids): {', '.join(map(str, self.ids[molecules]))}"

    def _roll_back(self, event: str) -> None:
        """Resume from the last checkpoint with half of its learning rate, or stop."""
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
                self.forces,
                self.molecule_weights,
                self.stress,
            )

        replicas = self.strategy.num_replicas_in_sync
        if replicas == 1:
            return make(0, 1)
        # every replica takes whole graphs in turn; Keras would cut a batch along its first axis
        return self.strategy.distribute_datasets_from_function(
            lambda context: make(context.input_pipeline_id, context.num_input_pipelines)
        )

    def _compare_with_baseline(self, errors: Errors, length: Length) -> None:
        """Warn, once, if a tenth of the steps has made the model no better than its baseline."""
        enough = max(length.num_steps // 10, 2 * length.warmup_steps, JUDGED_STEPS)
        if self.state.judged or self.step < enough:
            return
        self.state.judged = True
        if comparison := errors.no_better_than(self.validation.baseline):
            self.workers.print(
                f"WARNING: after {self.step} of {length.num_steps} steps the model is no better than without "
                f"training ({comparison}). Check training.learning_rate = {self.config.learning_rate:g}, "
                f"training.weight_decay = {self.config.weight_decay:g} (each step takes their product from a weight) "
                "and the labels"
            )

    def _validate(self, progress: Progress, writer: tf.summary.SummaryWriter, length: Length) -> None:
        config = self.config
        # several workers hear of a signal in the next step, together
        check = None if self.workers.several else self.interrupt.check
        errors = self.validation.run(self.predictor, self.optimizer, check)
        rate = learning_rate(self.optimizer)
        row = {"step": self.step, "loss": self.state.mean_loss, **errors.row(), "learning_rate": rate}
        if self.workers.is_chief:
            self.folder.append_metrics(row)
            self.on_validation(row)
        progress.show_validation(errors.summary())
        with writer.as_default(step=self.step):
            errors.write_summary()
            assert self.length is not None
            interval = config.histogram_interval * length.evaluation_interval
            if interval and self.step % interval == 0:
                for name, variable in named_variables(self.validation.averaged.model).items():
                    tf.summary.histogram(f"weights/{name}", variable)
        error = self.workers.of_chief(errors.deciding)
        if not math.isfinite(error):
            raise Diverged(f"step {self.step}: the validation error is {error}")
        self._compare_with_baseline(errors, length)
        if error < self.state.best_error:
            self.state.best_error, self.state.stale = error, 0
            if self.workers.is_chief:
                self.folder.replace_best(self.validation.averaged.to_folder)
        else:
            self.state.stale += 1
        loss = self.workers.of_chief(errors.loss)
        plateau = config.plateau_patience, config.plateau_cooldown, config.plateau_smoothing
        if self.state.on_plateau(loss, *plateau):
            self.rate.assign(self.rate * config.plateau_factor)
        self.state.validated = self.step
        self.state.forget_losses()


def initialize_from(predictor: Predictor, source: str) -> None:
    """Start from the weights of another run or model of the same architecture and size."""
    other = load(source)
    if other.model_name != predictor.model_name:
        raise UserError(f"training.init_from = {source}: expected a {predictor.model_name}, got a {other.model_name}")
    mine, theirs = predictor.model.get_config(), other.model.get_config()
    for key in predictor.model.meaning:
        if key in mine and key in theirs and mine[key] != theirs[key]:
            raise UserError(
                f"training.init_from = {source}: its model.{key} is {theirs[key]}, here it is {mine[key]}; "
                f"its weights need model.{key}={theirs[key]}"
            )
    vectors = predictor.head.with_vector, other.head.with_vector
    if len(vectors[0]) == len(vectors[1]) and vectors[0] != vectors[1]:  # each has read-out weights of its own
        names = [", ".join(targets) for targets in vectors]
        raise UserError(f"training.init_from = {source}: its vectors are for {names[1]}, here they are for {names[0]}")
    weights = {name: variable.numpy() for name, variable in named_variables(other.model).items()}
    assign_weights(predictor.model, weights, f"training.init_from = {source}")
