"""The maths of policy gradients: KL estimates, GAE, whitening, clipped losses, an entropy with gradient.

Expected values are worked out in the comments, or come from Stable-Baselines3 (recorded, see tests/plugins/ppo_parity.py).
"""

from __future__ import annotations

import json
import math

import pytest
import torch

from core import functional as F
from core.batch import build_batch
from core.models import Models
from core.processes import global_moments
from tests.plugins import ppo_parity as parity
from tests.support import random_rows, tiny_model

T = torch.tensor
YES, NO = True, False


# --- the KL of a token -------------------------------------------------------------------------------------------------

LOG_RATIO = T([[0.3, -0.2, 0.0]])


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [0.3, -0.2, 0.0]),
        ("k2", [0.045, 0.02, 0.0]),  # 0.09 / 2, 0.04 / 2
        ("k3", [0.0408182, 0.0214028, 0.0]),  # 0.7408182 - 1 + 0.3, 1.2214028 - 1 - 0.2
    ],
)
def test_kl_by_hand(estimator, expected):
    torch.testing.assert_close(F.kl_estimate(LOG_RATIO, estimator), T([expected]), atol=1e-6, rtol=0)


def test_k1_and_k3_are_the_kl_on_average_and_k3_is_never_negative():
    """Two distributions of three tokens, the expectation taken exactly: sum of pi (log pi - log ref)."""
    policy, reference = T([0.6, 0.3, 0.1]).double(), T([0.2, 0.5, 0.3]).double()
    log_ratio = (policy / reference).log()[None]
    exact = 0.6 * math.log(3) + 0.3 * math.log(0.6) + 0.1 * math.log(1 / 3)
    for estimator in ("k1", "k3"):
        assert (policy * F.kl_estimate(log_ratio, estimator)).sum().item() == pytest.approx(exact, abs=1e-6)
    assert (policy * F.kl_estimate(-log_ratio, "k3")).sum().item() != pytest.approx(exact, abs=0.1)  # of the other way round
    assert (F.kl_estimate(log_ratio, "k3") >= 0).all()
    assert (F.kl_estimate(log_ratio, "k1") < 0).any()


# --- GAE -----------------------------------------------------------------------------------------------------------------

# An answer of three tokens and one of two. What stands behind the second's end must not be seen.
REWARDS = T([[-0.1, 0.2, 1.0], [0.0, 2.0, 99.0]])
VALUES = T([[0.5, 0.4, 0.6], [1.0, -1.0, 77.0]])
MASK = T([[YES, YES, YES], [YES, YES, NO]])


@pytest.mark.parametrize(
    ("gamma", "lam", "expected"),
    [
        # delta: -0.1 + 0.4 - 0.5, 0.2 + 0.6 - 0.4, 1 - 0.6;  0 - 1 - 1, 2 + 1
        (1.0, 0.0, [[-0.2, 0.4, 0.4], [-2.0, 3.0, 0.0]]),
        # 0.4, 0.4 + 0.95 * 0.4 = 0.78, -0.2 + 0.95 * 0.78 = 0.541;  3, -2 + 0.95 * 3 = 0.85
        (1.0, 0.95, [[0.541, 0.78, 0.4], [0.85, 3.0, 0.0]]),
        # the rewards to come less the value: 1.1 - 0.5, 1.2 - 0.4, 1 - 0.6;  2 - 1, 2 + 1
        (1.0, 1.0, [[0.6, 0.8, 0.4], [1.0, 3.0, 0.0]]),
        # delta: -0.1 + 0.36 - 0.5 = -0.24, 0.2 + 0.54 - 0.4 = 0.34, 0.4;  -0.9 - 1 = -1.9, 3
        # 0.4, 0.34 + 0.45 * 0.4 = 0.52, -0.24 + 0.45 * 0.52 = -0.006;  3, -1.9 + 0.45 * 3 = -0.55
        (0.9, 0.5, [[-0.006, 0.52, 0.4], [-0.55, 3.0, 0.0]]),
    ],
)
def test_gae_by_hand(gamma, lam, expected):
    torch.testing.assert_close(F.gae(REWARDS, VALUES, MASK, gamma, lam), T(expected), atol=1e-6, rtol=0)


def test_gae_without_values_is_the_discounted_sum_of_rewards_to_come():
    """-0.1 + 0.9 (0.2 + 0.9 * 1) = 0.89, 0.2 + 0.9 = 1.1, 1."""
    found = F.gae(REWARDS, torch.zeros(2, 3), MASK, 0.9, 1.0)
    torch.testing.assert_close(found, T([[0.89, 1.1, 1.0], [1.8, 2.0, 0.0]]), atol=1e-6, rtol=0)


def _padded(lists):
    width = max(map(len, lists))
    return T([[*numbers, *[50.0] * (width - len(numbers))] for numbers in lists])


SB3 = json.loads(parity.SB3_GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", SB3["cases"], ids=lambda c: f"gamma {c['gamma']}, lambda {c['lam']}")
def test_gae_equals_stable_baselines(case):
    """Version 2.3.2, each answer an episode of its buffer."""
    rewards, values = (_padded([e[i] for e in parity.episodes()]) for i in (0, 1))
    mask = T([[t < len(e[0]) for t in range(6)] for e in parity.episodes()])
    advantages = F.gae(rewards, values, mask, case["gamma"], case["lam"])
    torch.testing.assert_close(advantages[mask], T(case["advantages"]), atol=1e-5, rtol=0)
    torch.testing.assert_close((advantages + values)[mask], T(case["returns"]), atol=1e-5, rtol=0)
    for wrong in (
        F.gae(values, rewards, mask, case["gamma"], case["lam"]),
        F.gae(rewards, -values, mask, case["gamma"], case["lam"]),
        F.gae(rewards, values, torch.ones_like(mask), case["gamma"], case["lam"]),
    ):
        assert (wrong[mask] - T(case["advantages"])).abs().max() > 0.1


def test_the_recorded_discounts_are_those_of_the_script():
    assert SB3["versions"]["stable-baselines3"] == "2.3.2"
    assert [(case["gamma"], case["lam"]) for case in SB3["cases"]] == parity.DISCOUNTS


# --- whitening -----------------------------------------------------------------------------------------------------------


def test_whitening_by_hand():
    """1, 3, 5: mean 3; variance (4 + 0 + 4) / 2 = 4, with Bessel's correction."""
    assert global_moments([1.0, 3.0, 5.0]) == (3.0, 4.0)
    torch.testing.assert_close(F.whiten(T([[1.0, 3.0, 5.0]]), 3.0, 4.0), T([[-1.0, 0.0, 1.0]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(F.whiten(T([[1.0, 3.0, 5.0]]), 3.0, 4.0, shift=False), T([[2.0, 3.0, 4.0]]))


def test_whitening_of_one_number_and_of_equal_ones_is_finite():
    for values in ([2.0], [2.0, 2.0, 2.0], []):
        mean, variance = global_moments(values)
        assert variance == 0.0
        assert F.whiten(T([values]), mean, variance).abs().sum() == 0


# --- the surrogate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "clipped"),
    [
        (1.5, 2.0, -2.4, 0.0, 1.0),  # min(3, 1.2 * 2): enough of a good thing
        (1.5, -2.0, 3.0, 2.0, 0.0),  # min(-3, -2.4): a mistake is put right however far it went
        (0.5, 2.0, -1.0, -2.0, 0.0),  # min(1, 1.6)
        (0.5, -2.0, 1.6, 0.0, 1.0),  # min(-1, -1.6)
        (1.1, 2.0, -2.2, -2.0, 0.0),
        (0.9, -2.0, 1.8, 2.0, 0.0),
        (1.5, 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_surrogate_by_hand(ratio, advantage, loss, slope, clipped):
    at = T([[ratio]], requires_grad=True)
    found = F.clipped_surrogate(at, T([[advantage]]), 0.2, 0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert at.grad.item() == pytest.approx(slope, abs=1e-6)
    assert F.clipped_tokens(at, T([[advantage]]), 0.2, 0.2).item() == clipped


def test_two_bounds_by_hand():
    """low 0.2, high 0.28: 1.25 is within, 0.75 is not; min(-0.75, 0.8 * -1) = -0.8."""
    ratio, advantages = T([[1.25, 0.75]]), T([[1.0, -1.0]])
    torch.testing.assert_close(F.clipped_surrogate(ratio, advantages, 0.2, 0.28), T([[-1.25, 0.8]]))
    assert F.clipped_tokens(ratio, advantages, 0.2, 0.28).tolist() == [[0.0, 1.0]]
    torch.testing.assert_close(F.clipped_surrogate(ratio, advantages, 0.28, 0.2), T([[-1.2, 0.75]]))
    assert F.clipped_tokens(ratio, advantages, 0.28, 0.2).tolist() == [[1.0, 0.0]]


# --- the value loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope", "clipped"),
    [  # the value was 1 and may move by 0.2
        (1.5, 2.0, 0.32, 0.0, 1.0),  # max(0.25, (1.2 - 2)^2) / 2: far enough towards the return
        (1.5, 1.0, 0.125, 0.5, 0.0),  # max(0.25, 0.04) / 2: it overshot, and is called back
        (0.9, 2.0, 0.605, -1.1, 0.0),  # within the bounds both terms are equal: 1.21 / 2
        (0.5, 0.0, 0.32, 0.0, 1.0),  # max(0.25, 0.8^2) / 2
    ],
)
def test_value_loss_by_hand(value, target, loss, slope, clipped):
    at, old = T([[value]], requires_grad=True), T([[1.0]])
    found = F.clipped_value_loss(at, old, T([[target]]), 0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss, abs=1e-6)
    assert at.grad.item() == pytest.approx(slope, abs=1e-6)
    assert F.clipped_values(at, old, T([[target]]), 0.2).item() == clipped


def test_value_loss_without_a_bound_is_half_the_square():
    values, returns = T([[3.0, -1.0]]), T([[1.0, 1.0]])
    torch.testing.assert_close(F.clipped_value_loss(values, T([[0.0, 0.0]]), returns, math.inf), T([[2.0, 2.0]]))
    assert F.clipped_values(values, T([[0.0, 0.0]]), returns, math.inf).sum() == 0


# --- an entropy with gradient --------------------------------------------------------------------------------------------


def _plain_entropy(logits):
    """The definition."""
    log_probs = torch.log_softmax(logits, dim=-1)
    return -(log_probs.exp() * log_probs).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("rows", [3, 1100], ids=["one chunk", "three chunks"])
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
def test_entropy_has_the_gradient_of_plain_autograd(keep, rows, temperature, monkeypatch):
    """Beside log-probs and their mean, whose gradients go the same way."""
    monkeypatch.setattr(F, "_KEEP_BYTES", F._KEEP_BYTES if keep else 0)
    made = torch.Generator().manual_seed(rows)
    exact = [torch.randn(*s, generator=made, dtype=torch.float64).requires_grad_() for s in ((rows, 5), (11, 5), (11,))]
    targets = torch.randint(11, (rows,), generator=made)
    of_logp, of_mean, of_entropy = torch.randn(3, rows, generator=made, dtype=torch.float64)
    ours = [t.detach().float().requires_grad_() for t in exact]

    scores = F.linear_logps(*ours, targets, temperature=temperature)
    weighed = scores.logps * of_logp + scores.mean_logps * of_mean + scores.live_entropy * of_entropy
    weighed.sum().backward()
    hidden, weight, bias = exact
    logits = (hidden @ weight.T + bias) / temperature
    log_probs = torch.log_softmax(logits, -1)
    plain = log_probs.gather(1, targets[:, None])[:, 0] * of_logp + log_probs.mean(-1) * of_mean
    (plain + _plain_entropy(logits) * of_entropy).sum().backward()
    for found, expected in zip(ours, exact, strict=True):
        torch.testing.assert_close(found.grad.double(), expected.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("plain_head", [True, False], ids=["matrix product", "the model's own logits"])
def test_entropy_of_a_model_has_the_gradient_of_its_logits(plain_head):
    rows, policy, twin = random_rows(3, 2, 5), tiny_model(), tiny_model()
    models = Models({"policy": policy}, trains=frozenset({"policy"}), layout="padded")
    models.plain_heads["policy"] = plain_head
    batch = build_batch(rows, "padded")
    scores = models.token_scores("policy", batch, temperature=0.7)
    assert not scores.entropy.requires_grad
    assert torch.equal(scores.entropy, scores.live_entropy.detach())
    F.masked_mean(scores.live_entropy, batch.mask).backward()

    entropies = []
    for row in rows:
        for r in row.responses:
            logits = twin(torch.tensor([row.prompt + r.tokens])).logits[0, len(row.prompt) - 1 : -1] / 0.7
            entropies.append(_plain_entropy(logits)[T(r.mask)])
    torch.cat(entropies).mean().backward()
    for (name, found), expected in zip(policy.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, atol=1e-5, rtol=1e-3, msg=name)
    assert policy.lm_head.weight.grad.abs().max() > 1e-4
