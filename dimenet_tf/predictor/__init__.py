"""Trained models: prediction, derivatives, domain of validity, folders and exports."""

from dimenet_tf.predictor.predictor import Predictor, load
from dimenet_tf.properties.prediction import Prediction

__all__ = ["Prediction", "Predictor", "load"]
