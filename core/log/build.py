"""From the `logger` group of the config to loggers."""

from __future__ import annotations

import importlib.util
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from core.errors import ConfigError, nearest
from core.log.jsonl import CsvLogger, FolderLogger, JsonlLogger
from core.log.wandb import WandbLogger, WandbSettings
from core.runfolder import METRICS, RunFolder, read_jsonl


class RedactedTensorBoard(TensorBoardLogger):
    """Lightning's, without secrets in its table of hyper-parameters. After a resume it hides what was rewound."""

    def __init__(self, folder: RunFolder) -> None:
        steps = [int(record.get("step", 0)) for record in read_jsonl(folder.path / METRICS)]
        again: dict[str, Any] = {"purge_step": max(steps, default=0) + 1} if int(folder.facts.get("sessions", 1)) > 1 else {}
        super().__init__(str(folder.path), name="", version="tensorboard", **again)
        self._redact = folder.redact

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The redacted parameters, as Lightning writes them."""
        plain = vars(params) if isinstance(params, Namespace) else params
        super().log_hyperparams(self._redact(plain), *args, **kwargs)


def build_loggers(config: Mapping[str, Any], folder: RunFolder) -> list[Logger]:
    """Loggers for a composed config: metrics.jsonl first, then those of `config["logger"]` (name -> settings) in order.

    Raises:
        ConfigError: an unknown logger, an unknown setting, or a package that is not installed.
    """
    makers: dict[str, Callable[[Mapping[str, Any]], Logger]] = {
        "csv": lambda settings: _without_settings("csv", settings, CsvLogger(folder)),
        "tensorboard": lambda settings: _tensorboard(settings, folder),
        "wandb": lambda settings: _wandb(settings, config, folder),
    }
    loggers: list[Logger] = [JsonlLogger(folder)]
    for name, settings in (config.get("logger") or {}).items():
        if name not in makers:
            known = ", ".join(makers)
            raise ConfigError(f'logger "{name}" is not known.{nearest(name, makers)}', f"Known loggers: {known}.")
        loggers.append(makers[name](settings or {}))
    return loggers


def log_samples(loggers: Sequence[Logger], step: int, samples: Sequence[Mapping[str, Any]]) -> None:
    """Hands the validation's answers to every logger that keeps them (`samples/` on disk, W&B's table).

    A sample: {"id", "prompt", "response", "finished": bool, "tokens": int, "scores": {reward name: float | None}}.
    """
    for logger in loggers:
        if isinstance(logger, FolderLogger):
            logger.log_samples(step, samples)


def close_loggers(loggers: Sequence[Logger], status: str) -> None:
    """Ends every logger, so that the next run of the same process begins its own. status: finished, stopped or failed."""
    for logger in loggers:
        if isinstance(logger, FolderLogger):
            logger.close(status)
        else:
            logger.finalize("success" if status == "finished" else "failed")


def _without_settings(name: str, settings: Mapping[str, Any], logger: Logger) -> Logger:
    if settings:
        raise ConfigError(f"logger.{name} has no settings, got {', '.join(settings)}.", f"Remove logger.{name}.*.")
    return logger


def _tensorboard(settings: Mapping[str, Any], folder: RunFolder) -> Logger:
    _need("tensorboard")
    return _without_settings("tensorboard", settings, RedactedTensorBoard(folder))


def _wandb(settings: Mapping[str, Any], config: Mapping[str, Any], folder: RunFolder) -> Logger:
    _need("wandb")
    return WandbLogger(folder, WandbSettings.of(settings, config.get("run") or {}), config)


def _need(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"logger={package} needs the package {package}, which is not installed.",
            f'pip install "accordant[{package}]", or leave it out of logger=...; metrics.jsonl is written in any case.',
        )
