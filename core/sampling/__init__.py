"""Sampling: continuous batches over stored keys and values; core.generate is its door."""
