"""What a config of an objective that samples is refused for, before torch is imported, and what it is warned of."""

from __future__ import annotations

import logging
import re

import pytest

from core.build import _warn_of_restricted
from core.compose import compose
from core.crosscheck import check_composed
from core.errors import ConfigError
from core.settings import Generation
from plugins.objectives.dpo import DPO
from plugins.objectives.ppo import PPO

PPO_RUN = ["objective=ppo", "reward=gold"]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([*PPO_RUN, "generation.temperature=0"], "generation.temperature is 0, and objective=ppo learns from answers"),
        (["objective=ppo"], "objective=ppo needs a reward, and reward=none"),
        (["objective=dpo", "model.value=shared"], "model.value=shared, but this objective has no value network"),
        ([*PPO_RUN, "objective.value=false", "model.value=shared"], "this objective has no value network"),
        ([*PPO_RUN, "model.value_head=ones"], "model.value_head is ones; expected auto, zero or normal"),
        ([*PPO_RUN, "optim.role_lr={reward: 1e-4}"], "a learning rate to reward; trained are: policy, value"),
        ([*PPO_RUN, "optim.role_lr={value: -1}"], "optim.role_lr is .*expected null, or a map of policy, value or reward"),
        ([*PPO_RUN, "optim.role_lr={critic: 1e-4}"], "a learning rate to critic; trained are: policy, value"),
        ([*PPO_RUN, "objective.clip_range=null"], "passes is 4; expected 1 with clip_range=null"),
        ([*PPO_RUN, "objective.value=false", "objective.lam=0.9"], "lam is 0.9; expected .*without a value network 1"),
    ],
    ids=lambda v: v if isinstance(v, str) else " ".join(v),
)
def test_refused(overrides, said):
    with pytest.raises(ConfigError, match=said):
        check_composed(compose(overrides))


def test_what_goes_together():
    for more in (
        ["optim.role_lr={value: 1e-3}", "model.value=shared"],
        ["objective.value=false", "objective.clip_range=null", "objective.passes=1"],
        ["objective.value_lam=1.0", "objective.clip_high=0.28"],
    ):
        check_composed(compose([*PPO_RUN, *more]))


def test_a_restricted_distribution_is_warned_of_where_it_matters(caplog):
    limited = Generation(top_k=5, min_new_tokens=2)
    with caplog.at_level(logging.WARNING, "accordant"):
        _warn_of_restricted(DPO(), limited)
        _warn_of_restricted(PPO(), Generation(temperature=0.7))
        assert caplog.text == ""
        _warn_of_restricted(PPO(), limited)
    assert re.search(r"generation\.top_k=5 generation\.min_new_tokens=2: .* gradient is biased", caplog.text)
    assert "Unbiased: generation.top_k=0 generation.min_new_tokens=0." in caplog.text
