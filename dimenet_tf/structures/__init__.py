"""Molecules for training, prediction and bulk: readers, units, checks and splits."""
