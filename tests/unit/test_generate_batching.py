"""Continuous batching: who decodes beside whom changes nothing, what ends makes room, and everything is put back."""

from __future__ import annotations

import logging
import math

import pytest
import torch

from core import generate
from core.generate import Job, sample, sample_seed
from core.loading import apply_lora
from core.sampling import batching, decode, probe
from core.sampling.batching import ContinuousBatch
from core.sampling.jobs import by_length, prompts_of
from core.sampling.probe import why_not
from core.settings import Generation
from tests.architectures import SETTINGS, architecture
from tests.support import tiny_model, tiny_tokenizer

PROMPTS = [[5], [6, 7, 8, 9, 10, 11, 12], [13, 14, 15], list(range(16, 26)), [26, 27, 28], [29] * 6, [30, 31]]
JOBS = [Job(p, sample_seed(0, str(i), k)) for k in range(3) for i, p in enumerate(PROMPTS)][:20]
FOLLOWED = sorted(set(SETTINGS) - {"bloom", "qwen2-moe-window"})


def draw(model, jobs=JOBS, progress=None, **settings):
    return sample(model, tiny_tokenizer(), jobs, Generation(**settings), progress)


@pytest.fixture
def slow_path(monkeypatch):
    """Call it, and every model goes through transformers' generate."""
    return lambda: monkeypatch.setattr(generate, "why_not", lambda model: "a test wants it so")


@pytest.fixture
def batches(monkeypatch):
    """The batches that were run, and the rows of each of their forward calls."""
    made = []

    class Watched(ContinuousBatch):
        def __init__(self, *args):
            super().__init__(*args)
            self.widths, self.taken = [], 0
            made.append(self)

        def _decode(self):
            self.widths.append(len(self._rows))
            super()._decode()

        def _take_in(self):
            self.taken += 1
            super()._take_in()

    monkeypatch.setattr(generate, "ContinuousBatch", Watched)
    return made


# --- which models ------------------------------------------------------------------------------------------------------


def test_all_but_two_architectures_are_decoded_without_padding():
    """A fallback would hide here: every other test passes with it too."""
    reasons = {name: why_not(architecture(name)) for name in SETTINGS}
    assert sorted(name for name, reason in reasons.items() if not reason) == FOLLOWED
    assert "differ" in reasons["bloom"]
    assert "window" in reasons["qwen2-moe-window"]


@pytest.mark.parametrize("slip", ["prompt", "own", "neighbour"])
def test_the_probe_sees_a_wrong_mask(slip, monkeypatch):
    """A prompt's last token left out; the row's own first token left out; the padding of a shorter prompt seen."""
    monkeypatch.setattr(probe, "_KNOWN", {})
    right = decode.Step._bias

    def wrong(self, window):
        bias = right(self, window).clone()
        if slip == "prompt":
            bias[0, ..., self._width - 1] = float("-inf")
        if slip == "own" and self.longest > 1:
            bias[..., self._width] = float("-inf")
        if slip == "neighbour":
            bias[1, ..., self._width - 1] = 0.0
        return bias

    monkeypatch.setattr(decode.Step, "_bias", wrong)
    assert "differ" in why_not(architecture("llama"))


def test_the_fallback_is_said_once(caplog):
    generate._SAID.clear()
    with caplog.at_level(logging.INFO, logger="accordant"):
        for _ in range(2):
            draw(architecture("bloom"), max_new_tokens=2)
        draw(tiny_model(), max_new_tokens=2)
    (said,) = [r.getMessage() for r in caplog.records if "Sampling" in r.getMessage()]
    assert "transformers' generate" in said
    assert "BloomForCausalLM" in said


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7, "top_k": 9},
        {"top_p": 0.8, "min_new_tokens": 5},
        {"stop": ["w7", "w20 w"]},
        {"temperature": 0},
    ],
    ids=str,
)
def test_the_fallback_gives_the_same_samples(settings, slow_path):
    model = tiny_model()
    model.generation_config.repetition_penalty = 3.0  # a hub model's own settings must not leak in
    model.generation_config.eos_token_id = 9
    fast = draw(model, max_new_tokens=10, batch_rows=5, **settings)
    slow_path()
    slow = draw(model, max_new_tokens=10, batch_rows=8, **settings)
    assert [(s.tokens, s.finished) for s in slow] == [(s.tokens, s.finished) for s in fast]
    for a, b in zip(slow, fast, strict=True):
        assert a.logps == pytest.approx(b.logps, abs=1e-4)
    assert model.generation_config.repetition_penalty == 3.0


# --- who decodes beside whom -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLLOWED)
def test_refilled_batches_give_what_transformers_gives(name, slow_path):
    """Twenty greedy answers through three places; the windows of the matrix (4) are passed by prompts and answers."""
    model = architecture(name)
    refilled = draw(model, max_new_tokens=12, temperature=0, batch_rows=3)
    slow_path()
    assert [s.tokens for s in refilled] == [s.tokens for s in draw(model, max_new_tokens=12, temperature=0)]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "mistral-window"])
def test_tokens_do_not_depend_on_the_batch_or_the_order(name):
    model = architecture(name)
    expected = draw(model, max_new_tokens=9, batch_rows=64)
    for rows in (1, 3):
        got = draw(model, max_new_tokens=9, batch_rows=rows)
        assert [s.tokens for s in got] == [s.tokens for s in expected]
        for a, b in zip(got, expected, strict=True):
            assert a.logps == pytest.approx(b.logps, abs=1e-4)
    backwards = draw(model, JOBS[::-1], max_new_tokens=9, batch_rows=7)[::-1]
    assert [s.tokens for s in backwards] == [s.tokens for s in expected]


def test_what_ends_makes_room(batches):
    """Three places are kept full while there is anything pending, and rows that end are not computed any more."""
    drawn = draw(tiny_model(), max_new_tokens=12, batch_rows=3)
    (batch,) = batches
    assert batch.taken > 5
    assert max(batch.widths) == 3
    assert sum(batch.widths) == sum(len(s.tokens) - 1 for s in drawn)  # the first token comes from the prompt's pass


def test_a_prompt_is_computed_and_kept_once(batches):
    draw(tiny_model(), [Job(PROMPTS[3], k) for k in range(9)], max_new_tokens=5)
    (batch,) = batches
    assert batch.taken == 1
    (store, *_) = batch._stored._stores.values()
    assert store.prompt_keys.shape == (1, 2, 10, 8)  # places, heads, tokens, head size
    assert store.keys.shape == (9, 2, 5, 8)


def test_prompts_come_longest_first_and_in_parts_that_fit():
    prompts = prompts_of([Job([1], 0), Job([2, 3], 1), Job([1], 2), Job([1], 3), Job([4, 5, 6], 4)], most=2)
    assert [p.tokens for p in prompts] == [(4, 5, 6), (2, 3), (1,), (1,)]
    assert [p.jobs for p in prompts] == [(4,), (1,), (0, 2), (3,)]


@pytest.mark.parametrize(
    ("lengths", "ranges"),
    [
        ([7], [(0, 1, 7)]),
        ([9, 8, 7, 6], [(0, 4, 9)]),  # 6 tokens of padding
        ([9, 8, 2, 1], [(0, 2, 9), (2, 4, 2)]),
        ([20, 1, 20], [(0, 1, 20), (1, 2, 1), (2, 3, 20)]),
        ([3, 4, 5], [(0, 3, 5)]),  # 1, then 2 more
    ],
)
def test_prompts_of_similar_length_are_read_together(lengths, ranges):
    assert decode.similar(lengths, call=6) == ranges


def test_ranges_of_prompts_change_nothing(monkeypatch):
    model = tiny_model()
    expected = draw(model, max_new_tokens=9)
    monkeypatch.setattr(decode.similar, "__defaults__", (0,))
    for got, other in zip(draw(model, max_new_tokens=9), expected, strict=True):
        assert got.tokens == other.tokens
        assert got.logps == pytest.approx(other.logps, abs=1e-5)


def test_few_prompt_places_and_small_prefills_change_nothing(monkeypatch):
    model = tiny_model()
    expected = [s.tokens for s in draw(model, max_new_tokens=9)]
    monkeypatch.setattr(batching, "PREFILL_TOKENS", 4)
    monkeypatch.setattr(batching, "_SPARE", 1)
    assert [s.tokens for s in draw(model, max_new_tokens=9, batch_rows=4)] == expected


def test_room_grows_with_the_answers_and_not_with_the_limit(monkeypatch, batches):
    """A limit of 100 tokens costs nothing where answers end early, and is reached where they do not."""
    monkeypatch.setattr(batching, "_FIRST_ROOM", 4)
    model = tiny_model()
    draw(model, max_new_tokens=100, batch_rows=5, stop=["w"])  # every answer ends at its first word
    long = draw(model, max_new_tokens=20, batch_rows=5, min_new_tokens=20)
    assert all(len(s.tokens) == 20 for s in long)
    monkeypatch.setattr(batching, "_FIRST_ROOM", 64)
    assert draw(model, max_new_tokens=20, batch_rows=5, min_new_tokens=20) == long
    short, grown, at_once = (batch._stored for batch in batches)
    assert short.length <= 8
    assert grown.length == at_once.length == 20
    assert grown.nbytes == at_once.nbytes == 2 * 2 * 2 * 8 * 4 * (5 * 20 + 4 * 10)  # layers, k and v, heads, size, bytes


# --- the distribution --------------------------------------------------------------------------------------------------

CRITICAL = {15: 37.70}
"""99.9 % point of chi-square with 15 degrees of freedom."""


@pytest.mark.parametrize(("temperature", "rows"), [(1.0, 700), (0.6, 2000)])
def test_pairs_of_tokens_follow_the_model(temperature, rows):
    """Two tokens of a vocabulary of four, against the product of exact conditional probabilities."""
    model, n, prompt = tiny_model(vocab_size=4, eos_token_id=None), 3000, [3, 2, 3]
    probs = []
    with torch.no_grad():
        first = torch.softmax(model.eval()(input_ids=torch.tensor([prompt])).logits[0, -1] / temperature, -1)
        for token in range(4):
            logits = model(input_ids=torch.tensor([[*prompt, token]])).logits[0, -1]
            probs += (first[token] * torch.softmax(logits / temperature, -1)).tolist()
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "w60"  # no token of this model ends an answer
    jobs = [Job(prompt, sample_seed(3, "row", k)) for k in range(n)]
    drawn = sample(model, tokenizer, jobs, Generation(max_new_tokens=2, temperature=temperature, batch_rows=rows))
    counts = torch.bincount(torch.tensor([4 * s.tokens[0] + s.tokens[1] for s in drawn]), minlength=16).tolist()

    def chi_square(expected):
        return sum((c - n * p) ** 2 / (n * p) for c, p in zip(counts, expected, strict=True))

    assert chi_square(probs) < CRITICAL[15]
    warmer = [p**0.8 for p in probs]
    assert chi_square([p / sum(warmer) for p in warmer]) > CRITICAL[15]  # the test can tell a slightly wrong temperature


# --- models in other shapes --------------------------------------------------------------------------------------------


def test_an_adapter_is_sampled_with_its_adapter(slow_path):
    torch.manual_seed(0)
    model = apply_lora(tiny_model(), {"r": 4, "target_modules": ["q_proj", "v_proj", "lm_head"]})
    plain = draw(model, max_new_tokens=8, temperature=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.add_(torch.randn_like(parameter))
    adapted = draw(model, max_new_tokens=8, temperature=0, batch_rows=4)
    assert adapted != plain
    slow_path()
    assert [s.tokens for s in draw(model, max_new_tokens=8, temperature=0)] == [s.tokens for s in adapted]


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
def test_bf16_keeps_log_probs_near_those_of_fp32(weights):
    model = tiny_model()
    exact = {tuple(s.tokens): s for s in draw(model, max_new_tokens=1)}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=weights == torch.float32):
        rough = draw(model.to(weights), max_new_tokens=9, batch_rows=6)
    same = [(s.logps[0], exact[tuple(s.tokens[:1])].logps[0]) for s in rough if tuple(s.tokens[:1]) in exact]
    assert all(math.isfinite(logp) for s in rough for logp in s.logps)
    assert same


# --- everything is put back --------------------------------------------------------------------------------------------


def test_progress_is_told_now_and_then_and_at_the_end():
    told = []
    draw(tiny_model(), progress=lambda done, total: told.append((done, total)), max_new_tokens=12, batch_rows=3)
    assert told[-1] == (20, 20)
    assert told == sorted(told)
    assert 5 < len(told) < 40


@pytest.mark.parametrize("fallback", [False, True])
def test_an_interruption_puts_everything_back(fallback, slow_path):
    if fallback:
        slow_path()
    model = tiny_model().train()
    attention, config = model.config._attn_implementation, model.generation_config

    def progress(done, total):
        if done >= 6:
            assert model.config._attn_implementation == (attention if fallback else "accordant_decode")
            assert not model.training
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw(model, progress=progress, max_new_tokens=12, batch_rows=3)
    assert model.training
    assert model.config._attn_implementation == attention
    assert model.generation_config is config
    assert len(draw(model, max_new_tokens=2)) == 20


def test_nothing_to_sample():
    model = tiny_model().train()
    assert draw(model, []) == []
    assert model.training


def test_rows_of_different_age_may_end_from_the_same_token_on():
    """With four tokens many answers end early; beside younger rows the third token may be the end, as it may alone."""
    model = tiny_model(vocab_size=4)
    jobs = [Job([2 + (i >> bit & 1) for bit in range(6)], i) for i in range(60)]  # a prompt's own rows come in together
    together = draw(model, jobs, min_new_tokens=3, max_new_tokens=8, temperature=3.0, batch_rows=8)
    assert sum(len(s.tokens) == 3 for s in together) > 5
    assert min(len(s.tokens) for s in together) == 3
    alone = [draw(model, [job], min_new_tokens=3, max_new_tokens=8, temperature=3.0)[0] for job in jobs]
    assert [s.tokens for s in together] == [s.tokens for s in alone]


def test_a_few_long_prompts_do_not_make_room_for_themselves_in_every_place():
    lengths = [2000, 600, 480, 30, 25]
    prompts = prompts_of([Job([5] * n, n) for n in lengths], 256)
    assert [[len(p.tokens) for p in part] for part in by_length(prompts, 256)] == [[2000, 600], [480], [30, 25]]
    assert [len(part) for part in by_length(prompts, 8)] == [5], "where room for all is little, they go together"


def test_parts_by_length_change_no_token(monkeypatch):
    monkeypatch.setattr("core.sampling.jobs._ROOM", 0)
    jobs = [Job(list(range(3, 3 + n)), n) for n in (1, 25, 2, 30, 6)]
    model, settings = architecture("llama"), Generation(max_new_tokens=8)
    parted = generate.sample(model, tiny_tokenizer(), jobs, settings)
    monkeypatch.undo()
    assert [s.tokens for s in parted] == [s.tokens for s in generate.sample(model, tiny_tokenizer(), jobs, settings)]
