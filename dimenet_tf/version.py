"""The version of the library: the only place where its number is written."""

__version__ = "0.2.0"
