"""Which rewards a config asks for, and by which label."""

import pytest

from core.errors import ConfigError
from core.options import reward_options


def config(reward, *watched):
    return {"reward": reward, "eval": {"rewards": list(watched)}}


LENGTH = {"name": "length", "unit": "tokens"}
WORDS = {"name": "length", "unit": "words"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (config({"name": "none"}), []),
        (config({"name": "none"}, "none", {"name": "none"}), []),
        (config(LENGTH), [("length", LENGTH)]),
        (config({"name": "none"}, "length", "gold"), [("length", {"name": "length"}), ("gold", {"name": "gold"})]),
        # The composed one first; named once more, it is itself, with its own options.
        (config(LENGTH, "gold", "length"), [("length", LENGTH), ("gold", {"name": "gold"})]),
        (config(LENGTH, "gold", "gold"), [("length", LENGTH), ("gold", {"name": "gold"})]),
        (config(LENGTH, {**WORDS, "label": "words"}), [("length", LENGTH), ("words", WORDS)]),
        (config({"name": "none"}, WORDS), [("length", WORDS)]),
        (config(LENGTH, LENGTH), [("length", LENGTH)]),
        (config({"name": "none"}, {**WORDS, "label": None}), [("length", WORDS)]),
        ({"reward": LENGTH, "eval": {"rewards": None}}, [("length", LENGTH)]),
    ],
)
def test_rewards_by_label(given, expected):
    assert reward_options(given) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (config(LENGTH, WORDS), "two rewards are called 'length'"),
        (config({"name": "none"}, {**WORDS, "label": "x"}, {**LENGTH, "label": "x"}), "two rewards are called 'x'"),
        (config(LENGTH, {"unit": "words"}), "eval.rewards holds {'unit': 'words'}"),
        (config(LENGTH, 3), "eval.rewards holds 3"),
        (config(LENGTH, ["length"]), "eval.rewards holds ['length']"),
        ({"reward": LENGTH, "eval": {"rewards": "gold"}}, "eval.rewards is 'gold'; expected a list"),
    ],
)
def test_items_that_cannot_be(given, words):
    with pytest.raises(ConfigError) as caught:
        reward_options(given)
    assert words in str(caught.value)


def test_the_config_is_left_as_it_is():
    watched = {**WORDS, "label": "words"}
    given = config(LENGTH, watched)
    reward_options(given)[1][1]["unit"] = "tokens"
    assert watched == {**WORDS, "label": "words"}
