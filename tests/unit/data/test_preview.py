import io

import rich.console
from made_tokenizers import CHATML, tokenizer

from core.data.preview import preview, render_row
from core.rows import Response, Row


def test_trained_tokens_are_marked_with_and_without_colour():
    tok = tokenizer(CHATML)
    prompt = tok("<|im_start|>user\nHi", add_special_tokens=False)["input_ids"]
    middle = tok("No.", add_special_tokens=False)["input_ids"]
    end = tok.convert_tokens_to_ids("<|im_end|>")
    tokens = [*middle, end, *middle, end]
    mask = [False] * (len(middle) + 1) + [True] * (len(middle) + 1)
    row = Row("r1", prompt, (Response(tokens, mask, "No.", finished=False),), source="f:1")
    text = render_row(row, tok)
    assert "No.<|im_end|>▸No.<|im_end|>◂" in text.plain
    assert f"({len(tokens)} tokens, {len(middle) + 1} trained, cut)" in text.plain
    assert text.plain.startswith("r1  f:1\nprompt (")
    assert [text.plain[s.start : s.end] for s in text.spans if s.style == "bold green"] == ["▸No.<|im_end|>◂"]

    out = io.StringIO()
    preview([row, row], tok, 1, rich.console.Console(file=out))
    assert out.getvalue().count("▸No.<|im_end|>◂") == 1
