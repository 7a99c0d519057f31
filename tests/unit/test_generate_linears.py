"""Linear layers taken over for the time of a decoding loop."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.sampling import linears
from core.sampling.linears import direct_linears


@pytest.fixture
def calls(monkeypatch):
    """The weights that core.matmul.linear was asked to multiply with; it is there whatever the processor."""
    seen = []
    original = linears.linear

    def linear(x, weight, bias=None):
        seen.append(weight)
        return original(x, weight, bias)

    monkeypatch.setattr(linears, "available", lambda: True)
    monkeypatch.setattr(linears, "linear", linear)
    return seen


def test_linear_layers_go_through_our_product_and_come_back(calls):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 64, bias=False))
    x = torch.randn(128, 256)
    expected = model(x).detach()
    with torch.no_grad(), direct_linears(model):
        got = model(x)
    assert [w is m.weight for w, m in zip(calls, (model[0], model[2]), strict=True)] == [True, True]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert model(x).requires_grad
    assert len(calls) == 2
    assert not any("forward" in vars(m) for m in model)


def test_they_come_back_after_an_error(calls):
    model = nn.Linear(3, 3)
    with pytest.raises(KeyboardInterrupt), direct_linears(model):
        raise KeyboardInterrupt
    assert "forward" not in vars(model)


def test_other_peoples_layers_are_left_alone(calls):
    """A subclass, and a layer whose forward somebody has replaced."""

    class Doubled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    replaced = nn.Linear(3, 3)
    replaced.forward = lambda x: x
    model = nn.Sequential(Doubled(3, 3), replaced)
    x = torch.randn(2, 3)
    expected = model(x)
    with direct_linears(model):
        torch.testing.assert_close(model(x), expected)
    assert calls == []
    assert replaced.forward(x) is x
