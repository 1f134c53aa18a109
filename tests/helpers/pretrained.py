"""Trained models of the repository."""

import functools

from dimenet_tf.predictor import load

FORCES = "dimenet_pp-ethanol_xtb-forces"
load_once = functools.cache(load)  # a model that is loaded again would be traced again
