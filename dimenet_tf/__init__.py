"""Directional message-passing networks for molecules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dimenet_tf.stack import use_keras_2
from dimenet_tf.version import __version__

if TYPE_CHECKING:  # for type checkers and editors: what `__getattr__` looks up; `X as X` because it is exported
    from dimenet_tf import basis as basis
    from dimenet_tf import bulk as bulk
    from dimenet_tf import config as config
    from dimenet_tf import data as data
    from dimenet_tf import errors as errors
    from dimenet_tf import graph as graph
    from dimenet_tf import interop as interop
    from dimenet_tf import layers as layers
    from dimenet_tf import md as md
    from dimenet_tf import models as models
    from dimenet_tf import plots as plots
    from dimenet_tf import predictor as predictor
    from dimenet_tf import properties as properties
    from dimenet_tf import runs as runs
    from dimenet_tf import structures as structures
    from dimenet_tf import training as training
    from dimenet_tf.data import DataContainer as DataContainer
    from dimenet_tf.data import datasets as datasets
    from dimenet_tf.errors import UserError as UserError
    from dimenet_tf.graph import Graph as Graph
    from dimenet_tf.graph import GraphStore as GraphStore
    from dimenet_tf.md import Committee as Committee
    from dimenet_tf.md import DimeNetCalculator as DimeNetCalculator
    from dimenet_tf.models import MODELS as MODELS
    from dimenet_tf.models import build_model as build_model
    from dimenet_tf.predictor import Predictor as Predictor
    from dimenet_tf.predictor import load as load
    from dimenet_tf.predictor.domain import Domain as Domain
    from dimenet_tf.runs.catalog import pretrained_models as pretrained_models

    Calculator = DimeNetCalculator

use_keras_2()

# looked up on first use: `import dimenet_tf` alone costs nothing
_EXPORTS = {
    "Calculator": "dimenet_tf.md:DimeNetCalculator",
    "Committee": "dimenet_tf.md:Committee",
    "DataContainer": "dimenet_tf.data:DataContainer",
    "DimeNetCalculator": "dimenet_tf.md:DimeNetCalculator",
    "Domain": "dimenet_tf.predictor.domain:Domain",
    "Graph": "dimenet_tf.graph:Graph",
    "GraphStore": "dimenet_tf.graph:GraphStore",
    "MODELS": "dimenet_tf.models:MODELS",
    "Predictor": "dimenet_tf.predictor:Predictor",
    "UserError": "dimenet_tf.errors:UserError",
    "build_model": "dimenet_tf.models:build_model",
    "datasets": "dimenet_tf.data:datasets",
    "load": "dimenet_tf.predictor:load",
    "pretrained_models": "dimenet_tf.runs.catalog:pretrained_models",
}
_PARTS = (
    *("basis", "bulk", "config", "data", "errors", "graph", "interop", "layers", "md", "models", "plots"),
    *("predictor", "properties", "runs", "structures", "training"),
)
__all__ = ["__version__", *_EXPORTS, *_PARTS]


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:  # type checkers would take any name for one of this module

    def __getattr__(name: str) -> Any:
        import difflib
        import importlib

        if name in _PARTS:
            return importlib.import_module(f"dimenet_tf.{name}")
        if name not in _EXPORTS:
            close = difflib.get_close_matches(name, __all__, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise AttributeError(f"module 'dimenet_tf' has no attribute '{name}'{hint}")
        module, attribute = _EXPORTS[name].split(":")
        return getattr(importlib.import_module(module), attribute)
