"""Accordant: a plugin-based trainer that aligns language models to preferences, on PyTorch Lightning."""

__version__ = "0.1.0"

API_VERSION = 1
"""The plugin contract. It grows by one when a plugin written for the old one could break."""
