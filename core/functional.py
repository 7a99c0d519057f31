"""The maths, as pure functions: tensors in, tensors out; no model, config, logger or device inside.

Shapes: N responses, T response tokens (right-padded), R rows, M masked positions, V vocabulary, H hidden size.
A mask is True where a token counts.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.autograd.function import once_differentiable

from core.matmul import linear


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """() mean of `values` (any shape) where `mask` (same shape) is True; 0 where it is nowhere."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def sequence_logps(token_logps: Tensor, mask: Tensor, *, average: bool = False) -> Tensor:
    """(N,) log pi(y | x): sums of `token_logps` (N, T) over the masked tokens; with `average`, their means.

    The average is the length-normalised likelihood of SimPO (Meng et al. 2024, eq. 2) and of Llama 3's DPO.
    """
    sums = (token_logps * mask).sum(dim=-1)
    return sums / mask.sum(dim=-1).clamp(min=1) if average else sums


def smoothed_nll(token_logps: Tensor, mean_logps: Tensor | None, smoothing: float) -> Tensor:
    """(N, T) token NLL with label smoothing eps: -(1 - eps) log p(y) - eps * mean over the vocabulary of log p.

    Source: Szegedy et al. 2016, section 7. Differs from the paper: nothing. `mean_logps` (N, T) may be None at eps 0.
    """
    if smoothing == 0.0 or mean_logps is None:
        return -token_logps
    return -(1.0 - smoothing) * token_logps - smoothing * mean_logps


def dpo_logits(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    """(R,) the log-ratio difference h of DPO.

    h = [log pi(y+|x) - log ref(y+|x)] - [log pi(y-|x) - log ref(y-|x)]

    Args: log-likelihoods (R,) of chosen and rejected responses under the policy and the reference.
    Source: Rafailov et al. 2023, "Direct Preference Optimization", eq. 7. Differs from the paper: nothing.
    """
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def dpo_sigmoid_loss(logits: Tensor, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """(R,) -(1 - eps) log sigmoid(beta h) - eps log sigmoid(-beta h).

    eps = 0 is DPO (Rafailov et al. 2023, eq. 7). eps > 0 is conservative DPO (Mitchell 2023, "A note on DPO with
    noisy preferences", eq. 3), which takes a share eps of the labels for flipped. Differs from the papers: nothing.
    """
    return -(1.0 - label_smoothing) * nnf.logsigmoid(beta * logits) - label_smoothing * nnf.logsigmoid(-beta * logits)


def dpo_ipo_loss(logits: Tensor, beta: float) -> Tensor:
    """(R,) (h - 1 / (2 beta))^2.

    Source: Azar et al. 2023, "A General Theoretical Paradigm...", eq. 17, tau = beta. The paper leaves open whether
    h sums or averages over tokens; its authors recommend averages, which is what `DPO` passes (as TRL does).
    """
    return (logits - 1.0 / (2.0 * beta)).square()


def dpo_hinge_loss(logits: Tensor, beta: float) -> Tensor:
    """(R,) max(0, 1 - beta h). Source: Liu et al. 2023 (RSO), eq. 10, with margin 1. Differs: nothing."""
    return nnf.relu(1.0 - beta * logits)


_CHUNK = 512
"""Positions whose logits are computed at once: (512, V) stays in the processor's cache for common vocabularies."""

_KEEP_BYTES = 256 * 2**20
"""Up to here the softmax of all positions is kept for the backward pass; above, it is computed anew, chunk by chunk."""


class _LinearLogps(torch.autograd.Function):
    """log softmax(scale (h W^T + b)) at given targets, with a backward of its own.

    Plain autograd keeps logits and their log-softmax, both (M, V), and writes as much again going back. This keeps the
    softmax alone, or nothing, and turns it into the gradient in place.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, scale, statistics):  # type: ignore[no-untyped-def]  # noqa: PLR0913 - torch's
        rows, vocab = hidden.shape[0], weight.shape[0]
        keep = any(ctx.needs_input_grad[:3]) and 4 * rows * vocab <= _KEEP_BYTES
        logps = hidden.new_empty(rows, dtype=torch.float32)
        entropy, mean_logps, correct = (torch.zeros_like(logps) for _ in range(3))
        kept = []
        for start in range(0, rows, _CHUNK):
            part = slice(start, start + _CHUNK)
            logits = _scaled_logits(hidden[part], weight, bias, scale)
            log_probs = torch.log_softmax(logits, dim=-1)
            logps[part] = log_probs.gather(1, targets[part, None])[:, 0]
            probs = log_probs.exp() if statistics else log_probs.exp_()
            if statistics:
                entropy[part] = -torch.linalg.vecdot(probs, log_probs.clamp_(min=_SMALLEST))
                mean_logps[part] = log_probs.mean(dim=-1)
                correct[part] = (log_probs.argmax(dim=-1) == targets[part]).float()
            kept.append(probs if keep else None)
        ctx.save_for_backward(hidden, weight, bias, targets, *(kept if keep else []))
        ctx.scale = scale
        ctx.mark_non_differentiable(entropy, correct)
        ctx.set_materialize_grads(False)
        return logps, entropy, mean_logps, correct

    @staticmethod
    @once_differentiable
    def backward(ctx, grad, _entropy, grad_mean, _correct):  # type: ignore[no-untyped-def]
        hidden, weight, bias, targets, *kept = ctx.saved_tensors
        grad = hidden.new_zeros(len(targets), dtype=torch.float32) if grad is None else grad
        total = grad if grad_mean is None else grad + grad_mean
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight) if needs_weight else None
        grad_bias = torch.zeros_like(bias) if bias is not None and needs_bias else None
        turned = weight.to(hidden.dtype).t().contiguous() if needs_hidden else weight
        for chunk, start in enumerate(range(0, hidden.shape[0], _CHUNK)):
            part = slice(start, start + _CHUNK)
            # d logp(y) / d logits = onehot(y) - softmax, and d mean logp / d logits = 1/V - softmax;
            # written over the softmax, which nobody needs any more.
            probs = kept[chunk] if kept else _scaled_logits(hidden[part], weight, bias, ctx.scale).softmax(dim=-1)
            slope = probs.mul_(-total[part, None]).scatter_add_(1, targets[part, None], grad[part, None])
            if grad_mean is not None:
                slope.add_(grad_mean[part, None] / slope.shape[1])
            slope = (slope if ctx.scale == 1.0 else slope.mul_(ctx.scale)).to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = linear(slope, turned)
            if grad_weight is not None:
                grad_weight += linear(slope.t().to(weight.dtype), hidden[part].to(weight.dtype).t())
            if grad_bias is not None:
                grad_bias += slope.sum(dim=0).to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None


_SMALLEST = torch.finfo(torch.float32).min
"""0 * log 0 is 0 in an entropy; a token that a sampler has forbidden has log-prob -inf."""


def _scaled_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """(m, V) fp32 logits of one chunk."""
    dtype = hidden.dtype
    logits = linear(hidden, weight.to(dtype), None if bias is None else bias.to(dtype)).float()
    return logits if scale == 1.0 else logits.mul_(scale)


class TokenScores:
    """What the head says about M target tokens: `logps` and `mean_logps` (with graph), `entropy` and `correct` (without)."""

    __slots__ = ("correct", "entropy", "logps", "mean_logps")

    def __init__(self, logps: Tensor, entropy: Tensor, mean_logps: Tensor, correct: Tensor) -> None:
        self.logps, self.entropy, self.mean_logps, self.correct = logps, entropy, mean_logps, correct


def linear_logps(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    statistics: bool = True,
) -> TokenScores:
    """log softmax((h W^T + b) / temperature)[target] for each of M positions, without keeping two (M, V) tensors.

    Args:
        hidden: (M, H) hidden states of the positions that predict the targets.
        weight, bias: (V, H), (V,) or None: the language-model head.
        targets: (M,) token ids.
        temperature: of the distribution that was sampled from; 1 leaves the logits alone.
        statistics: also compute the mean over the vocabulary of log p (M,), the entropy (M,), and whether the target
            is the most likely token (M,); the last two without gradient.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        parts = _LinearLogps.apply(hidden, weight, bias, targets, 1.0 / temperature, statistics)  # type: ignore[no-untyped-call]
    return TokenScores(*parts)
