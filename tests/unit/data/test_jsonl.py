import gzip

import pytest

from core.data.jsonl import parse_line, read_jsonl
from core.data.records import Record, RowError, expand_paths, read_records
from core.errors import DataError


def rows(path):
    return list(read_jsonl(str(path)))


def test_only_newline_ends_a_line_and_blank_lines_are_counted(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes('\ufeff{"t": "a\u2028b\u0085c"}\r\n\n  \n{"t": "d"}'.encode())
    assert rows(path) == [Record(f"{path}:1", {"t": "a\u2028b\u0085c"}), Record(f"{path}:4", {"t": "d"})]


def test_gzip_is_told_by_content(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(gzip.compress(b'{"t": 1}\n'))
    assert rows(path)[0].data == {"t": 1}


def test_a_truncated_gzip_is_refused(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"t": 1}\n' * 1000)[:-12])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: the gzip stream ends early"):
        rows(path)


def test_a_flipped_bit_in_a_gzip_is_refused(tmp_path):
    body = bytearray(gzip.compress(b'{"t": 1}\n{"t": 2}\n'))
    body[-6] ^= 1  # in the checksum
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(bytes(body))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: the gzip data is damaged"):
        rows(path)


@pytest.mark.parametrize(
    ("line", "field", "part"),
    [
        (b'{"a": 1, "a": 2}', "a", "twice"),
        (b'{"x": {"b": 1, "b": 2}}', "b", "twice"),
        (b'{"margin": NaN}', "margin", "nan"),
        (b'{"m": [{"v": -Infinity}]}', "m[0].v", "-inf"),
        (b'{"score": 1e999}', "score", "inf"),
        (b'{"p": "a\x00b"}', "p", "U+0000"),
        (b'{"p": "x", "q": "a\tb"}', "q", "U+0009"),
        (b'{"p": [1, {"c": "\\ud83d"}]}', "p[1].c", "surrogate"),
        (b'{"p": "caf\xe9"}', "", "byte 11 "),
        (b"[1]", "", "JSON array"),
        (b"7", "", "a int"),
        (b'{"a": ', "", "column 7"),
        (b'{"deep": ' + b"[" * 5000 + b"]" * 5000 + b"}", "deep", "nested"),
        (b'{"a": "[[[[", "deep": ' + b'{"x":' * 120 + b"1" + b"}" * 121, "deep", "nested"),
    ],
)
def test_a_bad_line_names_its_field(line, field, part):
    error = parse_line("f:3", line)
    assert isinstance(error, RowError)
    assert error.field == field
    assert part in error.problem
    assert str(error).startswith(f"f:3:{field}: " if field else "f:3: ")


def test_many_brackets_in_text_or_side_by_side_are_no_depth():
    line = b'{"a": "' + b"[" * 500 + b'", "b": ' + b"[" + b"[]," * 300 + b"[]]}"
    assert isinstance(parse_line("f:1", line), Record)


def test_surrogate_pairs_and_escaped_nul_are_text():
    record = parse_line("f:1", b'{"a": "\\ud83d\\ude00 \\u0000"}')
    assert record.data == {"a": "😀 \x00"}


def test_paths_may_be_a_glob_or_a_list(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.jsonl").write_text(f'{{"t": "{name}"}}\n')
    assert [r.data["t"] for r in read_records(str(tmp_path / "*.jsonl"))] == ["a", "b"]
    both = [str(tmp_path / "b.jsonl"), str(tmp_path / "a.jsonl")]
    assert [r.data["t"] for r in read_records(both)] == ["b", "a"]


@pytest.mark.parametrize("name", ["missing.jsonl", "org/name", "*.nothing"])
def test_what_is_not_there_is_never_asked_of_the_hub_unless_told(name):
    with pytest.raises(DataError, match="no such file"):
        expand_paths(name)


def test_hub_names_and_paths_are_told_apart():
    assert expand_paths("org/name", allow_hub=True) == ["org/name"]
    for path in ("./org/name", "a/b/c", "rows.jsonl", "/x/y"):
        with pytest.raises(DataError, match="no such file"):
            expand_paths(path, allow_hub=True)


def test_a_long_line_is_refused_with_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("core.data.jsonl.MAX_LINE_BYTES", 2**20)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"t": "' + b"x" * 2**20 + b'"}\n')
    with pytest.raises(DataError, match=r"a\.jsonl:1: the line is longer than 1 MiB"):
        rows(path)
