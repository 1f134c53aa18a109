"""Molecular dynamics with ASE: calculator, committees, certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors: what `__getattr__` looks up, `X as X` because it is exported
    from dimenet_tf.md.batched import Batched as Batched
    from dimenet_tf.md.calculator import DimeNetCalculator as DimeNetCalculator
    from dimenet_tf.md.calculator import StopOnUncertainty as StopOnUncertainty
    from dimenet_tf.md.calculator import UncertaintyExceeded as UncertaintyExceeded
    from dimenet_tf.md.committee import Committee as Committee

# looked up on first use: command line tools here quiet TensorFlow before it is imported
_EXPORTS = {
    "Batched": "dimenet_tf.md.batched",
    "Committee": "dimenet_tf.md.committee",
    "DimeNetCalculator": "dimenet_tf.md.calculator",
    "StopOnUncertainty": "dimenet_tf.md.calculator",
    "UncertaintyExceeded": "dimenet_tf.md.calculator",
}
__all__ = list(_EXPORTS)


def __dir__() -> list[str]:
    return sorted(__all__)


if not TYPE_CHECKING:  # type checkers would take any name for one of this module

    def __getattr__(name: str) -> Any:
        if name not in _EXPORTS:
            raise AttributeError(f"module 'dimenet_tf.md' has no attribute '{name}'")
        import importlib

        return getattr(importlib.import_module(_EXPORTS[name]), name)
