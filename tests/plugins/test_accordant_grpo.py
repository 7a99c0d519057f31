"""examples/accordant-grpo by hand, and against TRL's GRPOTrainer and RLOOTrainer."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from core import functional as F
from core.batch import build_batch
from core.errors import ConfigError
from core.functional import TokenScores
from core.rows import Response, Row
from core.testing import objective_checks, plugin_checks
from core.trial import ScriptedContext, trial_rows
from tests.plugins import trl_groups as groups

GOLDEN = json.loads(groups.GOLDEN.read_text(encoding="utf-8"))
YES = True


@pytest.fixture
def package(grpo_site, monkeypatch):
    """The installed package: GRPO, RLOO, Repetition, and the modules grpo and rloo."""
    monkeypatch.syspath_prepend(str(grpo_site))
    grpo, rloo, repetition = (importlib.import_module(f"accordant_grpo.{name}") for name in ("grpo", "rloo", "repetition"))
    return SimpleNamespace(grpo=grpo, rloo=rloo, GRPO=grpo.GRPO, RLOO=rloo.RLOO, Repetition=repetition.Repetition)


def test_the_kl_of_a_whole_answer_is_in_rloos_reward(package):
    fields = {"old_logps": [-1.0, -2.0, -3.0], "ref_logps": [-1.5, -1.0, -9.0]}
    row = Row("a", [3], (Response([4, 5, 6], [YES, YES, False], score=2.0, token_fields=fields),))
    assert package.rloo.returns(row, 0.1) == pytest.approx([2.0 - 0.1 * (0.5 - 1.0)])
    assert package.rloo.returns(row, 0.0) == [2.0]


@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_the_kl_of_a_collection_is_that_of_whole_answers(package, name):
    """The scripted sampler says -1 for every token, and the reference something below."""
    context = ScriptedContext()
    made = getattr(package, name)(2).collect(trial_rows("prompts", 2), context)
    kls = [sum(-1.0 - ref for ref in r.token_fields["ref_logps"]) for row in made for r in row.responses]
    assert context.metrics["objective/kl"] == pytest.approx(sum(kls) / 4)
    if name == "RLOO":
        tokens = sum(len(r.tokens) for row in made for r in row.responses)
        assert context.metrics["kl"] == pytest.approx(sum(kls) / tokens)


# -- losses -------------------------------------------------------------------------------------------------------------

# One prompt, two answers of two and one tokens. Ratios: 2, 1.1; 0.5. Advantages 1 and -1.
OLD = torch.log(torch.tensor([[0.2, 0.5], [0.4, 1.0]]))
NEW = torch.log(torch.tensor([[0.4, 0.55], [0.2, 1.0]]))
REF = torch.log(torch.tensor([[0.4, 1.1], [0.1, 1.0]]))


def rows(advantages=(1.0, -1.0), finished=(True, True)):
    answers = []
    for n, tokens in enumerate(([4, 1], [1])):
        fields = {"old_logps": OLD[n], "ref_logps": REF[n]}
        fields = {name: values[: len(tokens)].tolist() for name, values in fields.items()}
        fields["advantages"] = [advantages[n]] * len(tokens)
        answers.append(Response(tokens, [YES] * len(tokens), finished=finished[n], token_fields=fields))
    return [Row("a", [3], tuple(answers))]


class Given:
    """Models whose log-probs are NEW, at the temperature asked for alone."""

    temperature = 0.7

    def __init__(self):
        self.logps = NEW.clone().requires_grad_()

    def token_scores(self, role, batch, *, temperature):
        assert (role, temperature) == ("policy", 0.7)
        zeros = torch.zeros_like(NEW)
        return TokenScores(self.logps * batch.mask, batch.mask * 2.0, zeros, zeros)


def k3(new, ref):
    return ref / new - 1 - math.log(ref / new)


@pytest.mark.parametrize(
    ("options", "expected", "count"),
    [
        # Tokens: -min(2, 1.2) = -1.2, -1.1; -min(-0.5, -0.8) = 0.8.
        ({}, ((-1.2 - 1.1) / 2 + 0.8) / 2, 2),
        ({"clip_high": 0.5}, ((-1.5 - 1.1) / 2 + 0.8) / 2, 2),
        ({"loss": "dapo"}, (-1.2 - 1.1 + 0.8) / 3, 3),
        ({"loss": "dr_grpo", "max_length": 10}, ((-1.2 - 1.1) / 10 + 0.8 / 10) / 2, 2),
        ({"beta": 0.5}, ((-1.2 - 1.1 + 0.5 * k3(0.55, 1.1)) / 2 + 0.8 + 0.5 * k3(0.2, 0.1)) / 2, 2),
        (
            {"beta": 0.5, "unbiased_kl": True},
            ((-1.2 - 1.1 + 0.5 * 1.1 * k3(0.55, 1.1)) / 2 + 0.8 + 0.5 * 0.5 * k3(0.2, 0.1)) / 2,
            2,
        ),
    ],
    ids=str,
)
def test_grpos_loss_by_hand(package, options, expected, count):
    out = package.GRPO(**{"beta": 0.0, **options}).loss(Given(), build_batch(rows()))
    assert out.loss.item() == pytest.approx(expected, abs=1e-6)
    assert out.count == count
    assert set(out.counts.values()) == {3}
    assert out.counts.keys() == out.metrics.keys()


def test_grpos_metrics_are_means_over_tokens(package):
    metrics = package.GRPO(beta=0.1).loss(Given(), build_batch(rows())).metrics
    assert {name: pytest.approx(float(value)) for name, value in metrics.items()} == {
        "entropy": 2.0,
        "clip_ratio/high_mean": 1 / 3,
        "clip_ratio/low_mean": 1 / 3,
        "clip_ratio/region_mean": 2 / 3,
        "kl": (k3(0.55, 1.1) + k3(0.2, 0.1)) / 3,
    }


def test_rloos_loss_by_hand(package):
    """Log-likelihoods log 0.22 and log 0.2; ratios of whole answers 2.2 and 0.5."""
    models = Given()
    out = package.RLOO().loss(models, build_batch(rows()))
    assert out.loss.item() == pytest.approx(-(math.log(0.22) - math.log(0.2)) / 2, abs=1e-6)
    assert out.metrics.keys() == {"entropy"}
    out.loss.backward()
    torch.testing.assert_close(models.logps.grad, torch.tensor([[-0.5, -0.5], [0.5, 0.0]]))
    clipped = package.RLOO(clip_range=0.2, clip_high=0.3).loss(Given(), build_batch(rows()))
    assert clipped.loss.item() == pytest.approx((-1.3 + 0.8) / 2, abs=1e-6)
    assert float(clipped.metrics["clip_ratio/region_mean"]) == 1.0


# -- collections --------------------------------------------------------------------------------------------------------


class Context(ScriptedContext):
    """Scores are given; every second answer was cut."""

    def __init__(self, scores, cut=False):
        super().__init__()
        self.given, self.cut, self.temperature = scores, cut, 0.7

    def generate(self, rows, n=1, *, temperature=None):
        made = super().generate(rows, n)
        return [
            row.with_responses([replace(r, finished=not (self.cut and k % 2)) for k, r in enumerate(row.responses)])
            for row in made
        ]

    def score(self, rows):
        return [
            row.with_responses([replace(r, score=s) for r, s in zip(row.responses, self.given, strict=True)]) for row in rows
        ]


def advantages(rows):
    return [[r.token_fields["advantages"][0] for r in row.responses] for row in rows]


def test_scale_rewards(package):
    given, scores = trial_rows("prompts", 2), [1.0, 2.0, 6.0]
    by = {s: package.GRPO(3, scale_rewards=s).collect(given, Context(scores)) for s in ("group", "batch", "none")}
    assert advantages(by["none"])[1] == [-2.0, -1.0, 3.0]
    unit = math.sqrt(2 * (4 + 1 + 9) / 5) + 1e-4  # of all six scores
    assert advantages(by["batch"])[1] == pytest.approx([-2 / unit, -1 / unit, 3 / unit])
    assert advantages(by["group"])[1] == pytest.approx([x / (math.sqrt(7) + 1e-4) for x in (-2, -1, 3)])


@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_answers_that_were_cut_can_be_left_out(package, name):
    given, context = trial_rows("prompts", 2), Context([1.0, 2.0], cut=True)
    made = getattr(package, name)(2, mask_truncated=True).collect(given, context)
    assert [[any(r.mask) for r in row.responses] for row in made] == [[True, False]] * 2
    assert context.metrics["completions/clipped_ratio"] == 0.5
    plain = getattr(package, name)(2).collect(given, context)
    assert all(all(r.mask) for row in plain for r in row.responses)


def test_a_prompt_whose_answers_were_all_cut_is_counted(package):
    given, context = trial_rows("prompts", 3), Context([1.0, 2.0])
    context.generate = lambda rows, n: [  # type: ignore[method-assign]
        row.with_responses([replace(r, finished=row.id == "row-1") for r in row.responses])
        for row in ScriptedContext().generate(rows, n)
    ]
    made = package.GRPO(2, mask_truncated=True).collect(given, context)
    assert [row.id for row in made] == ["row-1"]
    assert context.notes == ["2 of 3 prompts are left out: all their answers were cut at the limit."]


def test_a_collection_says_what_its_answers_are_like_and_when_they_teach_nothing(package):
    context = Context([1.0, 2.0, None])
    package.GRPO(3).collect(trial_rows("prompts", 4), context)
    assert context.metrics["reward"] == 1.5
    assert context.metrics["reward_std"] == pytest.approx(math.sqrt(8 * 0.25 / 7))
    assert context.metrics["frac_reward_zero_std"] == 0
    assert context.notes == []
    flat = Context([0.1, 0.1, 0.1])
    package.RLOO(3).collect(trial_rows("prompts", 4), flat)
    assert flat.metrics["frac_reward_zero_std"] == 1
    assert "4 of 4 prompts teach nothing" in flat.notes[0]


@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_without_beta_there_is_no_reference(package, name):
    objective = getattr(package, name)(2, beta=0.0)
    assert objective.frozen == frozenset()
    context = Context([1.0, 2.0])
    context.token_logps = None  # type: ignore[method-assign,assignment]
    (row,) = objective.collect(trial_rows("prompts", 1), context)
    assert "ref_logps" not in row.responses[0].token_fields
    assert getattr(package, name)(2).frozen == {"reference"}


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("GRPO", {"samples": 1}, "samples"),
        ("GRPO", {"loss": "bnpo"}, "loss"),
        ("GRPO", {"clip_range": 0.0}, "clip_range"),
        ("GRPO", {"clip_high": -0.1}, "clip_high"),
        ("GRPO", {"beta": math.nan}, "beta"),
        ("GRPO", {"beta": 0.0, "unbiased_kl": True}, "unbiased_kl"),
        ("GRPO", {"scale_rewards": "all"}, "scale_rewards"),
        ("GRPO", {"max_length": 64}, "max_length"),
        ("GRPO", {"loss": "dr_grpo"}, "max_length"),
        ("GRPO", {"minibatches": 0}, "minibatches"),
        ("GRPO", {"passes": 0}, "passes"),
        ("RLOO", {"samples": 1}, "samples"),
        ("RLOO", {"beta": -1.0}, "beta"),
        ("RLOO", {"clip_range": 1.0}, "clip_range"),
        ("RLOO", {"clip_high": 0.3}, "clip_high"),
        ("RLOO", {"passes": 2}, "passes"),
        ("RLOO", {"minibatches": 0}, "minibatches"),
    ],
    ids=str,
)
def test_options_that_cannot_work(package, name, options, key):
    with pytest.raises(ConfigError, match=rf"objective\.{key} is .*; expected"):
        getattr(package, name)(**options)


# -- the package --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("objective", "grpo"), ("objective", "rloo"), ("reward", "repetition")])
def test_package_and_configs_keep_the_contract(package, kind, name):
    """The rest is in the package's own tests."""
    first = list(plugin_checks(kind, name))[:4]
    assert [check.name.split()[-1] for check in first] == ["Hydra", "is", "defaults", "needs"]
    assert not any(check.run() for check in first)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("GRPO", {"loss": "dapo", "scale_rewards": "batch", "beta": 0.0}),
        ("GRPO", {"loss": "dr_grpo", "max_length": 9, "unbiased_kl": True, "scale_rewards": "none"}),
        ("RLOO", {"clip_range": 0.2, "passes": 2}),
    ],
    ids=str,
)
def test_options_keep_the_contract_too(package, name, options):
    for check in objective_checks(getattr(package, name)(**options)):
        check.run()


# -- against TRL --------------------------------------------------------------------------------------------------------

CASES = [("GRPO", case) for case in groups.GRPO_CASES] + [("RLOO", case) for case in groups.RLOO_CASES]


def compared(package: Any, kind: str, name: str, theirs: dict[str, Any], layout: str = "shared") -> None:
    case = getattr(groups, f"{kind}_CASES")[name]
    ours = groups.ours(getattr(package, kind), case, layout)
    assert ours["advantages"] == pytest.approx(theirs["advantages"], abs=1e-5)
    for parameter, numbers in theirs["gradients"].items():
        assert ours["gradients"][parameter] == pytest.approx(numbers, abs=5e-5, rel=5e-5), parameter
    plain = kind == "RLOO" and not case[1]  # no ratio, so its value is another and its gradient the same
    if not plain:
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    wanted = {key: value for key, value in theirs["metrics"].items() if not (plain and key.startswith("clip_ratio"))}
    assert {key: ours["metrics"].get(key) for key in wanted} == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("layout", ["shared", "padded"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_equals_trls_recorded_numbers(package, kind, name, layout):
    compared(package, kind, name, GOLDEN[kind][name], layout)


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
@pytest.mark.filterwarnings("ignore")
def test_equals_trl_live(package, kind):
    pytest.importorskip("trl", reason="TRL is not installed (pip install 'accordant[parity]')")
    name = "cooler, clip higher"
    compared(package, kind, name, groups.trls(kind, getattr(groups, f"{kind}_CASES")[name]))


@pytest.mark.parametrize("wrong", ["sign", "clip", "kl", "mask"])
def test_the_comparison_would_see_a_mistake(package, wrong, monkeypatch):
    right = {name: getattr(F, name) for name in ("clipped_surrogate", "kl_estimate", "sequence_logps")}
    broken: dict[str, Any] = {
        "sign": ("clipped_surrogate", lambda ratio, *rest: -right["clipped_surrogate"](ratio, *rest)),
        "clip": ("clipped_surrogate", lambda ratio, a, low, high: -ratio * a),
        "kl": ("kl_estimate", lambda log_ratio, _: right["kl_estimate"](-log_ratio, "k3")),
        "mask": ("sequence_logps", lambda values, mask, **_: values.mean(-1)),
    }
    monkeypatch.setattr(F, *broken[wrong])
    with pytest.raises(AssertionError):
        compared(package, "GRPO", "cooler, clip higher", GOLDEN["GRPO"]["cooler, clip higher"])
