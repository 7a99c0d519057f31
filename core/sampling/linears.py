"""A model's linear layers through core.matmul without watching every operation: for loops of many small calls."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from core.matmul import available, linear


@contextmanager
def direct_linears(model: nn.Module) -> Iterator[None]:
    """Within, each plain linear layer computes `core.matmul.linear`, for which no gradient flows.

    `core.matmul.fast_linear` sees every operation of torch to find these; a decoding step has hundreds, most of them
    shorter than that look.
    """
    layers = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)] if available() else []
    for layer in layers:
        layer.forward = functools.partial(_forward, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Linear, x: Tensor) -> Tensor:
    return linear(x, layer.weight, layer.bias)
