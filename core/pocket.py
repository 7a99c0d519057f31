"""The pocket model: a Llama of about a million parameters that speaks the sandbox's language.

It is made on the spot and kept in the user's cache: random weights from a fixed seed, a tokenizer trained on sandbox
text, then a warm-up on the sandbox's mixed demonstrations by whatever trainer the caller brings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from core.data import sandbox
from core.kept import Kept, to_stderr
from core.paths import cache_folder

BOS, EOS, PAD, TURN = "<|begin|>", "<|end|>", "<|pad|>", "<|turn|>"
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|turn|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)
TOKENIZER_ROWS = 6000
VOCABULARY = 1408
SEED = 20240501
POCKET = Kept("pocket model", "warming one up", "Set model.policy to a folder of your own.")


@dataclass(frozen=True)
class WarmUp:
    """How the pocket model is warmed up: measured in docs/sandbox.md.

    Attributes:
        rows: mixed demonstrations of the train split, each seen `epochs` times.
        batch_size: rows per optimizer step.
        lr: peak learning rate of AdamW; `schedule` falls from it to 0 after `warmup_ratio` of the steps.
    """

    rows: int = 32000
    epochs: int = 1
    batch_size: int = 32
    lr: float = 5e-3
    schedule: str = "cosine"
    warmup_ratio: float = 0.05
    seed: int = 0


def pocket_tokenizer() -> Any:
    """A byte-level BPE `PreTrainedTokenizerFast` of at most 1,408 tokens, the same every time.

    It adds no special token by itself; the chat template begins with the bos token and ends each turn with the eos token.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, BOS, EOS, TURN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_texts(), trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[TURN],
        chat_template=CHAT_TEMPLATE,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def _texts() -> Iterator[str]:
    for row in sandbox.records("demonstrations", "train", SEED, TOKENIZER_ROWS):
        yield row["prompt"] + row["completion"]
    yield from ["system\nuser\nassistant\n"] * 100  # roles of the chat template, so that each is one token


def pocket_config(tokenizer: Any) -> Any:
    """The `LlamaConfig`: 160 wide, 2 layers of 4 heads, tied embeddings, 512 positions.

    Of the shapes tried this one learnt fastest (docs/sandbox.md); two layers are the fewest that can copy from the prompt.
    """
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=160,
        intermediate_size=432,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.06,  # near 1 / sqrt(width) = 0.08: the usual 0.02 is for wider nets
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_pocket(folder: Path) -> None:
    """Writes the untrained model and its tokenizer in the Hugging Face layout. Leaves torch's random state as it was."""
    import torch
    from transformers import LlamaForCausalLM

    tokenizer = pocket_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = LlamaForCausalLM(pocket_config(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def pocket_digest(settings: Mapping[str, Any]) -> str:
    """16 hex digits of what decides the warmed-up model: sandbox and this file as written, settings, versions.

    Of torch and transformers only the major version counts, of tokenizers the minor one too.
    """
    digest = hashlib.sha256()
    for file in (*sorted(Path(sandbox.__file__).parent.glob("*.py")), Path(__file__)):
        digest.update(f"{file.name}\0{file.read_text(encoding='utf-8')}\0".encode())
    digest.update(json.dumps(dict(settings), sort_keys=True).encode())
    for name, parts in (("torch", 1), ("transformers", 1), ("tokenizers", 2)):
        digest.update(f"{name} {'.'.join(version(name).split('.')[:parts])}\0".encode())
    return digest.hexdigest()[:16]


def pocket_folder(
    cache_dir: Path | None,
    warm_up: Callable[[Path, Path], None],
    settings: Mapping[str, Any] | None = None,
    say: Callable[[str], None] = to_stderr,
) -> Path:
    """The folder of the warmed-up pocket model; made at the first call, which takes about a minute.

    Args:
        cache_dir: where to keep it; None = `cache_folder()`.
        warm_up: called with the folder of the untrained model and the folder to write the trained one into, both in the
            Hugging Face layout, the tokenizer included.
        settings: what the warm-up does, as plain JSON values; None = `asdict(WarmUp())`. Other settings, another folder.
        say: takes one line that tells what happens and why.

    Raises:
        ModelError: where the warm-up wrote no model, or another process keeps the folder locked for half an hour.
    """
    root = cache_folder() if cache_dir is None else cache_dir
    target = root / f"pocket-{pocket_digest(asdict(WarmUp()) if settings is None else settings)}"

    def make(base: Path, out: Path) -> None:
        build_pocket(base)
        warm_up(base, out)

    return POCKET.folder(target, make, say)
