"""Whether core.sampling.decode computes a model rightly: tried on a few tokens, once for each kind of model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from core.loading import base_model
from core.sampling.decode import KeyValues, Prefill, Step, decoding, logits_of
from core.scoring import config_text

_PROMPTS = (5, 3)
_OWNERS = (0, 0, 1)
_STEPS = 3

_KNOWN: dict[str, str] = {}


def why_not(model: nn.Module) -> str:
    """The reason why this model cannot be decoded by core.sampling.decode; "" where it can."""
    parameter = next(model.parameters())
    kind = f"{config_text(model)} {parameter.dtype} {parameter.device.type}"
    if kind not in _KNOWN:
        _KNOWN[kind] = _try(base_model(model), parameter)
    return _KNOWN[kind]


def _try(causal: Any, parameter: Tensor) -> str:
    config = causal.config.get_text_config()
    if getattr(config, "attention_chunk_size", None):
        return "its attention is cut into chunks"
    try:
        # Autocast off: the question is whether the two ways are one computation, not how it is rounded.
        with torch.no_grad(), torch.autocast(parameter.device.type, enabled=False):
            decoded, windows = _decoded(causal, parameter.device)
            expected = _forwarded(causal, parameter.device)
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return f"its attention does not take a plan for decoding ({type(error).__name__})"
    # The probe is shorter than any real window, so its logits cannot show one that is left out.
    window = getattr(config, "sliding_window", None)
    if window is not None and window not in windows:
        return "its layers keep their sliding window to themselves"
    difference = float((decoded.log_softmax(-1) - expected.log_softmax(-1)).abs().max())
    tolerance = (1e-4 if parameter.dtype == torch.float32 else 5e-2) * max(1.0, float(expected.abs().max()))
    return "" if difference < tolerance else f"its log-probs would differ by {difference:.2g}"


def _sequences(causal: Any) -> list[list[int]]:
    """Three sequences, of which the first two share their prompt."""
    vocab = min(int(causal.config.get_text_config().vocab_size), 97)
    tokens = [(7 * i * i + 3 * i + 5) % vocab for i in range(40)]
    prompts = [tokens[:5], tokens[5:8]]
    return [prompts[owner] + tokens[10 + 3 * row :][:_STEPS] for row, owner in enumerate(_OWNERS)]


def _decoded(causal: Any, device: torch.device) -> tuple[Tensor, set[int | None]]:
    """(steps + 1, rows, V) logits of the loop that sampling runs, and the windows that the layers told."""
    sequences = _sequences(causal)
    stored = KeyValues(len(_PROMPTS), max(_PROMPTS), len(_OWNERS), _STEPS)
    first = [sequences[_OWNERS.index(place)][:length] for place, length in enumerate(_PROMPTS)]
    with decoding(causal):
        prefill = Prefill(stored, _PROMPTS, 0, device)
        ids = torch.tensor([t for prompt in first for t in prompt], device=device)[None]
        logits = [logits_of(causal, ids, prefill.positions, prefill, prefill.last)[list(_OWNERS)]]
        step = Step(stored, _PROMPTS, _OWNERS, [0] * len(_OWNERS), device)
        for i in range(_STEPS):
            if i > 0:
                step.advance()
            new = [s[_PROMPTS[owner] + i] for s, owner in zip(sequences, _OWNERS, strict=True)]
            logits.append(logits_of(causal, torch.tensor(new, device=device)[None], step.positions, step))
    return torch.stack(logits), prefill.windows


def _forwarded(causal: Any, device: torch.device) -> Tensor:
    """The same from one plain forward for each sequence."""
    rows = []
    for sequence, owner in zip(_sequences(causal), _OWNERS, strict=True):
        out = causal(input_ids=torch.tensor(sequence, device=device)[None], use_cache=False)
        rows.append(out.logits[0, _PROMPTS[owner] - 1 :].float())
    return torch.stack(rows, dim=1)
