"""What rewards that compare with references share: the references of a sample, the package that compares."""

from __future__ import annotations

import importlib.util

from core.api import ConfigError, DataError, PluginError, Sample


def references_of(sample: Sample, reward: str) -> list[str]:
    """The reference texts of a sample. DataError where it has none: that is no score of 0."""
    if not sample.references:
        raise DataError(
            f"row {sample.row_id!r} has no references, and reward={reward} compares answers with them.",
            "Give every row the column references: a list of good answers.",
        )
    return list(sample.references)


def need_package(package: str, reward: str, install: str) -> None:
    """PluginError with the pip line where a package is not installed. It is looked for, not imported."""
    if importlib.util.find_spec(package) is None:
        raise PluginError(
            f"{reward} needs the package {package}, which is not installed.", f"Install it: pip install '{install}'"
        )


def check_scale(scale: float) -> None:
    """ConfigError for a scale by which no score can be multiplied."""
    if scale == 0 or scale - scale != 0:
        raise ConfigError(f"reward.scale is {scale}; expected a finite number other than 0.")
