"""Any Python function as a reward, by TRL's keyword contract, so that functions written for TRL run unchanged.

    def brevity(prompts, completions, completion_ids, **columns):
        return [-float(len(text)) for text in completions]

Called with lists, one item per sample: prompts, completions, completion_ids, and every other column of the data. Where
the data is conversational, a prompt is a list of messages and a completion a list with the assistant's message.
`trainer_state` is None, `log_extra` and `log_metric` accept what they are given and keep nothing: a reward here does
not know the run that uses it. A function without **kwargs gets only what it names. It may be `async`.
Source of the contract: TRL 1.16, docs/source/grpo_trainer.md, "Using a custom reward function".
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import math
import numbers
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from core.api import ConfigError, PluginError, RewardSource, Sample, nearest

_OURS = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")


class Function(RewardSource):
    """A Python function of yours: path=my_rewards.py:brevity, called as TRL calls reward functions."""

    api_version = 1

    def __init__(self, path: str, kwargs: Mapping[str, Any] | None = None) -> None:
        self.path, self.kwargs = path, dict(kwargs or {})
        self.function = load_function(path)
        self._takes = _keywords(self.function)
        clash = sorted(set(self.kwargs) & set(_OURS))
        if clash:
            raise ConfigError(f"reward.kwargs.{clash[0]} is given, but {clash[0]} comes from the samples.", "Rename it.")

    def score(self, samples: Sequence[Sample]) -> list[float | None]:
        if not samples:
            return []
        arguments = {**columns_of(samples), **self.kwargs, **_contract(samples)}
        if self._takes is not None:
            arguments = {key: value for key, value in arguments.items() if key in self._takes}
        answer = self.function(**arguments)
        if inspect.isawaitable(answer):
            answer = _complete(answer)
        return self._checked(answer, samples)

    def _checked(self, answer: Any, samples: Sequence[Sample]) -> list[float | None]:
        hint = "Return a list with one number (or None) per completion, in order."
        if hasattr(answer, "tolist"):  # arrays and tensors
            answer = answer.tolist()
        if not isinstance(answer, (list, tuple)):
            raise PluginError(f"{self.path} returned {type(answer).__name__}; expected a list.", hint)
        if len(answer) != len(samples):
            raise PluginError(f"{self.path} returned {len(answer)} rewards for {len(samples)} completions.", hint)
        return [self._number(value, sample) for value, sample in zip(answer, samples, strict=True)]

    def _number(self, value: Any, sample: Sample) -> float | None:
        if value is None:
            return None
        if hasattr(value, "item"):  # a scalar of NumPy or torch
            value = value.item()
        if not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise PluginError(
                f"{self.path} returned {value!r} for row {sample.row_id!r} (response {sample.response[:60]!r}).",
                "Rewards are finite numbers; None means that the function does not apply.",
            )
        return float(value)


def _contract(samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "prompts": [sample.prompt if sample.messages is None else [dict(m) for m in sample.messages] for sample in samples],
        "completions": [
            sample.response if sample.messages is None else [{"role": "assistant", "content": sample.response}]
            for sample in samples
        ],
        "completion_ids": [list(sample.tokens) for sample in samples],
        "trainer_state": None,
        "log_extra": _forget,
        "log_metric": _forget,
    }


def columns_of(samples: Sequence[Sample]) -> dict[str, list[Any]]:
    """Every column of the samples as a list; None where a sample lacks it. `references` is one where there are any."""
    names = dict.fromkeys(name for sample in samples for name in sample.columns)
    columns = {name: [sample.columns.get(name) for sample in samples] for name in names}
    if any(sample.references for sample in samples):
        columns.setdefault("references", [list(sample.references) for sample in samples])
    return columns


def _forget(*_: Any, **__: Any) -> None:
    """Stands for TRL's log functions."""


def _keywords(function: Callable[..., Any]) -> set[str] | None:
    """The keywords that a function names; None = it takes any."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some built-in callables have no signature
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in found):
        return None
    return {parameter.name for parameter in found}


def _complete(answer: Awaitable[Any]) -> Any:
    """Waits for a coroutine, in a thread of its own where this one runs an event loop already (a notebook)."""

    async def wait() -> Any:
        return await answer

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    box: dict[str, Any] = {}

    def work() -> None:
        try:
            box["value"] = asyncio.run(wait())
        except BaseException as error:  # handed to the thread that waits
            box["error"] = error

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if "error" in box:
        raise box["error"]
    return box["value"]


def load_function(path: str) -> Callable[..., Any]:
    """The function at `file.py:name` or `package.module:name`.

    Raises:
        ConfigError: the path names none. PluginError: importing its module fails.
    """
    place, colon, name = path.rpartition(":")
    if not colon or not place or not name:
        raise ConfigError(
            f"reward.path is {path!r}; it names no function.", "Write file.py:function or package.module:function."
        )
    module = _from_file(Path(place).expanduser()) if place.endswith(".py") else _imported(place, path)
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    came = "has no" if found is None else "has, but not as a function,"
    raise ConfigError(
        f"{place} {came} {name!r}.{nearest(name, functions)}", f"It has: {', '.join(functions) or 'no function'}."
    )


def _from_file(file: Path) -> ModuleType:
    if not file.is_file():
        raise ConfigError(f"reward.path: there is no file {file.absolute()}.", "Give the path relative to where you start.")
    file = file.resolve()
    # A name of its own: rewards.py must not stand for an installed package called rewards.
    name = f"accordant_function_{file.stem}_{abs(hash(str(file)))}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loader, folder = spec.loader, str(file.parent)
    sys.path.insert(0, folder)  # as for a script: its neighbours come first while it is imported ...
    try:
        _import(lambda: loader.exec_module(module), str(file))
    except PluginError:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)  # ... and can be found by imports inside its functions later
    return module


def _imported(name: str, path: str) -> ModuleType:
    modules: list[ModuleType] = []
    _import(lambda: modules.append(importlib.import_module(name)), path)
    return modules[0]


def _import(action: Callable[[], None], place: str) -> None:
    try:
        action()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"reward.path: importing {place} failed with {type(error).__name__}: {error}.",
            "Mend the file, or run it by itself to see more: python <file>.",
        ) from error
