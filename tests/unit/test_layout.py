"""Three layouts, one function: equal in loss and gradient on every architecture, against one plain forward per answer."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from core import layout as layout_module
from core.batch import Segments, build_batch
from core.errors import ModelError
from core.layout import NAME, checkpoint_layers, segment_mask, segments_active
from core.loading import apply_lora, base_model
from core.models import Models
from core.rows import Response, Row
from core.scoring import score_tokens
from tests.architectures import PADDED_ONLY, SETTINGS, architecture
from tests.support import random_rows

# Longer than the windows of the matrix (4), of mixed lengths, two or three answers to a prompt.
ROWS = [
    Row(
        row.id,
        [t % 40 + 3 for t in row.prompt],
        tuple(dataclasses.replace(r, tokens=[t % 40 + 3 for t in r.tokens]) for r in row.responses),
    )
    for row in [*random_rows(3, 3, seed=1), *random_rows(2, 2, seed=2), *random_rows(1, 1, seed=3)]
]


def plain_loss(model, rows=ROWS):
    """Mean NLL of masked tokens, each answer by itself through the model's own forward: no padding, no packing."""
    total, count = 0.0, 0
    for row in rows:
        for response in row.responses:
            ids = torch.tensor([row.prompt + response.tokens])
            log_probs = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            at = torch.arange(len(row.prompt) - 1, ids.shape[1] - 1)
            picked = log_probs[at].gather(1, torch.tensor(response.tokens)[:, None])[:, 0]
            mask = torch.tensor(response.mask)
            total, count = total - picked[mask].sum(), count + int(mask.sum())
    return total / count


def our_loss(models, layout, rows=ROWS):
    batch = build_batch(rows, layout)
    return -models.token_logps("policy", batch).sum() / batch.count("tokens")


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def policy(model, layout="auto"):
    return Models({"policy": model}, trains=frozenset({"policy"}), layout=layout)


def assert_equal_gradients(ours, theirs, tolerance=1e-5):
    assert ours.keys() == theirs.keys()
    scale = max(1.0, max(g.abs().max().item() for g in theirs.values()))
    for name, grad in theirs.items():
        assert (ours[name] - grad).abs().max().item() <= tolerance * scale, name


@pytest.mark.parametrize("name", SETTINGS)
def test_all_layouts_equal_a_plain_forward(name):
    model = architecture(name)
    models = policy(model)
    assert models.layout == ("padded" if name in PADDED_ONLY else "shared")
    expected = plain_loss(model)
    slopes = gradients(model, expected)
    for layout in ["padded"] if name in PADDED_ONLY else ["shared", "packed", "padded"]:
        loss = our_loss(models, layout)
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5), layout
        assert_equal_gradients(gradients(model, loss), slopes)


@pytest.mark.parametrize("name", sorted(PADDED_ONLY))
def test_asking_for_a_layout_that_is_wrong_is_refused(name):
    with pytest.raises(ModelError, match="is not right for"):
        policy(architecture(name), "shared")


def test_unknown_layout():
    with pytest.raises(ModelError, match="sharde"):
        policy(architecture("llama"), "sharde")


@pytest.mark.parametrize("name", ["llama", "mistral-window"])
@pytest.mark.parametrize("layout", ["shared", "packed"])
@pytest.mark.parametrize("short", [0, 256], ids=["one-by-one", "grouped"])
def test_grouping_of_short_stretches_changes_nothing(name, layout, short, monkeypatch):
    monkeypatch.setattr(layout_module, "_SHORT", short)
    model = architecture(name)
    models = policy(model, layout)
    expected = plain_loss(model)
    slopes = gradients(model, expected)
    loss = our_loss(models, layout)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert_equal_gradients(gradients(model, loss), slopes)


def test_segment_mask_by_hand():
    segment = Segments(0, 2, (2, 1))
    assert segment_mask(segment).int().tolist() == [
        [1, 0, 0, 0, 0],  # prompt
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],  # first answer: prompt and itself
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],  # second answer: prompt and itself, not the first
    ]
    assert segment_mask(segment, window=2).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 1, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 1, 0, 0, 1],  # at position 2, as the first answer's first token
    ]


def _logps(models, rows, layout="shared"):
    return models.token_logps("policy", build_batch(rows, layout)).detach()


def _with_tokens(row, which, tokens):
    responses = list(row.responses)
    responses[which] = Response(tokens, [True] * len(tokens))
    return row.with_responses(responses)


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral-window"])
def test_neighbours_do_not_see_each_other(name, layout):
    models = policy(architecture(name), layout)
    rows = [
        Row("a", [5, 6, 7], (Response([8, 9], [True] * 2), Response([10, 11, 12], [True] * 3))),
        Row("b", [13, 14], (Response([15, 16], [True] * 2), Response([17, 18], [True] * 2))),
    ]
    before = _logps(models, rows, layout)
    other_row = _logps(models, [rows[0], Row("b", [30, 31], _with_tokens(rows[1], 0, [32, 33]).responses)], layout)
    torch.testing.assert_close(before[:2], other_row[:2], atol=1e-6, rtol=0)
    assert (before[2] - other_row[2]).abs().max() > 1e-2  # and the change was one
    sibling = _logps(models, [_with_tokens(rows[0], 0, [34, 35]), rows[1]], layout)
    torch.testing.assert_close(before[1:], sibling[1:], atol=1e-6, rtol=0)
    assert (before[0] - sibling[0]).abs().max() > 1e-2


@pytest.mark.parametrize("layout", ["shared", "packed", "padded"])
def test_a_token_sees_nothing_after_it(layout):
    models = policy(architecture("llama"), layout)
    row = Row("a", [5, 6, 7], (Response([8, 9, 10, 11], [True] * 4),))
    changed = _with_tokens(row, 0, [8, 9, 10, 30])
    before, after = _logps(models, [row], layout), _logps(models, [changed], layout)
    torch.testing.assert_close(before[0, :3], after[0, :3], atol=1e-6, rtol=0)


# --- a wrong attention is seen, by the comparison above and by layout=auto -------------------------------------------


def _siblings_visible(segment, window=None):
    return torch.ones(segment.length, segment.length, dtype=torch.bool).tril()


def _not_causal(segment, window=None):
    return torch.ones(segment.length, segment.length, dtype=torch.bool)


@pytest.mark.parametrize("wrong", [_siblings_visible, _not_causal])
def test_a_wrong_mask_is_seen(wrong, monkeypatch):
    model = architecture("llama")
    models = policy(model, "shared")
    monkeypatch.setattr(layout_module, "segment_mask", wrong)
    monkeypatch.setattr(layout_module, "_SLACK", 99.0)  # all stretches in one group, so that the mask is used
    assert abs(our_loss(models, "shared").item() - plain_loss(model).item()) > 1e-3
    assert policy(model).layout == "padded"
    with pytest.raises(ModelError, match="its log-probs would differ"):
        policy(model, "shared")


def test_wrong_positions_are_seen(monkeypatch):
    model = architecture("llama")
    models = policy(model, "shared")
    batch = build_batch(ROWS, "shared")
    straight = torch.arange(batch.plan.input_ids.shape[1])[None]
    wrong = dataclasses.replace(batch, plan=dataclasses.replace(batch.plan, position_ids=straight))
    loss = -models.token_logps("policy", wrong).sum() / batch.count("tokens")
    assert abs(loss.item() - plain_loss(model).item()) > 1e-3


def test_the_window_matters_in_these_tests():
    """Without its window the Mistral of the matrix computes something else, so the comparison above tests it."""
    model = architecture("mistral-window")
    wide = architecture("mistral-window", sliding_window=None)
    wide.load_state_dict(model.state_dict())
    assert abs(plain_loss(model).item() - plain_loss(wide).item()) > 1e-3


# --- what surrounds the attention -----------------------------------------------------------------------------------


def test_the_models_own_attention_comes_back():
    model = architecture("llama")
    before = model.config._attn_implementation

    def interrupted():
        with segments_active(model):
            assert model.config._attn_implementation == NAME
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt-neox"])
@pytest.mark.parametrize("layout", ["shared", "padded"])
def test_checkpointed_layers_give_the_same_gradient(name, layout):
    """The recomputation must have the attention of the forward pass, though it runs outside of it."""
    model = architecture(name)
    models = policy(model, layout)
    models.train_mode()
    slopes = gradients(model, our_loss(models, layout))
    checkpoint_layers(model)
    models.train_mode()
    ran = []
    hook = model.base_model.register_forward_hook(lambda *_: ran.append(1))
    loss = our_loss(models, layout)
    assert_equal_gradients(gradients(model, loss), slopes, 1e-6)
    hook.remove()
    assert ran


def test_lora_trains_under_every_layout():
    results = []
    for layout in ("shared", "packed", "padded"):
        torch.manual_seed(3)
        model = apply_lora(architecture("llama"), {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]})
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        models = policy(model, layout)
        assert models.layout == layout
        loss = our_loss(models, layout)
        slopes = gradients(model, loss)
        assert slopes
        assert all("lora_" in name for name in slopes)
        results.append((loss.item(), slopes))
    for loss, slopes in results[:2]:
        assert loss == pytest.approx(results[2][0], abs=1e-5)
        assert_equal_gradients(slopes, results[2][1])


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma"])
def test_bf16_mixed_precision_under_every_layout(name):
    """Rounding differs by layout, by no more than bf16 does; the gradients are the fp32 ones within that."""
    model = architecture(name)
    models = policy(model)
    exact = gradients(model, our_loss(models, "padded"))
    norm = torch.cat([g.flatten() for g in exact.values()]).norm()
    for layout in ("shared", "packed", "padded"):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = our_loss(models, layout)
        assert loss.dtype == torch.float32
        slopes = gradients(model, loss)
        assert all(g.dtype == torch.float32 for g in slopes.values())
        difference = torch.cat([(slopes[n] - exact[n]).flatten() for n in exact]).norm()
        assert difference / norm < 0.1, layout


def test_a_bf16_model_keeps_its_layout():
    models = policy(architecture("llama").bfloat16())
    assert models.layout == "shared"
    assert our_loss(models, "shared").item() == pytest.approx(our_loss(models, "padded").item(), abs=0.05)


def test_scores_from_logits_equal_those_from_hidden_states():
    """The fallback for heads that do more than a matrix product gives the same statistics."""
    model = architecture("llama")
    batch = build_batch(ROWS, "padded")
    ours = score_tokens(model, batch, True, temperature=0.7, statistics=True)
    theirs = score_tokens(model, batch, False, temperature=0.7, statistics=True)
    for name in ("logps", "mean_logps", "entropy", "correct"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), atol=1e-5, rtol=1e-4)


def test_a_reference_of_another_architecture_has_its_own_head_and_layout():
    llama, gemma2 = architecture("llama"), architecture("gemma2")
    alone = Models({"policy": copy.deepcopy(gemma2)}, trains=frozenset({"policy"}))
    both = Models({"policy": llama, "reference": gemma2}, trains=frozenset({"policy"}))
    assert both.layout == "padded"
    batch = build_batch(ROWS, "padded")
    expected = alone.token_logps("policy", batch).detach()
    torch.testing.assert_close(both.token_logps("reference", batch), expected)
    twin = Models({"policy": llama, "reference": copy.deepcopy(llama)}, trains=frozenset({"policy"}))
    assert twin.layout == "shared"


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "bloom", "phi", "gpt-neox"])
def test_no_dropout_in_training(name):
    """Log-probs are a function of the weights: train mode computes what eval mode does, whatever the file says."""
    rates = {
        "llama": {"attention_dropout": 0.5},
        "gpt2": {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
        "opt": {"dropout": 0.5, "attention_dropout": 0.5, "layerdrop": 0.5},
        "bloom": {"hidden_dropout": 0.5, "attention_dropout": 0.5},
        "phi": {"attention_dropout": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
        "gpt-neox": {"attention_dropout": 0.5, "hidden_dropout": 0.5},
    }[name]
    model = architecture(name, **rates)
    models = policy(model)
    batch = build_batch(ROWS, models.layout)
    quiet = models.token_logps("policy", batch).detach()
    models.train_mode()
    assert base_model(model).training
    torch.testing.assert_close(models.token_logps("policy", batch).detach(), quiet, atol=1e-6, rtol=0)
