"""The learning rate by hand, the parameter groups, and refused settings."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from core.errors import ConfigError
from core.models import Models
from core.optim import build_optimizer, lr_factor
from core.scorer import with_new_head
from core.settings import Optim
from tests.support import tiny_model


def factors(total: int, **settings: Any) -> list[float]:
    return [lr_factor(step, total, Optim(**settings)) for step in range(total)]


def test_linear_after_a_warm_up() -> None:
    """10 steps, the first 2 warm up: 1/3, 2/3, then 8 steps from 1 down by eighths."""
    expected = [1 / 3, 2 / 3, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    assert factors(10, warmup_ratio=0.2) == pytest.approx(expected)


def test_cosine() -> None:
    """4 steps without warm-up: (1 + cos(pi k / 4)) / 2."""
    expected = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    assert factors(4, schedule="cosine", warmup_ratio=0.0) == pytest.approx(expected)


def test_constant_after_a_warm_up() -> None:
    assert factors(4, schedule="constant", warmup_ratio=0.25) == pytest.approx([0.5, 1, 1, 1])


def test_no_step_is_wasted_at_zero() -> None:
    """The first and the last step of every schedule move the weights."""
    for schedule in ("linear", "cosine", "constant"):
        for total in (1, 2, 3, 50):
            for ratio in (0.0, 0.05, 0.9):
                assert all(0 < f <= 1 for f in factors(total, schedule=schedule, warmup_ratio=ratio))


def test_beyond_the_last_step_it_stays_at_zero() -> None:
    assert lr_factor(10, 10, Optim(warmup_ratio=0.0)) == 0
    assert lr_factor(15, 10, Optim(warmup_ratio=0.0)) == 0
    assert lr_factor(15, 10, Optim(schedule="cosine")) == pytest.approx(0)


def models_with_a_frozen_part() -> Models:
    model = tiny_model(attention_bias=True)
    model.model.embed_tokens.weight.requires_grad_(False)
    return Models({"policy": model}, trains=frozenset({"policy"}), layout="padded")


def test_decay_spares_vectors_and_frozen_weights_are_not_in() -> None:
    models = models_with_a_frozen_part()
    made = build_optimizer(models, Optim(lr=0.5, weight_decay=0.1), 10)["optimizer"]
    decayed, spared = made.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2}
    assert {p.ndim for p in spared["params"]} == {1}
    names = {id(p): name for name, p in models.roles["policy"].named_parameters()}
    inside = {names[id(p)] for group in made.param_groups for p in group["params"]}
    assert set(names.values()) - inside == {"model.embed_tokens.weight"}
    assert {"model.norm.weight", "model.layers.0.self_attn.q_proj.bias"} <= {names[id(p)] for p in spared["params"]}


def test_decay_shrinks_a_matrix_and_leaves_a_norm() -> None:
    """AdamW with zero gradients: w <- w (1 - lr decay)."""
    models = models_with_a_frozen_part()
    parameters = dict(models.roles["policy"].named_parameters())
    made = build_optimizer(models, Optim(lr=0.5, weight_decay=0.1, warmup_ratio=0.0), 10)["optimizer"]
    before = {name: p.detach().clone() for name, p in parameters.items()}
    for group in made.param_groups:
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    made.step()
    assert torch.allclose(parameters["lm_head.weight"], before["lm_head.weight"] * 0.95)
    assert torch.equal(parameters["model.norm.weight"], before["model.norm.weight"])


def test_settings_reach_the_optimizer() -> None:
    made = build_optimizer(models_with_a_frozen_part(), Optim(lr=0.5, betas=(0.8, 0.9), eps=1e-6, warmup_ratio=0.5), 4)
    group = made["optimizer"].param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-6)
    assert group["lr"] == pytest.approx(0.5 / 3)  # the schedule has begun: 2 of 4 steps warm up
    assert made["lr_scheduler"]["interval"] == "step"


def test_roles_may_have_learning_rates_of_their_own() -> None:
    """Matrices and vectors of each: four groups. The schedule multiplies every rate by the same."""
    policy = tiny_model()
    value = with_new_head(tiny_model(seed=1), "float32", ())
    models = Models({"policy": policy, "value": value}, trains=frozenset({"policy", "value"}), layout="padded")
    made = build_optimizer(models, Optim(lr=0.5, role_lr={"value": 2.0}, weight_decay=0.1, warmup_ratio=0.5), 4)
    rates = {id(p): group["lr"] for group in made["optimizer"].param_groups for p in group["params"]}
    assert {rates[id(p)] for p in policy.parameters()} == {0.5 / 3}
    assert {rates[id(p)] for p in value.parameters()} == {2.0 / 3}
    found = sorted((round(g["lr"], 3), g["weight_decay"]) for g in made["optimizer"].param_groups)
    assert found == [(0.167, 0.0), (0.167, 0.1), (0.667, 0.0), (0.667, 0.1)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"role_lr": {"value": 0.0}}, "optim.role_lr is {'value': 0.0}; expected null, or a map of policy"),
        ({"role_lr": {"critic": 0.1}}, "optim.role_lr is {'critic': 0.1}; expected null, or a map of policy"),
        ({"role_lr": 0.1}, "optim.role_lr is 0.1; expected null, or a map of policy"),
        ({"lr": 0.0}, "optim.lr is 0.0"),
        ({"lr": -1e-5}, "optim.lr is -1e-05"),
        ({"lr": float("nan")}, "optim.lr is nan"),
        ({"lr": float("inf")}, "optim.lr is inf"),
        ({"schedule": "step"}, "optim.schedule is step"),
        ({"warmup_ratio": 1.0}, "optim.warmup_ratio is 1.0"),
        ({"warmup_ratio": -0.1}, "optim.warmup_ratio is -0.1"),
        ({"weight_decay": -0.1}, "optim.weight_decay is -0.1"),
        ({"betas": (0.9,)}, r"optim.betas is \(0.9,\)"),
        ({"betas": (0.9, 1.0)}, r"optim.betas is \(0.9, 1.0\)"),
        ({"eps": -1e-8}, "optim.eps is -1e-08"),
        ({"max_skipped": 0}, "optim.max_skipped is 0"),
        ({"name": "sgd"}, "optim.name is sgd"),
    ],
)
def test_refused_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Optim(**settings)
