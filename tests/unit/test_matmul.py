"""Linear layers through oneDNN give what torch gives, forward and backward, and only where they should."""

import pytest
import torch
import torch.nn.functional as nnf

from core import matmul

SIZE = (3, 700, 64)  # 3 * 700 * 64 * 96 multiplications: worth it


@pytest.fixture
def switched_on(monkeypatch):
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setenv(matmul.SWITCH, "1")
    matmul.available.cache_clear()
    yield
    matmul.available.cache_clear()


def operands(bias=True):
    torch.manual_seed(0)
    x = torch.randn(*SIZE, requires_grad=True)
    weight = torch.randn(96, 64, requires_grad=True)
    return (x, weight, torch.randn(96, requires_grad=True)) if bias else (x, weight)


@pytest.mark.parametrize("bias", [True, False])
def test_equals_torch_with_gradients(switched_on, bias):
    given, slope = operands(bias), torch.randn(*SIZE[:2], 96)
    expected = nnf.linear(*given)
    with matmul.fast_linear():
        made = nnf.linear(*given)
    assert type(made.grad_fn).__name__ == "_LinearBackward"
    assert torch.allclose(made, expected, atol=1e-4)
    pairs = zip(
        torch.autograd.grad((made * slope).sum(), given), torch.autograd.grad((expected * slope).sum(), given), strict=True
    )
    for ours, theirs in pairs:
        assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_double_precision_confirms_it(switched_on):
    x, weight, bias = (t.detach() for t in operands())
    exact = x.double() @ weight.double().t() + bias.double()
    assert (matmul.linear(x, weight, bias) - exact).abs().max() < 1e-4


@pytest.mark.parametrize("kind", ["small", "double", "bfloat16", "autocast", "off"])
def test_left_to_torch(switched_on, monkeypatch, kind):
    x, weight, bias = operands()
    if kind == "small":
        x = x[:1, :2]
    elif kind in ("double", "bfloat16"):
        x, weight, bias = (t.to(getattr(torch, kind if kind == "bfloat16" else "float64")) for t in (x, weight, bias))
    elif kind == "off":
        monkeypatch.setenv(matmul.SWITCH, "0")
        matmul.available.cache_clear()
    with matmul.fast_linear(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        assert type(nnf.linear(x, weight, bias).grad_fn).__name__ != "_LinearBackward"


def test_outside_nothing_changes(switched_on):
    with matmul.fast_linear():
        pass
    assert type(nnf.linear(*operands()).grad_fn).__name__ != "_LinearBackward"


def test_a_second_derivative_is_refused(switched_on):
    x, weight, bias = operands()
    with matmul.fast_linear():
        (slope,) = torch.autograd.grad(nnf.linear(x, weight, bias).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()
