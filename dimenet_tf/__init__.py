"""Directional message-passing networks for molecules."""

from __future__ import annotations

from dimenet_tf.stack import use_keras_2

__version__ = "0.2.0"

use_keras_2()

# looked up on first use: `import dimenet_tf` alone costs nothing
_EXPORTS = {
    "Committee": "dimenet_tf.md",
    "DataContainer": "dimenet_tf.data",
    "DimeNetCalculator": "dimenet_tf.md",
    "Domain": "dimenet_tf.domain",
    "Graph": "dimenet_tf.graph",
    "GraphStore": "dimenet_tf.graph",
    "MODELS": "dimenet_tf.models",
    "Predictor": "dimenet_tf.predictor",
    "UserError": "dimenet_tf.errors",
    "build_model": "dimenet_tf.models",
    "datasets": "dimenet_tf.data",
    "load": "dimenet_tf.predictor",
    "pretrained_models": "dimenet_tf.folders",
}
_PARTS = (
    *("basis", "bulk", "config", "data", "domain", "elements", "errors", "graph", "heads", "interop"),
    *("layers", "md", "models", "plots", "predictor", "serving", "structures", "training"),
)
__all__ = ["__version__", *_EXPORTS, *_PARTS]


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str):
    import difflib
    import importlib

    if name in _PARTS:
        return importlib.import_module(f"dimenet_tf.{name}")
    if name not in _EXPORTS:
        close = difflib.get_close_matches(name, __all__, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise AttributeError(f"module 'dimenet_tf' has no attribute '{name}'{hint}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
