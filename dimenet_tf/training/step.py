"""One training step."""

from __future__ import annotations

import tensorflow as tf

from dimenet_tf.graph import Graph
from dimenet_tf.graph.pipeline import Batch
from dimenet_tf.predictor import Prediction, Predictor
from dimenet_tf.properties.losses import Loss

SMALLEST_NORM = 1e-3  # weights of a smaller norm are clipped as if they had it: new ones are zero


def clip_by_weights(gradient: tf.Tensor, weights: tf.Tensor, ratio: float) -> tf.Tensor:
    """Adaptive gradient clipping (Brock et al., ICML 2021, Eq. 3).

    The gradient of each unit's incoming weights (all axes but the last) is scaled down to at most `ratio` times their
    norm.
    """
    rank = len(weights.shape)
    axes = list(range(rank - 1)) if rank > 1 else list(range(rank))
    square, largest = (tf.reduce_sum(x * x, axis=axes, keepdims=True) for x in (gradient, weights))
    largest = ratio * tf.maximum(tf.sqrt(largest), SMALLEST_NORM)
    return gradient * tf.where(square > largest**2, largest * tf.math.rsqrt(square), tf.ones_like(square))


class TrainingModel(tf.keras.Model):
    """A predictor with its training step.

    Parameters
    ----------
    predictor : what is trained
    loss : of each molecule
    max_grad_norm, max_grad_ratio : see `TrainingConfig`
    rate : () variable that the learning rate is multiplied by; becomes 0 in a step that is not finite
    stop : () int variable: not 0 where this worker must stop
    jit_compile : whether XLA compiles the loss and its gradient, once for each shape of a batch
    """

    def __init__(
        self,
        predictor: Predictor,
        loss: Loss,
        max_grad_norm: float,
        max_grad_ratio: float | None,
        rate: tf.Variable,
        stop: tf.Variable,
        jit_compile: bool = False,
    ) -> None:
        super().__init__()
        self._gradients, self._update = self._loss_and_gradients, self._clip_and_apply
        if jit_compile:
            self._gradients = tf.function(self._gradients, jit_compile=True)
            if tf.distribute.get_strategy().num_replicas_in_sync == 1:  # others exchange weights in the middle of it
                self._update = tf.function(self._update, jit_compile=True)
        self.predictor = predictor
        self.batch_loss = loss
        self.max_grad_norm, self.max_grad_ratio = max_grad_norm, max_grad_ratio
        shared = {weight.ref(): blocks for weight, blocks in predictor.model.shared_weights()}
        self.shared_by = [shared.get(variable.ref(), 1) for variable in predictor.trainable_variables]
        self.rate, self.stop = rate, stop
        self.distribute_reduction_method = "first"  # what `train_step` returns is summed over replicas already

    def call(self, graph: Graph) -> Prediction:
        return self.predictor.compute(graph)

    @tf.autograph.experimental.do_not_convert  # as `Predictor.compute`
    def _loss_and_gradients(self, batch: Batch) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Return this replica's share of the mean loss, and its gradient by every trainable variable."""
        # made by the predictor's `graph_store`: a constant cutoff saves an assertion in every step
        graph = batch.graph._replace(cutoff=self.predictor.model.cutoff)
        variables = self.predictor.trainable_variables
        with tf.GradientTape() as tape:
            prediction = self.predictor.compute(graph)
            labels = (batch.stress, graph.cell) if self.batch_loss.has_stress else ()
            atoms = graph.molecule_of_atom, graph.num_atoms
            losses = self.batch_loss(prediction, batch.targets, batch.forces, *atoms, *labels)
            loss = batch.weight * tf.reduce_sum(batch.molecule_weights * losses)
        # dense: the norm of a gradient in slices would count repeated rows apart
        gradients = tape.gradient(loss, variables, unconnected_gradients="zero")
        return loss, [tf.convert_to_tensor(gradient) for gradient in gradients]

    @tf.autograph.experimental.do_not_convert
    def train_step(self, batch: Batch) -> dict[str, tf.Tensor]:
        loss, gradients = self._gradients(batch)
        replica = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        both = tf.stack([loss, tf.cast(self.stop, loss.dtype)])
        loss, stop = tf.unstack(replica.all_reduce(tf.distribute.ReduceOp.SUM, both))
        norm = self._update(loss, gradients)
        return {"loss": loss, "gradient_norm": norm, "stop": stop}

    @tf.autograph.experimental.do_not_convert
    def _clip_and_apply(self, loss: tf.Tensor, gradients: list[tf.Tensor]) -> tf.Tensor:
        """Change the weights by the gradients of all replicas; return the gradients' norm."""
        variables = self.predictor.trainable_variables
        gradients = [g / blocks if blocks > 1 else g for g, blocks in zip(gradients, self.shared_by)]
        if self.max_grad_ratio is not None:
            gradients = [clip_by_weights(*pair, self.max_grad_ratio) for pair in zip(gradients, variables)]
        gradients, norm = tf.clip_by_global_norm(gradients, self.max_grad_norm)
        # a step that is not finite leaves the weights as they were: they are what must be looked at
        sound = tf.math.is_finite(loss) & tf.math.is_finite(norm)
        gradients = [tf.where(sound, gradient, tf.zeros_like(gradient)) for gradient in gradients]
        self.rate.assign(tf.where(sound, self.rate, 0.0))
        self.optimizer.apply_gradients(zip(gradients, variables), experimental_aggregate_gradients=False)
        return norm
