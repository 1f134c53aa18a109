"""Folders of training runs: their files, names and event logs, and how to find a predictor."""
