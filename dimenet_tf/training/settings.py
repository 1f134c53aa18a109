"""The `training` section of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The `training` section. The defaults are the published settings.

    Parameters
    ----------
    num_steps : training steps
    batch_size : molecules in a step; None with a budget
    budget : instead, at most so many atoms, edges or triplets in a step, by name: {"edges": 10000}
    learning_rate, warmup_steps, decay, decay_steps, decay_rate : see `WarmupDecay`
    loss : "dimenet" (Eq. 2), "gemnet" (GemNet's Eq. 21, which differs from it for forces only) or "mse" (squared
        errors, PaiNN); see `Loss`
    rho_force : weight of the forces; None for the paper's: 100 (dimenet), 0.999 (gemnet), 0.95 (mse)
    weights : of the targets in the loss: {"dipole": 0.1}; 1 where not given
    ema_decay : of the averaged weights that are validated, tested and kept
    weight_decay : share of each weight (but embeddings, biases and frequencies) that a step takes away, times what
        warm-up and decays make of the learning rate
    max_grad_norm : gradients are scaled down to this norm, that of all of them together
    max_grad_ratio : before that, the gradient of each unit's weights to so many times their norm (adaptive clipping,
        see `clip_by_weights`); None for not at all
    plateau_factor : the learning rate is multiplied by it when the validation loss has not improved any more; 1 for not
    plateau_patience : after so many validations without improvement
    plateau_cooldown : validations until they are counted again after such a decay, as Keras' `ReduceLROnPlateau` counts
    plateau_smoothing : how much the former validation losses count in the one that is looked at (PaiNN, Sec. 5)
    evaluation_interval : steps between validations; each is followed by a checkpoint
    checkpoint_minutes : there is another checkpoint whenever so many minutes have gone by
    on_nan : what follows a step whose loss is not finite, or a million times the mean: "stop", or "rollback" (back to
        the last checkpoint and on with half of the learning rate, up to ten times)
    patience : validations without improvement, of the loss with forces and of the mean std. MAE without, after which
        training ends; None for never
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
    decay: str = "exponential"
    decay_steps: int = 4_000_000
    decay_rate: float = 0.01
    loss: str = "dimenet"
    rho_force: float | None = None
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    ema_decay: float = 0.999
    weight_decay: float = 0.0
    max_grad_norm: float = 1000.0
    max_grad_ratio: float | None = None
    plateau_factor: float = 1.0
    plateau_patience: int = 10
    plateau_cooldown: int = 0
    plateau_smoothing: float = 0.0
    evaluation_interval: int = 10_000
    checkpoint_minutes: float = 10.0
    on_nan: str = "stop"
    patience: int | None = None
    init_from: str | None = None
    strategy: str = "auto"
    logdir: str = "runs"
    log_interval: int = 10
    histogram_interval: int = 10
