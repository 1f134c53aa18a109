"""Properties of molecules: names, units, heads, reference values, label columns and loss terms."""
