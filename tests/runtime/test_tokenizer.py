"""The tokenizer equals transformers' and never shows a part of a character."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue
from tokenizers import Tokenizer as RawTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

from serving_runtime.detokenizer import ByteDetokenizer, WindowDetokenizer
from serving_runtime.errors import InvalidModel, InvalidRequest
from serving_runtime.tokenizer import ChatOptions, Tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}"
    "{%- if loop.last %}!{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}{{ extra }}"
)
SPECIAL = ["<s>", "</s>"]


def byte_level() -> RawTokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*SPECIAL, *alphabet, "he", "ll"])}
    tokenizer = RawTokenizer(models.BPE(vocab, [("h", "e"), ("l", "l")]))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    return tokenizer


def sentence_pieces() -> RawTokenizer:
    """In the manner of Llama 2: pieces with a mark for spaces, bytes for what has no piece."""
    pieces = [*SPECIAL, *(f"<0x{i:02X}>" for i in range(256)), "▁", *"helo wrd", "he", "▁he"]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(pieces))}
    merges = [("h", "e"), ("▁", "he")]
    tokenizer = RawTokenizer(models.BPE(vocab, merges, byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


KINDS = {"byte-level": byte_level, "sentence-pieces": sentence_pieces}
Folder = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    def write(kind: str = "byte-level", **config: JsonValue) -> Path:
        path = tmp_path_factory.mktemp("tokenizer")
        KINDS[kind]().save(str(path / "tokenizer.json"))
        defaults: dict[str, JsonValue] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": {"__type": "AddedToken", "content": "</s>"},
            "chat_template": TEMPLATE,
        }
        (path / "tokenizer_config.json").write_text(json.dumps(defaults | config))
        return path

    return write


MESSAGES = [
    {"role": "system", "content": " be kind "},
    {"role": "user", "content": "hello 😀"},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "config",
    [{}, {"add_bos_token": True, "add_eos_token": True}, {"add_bos_token": False}],
    ids=str,
)
def test_ids_equal_those_of_transformers(
    folder: Folder, kind: str, config: dict[str, JsonValue]
) -> None:
    path = folder(kind, **config)
    reference = AutoTokenizer.from_pretrained(path)
    text = "hello </s> wörld 😀"
    ours = Tokenizer(path)
    assert list(ours.encode(text, add_special_tokens=True)) == reference(text)["input_ids"]
    bare = reference(text, add_special_tokens=False)["input_ids"]
    assert list(ours.encode(text, add_special_tokens=False)) == bare


@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_chats_equal_those_of_transformers(folder: Folder, add_generation_prompt: bool) -> None:
    path = folder()
    reference = AutoTokenizer.from_pretrained(path)
    options = ChatOptions(add_generation_prompt=add_generation_prompt, variables={"extra": "+"})
    expected = reference.apply_chat_template(
        MESSAGES, tokenize=False, add_generation_prompt=add_generation_prompt, extra="+"
    )
    assert Tokenizer(path).render_chat(MESSAGES, options) == expected


def test_a_final_message_is_continued_where_it_ends(folder: Folder) -> None:
    options = ChatOptions(add_generation_prompt=False, continue_final_message=True)
    text = Tokenizer(folder()).render_chat(MESSAGES, options)
    assert text.endswith("[user]hello 😀")


def test_a_template_of_its_own_file_comes_first(folder: Folder) -> None:
    path = folder()
    (path / "chat_template.jinja").write_text("own")
    assert Tokenizer(path).render_chat(MESSAGES, ChatOptions()) == "own"


def test_of_several_templates_the_default_is_taken(folder: Folder) -> None:
    named: JsonValue = [{"name": "x", "template": "x"}, {"name": "default", "template": "d"}]
    tokenizer = Tokenizer(folder(chat_template=named))
    assert tokenizer.render_chat(MESSAGES, ChatOptions()) == "d"


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7].content.upper() }}", "has no element 7"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ messages.__class__.__mro__ }}", "unsafe"),
        (None, "no chat template"),
    ],
    ids=["refuses", "undefined", "fails", "sandbox", "none"],
)
def test_a_template_that_fails_names_the_messages(
    folder: Folder, template: str | None, reason: str
) -> None:
    tokenizer = Tokenizer(folder(chat_template=template))
    with pytest.raises(InvalidRequest, match=reason) as refusal:
        tokenizer.render_chat(MESSAGES, ChatOptions())
    assert refusal.value.param == "messages"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("chat_template.jinja", "{% if %}"),
        ("generation_config.json", "{"),
    ],
)
def test_a_corrupt_folder_is_refused_in_one_line(
    folder: Folder, file: str, content: str | None
) -> None:
    path = folder()
    if content is None:
        (path / file).unlink()
    else:
        (path / file).write_text(content)
    with pytest.raises(InvalidModel) as refusal:
        Tokenizer(path)
    assert "\n" not in str(refusal.value)


def test_eos_is_what_model_and_tokenizer_name(folder: Folder) -> None:
    path = folder()
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8]}))
    assert Tokenizer(path).eos_token_ids == {1, 7, 8}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["hello 😀 wörld", "hello </s> hello", "日本語", "a\n\n  b"])
def test_pieces_make_up_the_decoded_text(folder: Folder, kind: str, text: str) -> None:
    tokenizer = Tokenizer(folder(kind))
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    detokenizer = tokenizer.detokenizer((), skip_special_tokens=True)
    pieces = [detokenizer.push(token_id) for token_id in token_ids]
    assert "".join(pieces) == tokenizer.decode(token_ids, skip_special_tokens=True)
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_first_token_keeps_its_space_behind_a_prompt(folder: Folder) -> None:
    tokenizer = Tokenizer(folder("sentence-pieces"))
    prompt = tokenizer.encode("hello", add_special_tokens=False)
    answer = tokenizer.encode("he", add_special_tokens=False)
    detokenizer = tokenizer.detokenizer(prompt, skip_special_tokens=True)
    assert "".join(map(detokenizer.push, answer)) == " he"


@pytest.mark.parametrize("kind", KINDS)
def test_token_bytes_of_a_character_make_up_the_character(folder: Folder, kind: str) -> None:
    tokenizer = Tokenizer(folder(kind))
    token_ids = tokenizer.encode("😀", add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, token_ids)).endswith("😀".encode())


@given(st.lists(st.binary(max_size=3)))
def test_bytes_in_any_split_show_what_decoding_them_whole_shows(chunks: list[bytes]) -> None:
    detokenizer = ByteDetokenizer(lambda i: chunks[i])
    shown = "".join(detokenizer.push(i) for i in range(len(chunks)))
    whole = b"".join(chunks).decode(errors="replace")
    # At most one unfinished character is kept back at the end.
    assert whole.startswith(shown)
    assert whole[len(shown) :] in ("", "\ufffd")


@settings(max_examples=50)
@given(st.lists(st.binary(min_size=1, max_size=2), max_size=40))
def test_a_window_never_holds_back_more_than_a_character(chunks: list[bytes]) -> None:
    def decode(token_ids: object) -> str:
        assert isinstance(token_ids, list)
        return b"".join(chunks[i] for i in token_ids).decode(errors="replace")

    detokenizer = WindowDetokenizer(decode, ())
    silent = 0
    for i in range(len(chunks)):
        silent = 0 if detokenizer.push(i) else silent + 1
        assert silent < 8


def test_lone_surrogates_are_no_text(folder: Folder) -> None:
    tokenizer = Tokenizer(folder())
    token_ids = tokenizer.encode("a\ud800b", add_special_tokens=False)
    assert tokenizer.decode(token_ids, skip_special_tokens=True) == "a\ufffdb"
