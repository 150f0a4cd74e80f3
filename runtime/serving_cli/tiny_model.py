"""`ascend-serving tiny-model DIR`: a random Qwen3 with tokenizer and chat template.

Small enough to be written in a second and served anywhere, so that everything can be tried without
weights. Its embeddings are untied, because with tied ones a random model repeats one token for
ever. What it says is a salad of the words below.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from serving_cli.errors import UsageError
from serving_cli.flags import Parser

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY_SIZE = 1024
CONTEXT_TOKENS = 2048
SEED = 0
REPEATS = 50
"""How often the corpus is repeated, so that whole words become tokens."""

CORPUS = """\
A replica is one copy of the model with its own cache, and a router sends each request to the copy
that owes the fewest tokens. The scheduler gives every step one budget: running sequences first,
then those that wait. A long prompt is read in chunks between the words of other answers, and when
the blocks run out the youngest sequence steps back and is computed again later. Nothing is counted
twice. Each answer streams as soon as its first token is known; a client that hangs up frees its
blocks within a step. Morning light falls over the quiet harbour while small boats turn slowly in
the wind; someone writes a letter, another reads a map, and the old clock on the tower counts hours
for people who never look up. We build simple things with care: names that say what they mean,
functions that fit a glance, numbers that were measured. The river knows its way to the sea, the
bridge remembers every step, and night brings stars above mountains, gardens, windows and roads.
"""

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def add_flags(parser: Parser) -> None:
    """Flags of this command."""
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder to write; made if missing")


def run(folder: Path) -> int:
    """Write the model and say what to do with it.

    Raises:
        UsageError: the folder cannot be written or holds something else.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder; choose another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    print(f"wrote {folder}; serve it with: ascend-serving serve {folder}")  # noqa: T201
    return 0


def write(folder: Path) -> None:
    """Write weights, configuration, tokenizer and chat template into an existing folder."""
    tokenizer = _train_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    _write_model(folder, tokenizer)


def _train_tokenizer() -> Tokenizer:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([CORPUS] * REPEATS, trainer)
    return tokenizer


def _write_model(folder: Path, tokenizer: Tokenizer) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import Qwen3Config, Qwen3ForCausalLM

    vocabulary = tokenizer.get_vocab()
    ends = [vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]]
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=CONTEXT_TOKENS,
        tie_word_embeddings=False,
        eos_token_id=ends,
        pad_token_id=ends[1],
        bos_token_id=None,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = Qwen3ForCausalLM(config)
        _make_eloquent(model, tokenizer)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    generation_config = {"eos_token_id": ends, "pad_token_id": ends[1]}
    (folder / "generation_config.json").write_text(json.dumps(generation_config, indent=2) + "\n")
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})


def _make_eloquent(model: torch.nn.Module, tokenizer: Tokenizer) -> None:
    """Spread the weights so that outputs differ, and let only whole words be likely.

    The default initialisation of 0.02 makes all logits alike.
    """
    import torch

    words = {f"\u0120{word}" for word in re.findall(r"[a-z]+", CORPUS)}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        model.get_input_embeddings().weight.normal_()  # type: ignore[operator]
        head: torch.Tensor = model.get_output_embeddings().weight  # type: ignore[operator]
        for token, token_id in tokenizer.get_vocab().items():
            if token not in words:
                head[token_id] = 0
