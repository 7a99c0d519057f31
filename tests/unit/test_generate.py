"""Sampling: exact, independent of its neighbours, and of the distribution that it says."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from core.batch import build_batch
from core.errors import ConfigError, ModelError
from core.generate import Job, sample, sample_seed
from core.models import Models
from core.rows import Response, Row
from core.sampling import pick as pick_module
from core.sampling.pick import pick
from core.sampling.stops import Stops
from core.settings import Generation
from tests.architectures import SETTINGS, architecture
from tests.support import tiny_model, tiny_tokenizer

PROMPTS = [[5], [6, 7, 8, 9, 10, 11, 12], [13, 14, 15], [16, 17, 18, 19, 20, 21, 22, 23, 24, 25]]


def draw(model, prompts, seeds=None, tokenizer=None, **settings):
    jobs = [Job(p, s) for p, s in zip(prompts, seeds or range(len(prompts)), strict=True)]
    return sample(model, tokenizer or tiny_tokenizer(), jobs, Generation(**settings))


# --- against transformers ----------------------------------------------------------------------------------------------


def _greedy_of_transformers(model, prompts, new):
    """Its own generate with left padding, cut after the end token."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(ids, attention_mask=mask, max_new_tokens=new, do_sample=False, eos_token_id=1, pad_token_id=0)
    answers = []
    for row in out[:, width:].tolist():
        answers.append(row[: row.index(1) + 1] if 1 in row else row)
    return answers


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_greedy_equals_transformers_token_for_token(name):
    """Prompts of lengths 1 to 10 in one batch, longer than the sliding windows of the matrix (4)."""
    model = architecture(name)
    ours = draw(model, PROMPTS, max_new_tokens=12, temperature=0)
    assert [s.tokens for s in ours] == _greedy_of_transformers(model, PROMPTS, 12)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3", "mistral-window", "bloom", "opt"])
def test_greedy_in_a_batch_equals_greedy_alone(name):
    model = architecture(name)
    together = draw(model, PROMPTS, max_new_tokens=10, temperature=0)
    alone = [draw(model, [p], max_new_tokens=10, temperature=0)[0] for p in PROMPTS]
    assert [s.tokens for s in together] == [s.tokens for s in alone]


# --- log-probs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2", "mistral-window", "bloom"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"temperature": 0.6}, {"temperature": 1.7, "top_k": 5}, {"top_p": 0.7}, {"min_new_tokens": 6}, {"temperature": 0}],
    ids=str,
)
def test_kept_log_probs_equal_a_fresh_forward(name, settings):
    """What a scorer computes of softmax(logits / temperature), whatever was restricted in sampling."""
    model = architecture(name)
    models = Models({"policy": model}, trains=frozenset({"policy"}))
    drawn = draw(model, PROMPTS, max_new_tokens=9, **settings)
    rows = [
        Row(str(i), p, (Response(s.tokens, [True] * len(s.tokens)),))
        for i, (p, s) in enumerate(zip(PROMPTS, drawn, strict=True))
    ]
    fresh = models.token_logps("policy", build_batch(rows, models.layout), temperature=settings.get("temperature") or 1.0)
    for kept, row in zip(drawn, fresh.tolist(), strict=True):
        assert kept.logps == pytest.approx(row[: len(kept.logps)], abs=1e-4)


# --- the distribution ----------------------------------------------------------------------------------------------------

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0, 1.5, 0.5])


def chi_square(counts, probs):
    """Pearson's statistic over the tokens that can come."""
    n = sum(counts)
    return sum((c - n * p) ** 2 / (n * p) for c, p in zip(counts, probs, strict=True) if p > 0)


# 99.9% points of chi-square with k degrees of freedom.
CRITICAL = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52}


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_picked_tokens_follow_the_softmax(temperature):
    n = 20000
    uniforms = torch.rand(n, generator=torch.Generator().manual_seed(1))
    tokens, logps = pick(LOGITS.expand(n, -1).clone(), uniforms, Generation(temperature=temperature))
    probs = torch.softmax(LOGITS / temperature, -1)
    counts = torch.bincount(tokens, minlength=6).tolist()
    assert chi_square(counts, probs.tolist()) < CRITICAL[5]
    torch.testing.assert_close(logps, probs.log()[tokens], atol=1e-5, rtol=1e-5)
    other = torch.softmax(LOGITS / (temperature * 1.2), -1)
    assert chi_square(counts, other.tolist()) > CRITICAL[5]  # the test can tell a temperature from a slightly wrong one


def test_sampled_first_tokens_follow_the_model():
    """Through the whole decoder, one random stream per sample."""
    model, n = tiny_model(vocab_size=6), 6000
    with torch.no_grad():
        probs = model.eval()(input_ids=torch.tensor([[3, 4]])).logits[0, -1].softmax(-1)
    seeds = [sample_seed(0, "row", k) for k in range(n)]
    drawn = draw(model, [[3, 4]] * n, seeds, max_new_tokens=2, batch_rows=2000)
    counts = torch.bincount(torch.tensor([s.tokens[0] for s in drawn]), minlength=6).tolist()
    assert chi_square(counts, probs.tolist()) < CRITICAL[5]
    # The second token, given the first: its own stream number, not the first one's again.
    first = max((t for t in range(6) if t != 1), key=lambda t: counts[t])
    with torch.no_grad():
        probs = model(input_ids=torch.tensor([[3, 4, first]])).logits[0, -1].softmax(-1)
    seconds = torch.bincount(torch.tensor([s.tokens[1] for s in drawn if s.tokens[0] == first]), minlength=6)
    assert chi_square(seconds.tolist(), probs.tolist()) < CRITICAL[5]


def _possible(settings, logits=LOGITS):
    """Tokens that come for some uniform number, and the share each takes."""
    uniforms = torch.arange(20000) / 20000
    tokens, _ = pick(logits.expand(20000, -1).clone(), uniforms, settings)
    counts = torch.bincount(tokens, minlength=len(logits)) / 20000
    return counts.tolist()


def test_top_k_by_hand():
    """The two largest logits are tokens 0 and 4: shares e^2 and e^1.5."""
    shares = _possible(Generation(top_k=2))
    total = math.exp(2) + math.exp(1.5)
    assert shares == pytest.approx([math.exp(2) / total, 0, 0, 0, math.exp(1.5) / total, 0], abs=1e-3)
    assert _possible(Generation(top_k=1)) == [1, 0, 0, 0, 0, 0]
    assert _possible(Generation(top_k=99)) == pytest.approx(torch.softmax(LOGITS, -1).tolist(), abs=1e-3)


def test_top_p_by_hand():
    """0.5, 0.3, 0.15, 0.05: the set that reaches p includes the token that crosses it."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert _possible(Generation(top_p=0.45), logits) == [1, 0, 0, 0]
    assert _possible(Generation(top_p=0.7), logits) == pytest.approx([0.625, 0.375, 0, 0], abs=1e-3)
    assert _possible(Generation(top_p=0.9), logits) == pytest.approx([0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], abs=1e-3)
    assert _possible(Generation(top_p=1.0), logits) == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=1e-3)


def test_a_set_that_just_reaches_top_p_is_whole():
    """Two tokens of 1/2 each: the first alone reaches 1/2."""
    logits = torch.tensor([0.0, 0.0, float("-inf"), float("-inf")]).repeat(200, 1)
    tokens, _ = pick(logits, torch.linspace(0, 0.99, 200), Generation(top_p=0.5))
    assert len(set(tokens.tolist())) == 1


def test_top_p_acts_within_top_k():
    """Of 0.5, 0.3, 0.15 (top_k = 3) the first has 0.526 of the mass, the first two 0.842."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert _possible(Generation(top_k=3, top_p=0.52), logits) == [1, 0, 0, 0]
    assert _possible(Generation(top_k=3, top_p=0.84), logits) == pytest.approx([0.625, 0.375, 0, 0], abs=1e-3)


def test_forbidden_tokens_do_not_come():
    forbidden = torch.tensor([0])
    tokens, logps = pick(LOGITS.expand(1000, -1).clone(), torch.arange(1000) / 1000, Generation(), forbidden)
    assert 0 not in tokens.tolist()
    torch.testing.assert_close(logps, torch.log_softmax(LOGITS, -1)[tokens])
    greedy, _ = pick(LOGITS[None].clone(), torch.zeros(1), Generation(temperature=0), forbidden)
    assert greedy.item() == 4


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval(uniform):
    """Tokens of no probability never come, not even at the very ends."""
    logits = torch.tensor([[-float("inf"), 0.0, 1.0, -float("inf")]])
    token, _ = pick(logits, torch.tensor([uniform]), Generation())
    assert token.item() == (1 if uniform == 0.0 else 2)


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.4}, {"top_k": 40}, {"top_p": 0.9}, {"temperature": 0}], ids=str)
@pytest.mark.parametrize("vocab", [5, 64, 65, 1000])
def test_tokens_are_those_of_one_running_sum(vocab, settings, monkeypatch):
    """Summing by blocks, and a few rows at a time, picks what the running sum over the whole vocabulary picks."""
    monkeypatch.setattr(pick_module, "_AT_ONCE", 7 * vocab)
    logits = 2 * torch.randn(40, vocab, generator=torch.Generator().manual_seed(vocab))
    uniforms = torch.rand(40, generator=torch.Generator().manual_seed(1))
    forbidden, held = torch.tensor([1, 3]), torch.arange(40) % 2 == 0
    generation = Generation(**settings)
    tokens, logps = pick(logits, uniforms, generation, forbidden, held)
    log_probs = torch.log_softmax(logits.double() / (generation.temperature or 1.0), dim=-1)
    torch.testing.assert_close(logps, log_probs.gather(1, tokens[:, None])[:, 0].float(), atol=1e-5, rtol=1e-5)
    probs = log_probs.exp()
    probs[:, forbidden] *= (~held)[:, None]
    if generation.temperature == 0:
        assert tokens.tolist() == probs.argmax(dim=-1).tolist()
        return
    probs = pick_module._restrict(probs, generation)
    running = probs.cumsum(dim=-1) / probs.sum(dim=-1, keepdim=True)
    assert tokens.tolist() == (running <= uniforms[:, None]).sum(dim=-1).tolist()


def test_logits_that_are_no_numbers_give_log_probs_that_are_none():
    """The guard against non-finite losses is elsewhere: here nothing may run out of bounds."""
    tokens, logps = pick(torch.full((2, 70), math.nan), torch.tensor([0.0, 0.9]), Generation())
    assert all(0 <= t < 70 for t in tokens.tolist())
    assert logps.isnan().all()


# --- one stream per sample ---------------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_its_neighbours():
    model = tiny_model()
    prompts = PROMPTS * 3
    seeds = [sample_seed(1, str(i), i) for i in range(len(prompts))]
    together = draw(model, prompts, seeds, max_new_tokens=10)
    assert together == draw(model, prompts, seeds, max_new_tokens=10)
    for i in (0, 5, 11):
        assert draw(model, [prompts[i]], [seeds[i]], max_new_tokens=10)[0].tokens == together[i].tokens
    backwards = draw(model, prompts[::-1], seeds[::-1], max_new_tokens=10)[::-1]
    assert [s.tokens for s in backwards] == [s.tokens for s in together]


@pytest.mark.parametrize("rows", [1, 2, 5, 100])
def test_a_sample_does_not_depend_on_batch_rows(rows):
    model = tiny_model()
    expected = [s.tokens for s in draw(model, PROMPTS * 2, max_new_tokens=8)]
    assert [s.tokens for s in draw(model, PROMPTS * 2, max_new_tokens=8, batch_rows=rows)] == expected


def test_a_longer_limit_goes_on_from_the_same_tokens():
    model = tiny_model()
    short = draw(model, PROMPTS, max_new_tokens=5)
    long = draw(model, PROMPTS, max_new_tokens=9)
    for a, b in zip(short, long, strict=True):
        assert b.tokens[: len(a.tokens)] == a.tokens


def test_seeds_differ_by_all_they_are_made_of():
    seeds = {sample_seed(s, r, i, e) for s in (0, 1) for r in ("a", "b") for i in (0, 1) for e in (-1, 0, 1)}
    assert len(seeds) == 24
    assert sample_seed(0, "a", 0) == 6213714296089835783  # on every machine, in every release


def test_samples_of_one_prompt_differ():
    drawn = draw(tiny_model(), [[5, 6]] * 20, max_new_tokens=6)
    assert len({tuple(s.tokens) for s in drawn}) > 15


def test_sampling_leaves_mode_and_random_state_alone():
    model = tiny_model().train()
    before = torch.get_rng_state()
    draw(model, PROMPTS, max_new_tokens=4)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)


# --- where a sample ends -----------------------------------------------------------------------------------------------


class Scripted(torch.nn.Module):
    """A model that says token t + 1 after token t, whatever came before."""

    def __new__(cls, model):
        model.forward = lambda input_ids, logits_to_keep=slice(None), **_: cls._say(input_ids[:, logits_to_keep])
        return model

    @staticmethod
    def _say(input_ids):
        logits = torch.full((*input_ids.shape, 64), -50.0)
        logits.scatter_(2, (input_ids[..., None] + 1) % 64, 50.0)
        return SimpleNamespace(logits=logits)


def test_the_end_token_ends_and_stays():
    (drawn,) = draw(Scripted(tiny_model()), [[62]], max_new_tokens=9)  # 63, 0, then the end token 1
    assert drawn.tokens == [63, 0, 1]
    assert drawn.finished


def test_the_limit_cuts():
    (drawn,) = draw(Scripted(tiny_model()), [[10]], max_new_tokens=4)
    assert drawn.tokens == [11, 12, 13, 14]
    assert not drawn.finished


def test_an_end_at_the_limit_is_finished():
    (drawn,) = draw(Scripted(tiny_model()), [[63]], max_new_tokens=2)
    assert drawn.tokens == [0, 1]
    assert drawn.finished


def test_stop_strings_end_and_stay():
    """Token t is the word w(t - 3): "w11 w12" comes with tokens 14 and 15."""
    first, second = draw(Scripted(tiny_model()), [[10], [30]], max_new_tokens=9, stop=["w11 w12", "nothing"])
    assert (first.tokens, first.finished) == ([11, 12, 13, 14, 15], True)
    assert (len(second.tokens), second.finished) == (9, False)


def test_a_stop_text_is_found_far_into_an_answer_and_across_tokens():
    """Only the last tokens are read at each step, and silent ones (the unknown token, 2) are no part of the text."""
    stops = Stops(tiny_tokenizer(), Generation(max_new_tokens=99, stop=["w7 w8"]))
    answer = [*range(20, 60), 10, 2, 2, 2, 11]
    assert [stops.finished(answer[:n]) for n in range(1, len(answer) + 1)] == [False] * 44 + [True]
    assert not stops.finished([*range(20, 60), 10, 12, 11])
    late = Stops(tiny_tokenizer(), Generation(max_new_tokens=99, min_new_tokens=50, stop=["w7 w8"]))
    early = [10, 11, *range(3, 9), *[30] * 60]
    assert [n for n in range(1, 60) if late.finished(early[:n])] == [50]  # the first look is at the whole answer


def test_min_new_tokens_counts_the_end_token():
    model = Scripted(tiny_model())
    (free,) = draw(model, [[63]], max_new_tokens=8)
    assert free.tokens == [0, 1]
    (held,) = draw(model, [[63]], max_new_tokens=8, min_new_tokens=3)
    assert len(held.tokens) >= 3
    assert 1 not in held.tokens[:2]
    ends = [draw(tiny_model(), [[5, 6]] * 60, max_new_tokens=30, min_new_tokens=m) for m in (0, 12)]
    assert min(len(s.tokens) for s in ends[0]) < 12 <= min(len(s.tokens) for s in ends[1])
    (late,) = draw(model, [[10]], max_new_tokens=8, min_new_tokens=4, stop=["w8"])
    assert late.tokens == [11, 12, 13, 14]  # "w8" is the first token; it is looked for from the fourth on


def test_a_chat_models_end_of_turn_ends_too():
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model = architecture("llama", vocab_size=end + 1)
    with torch.no_grad():
        model.lm_head.weight[end] = 0
        drawn = draw(model, [[5, 6]] * 80, tokenizer=tokenizer, max_new_tokens=20)
    ended = [s for s in drawn if end in s.tokens]
    assert ended
    assert all(s.tokens.index(end) == len(s.tokens) - 1 and s.finished for s in ended)


# --- settings ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"min_new_tokens": -1}, "min_new_tokens"),
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "min_new_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"batch_rows": 0}, "batch_rows"),
        ({"stop": "END"}, "stop"),
        ({"stop": [""]}, "stop"),
    ],
    ids=str,
)
def test_settings_that_cannot_work(settings, key):
    with pytest.raises(ConfigError, match=rf"generation\.{key} is "):
        Generation(**settings)


# --- positions ---------------------------------------------------------------------------------------------------------


def test_an_answer_behind_the_last_position_is_refused_or_warned_of(caplog):
    """A table of positions ends; rotations are computed for any place, and what the model makes of it is its affair."""
    table, rotating = architecture("gpt2"), tiny_model(max_position_embeddings=12)
    limit = table.config.max_position_embeddings
    prompt = [5] * (limit - 3)
    assert len(draw(table, [prompt], max_new_tokens=3, min_new_tokens=3)[0].tokens) == 3
    expected = rf"prompt of {limit - 3} tokens and an answer of up to 4 .*the {limit} positions of GPT2.*\n.*{limit - 4}"
    with pytest.raises(ModelError, match=expected):
        draw(table, [[5], prompt], max_new_tokens=4)
    with pytest.raises(ModelError, match=r"generation\.max_new_tokens far below"):
        draw(table, [[5]], max_new_tokens=limit)
    with caplog.at_level("WARNING", logger="accordant"):
        for _ in range(2):
            assert len(draw(rotating, [[5] * 10], max_new_tokens=4, min_new_tokens=4)[0].tokens) == 4
    assert sum("data.max_prompt_length=8" in record.getMessage() for record in caplog.records) == 1


def test_a_device_without_double_precision_picks_the_same(monkeypatch):
    """Apple's GPUs: no double may be made there; picks differ at most where two tokens meet."""
    torch.manual_seed(3)
    logits, uniforms = torch.randn(300, 1000), torch.rand(300)
    tokens, logps = pick(logits, uniforms, Generation())
    assert pick_module.widest("mps") is torch.float32
    monkeypatch.setattr(pick_module, "widest", lambda device: torch.float32)
    monkeypatch.setattr(torch.Tensor, "double", lambda self: pytest.fail("a double"))
    again, logps_again = pick(logits, uniforms, Generation())
    assert float((tokens == again).float().mean()) > 0.99
    assert torch.allclose(logps[tokens == again], logps_again[tokens == again], atol=1e-5)
