"""Every error that a user can cause: what came, what was expected, what to do.

A `UserError` is printed without a traceback and ends the run with exit status 2. Everything else is a bug.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend. `str(error)` is the whole message; `hint` (what to do) is its last line.

    `everywhere`: every process of the run has raised it, and none waits for another.
    """

    everywhere = False

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        super().__init__(f"{message}\n  -> {hint}" if hint else message)

    def of_part(self, where: str) -> UserError:
        """The same error where a reward is part of another one, under the key `where` ("parts.rm") there.

        What it says of its own keys is said of the part's: reward.scale -> reward.parts.rm.scale.
        """
        # A subclass may take other arguments; the nearest that does not is as good for those who catch it.
        kind = next(kind for kind in type(self).__mro__ if kind.__init__ is UserError.__init__)  # type: ignore[misc]
        message, hint = (_REWARD_KEY.sub(f"reward.{where}.", text) for text in (self.message, self.hint))
        made: UserError = kind(message if message.startswith(f"reward.{where}") else f"reward.{where}: {message}", hint)
        return made


_REWARD_KEY = re.compile(r"(?<![\w./])reward\.(?=\w)")


class ConfigError(UserError):
    """A config value that cannot work."""


class PluginError(UserError):
    """A plugin that is unknown, ambiguous, broken, or written for another contract."""


class DataError(UserError):
    """A data file or row that cannot be used. The message starts with file:line:field where it is known."""


class ModelError(UserError):
    """A model that cannot be loaded, or does not fit what is asked of it."""


class CheckpointError(UserError):
    """A checkpoint that is damaged, missing, or of another run."""


class CollectionError(UserError):
    """A collection that gave nothing to train on."""


class TrainingError(UserError):
    """A run that had to stop: non-finite losses, a collapsed policy."""


def check_option(right: bool, key: str, value: object, expected: str) -> None:
    """For an objective's constructor: a ConfigError that says what `objective.<key>` may be, unless it is `right`."""
    if not right:
        raise ConfigError(f"objective.{key} is {value}; expected {expected}.")


def nearest(word: str, known: Iterable[str]) -> str:
    """' Did you mean "x"?' for the closest known name, or ''."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' Did you mean "{match[0]}"?' if match else ""
