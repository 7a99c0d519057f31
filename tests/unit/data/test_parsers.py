import pytest

from core.data.examples import read_examples
from core.data.formats import detect
from core.data.parsers import parse
from core.data.records import Record, RowError
from core.data.report import SplitReport
from core.errors import DataError

USER = {"role": "user", "content": "Say hello."}
HELLO = {"role": "assistant", "content": "Hello!"}
NO = {"role": "assistant", "content": "No."}


def example(**data):
    record = Record("f:1", data)
    return parse(record, detect(record))


def read(*rows, **options):
    report = SplitReport("train", source="f")
    records = [Record(f"f:{i}", row) for i, row in enumerate(rows, start=1)]
    return read_examples(records, report, **options), report


@pytest.mark.parametrize(
    ("data", "format", "prompt", "responses"),
    [
        ({"text": "Hello there."}, "text", "", ("Hello there.",)),
        ({"messages": [USER, HELLO]}, "messages", (USER,), ("Hello!",)),
        ({"prompt": "Say hello.", "completion": "Hello!"}, "completion", "Say hello.", ("Hello!",)),
        ({"prompt": [USER], "completion": [HELLO]}, "completion", (USER,), ("Hello!",)),
        ({"prompt": "Say hello."}, "prompt", "Say hello.", ()),
        ({"prompt": [USER]}, "prompt", (USER,), ()),
        ({"messages": [USER]}, "prompt", (USER,), ()),
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "pair", "p", ("a", "b")),
        ({"prompt": [USER], "chosen": [HELLO], "rejected": [NO]}, "pair", (USER,), ("Hello!", "No.")),
        ({"messages": [USER], "chosen": "Hello!", "rejected": "No."}, "pair", (USER,), ("Hello!", "No.")),
        ({"chosen": [USER, HELLO], "rejected": [USER, NO]}, "pair", (USER,), ("Hello!", "No.")),
        ({"prompt": "x", "chosen": [USER, HELLO], "rejected": [USER, NO]}, "pair", (USER,), ("Hello!", "No.")),
        ({"chosen": "The sky is blue.", "rejected": "The sky is black."}, "pair", "The sky is", (" blue.", " black.")),
        (
            {"chosen": "\n\nHuman: Say hello.\n\nAssistant: Hello!", "rejected": "\n\nHuman: Say hello.\n\nAssistant: No."},
            "hh",
            (USER,),
            ("Hello!", "No."),
        ),
        ({"prompt": "p", "responses": ["a", "b", "c"]}, "ranking", "p", ("a", "b", "c")),
        (
            {"conversations": [{"from": "human", "value": "Say hello."}, {"from": "gpt", "value": "Hello!"}]},
            "conversations",
            (USER,),
            ("Hello!",),
        ),
    ],
)
def test_every_shape_becomes_prompt_and_responses(data, format, prompt, responses):
    assert detect(Record("f:1", data)) == format
    found = example(**data)
    assert (found.prompt, found.responses) == (prompt, responses)


def test_sharegpt_takes_its_system_column_as_the_first_turn():
    turns = [{"from": "human", "value": "Say hello."}, {"from": "gpt", "value": "Hello!"}]
    found = example(conversations=turns, system="Be brief.")
    assert found.prompt == ({"role": "system", "content": "Be brief."}, USER)


def test_ranking_margins_are_differences_and_equal_scores_are_ties():
    found = example(prompt="p", responses=["a", "b", "c"], scores=[4.0, 2.5, 2.5], models=["x", "y", "z"])
    assert found.margins == (1.5, 0.0)
    assert found.ties == (False, True)
    assert found.columns == {"scores": [4.0, 2.5, 2.5], "models": ["x", "y", "z"]}


def test_a_text_that_a_ranking_holds_twice_keeps_its_higher_place():
    rows, report = read({"prompt": "p", "responses": ["a", "b", "b", "c"], "scores": [4, 3, 2, 1]})
    assert rows[0].responses == ("a", "b", "c")
    assert rows[0].margins == (1.0, 2.0)
    assert sum(report.changed.values()) == 1


def test_references_singular_plural_and_null():
    assert example(prompt="p", reference="r").references == ("r",)
    assert example(prompt="p", references=["r", "s"]).references == ("r", "s")
    assert example(prompt="p", reference=None).references == ()


def test_a_majority_tie_is_a_pair_with_a_tie():
    data = {"prompt": "p", "response_a": "a", "response_b": "b", "majority": None, "chosen": None, "rejected": None}
    found = example(**data)
    assert (found.responses, found.ties, found.all_tied) == (("a", "b"), (True,), True)


@pytest.mark.parametrize(
    ("data", "field", "part"),
    [
        ({"prompt": "p", "chosen": "a"}, "rejected", "missing"),
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "rejected", "equal to chosen"),
        ({"prompt": "p", "chosen": 4, "rejected": "a"}, "chosen", "a number"),
        ({"prompt": "p", "chosen": "a", "rejected": ["b"]}, "rejected", "other things than turns"),
        ({"prompt": "p", "chosen": [HELLO], "rejected": [NO]}, "chosen", "while prompt is text"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": True}, "margin", "True"),
        ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": -1}, "margin", "negative"),
        ({"chosen": "Blue.", "rejected": "Red."}, "prompt", "share no beginning"),
        ({"prompt": "p", "completion": "c", "label": True}, "label", "unpaired"),
        ({"prompt": [USER, HELLO], "completion": "c"}, "prompt", "ends with a turn of the assistant"),
        ({"messages": [USER, {"role": "asistant", "content": "x"}]}, "messages[1].role", 'Did you mean "assistant"'),
        ({"messages": [HELLO, USER, HELLO]}, "messages", "starts with the assistant"),
        ({"prompt": "p", "responses": ["a", "b"], "scores": [2, "x"]}, "scores[1]", "expected a number"),
        ({"prompt": "p", "responses": ["a", "b"], "ties": [True, False]}, "ties", "expected 1 times"),
        ({"prompt": "p", "id": 1.5}, "id", "whole number"),
        ({"question": "p", "answer": "a"}, "", "it has: answer, question"),
    ],
)
def test_a_bad_row_names_the_field(data, field, part):
    with pytest.raises(RowError) as caught:
        example(**data)
    assert caught.value.field == field
    assert part in caught.value.problem


def test_one_source_has_one_format():
    with pytest.raises(DataError, match=r"f:2: has the format pair, but the first row \(f:1\) has prompt"):
        read({"prompt": "p"}, {"prompt": "q", "chosen": "a", "rejected": "b"})
    with pytest.raises(DataError, match=r"f:2:prompt: is turns, but text in the first row"):
        read({"prompt": "p"}, {"prompt": [USER]})


def test_bad_rows_pass_up_to_the_limit_and_are_counted():
    good, bad = {"prompt": "p"}, {"prompt": ""}
    rows, report = read(good, bad, good, bad, max_bad_rows=2)
    assert [r.source for r in rows] == ["f:1", "f:3"]
    assert report.dropped["bad rows"] == 2
    assert "f:4:prompt: is empty." in "\n".join(report.lines())
    with pytest.raises(DataError, match=r"f:2:prompt: is empty\.\n  f:4:prompt"):
        read(good, bad, good, bad, max_bad_rows=1)


def test_made_ids_are_stable_and_unique():
    (first, again), report = read({"prompt": "p"}, {"prompt": "p"})
    assert first.id == example(prompt="p").id
    assert again.id == first.id + "-2"
    assert sum(report.changed.values()) == 1
    assert example(prompt="q").id != first.id


def test_a_given_id_twice_is_an_error_that_names_both_lines():
    with pytest.raises(DataError, match=r"f:2:id: 'a' is also the id of f:1\."):
        read({"id": "a", "prompt": "p"}, {"id": "a", "prompt": "q"})


def test_margins_must_be_whole_unless_ignored():
    with_margin = {"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1}
    without = {"prompt": "q", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError, match=r"f:2:margin: is missing, but other rows have one \(such as f:1\)"):
        read(with_margin, without)
    rows, _ = read(with_margin, without, ignore=["margin"])
    assert [r.margins for r in rows] == [None, None]


def test_conflicting_pairs_are_counted():
    _, report = read({"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "b", "rejected": "a"})
    assert report.changed["pairs that another row contradicts (kept)"] == 1
