"""Directional message-passing networks for molecules."""

from __future__ import annotations

__version__ = "0.1.0"

# looked up on first use: `import dimenet_tf` alone costs nothing
_EXPORTS = {
    "Graph": "dimenet_tf.graph",
    "GraphStore": "dimenet_tf.graph",
    "DataContainer": "dimenet_tf.data",
    "MODELS": "dimenet_tf.models",
    "build_model": "dimenet_tf.models",
    "Predictor": "dimenet_tf.predictor",
    "load": "dimenet_tf.predictor",
    "UserError": "dimenet_tf.errors",
}
_PARTS = ("data", "interop", "md")
__all__ = ["__version__", *_EXPORTS, *_PARTS]


def __getattr__(name: str):
    import importlib

    if name in _PARTS:
        return importlib.import_module(f"dimenet_tf.{name}")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'dimenet_tf' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
