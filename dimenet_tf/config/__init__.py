"""Configurations: defaults and checks (schema), and the objects that they describe (build)."""
