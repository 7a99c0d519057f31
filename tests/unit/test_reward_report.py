"""The section of a report on a reward: what it shows of preferences.json, and that data stays data."""

import json

import pytest
from test_preferences import ODD, pair, row
from test_report import XSS, report

from core.preferences import preference_report
from core.report.agreement import agreement, preferences_of
from core.report.charts import chart_groups
from core.runfolder import RunFolder

CONFIG = {"objective": {"name": "reward_bt"}, "reward": {"name": "length"}}


def made(rows, **scores):
    units = {"rm": "log-odds", "length": "words"}
    return preference_report(rows, scores, main="rm", units=units, resamples=40)


def folder(path, found, config=CONFIG) -> RunFolder:
    run = RunFolder.create(path, config)
    (run.path / "preferences.json").write_text(json.dumps(found))
    return run


@pytest.fixture(scope="module")
def rich():
    """Pairs and rankings of three groups, with ties, margins, authors; right where k is no multiple of 4."""
    rows, scores, length = [], [], []
    for k in range(90):
        columns = {"group": "ABC"[k % 3], "annotator": f"p{k % 20}", "chosen_model": f"m{k % 30}", "rejected_model": "old"}
        ties = (True,) if k % 10 == 9 else None
        rows.append(
            row(f"r{k}", "one two three" if k % 2 else "- one", "one two", margins=(k / 10,), ties=ties, columns=columns)
        )
        scores.append([0.0, 1.0 + k / 90] if k % 4 == 0 else [1.0 + k / 90, 0.0])
        length.append([3.0, 2.0] if k % 2 else [1.0, 2.0])
    rows += [row(f"k{k}", "a b c", "a b", "a", columns={"models": ["x", "y", "z"]}) for k in range(5)]
    scores += [[3.0, 2.0, 1.0]] * 5
    length += [[3.0, 2.0, 1.0]] * 5
    return made(rows, rm=scores, length=length)


def test_the_section_stands_first_and_says_the_verdict(tmp_path, rich):
    page, facts = report(folder(tmp_path / "a", rich))
    assert facts["preferences"]["verdict"] == rich["verdict"]
    assert rich["verdict"]["text"] in page.text
    share = f"{100 * rich['sources']['rm']['accuracy']['value']:.1f} %"
    said = f"Reward BT: agrees with the annotators in {share} of 96 pairs, length alone in"
    assert facts["headline"].startswith(said)
    assert "96 pairs and 9 judged equal from 95 rows, 5 of them rankings, of 95 prompts." in page.text
    titles = (
        *("Agreement with the annotators", "By how long the chosen answer is", "By how clear the preference is"),
        *("By group of annotators", "By annotator", "Calibration", "Scores of chosen and rejected answers"),
        *("Scores by who wrote the answer", "What is preferred"),
    )
    for title in titles:
        assert title in page.text
    assert "The highest and the lowest 12 of 34." in page.text
    assert "chance alone gives up to" in page.text
    assert "judged equal, scores lie" in page.text
    for odd in ("kept no samples", "Nothing was measured twice", "with reward length"):
        assert odd not in page.text
    assert (tmp_path / "a" / "report.html").stat().st_size < 300_000


def test_every_picture_of_the_section_has_words(tmp_path, rich):
    page, _ = report(folder(tmp_path / "a", rich))
    pictures = [a for t, a in page.tags if t == "svg"]
    assert len(pictures) == 9
    assert all(a["role"] == "img" for a in pictures)
    value = 100 * rich["sources"]["rm"]["accuracy"]["value"]
    assert f"rm: all pairs {value:.1f} %" in pictures[0]["aria-label"]


def test_without_a_report_nothing_is_said_of_it(tmp_path):
    page, facts = report(RunFolder.create(tmp_path / "a", CONFIG))
    assert facts["preferences"] is None
    assert facts["title"] == "Reward BT with reward length"
    assert "What the reward knows" not in page.text
    assert preferences_of({"version": 99, "sources": {"rm": {}}}) is None
    assert preferences_of({}) is None


def test_a_run_that_generates_keeps_its_headline(tmp_path, rich):
    run = folder(tmp_path / "a", rich)
    for step in (0, 1):
        run.append("metrics.jsonl", {"step": step, "split": "validation", "rewards/gold/mean": 0.5 + step / 4})
    page, facts = report(run)
    assert facts["headline"] == "Reward BT: gold reward rose from 0.5 to 0.75."
    assert rich["verdict"]["text"] in page.text


def test_an_evaluation_without_an_objective_is_named_by_its_reward(tmp_path, rich):
    run = folder(tmp_path / "a", rich, {})
    run.append("metrics.jsonl", {"step": 0, "split": "validation", "rewards/rm/mean": 0.5})
    run.write_jsonl("samples/step_000000.jsonl", [{"id": 1, "prompt": "Q", "response": "A", "scores": {"rm": 0.5}}])
    page, facts = report(run)
    assert facts["headline"].startswith("Reward rm: agrees with the annotators in")
    assert "What was measured" in page.text
    assert not [odd for odd in ("What changed", "before and after") if odd in page.text]


def test_names_in_the_data_stay_data(tmp_path):
    # Short ones, since long names are cut, and one that would swallow the rest of the page.
    names = ["<u>a</u>", "<u>b</u>", "<u>c</u>", "<script>"]
    columns = [{"group": names[k % 2], "annotator": names[k % 4], "models": [XSS[3], *names[:2]]} for k in range(50)]
    rows = [row(f"r{k}", "a b", "c", "d", columns=c) for k, c in enumerate(columns)]
    scores = {XSS[0]: [[3.0, 2.0, 1.0]] * 50, XSS[1]: [[1.0, 2.0, 3.0]] * 50}
    found = preference_report(rows, scores, main=XSS[0], units={XSS[0]: XSS[2]}, resamples=20)
    page, _ = report(folder(tmp_path / "a", found))
    assert [t for t, _ in page.tags].count("script") == 1
    assert not [t for t, _ in page.tags if t in ("img", "a", "u")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(name in page.text for name in (*names, XSS[0], "loads nothing from elsewhere"))


@pytest.mark.parametrize("name", ODD)
def test_odd_reports_are_shown(tmp_path, name):
    rows, scores = ODD[name]
    found = made(rows, rm=scores, length=[[float(len(r.text)) for r in one.responses] for one in rows])
    page, facts = report(folder(tmp_path / "a", found))
    assert found["verdict"]["text"] in page.text or name == "unicode"
    assert "nan" not in page.text.lower()
    assert facts["headline"]


def test_the_headline_of_a_reward_without_a_score():
    assert agreement(made([pair("a")], rm=[[None, None]])) == ""
    assert agreement(made([pair("a")], rm=[[2.0, 1.0]])) == "agrees with the annotators in 100.0 % of 1 pair"


def test_rewards_of_a_reward_model_have_no_reference():
    sides = {f"rewards/{side}": {"validation": [(0, 0.0), (1, 1.0)]} for side in ("chosen", "rejected")}
    ((_, (chart,)),) = chart_groups(sides, {})
    assert chart.title == "rewards of chosen and rejected, validation"
    assert 'class="zero"' not in chart.svg
    assert chart_groups({name: {"validation": splits["validation"][:1]} for name, splits in sides.items()}, {}) == []


def test_what_it_likes_more_than_the_annotators_is_said_in_a_sentence(tmp_path):
    """The annotators choose the longer answer in half of 60 pairs, rm in all; dashes it leaves alone."""
    rows = [row(f"r{k}", *(("a b c", "a b") if k % 2 else ("a b", "a b c"))) for k in range(60)]
    found = made(rows, rm=[[float(len(r.text)) for r in one.responses] for one in rows])
    page, _ = report(folder(tmp_path / "a", found))
    assert "Held against the annotators, rm prefers the answer with more words 50.0 points more often." in page.text


def test_whom_the_gap_leaves_out_is_said(tmp_path):
    """Three rows of one group are too few to be the worst served, though the picture shows them so."""
    parts = (("north", 36, 40), ("south", 24, 40))

    def page(name, groups):
        rows = [row(f"{g}{k}", "a b", "a", columns={"group": g}) for g, _, of in groups for k in range(of)]
        return report(
            folder(tmp_path / name, made(rows, rm=[[float(k < r), 0.5] for _, r, of in groups for k in range(of)]))
        )

    assert "From north to south: 30.0 points" in page("a", parts)[0].text
    assert "From north to south, of those with 20 pairs or more: 30.0 points" in page("b", (*parts, ("few", 0, 3)))[0].text
