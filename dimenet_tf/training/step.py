"""One training step."""

from __future__ import annotations

import tensorflow as tf

from dimenet_tf.data.pipeline import Batch
from dimenet_tf.predictor import Predictor
from dimenet_tf.training.losses import Loss


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
