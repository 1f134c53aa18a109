"""Properties of molecules: heads, reference values, terms of the loss, columns."""
