"""Linear layers through oneDNN, where the processor's usual library runs at half speed.

Torch hands fp32 matrix products on the CPU to MKL, which takes a slow path on processors of AMD: about 200 of 430
GFLOP/s with AVX-512 on the machine where this was measured (docs/results.md). oneDNN, in the same torch, has no such
path. Results differ from MKL's as two orders of summation do (1e-6 relative). Nothing is timed at run time: the choice
depends on the processor alone, so a resumed run makes the same one.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.overrides import TorchFunctionMode

SWITCH = "ACCORDANT_ONEDNN"
"""Environment variable: 1 = use it wherever it works, 0 = never; unset = on AMD processors with AVX-512."""

_WORTH = 1 << 22
"""Multiplications below which a product is left to torch: reordering the operands would cost more than it gains."""


_KERNELS = "64"
"""Kernels that oneDNN keeps: those of a few batches."""


@functools.cache
def available() -> bool:
    """Is this torch and this processor one where oneDNN is to be used?"""
    switch = os.environ.get(SWITCH, "")
    has_op = torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
        torch.ops.mkldnn, "_linear_pointwise"
    )
    if switch == "0" or not has_op:
        return False
    # oneDNN keeps the kernels it made, up to 1024 by default, and every length of a batch makes a dozen. Read once, at
    # the first product.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNELS)
    return switch == "1" or (_is_amd() and torch.backends.cpu.get_cpu_capability() == "AVX512")


def _is_amd() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return any("AuthenticAMD" in line for line in file if line.startswith("vendor_id"))
    except OSError:
        return False


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., out) x W^T + b, without a gradient of its own; what torch.nn.functional.linear computes."""
    if not suits(x, weight):
        return nnf.linear(x, weight, bias)
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out


def suits(x: Tensor, weight: Tensor) -> bool:
    """Is this product one to take over: fp32 on the CPU, no autocast, large enough, on such a processor?"""
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and x.numel() * weight.shape[0] >= _WORTH
        and available()
        and not torch.is_autocast_enabled("cpu")
    )


class _Linear(torch.autograd.Function):
    """x W^T + b with both products of the backward pass through oneDNN too."""

    @staticmethod
    def forward(ctx, x, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, weight)
        return linear(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight = ctx.saved_tensors
        flat, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_x = linear(grad, weight.t().contiguous()) if ctx.needs_input_grad[0] else None
        grad_weight = linear(flat.t(), inputs.t()) if ctx.needs_input_grad[1] else None
        grad_bias = flat.sum(dim=0) if ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


class _TakeOver(TorchFunctionMode):
    """While active, calls of torch.nn.functional.linear that suit go through `_Linear`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nnf.linear and not kwargs and suits(args[0], args[1]):
            return _Linear.apply(args[0], args[1], args[2] if len(args) > 2 else None)  # type: ignore[no-untyped-call]
        return func(*args, **(kwargs or {}))


@contextmanager
def fast_linear() -> Iterator[None]:
    """Within, a model's linear layers run through oneDNN where that is faster; elsewhere nothing changes."""
    if not available():
        yield
        return
    with _TakeOver():
        yield
