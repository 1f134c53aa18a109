"""Molecular dynamics with ASE: calculator, committees, certificates."""

from __future__ import annotations

# looked up on first use: command line tools here quiet TensorFlow before it is imported
_EXPORTS = {
    "Committee": "dimenet_tf.md.committee",
    "DimeNetCalculator": "dimenet_tf.md.calculator",
    "StopOnUncertainty": "dimenet_tf.md.calculator",
    "UncertaintyExceeded": "dimenet_tf.md.calculator",
}
__all__ = list(_EXPORTS)


def __dir__() -> list[str]:
    return sorted(__all__)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'dimenet_tf.md' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(_EXPORTS[name]), name)
