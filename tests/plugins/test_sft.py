"""SFT by hand, and against TRL's SFTTrainer."""

from __future__ import annotations

import json
import math

import pytest
import torch

from core.batch import build_batch
from core.errors import ConfigError
from core.functional import TokenScores
from core.rows import Response, Row
from plugins.objectives.sft import SFT
from tests.plugins import trl_parity as parity

GOLDEN = json.loads(parity.GOLDEN.read_text(encoding="utf-8"))
YES, NO = True, False
ROWS = [Row("a", [3], (Response([4, 5, 6], [YES, NO, YES]),)), Row("b", [7], (Response([8], [YES]),))]


class Scripted:
    """Models whose every number is given: (N, T) log-probs, vocabulary means, entropies, and what was most likely."""

    def token_scores(self, role, batch):
        assert role == "policy"
        logps = torch.tensor([[-1.0, 0.0, -2.0], [-6.0, 0.0, 0.0]])
        return TokenScores(
            logps, torch.tensor([[0.5, 0, 1.0], [3.0, 0, 0]]), 2 * logps, torch.tensor([[1.0, 0, 0], [1.0, 0, 0]])
        )


def test_loss_by_hand():
    out = SFT().loss(Scripted(), build_batch(ROWS))
    assert out.loss.item() == pytest.approx((1 + 2 + 6) / 3)  # a mean of row means would be (1.5 + 6) / 2 = 3.75
    assert out.count == 3
    assert out.metrics["entropy"].item() == pytest.approx((0.5 + 1 + 3) / 3)
    assert out.metrics["mean_token_accuracy"].item() == pytest.approx(2 / 3)


def test_label_smoothing_by_hand():
    out = SFT(label_smoothing=0.25).loss(Scripted(), build_batch(ROWS))
    assert out.loss.item() == pytest.approx(0.75 * 3 + 0.25 * 6)


@pytest.mark.parametrize("value", [-0.1, 1.0, 2, math.nan])
def test_label_smoothing_that_cannot_work(value):
    with pytest.raises(ConfigError, match=r"objective\.label_smoothing is"):
        SFT(label_smoothing=value)


def test_declarations():
    objective = SFT()
    assert (objective.reads, objective.collects, objective.mean_over) == ("demonstrations", "never", "tokens")
    assert objective.trains == {"policy"}
    assert objective.frozen == set()
    assert objective.collect(ROWS, None) is ROWS


# --- against TRL -----------------------------------------------------------------------------------------------------------


def assert_equals(ours, loss, gradients, metrics):
    """Ours against TRL's numbers, in fp32: 1e-5."""
    our_loss, slopes, our_metrics = ours
    assert our_loss == pytest.approx(loss, abs=1e-5)
    assert slopes.keys() == gradients.keys()
    for name, theirs in gradients.items():
        if isinstance(theirs, torch.Tensor):
            torch.testing.assert_close(slopes[name], theirs, atol=1e-5, rtol=1e-5)
        else:
            assert parity.summary({name: slopes[name]})[name] == pytest.approx(theirs, abs=1e-5 * max(1.0, theirs[0])), name
    for name, value in metrics.items():
        assert our_metrics[name] == pytest.approx(value, abs=1e-4), name


@pytest.mark.parametrize("layout", ["shared", "padded"])
@pytest.mark.parametrize("case", parity.SFT_CASES)
def test_equals_trls_recorded_numbers(case, layout):
    assert GOLDEN["versions"]["trl"] == "1.16.0"
    assert_equals(parity.our_sft(case, layout), **GOLDEN["sft"][case])


@pytest.mark.parametrize("case", parity.SFT_CASES)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_equals_trl_live(case):
    pytest.importorskip("trl", reason="TRL is not installed (pip install 'accordant[parity]')")
    loss, slopes, metrics = parity.trl_sft(case)
    assert_equals(parity.our_sft(case, "shared"), loss, slopes, metrics)


@pytest.mark.parametrize("wrong", ["sign", "mask", "mean of means"])
def test_the_comparison_would_see_a_mistake(wrong, monkeypatch):
    from core import functional as F

    broken = {
        "sign": lambda values, mask: -(values * mask).sum() / mask.sum(),
        "mask": lambda values, mask: values.sum() / values.numel(),
        "mean of means": lambda values, mask: ((values * mask).sum(1) / mask.sum(1)).mean(),
    }[wrong]
    monkeypatch.setattr(F, "masked_mean", broken)
    with pytest.raises(AssertionError):
        assert_equals(parity.our_sft("plain", "shared"), **GOLDEN["sft"]["plain"])
