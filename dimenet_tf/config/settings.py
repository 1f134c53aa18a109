"""The `training` section of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from dimenet_tf.errors import UserError

LENGTHS = ("num_steps", "epochs", "hours")  # exactly one is set
AUTO = "auto"
DECAYS = ("exponential", "cosine")
SHARES = ("warmup_steps", "decay_steps", "evaluation_interval")  # shares of the length where they are `AUTO`


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The `training` section. Defaults are the published settings, but the decay spans the length of training.

    Parameters
    ----------
    num_steps, epochs, hours : length of training; exactly one is set, and the others are None. Steps; passes over the
        training molecules (with a budget, the batches of the first epoch count); or hours on this machine. A run of
        `hours` measures its speed before its first step and has a fixed number of steps from then on
    batch_size : molecules in a step; None with a budget
    budget : instead, the largest number of atoms, edges or triplets in a step, by name: {"edges": 10000}
    learning_rate, warmup_steps, decay, decay_steps, decay_rate : see `WarmupDecay`. "auto" steps follow the length: the
        learning rate warms up for 0.1 % of the steps, but at least 100 steps (a fifteenth of fewer than 1500), and
        reaches `decay_rate` of its start at the last step
    loss : "dimenet" (mean absolute errors), "gemnet" (the same, but lengths of the forces' errors and weights that sum
        to 1) or "mse" (squared errors); see `LOSSES`
    rho_force : weight of the forces; None for the default of the loss: 100 (dimenet), 0.999 (gemnet), 0.95 (mse)
    rho_stress : weight of the stress, that is of the virial of an atom; None for the number of `rho_force`. See `Loss`
    weights : of the targets in the loss: {"dipole": 0.1}; 1 where not given
    ema_decay : of the averaged weights that are validated, tested and kept
    weight_decay : AdamW's: each step takes this times the learning rate from a weight; embeddings, biases and
        frequencies do not decay
    max_grad_norm : gradients are scaled down to this norm, that of all of them together
    max_grad_ratio : before that, the gradient of each unit's weights is scaled down to this multiple of their norm
        (adaptive clipping, see `clip_by_weights`); None disables it
    plateau_factor : factor of the learning rate when the validation loss stops improving; 1 disables it
    plateau_patience : validations without improvement before such a decay
    plateau_cooldown : validations until they are counted again after such a decay, as Keras' `ReduceLROnPlateau` counts
    plateau_smoothing : weight of earlier validation losses in the moving average that is compared (PaiNN, Sec. 5)
    evaluation_interval : steps between validations; each is followed by a checkpoint. "auto": a twentieth of the
        length, at most 10 000
    checkpoint_minutes : largest time between checkpoints
    on_nan : reaction to a step whose loss is not finite, or a million times the mean: "stop", or "rollback" (return to
        the last checkpoint and continue with half of the learning rate, up to ten times)
    patience : validations without improvement, of the loss with forces and of the mean std. MAE without, after which
        training ends; None to train for the whole length
    init_from : run or model that provides the initial weights (fine-tuning)
    deterministic : whether sums are computed in a fixed order, so that two runs are identical on several threads and on
        a GPU, too; slower
    strategy : "auto" (all GPUs if there are several), "none", "mirrored" or "multi_worker"; see `make_strategy`
    logdir : folder in which run folders are created
    log_interval : steps between TensorBoard scalars
    histogram_interval : validations between TensorBoard histograms of the weights; 0 disables them
    """

    num_steps: int | None = 3_000_000
    epochs: float | None = None
    hours: float | None = None
    batch_size: int | None = 32
    budget: Mapping[str, int] | None = None
    learning_rate: float = 1e-3
    warmup_steps: int | str = AUTO
    decay: str = "exponential"
    decay_steps: int | str = AUTO
    decay_rate: float = 0.01
    loss: str = "dimenet"
    rho_force: float | None = None
    rho_stress: float | None = None
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ema_decay: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1000.0
    max_grad_ratio: float | None = None
    plateau_factor: float = 1.0
    plateau_patience: int = 10
    plateau_cooldown: int = 0
    plateau_smoothing: float = 0.0
    evaluation_interval: int | str = AUTO
    checkpoint_minutes: float = 10.0
    on_nan: str = "stop"
    patience: int | None = None
    init_from: str | None = None
    deterministic: bool = False
    strategy: str = "auto"
    logdir: str = "runs"
    log_interval: int = 10
    histogram_interval: int = 10


def check_length(training: Mapping[str, object]) -> None:
    """Raise a UserError unless exactly one of `LENGTHS` is set in a `training` section."""
    given = [f"training.{key} = {training[key]}" for key in LENGTHS if training[key] is not None]
    if not given:
        names = " or ".join(f"training.{key}" for key in LENGTHS)
        raise UserError(f"the length of training is missing: expected {names}, received none of them")
    if len(given) > 1:
        raise UserError(f"expected one length of training, received {' and '.join(given)}; set all but one to None")


def with_one_length(training: Mapping[str, object], chosen: Mapping[str, object]) -> dict[str, object]:
    """Return a `training` section in which the lengths named in `chosen` replace all others.

    Examples
    --------
    >>> with_one_length({"num_steps": 1500, "batch_size": 32}, {"epochs": 20})
    {'num_steps': None, 'batch_size': 32}
    """
    named = {key for key in LENGTHS if chosen.get(key) is not None}
    return {k: None if named and k in LENGTHS and k not in named else value for k, value in training.items()}


@dataclasses.dataclass(frozen=True)
class Length:
    """Length of a run in steps, with what follows from it.

    Parameters
    ----------
    num_steps, warmup_steps, decay_steps, evaluation_interval : see `TrainingConfig`
    """

    num_steps: int
    warmup_steps: int
    decay_steps: int
    evaluation_interval: int

    @classmethod
    def of(cls, num_steps: int, config: TrainingConfig) -> Length:
        """Resolve the `auto` settings of a configuration for a number of steps.

        Examples
        --------
        >>> Length.of(5000, TrainingConfig())
        Length(num_steps=5000, warmup_steps=100, decay_steps=5000, evaluation_interval=250)
        """
        auto = {
            "warmup_steps": max(num_steps // 1000, min(num_steps // 15, 100), 1),
            "decay_steps": num_steps,
            "evaluation_interval": max(min(num_steps // 20, 10_000), 1),
        }
        given = {key: getattr(config, key) for key in SHARES}
        return cls(num_steps, **{key: auto[key] if given[key] == AUTO else given[key] for key in SHARES})

    @classmethod
    def in_time(cls, seconds: float, per_step: float, per_validation: float, config: TrainingConfig) -> Length:
        """Find the longest run whose steps and validations fit in this time; it has at least one step."""
        few, many = 1, int(seconds / per_step) + 1
        while many - few > 1:
            middle = (few + many) // 2
            validations = middle // cls.of(middle, config).evaluation_interval
            if middle * per_step + validations * per_validation <= seconds:
                few = middle
            else:
                many = middle
        return cls.of(few, config)

    def summary(self, config: TrainingConfig) -> str:
        """Return the steps and which of the settings follow from them, one line."""
        words = [f"warm-up {self.warmup_steps}", f"decay over {self.decay_steps}"]
        words += [f"validation every {self.evaluation_interval}"]
        auto = [word for key, word in zip(SHARES, words) if getattr(config, key) == AUTO]
        given = [word for word in words if word not in auto]
        parts = [f"{name}: {', '.join(part)}" for name, part in (("auto", auto), ("set", given)) if part]
        length = f" = {config.epochs:g} epochs" if config.epochs is not None else ""
        return f"{self.num_steps} steps{length} ({'; '.join(parts)})"
