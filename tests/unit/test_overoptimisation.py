"""Rewards against KL: what is said of a run, when nothing is said, and the picture."""

import itertools
import json
import math
import re
from types import SimpleNamespace

import pytest
from made_run import CONFIG, make_run

from core import registry
from core.build import reward_facts
from core.report import build_report
from core.report.kl_section import HEIGHT, WIDTH, root_ticks, section
from core.report.overoptimisation import prompts_of, read_curves, read_overoptimisation, remark
from core.runfolder import RunFolder

STEPS = (0, 10, 20, 30)
KL = (0.0, 1.0, 4.0, 16.0)
GOLD = (0.40, 0.60, 0.50, 0.20)
PROXY = (-1.0, 0.0, 0.5, 1.0)
RUN = {"rewards": {"rm": {"unit": "log-odds", "optimised": True}, "gold": {"unit": "", "optimised": False}}}


def series(kl=KL, steps=STEPS, **means):
    """Means by reward; each with a standard deviation of 0.4."""
    found = {"objective/kl": {"validation": list(zip(steps, kl, strict=True))}}
    for name, values in means.items():
        found[f"rewards/{name}/mean"] = {"validation": list(zip(steps, values, strict=True))}
        found[f"rewards/{name}/std"] = {"validation": [(step, 0.4) for step in steps]}
    return found


def read(run=RUN, prompts=100, **means):
    return read_overoptimisation(series(**means), run, prompts)


def said(run=RUN, prompts=100, **means):
    return read(run, prompts, **means)["sentence"]


def test_the_turn_is_said_in_plain_words():
    """Standard errors are 0.4 / sqrt(100) = 0.04: the fall of 0.4 is 7 of the difference, the rise of 0.2 is 3.5."""
    facts = read(rm=PROXY, gold=GOLD)
    assert facts["sentence"] == (
        "The gold reward rose from 0.4 to 0.6 at KL 1 and has fallen to 0.2 at KL 16, while the rm reward went on rising, "
        "from 0 to 1: it is over-optimised. The best step by gold was 10."
    )
    assert facts["best"] == 10
    assert [(c["name"], c["optimised"]) for c in facts["curves"]] == [("rm", True), ("gold", False)]
    assert facts["curves"][1]["points"][1] == {"step": 10, "kl": 1.0, "mean": 0.6, "std": 0.4, "error": 0.04}


def test_a_fall_from_the_start():
    assert said(rm=PROXY, gold=(0.6, 0.5, 0.4, 0.2)) == (
        "The gold reward has fallen from 0.6 at the start to 0.2 at KL 16, while the rm reward rose from −1 to 1: "
        "it is over-optimised. No step was clearly better by gold than the start."
    )
    assert "has fallen from 0.64 at step 10 to 0.2" in said(rm=PROXY, gold=(0.6, 0.64, 0.4, 0.2))  # not a clear rise


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"prompts": 9}, "0.4 is within three standard errors, 0.133 each"),
        ({"prompts": 0}, "nobody knows how sure the means are"),
        ({"gold": (0.40, 0.60, 0.50, 0.44)}, "0.16 is 2.8 standard errors of the difference"),
        ({"rm": (-1.0, 0.9, 0.5, 0.8)}, "the optimised reward has fallen as well"),
        ({"rm": (1.0, 0.5, 0.7, 1.1)}, "it has not clearly risen: 0.1 is 1.8 standard errors"),
        ({"run": {}}, "nobody knows what was optimised"),
        ({"run": {"rewards": {"rm": {"optimised": False}, "gold": {}}}}, "it was only measured"),
        ({"run": {"rewards": {"rm": {"optimised": True}, "gold": {"unit": "words"}}}}, "a length is no judgement"),
    ],
)
def test_what_is_not_clear_is_not_said(change, why):
    facts = read(**{"rm": PROXY, "gold": GOLD, **change})
    assert (facts["sentence"], facts["best"]) == ("", None), why


def test_the_border_of_certainty():
    """Three standard errors of the difference are 3 * sqrt(2) * 0.04 = 0.1697."""
    assert said(rm=PROXY, gold=(0.4, 0.6, 0.5, 0.6 - 0.1698))
    assert not said(rm=PROXY, gold=(0.4, 0.6, 0.5, 0.6 - 0.1696))


def test_of_several_the_clearest_fall_is_said():
    assert said(rm=PROXY, gold=GOLD, other=(0.4, 0.9, 0.5, 0.1)).startswith("The other reward rose from 0.4 to 0.9")


def test_there_is_nothing_to_draw():
    assert read(rm=PROXY) is None  # one reward
    assert read_overoptimisation(series(rm=PROXY[:2], gold=GOLD[:2], steps=STEPS[:2], kl=KL[:2]), RUN, 100) is None
    without = {name: points for name, points in series(rm=PROXY, gold=GOLD).items() if name != "objective/kl"}
    assert read_overoptimisation(without, RUN, 100) is None


def test_parts_and_moving_scales_are_left_out():
    found = series(rm=PROXY, gold=GOLD, weighted=PROXY)
    found["rewards/rm/0/mean"] = found["rewards/rm/mean"]
    found["rewards/weighted/moving"] = {"validation": [(0, 1.0)]}
    assert [curve.name for curve in read_curves(found, RUN, 100)] == ["rm", "gold"]


def test_training_metrics_are_not_taken_for_validations():
    found = series(rm=PROXY, gold=GOLD)
    found["rewards/rm/mean"]["train"] = [(5, 99.0)]
    assert {p.step for curve in read_curves(found, RUN, 100) for p in curve.points} == set(STEPS)


def test_the_picture_is_over_the_square_root_of_the_kl():
    shown = section(read(rm=PROXY, gold=GOLD))
    lines = re.findall(r'<polyline class="line (\w+)" points="([^"]+)"', shown["svg"])
    assert [style for style, _ in lines] == ["rejected", "chosen"]
    points = [[tuple(map(float, p.split(","))) for p in path.split()] for _, path in lines]
    left, right = 40.0, WIDTH - 12
    for path in points:  # KL 0, 1, 4, 16: at 0, 1/4, 1/2 and all of the width
        assert [x for x, _ in path] == pytest.approx([left + f * (right - left) for f in (0, 0.25, 0.5, 1)], abs=0.06)
    # Changes in standard deviations of 0.4: rm 0, 2.5, 3.75, 5; gold 0, 0.5, 0.25, -0.5. One unit is as high in both.
    (rm0, _, _, rm3), (gold0, gold1, _, gold3) = ([y for _, y in path] for path in points)
    unit = (rm0 - rm3) / 5
    assert rm0 == gold0
    assert [(gold0 - gold1) / unit, (gold0 - gold3) / unit] == pytest.approx([0.5, -0.5], abs=0.01)
    assert all(0 < y < HEIGHT for path in points for _, y in path)
    assert shown["svg"].count('class="ring"') == 2  # the best gold, on both
    assert shown["legend"] == [("rejected", "rm, optimised"), ("chosen", "gold, measured")]


def test_the_table_is_of_the_start_the_best_and_the_end():
    found = series(rm=PROXY, gold=GOLD)
    found["completions/mean_length"] = {"validation": list(zip(STEPS, (16.0, 11.0, 9.0, 40.0), strict=True))}
    shown = section(read_overoptimisation(found, RUN, 100))
    assert shown["head"] == ["start", "best gold", "end"]
    assert shown["rows"] == [
        ("rm", "log-odds", [("−1", "± 0.04"), ("0", "± 0.04"), ("1", "± 0.04")]),
        ("gold", "", [("0.4", "± 0.04"), ("0.6", "± 0.04"), ("0.2", "± 0.04")]),
        ("mean length", "tokens", [("16", ""), ("11", ""), ("40", "")]),
        ("KL", "nats", [("0", ""), ("1", ""), ("16", "")]),
        ("step", "", [("0", ""), ("10", ""), ("30", "")]),
    ]
    falling = section(read(rm=PROXY, gold=(0.6, 0.5, 0.4, 0.2)))
    assert falling["head"] == ["start", "end"]


def test_scores_without_a_spread_do_not_divide_by_zero():
    found = series(rm=PROXY, gold=(0.0, 0.0, 0.0, 0.0))
    found["rewards/gold/std"]["validation"] = [(step, 0.0) for step in STEPS]
    shown = section(read_overoptimisation(found, RUN, 100))
    assert shown["legend"] == [("rejected", "rm, optimised")]
    assert shown["rows"][1][2][0] == ("0", "± 0")


def test_estimates_below_zero_stay_in_the_picture():
    shown = section(read(kl=(0.0, -0.01, 0.02, 0.03), rm=PROXY, gold=GOLD))
    assert "nan" not in shown["svg"]
    assert min(float(x) for x in re.findall(r'cx="([^"]+)"', shown["svg"])) == 40.0


@pytest.mark.parametrize("highest", [0.031, 0.9, 1.0, 7.0, 15.4, 400.0])
def test_ticks_of_a_root_scale_are_round_and_apart(highest):
    ticks = root_ticks(highest)
    assert ticks[0] == 0.0
    assert ticks == sorted(set(ticks))
    assert 3 <= len(ticks) <= 6
    assert all(t <= highest for t in ticks)
    assert all(f"{t:e}"[0] in "125" for t in ticks[1:])
    assert min(math.sqrt(b / highest) - math.sqrt(a / highest) for a, b in itertools.pairwise(ticks)) > 0.05


def test_the_console_and_the_page_say_it(tmp_path):
    evil = '"><img src=x onerror=alert(1)>'
    run = RunFolder.create(tmp_path / "a", {**CONFIG, "reward": {"name": "rm"}})
    run.record(rewards={evil: {"optimised": True}, "gold": {}})
    for step, kl, gold, proxy in zip(STEPS, KL, GOLD, PROXY, strict=True):
        metrics = {"rewards/gold/mean": gold, "rewards/gold/std": 0.4, f"rewards/{evil}/mean": proxy}
        metrics |= {f"rewards/{evil}/std": 0.4, "objective/kl": kl}
        run.append("metrics.jsonl", {"step": step, "split": "validation", **metrics})
        run.write_jsonl(f"samples/step_{step:06d}.jsonl", [{"id": str(i), "response": "x"} for i in range(100)])
    assert prompts_of(run.path) == 100
    (sentence,) = remark(run.path)
    assert sentence.startswith("The gold reward rose from 0.4 to 0.6 at KL 1 and has fallen to 0.2 at KL 16")
    html, data = build_report(run.path)
    page = html.read_text()
    assert "Rewards against KL" in page
    assert "<img" not in page
    assert json.loads(data.read_text())["overoptimisation"]["best"] == 10


def test_a_run_that_is_well_says_nothing(tmp_path):
    run = make_run(tmp_path / "a", steps=8, every=2)
    assert remark(run.path) == []
    html, _ = build_report(run.path)
    assert "Rewards against KL" not in html.read_text()  # this run knows no spread of its scores
    for step in range(0, 9, 2):
        spread = {"rewards/length/std": 9.0, "rewards/gold/std": 0.4}
        run.append("metrics.jsonl", {"step": step, "split": "validation", **spread})
    build_report(run.path)
    assert "Rewards against KL" in html.read_text()
    assert "over-optimised" not in html.read_text()
    assert remark(RunFolder.create(tmp_path / "bare", {}).path) == []


@pytest.mark.parametrize(
    ("options", "reward", "optimised"),
    [
        ({"name": "ppo"}, "length", True),
        ({"name": "dpo"}, "length", True),  # pairs are sampled, and the reward labels them
        ({"name": "dpo", "pairs": "dataset"}, "length", False),
        ({"name": "sft"}, "length", False),
        ({"name": "reward_bt"}, "length", False),
    ],
)
def test_a_run_records_what_it_optimises(options, reward, optimised):
    objective = registry.build_objective(options)
    objective.bind(reward)
    composed, watched = (
        SimpleNamespace(name=n, source=SimpleNamespace(unit=u)) for n, u in (("length", "tokens"), ("gold", ""))
    )
    ready = SimpleNamespace(objective=objective, reward=composed, rewards=[composed, watched])
    assert reward_facts(ready) == {
        "length": {"unit": "tokens", "optimised": optimised},
        "gold": {"unit": "", "optimised": False},
    }
