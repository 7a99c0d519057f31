"""All that a plugin imports: the contract, the types, the errors, the maths.

    from core.api import LossOutput, Objective
    from core.api import functional as F

What needs torch (`Batch`, `Models`, `functional`, ...) is a stand-in until it is used, so that a plugin's module is
imported, and its options are checked, in milliseconds. A stand-in can be called, subclassed, used in `isinstance` and
in annotations, and asked for its attributes; each of these imports the real thing.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from core import API_VERSION
from core.draws import best_of, log_scores, ranked
from core.errors import (
    CollectionError,
    ConfigError,
    DataError,
    ModelError,
    PluginError,
    TrainingError,
    UserError,
    check_option,
    nearest,
)
from core.objective import Collects, LossOutput, MeanOver, Objective, Reads, RewardUse, Role
from core.paths import cache_folder
from core.processes import from_all_processes, global_moments
from core.redact import Redactor, looks_secret
from core.reward import Compared, RewardSource, Sample, Scored, better, checked_scores, samples_of
from core.rows import Message, Response, Row

if TYPE_CHECKING:
    from core import functional
    from core.batch import Batch, build_batch, with_token_fields
    from core.collect import CollectContext, with_scores
    from core.functional import TokenScores
    from core.models import Models
    from core.reward_model import RewardModel

POCKET = "pocket"
"""The name of the reward model that comes with the sandbox (`model_folder`)."""

__all__ = [
    "API_VERSION",
    "POCKET",
    "Batch",
    "CollectContext",
    "CollectionError",
    "Collects",
    "Compared",
    "ConfigError",
    "DataError",
    "LossOutput",
    "MeanOver",
    "Message",
    "ModelError",
    "Models",
    "Objective",
    "PluginError",
    "Reads",
    "Redactor",
    "Response",
    "RewardModel",
    "RewardSource",
    "RewardUse",
    "Role",
    "Row",
    "Sample",
    "Scored",
    "TokenScores",
    "TrainingError",
    "UserError",
    "best_of",
    "better",
    "build_batch",
    "build_reward",
    "cache_folder",
    "check_option",
    "checked_scores",
    "from_all_processes",
    "functional",
    "global_moments",
    "log_scores",
    "looks_secret",
    "model_folder",
    "nearest",
    "ranked",
    "samples_of",
    "with_scores",
    "with_token_fields",
]


def build_reward(options: str | Mapping[str, Any], where: str) -> RewardSource:
    """A reward that is part of another one: its name, or a map of its name and options.

    Args:
        where: the key under which it stands in the composite's own options ("parts.rm"), for messages.

    Raises:
        UserError: of any kind, naming `where`.
    """
    from core.registry import build_part

    return build_part(options, where)


def model_folder(path: str) -> str:
    """Where a reward model is that is known by a name: "pocket" is made at first use and kept in the user's cache.

    Any other path or hub id comes back as it is; a folder of that name is `./pocket`.

    Raises:
        ModelError: it could not be made.
    """
    if path != POCKET:
        return path
    from core.warmup import pocket_reward

    return str(pocket_reward())


_HEAVY = {
    "Batch": "core.batch",
    "build_batch": "core.batch",
    "with_token_fields": "core.batch",
    "CollectContext": "core.collect",
    "with_scores": "core.collect",
    "Models": "core.models",
    "RewardModel": "core.reward_model",
    "TokenScores": "core.functional",
    "functional": "core.functional",
}


class _StandIn:
    """Stands for a module, class or function until it is used."""

    def __init__(self, module: str, name: str | None) -> None:
        self._stands_for = (module, name)

    def _real(self) -> Any:
        module, name = self._stands_for
        loaded = importlib.import_module(module)
        return loaded if name is None else getattr(loaded, name)

    def __getattr__(self, attribute: str) -> Any:
        # Dunders are asked for by inspection (doctest, pickle, typing), which should not import torch.
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return getattr(self._real(), attribute)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self._real(),)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return issubclass(subclass, self._real())

    def __or__(self, other: Any) -> Any:
        return self._real() | other

    def __ror__(self, other: Any) -> Any:
        return other | self._real()

    def __repr__(self) -> str:
        module, name = self._stands_for
        return f"<stand-in for {module if name is None else f'{module}.{name}'}>"


_STAND_INS = {name: _StandIn(module, None if name == "functional" else name) for name, module in _HEAVY.items()}


def __getattr__(name: str) -> Any:
    if name not in _HEAVY:
        raise AttributeError(f"core.api has no {name!r}.{nearest(name, __all__)}")
    return _STAND_INS[name]


def __dir__() -> list[str]:
    return sorted(__all__)
