"""The maths by hand-worked numbers, and against autograd in double precision."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from core import functional as F

T = torch.tensor


def test_masked_mean_counts_masked_tokens_only():
    values, mask = T([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]), T([[True, False, True], [False, False, True]])
    assert F.masked_mean(values, mask).item() == pytest.approx(10 / 3)
    assert values.mean().item() != pytest.approx(10 / 3)  # the mask dropped
    assert F.masked_mean(values, torch.zeros_like(mask)).item() == 0.0


def test_masked_mean_is_global_not_a_mean_of_row_means():
    values, mask = T([[1.0, 2.0, 3.0], [8.0, 0.0, 0.0]]), T([[True, True, True], [True, False, False]])
    assert F.masked_mean(values, mask).item() == pytest.approx(14 / 4)  # (1+2+3+8) / 4; a mean of means is (2+8) / 2


def test_sequence_logps_sum_and_average():
    logps, mask = T([[-1.0, -2.0, -4.0], [-0.5, -8.0, -8.0]]), T([[True, True, False], [True, False, False]])
    assert F.sequence_logps(logps, mask).tolist() == [-3.0, -0.5]
    assert F.sequence_logps(logps, mask, average=True).tolist() == [-1.5, -0.5]
    assert F.sequence_logps(logps, torch.zeros_like(mask), average=True).tolist() == [0.0, 0.0]
    assert logps.sum(-1).tolist() != [-3.0, -0.5]  # the mask dropped


def test_smoothed_nll():
    logps, mean_logps = T([[-1.0]]), T([[-3.0]])
    assert F.smoothed_nll(logps, mean_logps, 0.0).item() == 1.0
    assert F.smoothed_nll(logps, mean_logps, 0.1).item() == pytest.approx(0.9 * 1.0 + 0.1 * 3.0)
    assert F.smoothed_nll(logps, None, 0.0).item() == 1.0


def test_smoothed_nll_equals_torch_cross_entropy():
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 9, dtype=torch.float64), torch.randint(9, (6,))
    log_probs = logits.log_softmax(-1)
    ours = F.smoothed_nll(log_probs.gather(1, targets[:, None])[:, 0], log_probs.mean(-1), 0.2).mean()
    assert ours.item() == pytest.approx(torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.2).item())


def test_dpo_logits_by_hand():
    h = F.dpo_logits(T([-1.0]), T([-2.0]), T([-1.5]), T([-1.0]))
    assert h.item() == 1.5  # (-1 + 1.5) - (-2 + 1)
    assert F.dpo_logits(T([-2.0]), T([-1.0]), T([-1.0]), T([-1.5])).item() == -1.5  # the pair swapped
    assert F.dpo_logits(T([-1.0]), T([-2.0]), T([0.0]), T([0.0])).item() == 1.0  # the reference dropped


# h = 2, beta = 0.1: log(1 + e^-0.2) and log(1 + e^0.2) = that + 0.2.
AT_PLUS, AT_MINUS = 0.5981388694, 0.7981388694


def test_dpo_sigmoid_loss_by_hand():
    assert F.dpo_sigmoid_loss(T(2.0), 0.1).item() == pytest.approx(AT_PLUS, abs=1e-6)
    assert F.dpo_sigmoid_loss(T(2.0), 0.1, 0.25).item() == pytest.approx(0.75 * AT_PLUS + 0.25 * AT_MINUS, abs=1e-6)
    assert F.dpo_sigmoid_loss(T(0.0), 5.0).item() == pytest.approx(math.log(2), abs=1e-6)
    assert F.dpo_sigmoid_loss(T(-2.0), 0.1).item() == pytest.approx(AT_MINUS, abs=1e-6)  # a flipped sign shows


def test_dpo_sigmoid_loss_is_finite_far_out():
    far = T([-1e6, 1e6])
    assert F.dpo_sigmoid_loss(far, 1.0).tolist() == [1e6, 0.0]


def test_conservative_dpo_is_least_at_the_stated_confidence():
    """With a share eps of flipped labels the best h has sigmoid(beta h) = 1 - eps; plain DPO has no best h."""
    h = torch.linspace(-5, 10, 15001, dtype=torch.float64)
    best = h[F.dpo_sigmoid_loss(h, 1.0, 0.2).argmin()].item()
    assert torch.sigmoid(T(best)).item() == pytest.approx(0.8, abs=1e-3)
    assert h[F.dpo_sigmoid_loss(h, 1.0).argmin()].item() == 10.0


def test_ipo_and_hinge_by_hand():
    assert F.dpo_ipo_loss(T(3.0), 0.5).item() == 4.0  # (3 - 1)^2
    assert F.dpo_ipo_loss(T(-3.0), 0.5).item() == 16.0
    assert F.dpo_hinge_loss(T([1.0, 3.0, -1.0]), 0.5).tolist() == [0.5, 0.0, 1.5]


@pytest.mark.parametrize(
    "loss",
    [
        lambda h: F.dpo_sigmoid_loss(h, 0.7),
        lambda h: F.dpo_sigmoid_loss(h, 0.7, 0.3),
        lambda h: F.dpo_ipo_loss(h, 0.7),
        lambda h: F.dpo_hinge_loss(h, 0.7),
    ],
    ids=["sigmoid", "smoothed", "ipo", "hinge"],
)
def test_loss_gradients_against_finite_differences(loss):
    h = T([-2.0, -0.3, 0.4, 2.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss, (h,))


def test_dpo_gradient_points_the_right_way():
    """beta sigmoid(-beta h): chosen up, rejected down. Rafailov et al. 2023, section 4."""
    parts = [T(v, dtype=torch.float64, requires_grad=True) for v in (-1.0, -2.0, -1.5, -1.0)]
    F.dpo_sigmoid_loss(F.dpo_logits(*parts), 0.5).backward()
    slope = 0.5 / (1 + math.exp(0.5 * 1.5))
    assert [p.grad.item() for p in parts] == pytest.approx([-slope, slope, slope, -slope])


# --- linear_logps --------------------------------------------------------------------------------------------------

VOCAB, WIDTH = 11, 5


def _inputs(rows, bias, dtype=torch.float32):
    made = torch.Generator().manual_seed(rows)
    hidden = torch.randn(rows, WIDTH, generator=made, dtype=torch.float64)
    weight = torch.randn(VOCAB, WIDTH, generator=made, dtype=torch.float64)
    offset = torch.randn(VOCAB, generator=made, dtype=torch.float64) if bias else None
    targets = torch.randint(VOCAB, (rows,), generator=made)
    leaves = [None if t is None else t.to(dtype).requires_grad_() for t in (hidden, weight, offset)]
    return leaves, targets, torch.randn(2, rows, generator=made, dtype=torch.float64)


def _expected(leaves, targets, temperature):
    """The definition, in double precision and plain autograd."""
    hidden, weight, bias = leaves
    logits = hidden @ weight.T + (0 if bias is None else bias)
    log_probs = torch.log_softmax(logits / temperature, dim=-1)
    entropy = -(log_probs.exp() * log_probs).sum(-1)
    return log_probs.gather(1, targets[:, None])[:, 0], log_probs.mean(-1), entropy, (logits.argmax(-1) == targets).double()


@pytest.mark.parametrize(
    ("rows", "bias", "temperature"),
    [(1, False, 1.0), (511, True, 1.0), (512, False, 0.7), (513, True, 2.0), (1100, False, 1.0)],
)
@pytest.mark.parametrize("keep", [True, False], ids=["kept", "recomputed"])
@pytest.mark.parametrize("statistics", [True, False])
def test_linear_logps_equals_log_softmax(rows, bias, temperature, keep, statistics, monkeypatch):
    monkeypatch.setattr(F, "_KEEP_BYTES", F._KEEP_BYTES if keep else 0)
    leaves, targets, upstream = _inputs(rows, bias)
    exact, _, _ = _inputs(rows, bias, torch.float64)
    scores = F.linear_logps(*leaves, targets, temperature=temperature, statistics=statistics)
    logps, mean_logps, entropy, correct = _expected(exact, targets, temperature)
    torch.testing.assert_close(scores.logps.double(), logps, atol=2e-5, rtol=1e-5)
    loss, exact_loss = (scores.logps * upstream[0].float()).sum(), (logps * upstream[0]).sum()
    if statistics:
        torch.testing.assert_close(scores.mean_logps.double(), mean_logps, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(scores.entropy.double(), entropy, atol=1e-5, rtol=1e-4)
        assert torch.equal(scores.correct.double(), correct)
        loss = loss + (scores.mean_logps * upstream[1].float()).sum()
        exact_loss = exact_loss + (mean_logps * upstream[1]).sum()
        assert not scores.entropy.requires_grad
        assert not scores.correct.requires_grad
    loss.backward()
    exact_loss.backward()
    for ours, theirs in zip(leaves, exact, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=1e-4, rtol=1e-4)


def test_linear_logps_both_branches_give_one_gradient(monkeypatch):
    grads = []
    for limit in (F._KEEP_BYTES, 0):
        monkeypatch.setattr(F, "_KEEP_BYTES", limit)
        leaves, targets, upstream = _inputs(700, True)
        (F.linear_logps(*leaves, targets).logps * upstream[0].float()).sum().backward()
        grads.append([t.grad for t in leaves])
    for kept, recomputed in zip(*grads, strict=True):
        torch.testing.assert_close(kept, recomputed, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("trained", list(itertools.product([True, False], repeat=3)))
def test_linear_logps_gives_gradients_to_whom_wants_them(trained):
    """LoRA freezes the head; a probe may freeze all."""
    leaves, targets, upstream = _inputs(20, True)
    full = [t.detach().clone().requires_grad_() for t in leaves]
    (F.linear_logps(*full, targets).logps * upstream[0].float()).sum().backward()
    for leaf, wants in zip(leaves, trained, strict=True):
        leaf.requires_grad_(wants)
    loss = (F.linear_logps(*leaves, targets).logps * upstream[0].float()).sum()
    assert loss.requires_grad == any(trained)
    if any(trained):
        loss.backward()
    for leaf, whole, wants in zip(leaves, full, trained, strict=True):
        assert (leaf.grad is not None) == wants
        if wants:
            torch.testing.assert_close(leaf.grad, whole.grad)


def test_linear_logps_of_no_target():
    leaves, targets, _ = _inputs(0, True)
    scores = F.linear_logps(*leaves, targets)
    assert scores.logps.shape == (0,)
    scores.logps.sum().backward()
    assert leaves[1].grad.abs().sum() == 0


def test_linear_logps_keeps_fp32_under_bf16_autocast():
    leaves, targets, _ = _inputs(50, True)
    plain = F.linear_logps(*leaves, targets).logps
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = F.linear_logps(*leaves, targets).logps
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)


def test_linear_logps_of_bf16_hidden_states():
    """What a bf16-mixed forward hands over: hidden states in bf16, weights and their gradients in fp32."""
    leaves, targets, upstream = _inputs(600, True)
    hidden = leaves[0].detach().bfloat16().requires_grad_()
    scores = F.linear_logps(hidden, leaves[1], leaves[2], targets)
    (scores.logps * upstream[0].float()).sum().backward()
    exact, _, _ = _inputs(600, True, torch.float64)
    logps, *_ = _expected(exact, targets, 1.0)
    (logps * upstream[0]).sum().backward()
    assert scores.logps.dtype == torch.float32
    assert hidden.grad.dtype == torch.bfloat16
    assert leaves[1].grad.dtype == torch.float32
    assert (scores.logps.double() - logps).abs().max() < 0.1
    for ours, theirs in ((hidden.grad, exact[0].grad), (leaves[1].grad, exact[1].grad)):
        assert ((ours.double() - theirs).norm() / theirs.norm()) < 0.02


def test_linear_logps_refuses_a_second_derivative():
    leaves, targets, _ = _inputs(4, False)
    loss = F.linear_logps(*leaves, targets).logps.square().sum()
    (grad,) = torch.autograd.grad(loss, leaves[0], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_linear_logps_refuses_to_go_back_twice():
    """The softmax has been overwritten by its gradient: better an error than a wrong number."""
    leaves, targets, _ = _inputs(4, False)
    loss = F.linear_logps(*leaves, targets).logps.sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_linear_logps_of_forbidden_tokens():
    """A bias of -inf forbids a token: its log-prob is -inf, and the rest is a distribution over the others."""
    leaves, _, _ = _inputs(2, True)
    bias = leaves[2].detach().clone()
    bias[3] = float("-inf")
    scores = F.linear_logps(leaves[0], leaves[1], bias, T([3, 4]))
    others = [i for i in range(VOCAB) if i != 3]
    rest = torch.log_softmax((leaves[0] @ leaves[1].T + bias)[:, others], dim=-1)
    assert scores.logps[0].item() == float("-inf")
    assert scores.logps[1].item() == pytest.approx(rest[1, others.index(4)].item(), abs=1e-5)
    torch.testing.assert_close(scores.entropy, -(rest.exp() * rest).sum(-1).detach(), atol=1e-5, rtol=1e-5)
    scores.logps[1].backward()
    assert torch.isfinite(leaves[0].grad).all()


@pytest.mark.parametrize("wrong", ["sign", "shift", "temperature"])
def test_the_comparison_would_see_a_mistake(wrong):
    leaves, targets, _ = _inputs(64, False)
    right, *_ = _expected(leaves, targets, 1.0)
    made = {
        "sign": lambda: -F.linear_logps(*leaves, targets).logps,
        "shift": lambda: F.linear_logps(*leaves, targets.roll(1)).logps,
        "temperature": lambda: F.linear_logps(*leaves, targets, temperature=1.1).logps,
    }[wrong]()
    assert (made - right).abs().max() > 0.05
