"""Records: pinned, split by prompt, consistent with what the annotator perceived."""

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.data.sandbox import FAMILIES, gold, records, split_of
from core.data.sandbox.styles import GOOD, MIXED, make
from core.errors import ConfigError

KINDS = ("prompts", "demonstrations", "pairs", "rankings")
BASE = {"id", "prompt", "references", "task", "family", "category", "safety_label"}


def digest(kind, **options):
    lines = [json.dumps(r, sort_keys=True, ensure_ascii=False) for r in records(kind, "train", 7, 20, **options)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


PINNED = {"prompts": "4f63b18842c4", "demonstrations": "823e85ec0b18"}


@pytest.mark.parametrize("kind", PINNED)
def test_first_records_are_pinned(kind):
    """Made once and recorded: a change here changes everybody's sandbox, so it belongs in the changelog.

    Pairs and rankings hold rounded logarithms of the platform, so they are held by their texts in the next test.
    """
    assert digest(kind) == PINNED[kind]


def test_first_pairs_are_pinned_by_their_texts():
    pairs = [(r["prompt"], r["chosen"], r["rejected"]) for r in records("pairs", "train", 7, 20)]
    assert hashlib.sha256(json.dumps(pairs, ensure_ascii=False).encode()).hexdigest()[:12] == "a7cef72ced6b"


@pytest.mark.parametrize("kind", KINDS)
def test_same_arguments_same_records_and_a_longer_run_begins_with_a_shorter(kind):
    longer = list(records(kind, "train", 3, 40))
    assert list(records(kind, "train", 3, 25)) == longer[:25]
    assert list(records(kind, "train", 4, 40)) != longer


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_plain_json_with_unique_ids(kind):
    rows = list(records(kind, "train", 0, 50))
    assert json.loads(json.dumps(rows)) == rows
    assert len({r["id"] for r in rows}) == 50
    assert all(set(r) >= BASE for r in rows)


def test_columns_are_those_of_trl():
    extra = {kind: set(next(records(kind, "train", 0, 1))) - BASE for kind in KINDS}
    assert extra["prompts"] == set()
    assert extra["demonstrations"] == {"completion", "style"}
    assert extra["pairs"] == {
        "chosen", "rejected", "margin", "preference_level", "annotator", "group", "chosen_gold", "rejected_gold",
    }  # fmt: skip
    assert extra["rankings"] == {"responses", "scores", "annotator", "group", "golds"}


def test_splits_share_no_prompt_whatever_kind_and_seed():
    prompts = {
        split: {r["prompt"] for kind in KINDS for seed in (0, 1) for r in records(kind, split, seed, 800)}
        for split in ("train", "validation", "test")
    }
    assert not prompts["train"] & prompts["validation"]
    assert not prompts["train"] & prompts["test"]
    assert not prompts["validation"] & prompts["test"]
    assert all(split_of(p) == split for split, some in prompts.items() for p in some)
    assert len(prompts["train"]) > 2000


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_family_is_in_every_split(split):
    assert {r["family"] for r in records("prompts", split, 0, 600)} == set(FAMILIES)


def test_prompts_are_short_and_do_not_repeat_while_there_are_others():
    prompts = [r["prompt"] for r in records("prompts", "train", 0, 1000)]
    assert len(set(prompts)) > 990
    assert max(len(p.split()) for p in prompts) <= 26


def test_safety_labels_and_categories():
    rows = list(records("prompts", "train", 0, 800))
    assert {(r["safety_label"], r["category"]) for r in rows} == {
        ("safe", None), ("lookalike", None), ("unsafe", "illicit"), ("unsafe", "hateful"), ("unsafe", "unqualified_advice"),
    }  # fmt: skip


def test_references_are_good_answers():
    for row in records("prompts", "validation", 0, 150):
        assert 2 <= len(set(row["references"])) <= 3
        assert all(gold(row["prompt"], text, row["task"]) > 0.75 for text in row["references"])


def test_answers_follow_their_prompt_after_a_space():
    """Prompt and answer are joined as they stand, so one of them has to bring the space; references stand alone."""
    demonstration, pair, ranking = (next(records(kind, "train", 0, 1)) for kind in KINDS[1:])
    answers = [demonstration["completion"], pair["chosen"], pair["rejected"], *ranking["responses"]]
    assert all(a[0] == " " and not a[1].isspace() for a in answers)
    assert not any(r[0].isspace() for r in pair["references"])


def test_good_demonstrations_are_good_and_mixed_ones_leave_room():
    good = [
        gold(r["prompt"], r["completion"], r["task"]) for r in records("demonstrations", "train", 0, 600, quality="good")
    ]
    mixed = [gold(r["prompt"], r["completion"], r["task"]) for r in records("demonstrations", "train", 0, 600)]
    assert min(good) > 0.85
    assert 0.4 < sum(mixed) / 600 < 0.75
    assert min(mixed) < 0.1


def test_without_noise_and_taste_pairs_and_rankings_are_in_the_order_of_gold():
    clean = {"noise": 0.0, "tastes": {"neutral": 1.0}}
    for row in records("pairs", "train", 0, 200, **clean):
        gap = row["chosen_gold"] - row["rejected_gold"]
        assert gap >= 0
        assert row["margin"] == pytest.approx((0 if gap < 0.1 else 1 if gap < 0.3 else 2 if gap < 0.6 else 3) / 3)
        assert row["chosen_gold"] == gold(row["prompt"], row["chosen"], row["task"])
    for row in records("rankings", "train", 0, 100, **clean):
        assert row["scores"] == row["golds"] == sorted(row["golds"], reverse=True)


def test_margins_and_levels_go_together_and_all_four_occur():
    seen = {(round(r["margin"] * 3), r["preference_level"]) for r in records("pairs", "train", 0, 300)}
    assert seen == {(0, "negligibly better"), (1, "slightly better"), (2, "better"), (3, "significantly better")}


def test_noise_makes_annotators_err():
    def share_right(noise):
        rows = list(records("pairs", "train", 0, 600, noise=noise, tastes={"neutral": 1.0}))
        return sum(r["chosen_gold"] >= r["rejected_gold"] for r in rows) / len(rows)

    assert share_right(0.0) == 1.0
    assert 0.7 < share_right(0.15) < 0.97
    assert share_right(10.0) == pytest.approx(0.5, abs=0.09)


def test_tastes_are_drawn_by_their_shares_and_bend_the_choices():
    rows = list(records("pairs", "train", 0, 1000, tastes={"brevity": 3, "detail": 1}))
    assert sum(r["group"] == "brevity" for r in rows) / 1000 == pytest.approx(0.75, abs=0.06)
    longer = {
        group: sum(len(r["chosen"]) > len(r["rejected"]) for r in records("pairs", "train", 0, 500, tastes={group: 1.0}))
        for group in ("brevity", "neutral", "detail")
    }
    assert longer["brevity"] + 25 < longer["neutral"] < longer["detail"] - 25


def test_ties_and_fails_only_where_asked():
    rows = list(records("pairs", "train", 0, 400, ties=True))
    assert all("tie" not in r for r in records("pairs", "train", 0, 5))
    assert 5 < sum(r["tie"] for r in rows) < 120
    assert all((r["margin"], r["preference_level"]) == (0.0, "negligibly better") for r in rows if r["tie"])
    assert any(r["tie"] and not r["fail"] for r in rows)
    assert any(r["fail"] for r in rows)
    assert all(r["tie"] for r in rows if r["fail"])
    assert all(r["fail"] == (max(r["chosen_gold"], r["rejected_gold"]) < 0.2) for r in rows)
    ranking = next(records("rankings", "train", 0, 1, ties=True))
    assert len(ranking["ties"]) == len(ranking["responses"]) - 1


@settings(max_examples=20)
@given(st.integers(2, 9), st.integers(0, 10**9))
def test_rankings_have_different_answers_best_first(count, seed):
    row = next(records("rankings", "train", seed, 1, responses=count))
    assert len(set(row["responses"])) == count
    assert row["scores"] == sorted(row["scores"], reverse=True)


@pytest.mark.parametrize(
    ("arguments", "options", "says"),
    [
        (("pair", "train"), {}, 'Did you mean "pairs"'),
        (("pairs", "valid"), {}, "validation"),
        (("pairs", "train"), {"nois": 0.1}, 'Did you mean "noise"'),
        (("pairs", "train"), {"noise": -1.0}, "expected a number >= 0"),
        (("pairs", "train"), {"noise": float("nan")}, "expected a number >= 0"),
        (("pairs", "train"), {"tastes": {"terse": 1.0}}, "brevity"),
        (("pairs", "train"), {"tastes": {}}, "expected shares"),
        (("pairs", "train"), {"tastes": {"neutral": 0.0}}, "expected shares"),
        (("rankings", "train"), {"responses": 1}, "expected 2 to 9"),
        (("demonstrations", "train"), {"quality": "best"}, "good, mixed"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_record(arguments, options, says):
    with pytest.raises(ConfigError, match=says):
        records(*arguments, 0, 1, **options)


def test_styles_combine_and_unknown_ones_are_named():
    from core.data.sandbox.dice import seeded

    family, task = FAMILIES["capitals"], {"family": "capitals", "country": "France"}
    rng = seeded("style")
    assert "Paris" in make(family, task, "right+flattering+listed+dashed", rng)
    assert set(GOOD) == {"right"}
    assert {part for style in MIXED for part in style.split("+")} == {
        "right", "wrong", "vague", "refusing", "over-refusing", "flattering", "verbose", "listed", "dashed", "hedged",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r'"flatering".*Did you mean "flattering"'):
        make(family, task, "right+flatering", rng)
