"""Model folders as people bring them: each is right, or refused in one sentence."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.architectures import build
from support.tiny_models import policy, small_chat, words
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import AutoTokenizer

from tutelage.errors import PolicyError
from tutelage.policies.base import Request
from tutelage.policies.hf import folder as folders
from tutelage.policies.hf.loading import load
from tutelage.policies.hf.policy import HFPolicy
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids, Sample
from tutelage.runs.diagnosis import other_ends

SAMPLE = Sample(prompt=(20, 30, 40, 50), tokens=(60, 70, 2))
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
Change = Callable[[Path], object]
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy") / "model"
    policy(context=64).save(folder)
    return folder


@pytest.fixture(scope="module")
def right(saved: Path) -> list[float]:
    return logps(load(str(saved)))


@pytest.fixture
def model(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def logps(of: HFPolicy) -> list[float]:
    with torch.no_grad():
        return of.score([SAMPLE], 1.0).logp.tolist()


def refusal(model: Path) -> str:
    with pytest.raises(PolicyError) as refused:
        load(str(model))
    text = str(refused.value)
    assert "\n" not in text
    return text


def settings(name: str, **values: object) -> Change:
    """A change of a JSON file; a setting of None is removed."""

    def change(model: Path) -> None:
        path = model / name
        table = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({k: v for k, v in table.items() if v is not None}))

    return change


def text(name: str, content: str | bytes) -> Change:
    raw = content if isinstance(content, bytes) else content.encode()
    return lambda model: (model / name).write_bytes(raw)


def weights(change: Callable[[Weights], Weights]) -> Change:
    def apply(model: Path) -> None:
        tensors = change(load_file(model / WEIGHTS))
        save_file(tensors, model / WEIGHTS, metadata={"format": "pt"})

    return apply


def renamed(pattern: str, new: str) -> Change:
    return weights(lambda tensors: {re.sub(pattern, new, k): x for k, x in tensors.items()})


def sharded(change: Change = lambda model: None) -> Change:
    """The weights in two parts with an index, and then a change."""

    def apply(model: Path) -> None:
        tensors = load_file(model / WEIGHTS)
        (model / WEIGHTS).unlink()
        names, where = sorted(tensors), {}
        for part in (0, 1):
            file = f"model-0000{part + 1}-of-00002.safetensors"
            where |= dict.fromkeys(names[part::2], file)
            ours = {name: tensors[name] for name in names[part::2]}
            save_file(ours, model / file, metadata={"format": "pt"})
        table = {"metadata": {"total_size": 1}, "weight_map": where}
        (model / INDEX).write_text(json.dumps(table))
        change(model)

    return apply


def all_of(*changes: Change) -> Change:
    def apply(model: Path) -> None:
        for change in changes:
            change(model)

    return apply


def in_8_bits(tensors: Weights, *, scaled: bool = True) -> Weights:
    """Projections in float8 with a scale for all of each, as DeepSeek and Qwen publish theirs."""
    result: Weights = {}
    for name, x in tensors.items():
        if x.dim() == 2 and "proj" in name:
            scale = x.abs().max() / 448
            result[name] = (x / scale).to(torch.float8_e4m3fn)
            if scaled:
                result[f"{name}_scale_inv"] = scale.reshape(1, 1).float()
        else:
            result[name] = x
    return result


RIGHT: dict[str, Change] = {
    "several end tokens in config.json": settings("config.json", eos_token_id=[1, 2, 3]),
    "several in generation_config.json": settings("generation_config.json", eos_token_id=[2, 3]),
    "another end token": settings("generation_config.json", eos_token_id=7),
    "an end token past the vocabulary": settings("config.json", eos_token_id=999_999),
    "a generation_config.json that is broken": text("generation_config.json", "{"),
    "one that is not text": text("generation_config.json", b"\xff\xfe"),
    "none": lambda model: (model / "generation_config.json").unlink(),
    "odd sampling settings": settings("generation_config.json", temperature=-3, num_beams=-1),
    "no pad token": all_of(
        settings("tokenizer_config.json", pad_token=None),
        settings("config.json", pad_token_id=None),
    ),
    "a template with a byte-order mark": lambda model: (model / "chat_template.jinja").write_bytes(
        b"\xef\xbb\xbf" + (model / "chat_template.jinja").read_bytes()
    ),
    "padding and truncation on the left": settings(
        "tokenizer_config.json", padding_side="left", truncation_side="left", model_max_length=3
    ),
    "an attention of another machine": settings(
        "config.json", _attn_implementation="flash_attention_2"
    ),
    "no architecture named": settings("config.json", architectures=[]),
    "weights in two files": sharded(),
    "torch.compile around all": renamed("^", "_orig_mod."),
    "torch.compile around layers": renamed(r"layers\.(\d)\.", r"layers.\1._orig_mod."),
    "DistributedDataParallel and torch.compile": renamed("^", "module._orig_mod."),
    "peft around all": renamed("^", "base_model.model."),
    "peft's layers": renamed(r"_proj\.weight", "_proj.base_layer.weight"),
    "no prefix of the base model": renamed(r"^model\.", ""),
    "further weights, of a vision part": weights(
        lambda tensors: {**tensors, "visual.patch.weight": torch.zeros(3)}
    ),
}


@pytest.mark.parametrize("case", RIGHT)
def test_it_is_the_same_model(case: str, model: Path, right: list[float]) -> None:
    RIGHT[case](model)
    of = load(str(model))
    assert logps(of) == right
    assert of.chat.end == 2  # what the template writes, which the model was trained on


REFUSED: dict[str, tuple[Change, str]] = {
    "no template": (
        lambda model: (model / "chat_template.jinja").unlink(),
        r"^the tokenizer has no chat template.* set `chat.template`",
    ),
    "a template that is no template": (
        text("chat_template.jinja", "{% for"),
        r"^the chat template does not take messages from user.* set `chat.template`",
    ),
    "a limit of the tokenizer that is no number": (
        settings("tokenizer_config.json", model_max_length="x"),
        r"could not be loaded \(its tokenizer: ",
    ),
    **{
        f"a pointer instead of {name}": (
            text(name, POINTER),
            rf"{name} is a pointer of Git LFS, not the file itself; run `git lfs pull`",
        )
        for name in (WEIGHTS, "tokenizer.json", "config.json", "chat_template.jinja")
    },
    "a pointer instead of one part": (
        sharded(text("model-00002-of-00002.safetensors", POINTER)),
        r"model-00002-of-00002.safetensors is a pointer of Git LFS",
    ),
    "a pointer instead of the index": (
        sharded(text(INDEX, POINTER)),
        r"index.json is a pointer of Git LFS",
    ),
    "a missing part": (
        sharded(lambda model: (model / "model-00002-of-00002.safetensors").unlink()),
        r"model-00002-of-00002.safetensors is missing, which .* lists",
    ),
    **{
        f"the index {content[:40]}": (
            sharded(text(INDEX, content)),
            r"index.json does not list the parts of the weights; download it again",
        )
        for content in ("{", "[]", "{}", '{"weight_map": {"a": "../../x.safetensors"}}', "[" * 9999)
    },
    "weights in a pickle": (
        lambda model: (model / WEIGHTS).rename(model / "pytorch_model.bin"),
        r"weights are in pytorch_model.bin, and only safetensors are read.* convert it",
    ),
    "weights of another program": (
        lambda model: (model / WEIGHTS).rename(model / "model.gguf"),
        r"weights are in model.gguf, and only safetensors are read",
    ),
    "adapters that are not merged": (
        weights(lambda tensors: {**tensors, "q_proj.lora_A.default.weight": torch.zeros(2, 2)}),
        r"adapters in them that are not merged .* merge_and_unload",
    ),
    "8 bits without scales": (
        weights(lambda tensors: in_8_bits(tensors, scaled=False)),
        r"holds weights in 8 bits without their scales .* give the folder of its full weights",
    ),
    "8 bits without scales, declared": (
        all_of(
            weights(lambda tensors: in_8_bits(tensors, scaled=False)),
            settings("config.json", quantization_config=FP8),
        ),
        r"holds weights in 8 bits without their scales",
    ),
    **{
        f"quantised with {method}": (
            settings("config.json", quantization_config={"quant_method": method, "bits": 4}),
            rf'is stored quantised \({method}\).* full weights, and set quantize = "nf4"',
        )
        for method in ("gptq", "awq", "bitsandbytes", "compressed-tensors", "nonsense")
    },
    "quantised, without a method": (
        settings("config.json", quantization_config={"bits": 4}),
        r"is stored quantised \(an unnamed method\)",
    ),
    "quantised with a list": (
        settings("config.json", quantization_config=[1]),
        r"could not be loaded",
    ),
    "a classifier": (
        settings("config.json", architectures=["Qwen3ForSequenceClassification"]),
        r"is a Qwen3ForSequenceClassification, which writes no text; give the folder",
    ),
    **{
        f"a context of {length!r} tokens": (
            settings("config.json", max_position_embeddings=length),
            r"config\.json: max_position_embeddings = .* is not the length of a context; write",
        )
        for length in (0, -1, 0.5, True, "4096")
    },
    "a number for its architectures": (
        settings("config.json", architectures=-1),
        r"has architectures = -1; it must be a list of names",
    ),
    **{
        f"{name} = 10^{power}": (settings("config.json", **{name: 10**power}), sentence)
        for name, power, sentence in (
            ("num_hidden_layers", 9, "num_hidden_layers = 1,000,000,000 is not the size"),
            ("vocab_size", 15, "vocab_size = 1,000,000,000,000,000 is not the size"),
            ("hidden_size", 9, "they are of different models; download it again"),
            ("max_position_embeddings", 30, "max_position_embeddings = 1,000,"),
        )
    },
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_sentence(case: str, model: Path) -> None:
    change, sentence = REFUSED[case]
    change(model)
    assert re.search(sentence, refusal(model))


def test_weights_in_8_bits_with_their_scales_are_written_out_in_full(model: Path) -> None:
    wanted = {
        name: (x.float() * scale if (scale := in_8[f"{name}_scale_inv"].item()) else x)
        for in_8 in [in_8_bits(load_file(model / WEIGHTS))]
        for name, x in in_8.items()
        if f"{name}_scale_inv" in in_8
    }
    all_of(weights(in_8_bits), settings("config.json", quantization_config=FP8))(model)
    of = load(str(model))
    found = dict(of.model.named_parameters())
    for name, x in wanted.items():
        assert found[name].dtype == torch.float32
        # transformers writes them out in bfloat16, which has 8 bits of mantissa
        torch.testing.assert_close(found[name].detach(), x, rtol=2**-8, atol=0)
    of.save(model.parent / "again")
    described = json.loads((model.parent / "again" / "config.json").read_text())
    assert "quantization_config" not in described
    assert logps(load(str(model.parent / "again"))) == logps(of)


E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""The magnitudes of 4 bits, by the table of the Open Compute Project's MX formats (v1.0, 5.3.3)."""


def mxfp4(packed: Tensor, scales: Tensor) -> Tensor:
    """packed[..., B, 16] bytes of two values each, scales[..., B] with a bias of 127 -> the values
    [..., 32 B]: the format's definition, one value after the other."""
    low_first = [(byte & 15, byte >> 4) for byte in packed.flatten().tolist()]
    values = [(-1.0 if code & 8 else 1.0) * E2M1[code & 7] for both in low_first for code in both]
    blocks = torch.tensor(values).view(*packed.shape[:-1], 32)
    return (blocks * torch.exp2(scales.float() - 127)[..., None]).flatten(-2)


def test_weights_in_mxfp4_are_the_values_that_the_format_defines(tmp_path: Path) -> None:
    pytest.importorskip("transformers.integrations.mxfp4")
    folder, chance = tmp_path / "model", torch.Generator().manual_seed(0)
    whole = build("gpt_oss", size=small_chat().size, end=small_chat().end, pad=words().pad_token_id)
    HFPolicy(whole, small_chat()).save(folder)
    tensors, wanted = load_file(folder / WEIGHTS), {}
    for name in [name for name in tensors if name.endswith("_proj") and "experts" in name]:
        experts, rows, columns = tensors.pop(name).transpose(1, 2).shape
        shape = experts, rows, columns // 32
        packed = torch.randint(0, 256, (*shape, 16), generator=chance, dtype=torch.uint8)
        scales = torch.randint(120, 128, shape, generator=chance, dtype=torch.uint8)
        tensors |= {f"{name}_blocks": packed, f"{name}_scales": scales}
        wanted[name] = mxfp4(packed, scales).transpose(1, 2)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    settings("config.json", quantization_config={"quant_method": "mxfp4"})(folder)
    found = dict(load(str(folder)).model.named_parameters())
    assert len(wanted) == 8  # two in each of four layers
    for name, values in wanted.items():
        assert torch.equal(found[name].detach(), values)  # 4 bits and a power of two: exact


def test_prefixes_are_removed_only_where_they_stand(saved: Path) -> None:
    assert folders.stored(saved).renamed == {}
    assert folders.stored(Path("hub/id")).tensors == {}
    held = folders.stored(saved)
    assert held.values == sum(x.numel() for x in load_file(saved / WEIGHTS).values())


def turns_of(model: Path, **changes: object) -> tuple[HFPolicy, list[Ids]]:
    """Thirty turns from one prompt."""
    of = load(str(model))
    for k in range(30):
        of.submit(Request(key=str(k), prompt=(20, 30), seed=k, max_new=40, **changes))  # type: ignore[arg-type]
    found: dict[str, Ids] = {}
    while len(found) < 30:
        for turn in of.poll():
            found[turn.key] = turn.tokens
            ends = changes.get("ends") or of.chat.ends
            assert isinstance(ends, tuple)
            assert turn.ended == (turn.tokens[-1] in ends) == (len(turn.tokens) < 40)
            assert not set(ends) & set(turn.tokens[:-1])
    return of, [found[str(k)] for k in range(30)]


def test_a_turn_ends_with_any_end_token_of_the_model(model: Path) -> None:
    """The transcript closes the message with the token of the template all the same."""
    _, alone = turns_of(model)
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 2]}))
    of, turns = turns_of(model)
    cut = [turn[: turn.index(3) + 1] if 3 in turn else turn for turn in alone]
    assert turns == cut != alone
    ended = next(turn for turn in turns if turn[-1] == 3)
    assert of.chat.text(ended) == of.chat.text(ended[:-1])
    assert of.chat.follow("on", ended=False)[0] == of.chat.end == 2
    of.save(model.parent / "again")
    assert load(str(model.parent / "again")).chat.ends == (2, 3)
    assert turns_of(model, ends=(2,))[1] == alone


@pytest.mark.parametrize(
    ("ends", "named"), [(None, ""), (2, ""), ([2, 3], ""), (7, "x"), ([7, 3], "x"), ("y", "")]
)
def test_words_that_a_model_names_as_end_tokens_are_said_before_the_first_step(
    ends: object, named: str, model: Path
) -> None:
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    of = load(str(model))
    sentences = list(other_ends({"self": of}))
    assert len(sentences) == bool(named)
    assert all("the student has further end tokens" in each for each in sentences)


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXTS = ["look at the open door", "Hello world, what is 12 + 3?", "h\u00e9llo  \u4f60\u597d"]


def without_tokenizer(model: Path, **config: object) -> Path:
    """A folder whose tokenizer's files are still to be written."""
    (model / "tokenizer.json").unlink()
    (model / "chat_template.jinja").write_text(CHATML)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    return model


def test_a_tokenizer_of_sentencepiece_alone_is_as_sentencepiece_has_it(model: Path) -> None:
    pieces = pytest.importorskip("sentencepiece")
    without_tokenizer(model, tokenizer_class="LlamaTokenizer", eos_token="<|im_end|>")
    with (model / "tokenizer.model").open("wb") as file:
        pieces.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS * 40),
            model_writer=file,
            vocab_size=400,
            hard_vocab_limit=False,
            model_type="bpe",
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            control_symbols=["<|im_start|>", "<|im_end|>"],
            minloglevel=2,
        )
    own = pieces.SentencePieceProcessor(model_file=str(model / "tokenizer.model"))
    folders.check_pieces(model, AutoTokenizer.from_pretrained(model))
    chat = Chat(AutoTokenizer.from_pretrained(model))
    for text in TEXTS:
        assert chat.tokenizer(text, add_special_tokens=False)["input_ids"] == own.encode(text)
    assert own.id_to_piece(chat.end) == "<|im_end|>"
    # nothing names its class, and the model's kind has another
    (model / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
    assert re.search("name its tokenizer_class in tokenizer_config.json", refusal(model))


def test_without_sentencepiece_one_sentence_names_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (without_tokenizer(model) / "tokenizer.model").write_bytes(b"any")
    with pytest.raises(PolicyError, match="pip install sentencepiece protobuf"):
        folders.check_pieces(model, None)


def test_a_tokenizer_of_a_vocabulary_and_merges_alone_is_the_same(model: Path) -> None:
    whole = Tokenizer(BPE())
    whole.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = ByteLevel.alphabet()
    marks = ["<|im_start|>", "<|im_end|>"]
    whole.train_from_iterator(
        TEXTS * 4,
        BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet),  # type: ignore[arg-type]
    )
    bpe = json.loads(whole.to_str())["model"]
    without_tokenizer(model, tokenizer_class="GPT2Tokenizer", eos_token="<|im_end|>")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in bpe["merges"]]
    (model / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    (model / "vocab.json").write_text(json.dumps(bpe["vocab"]))
    chat = Chat(AutoTokenizer.from_pretrained(model))
    for text in TEXTS:
        ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids == whole.encode(text).ids
        assert chat.tokenizer.decode(ids) == text
    assert chat.end == whole.token_to_id("<|im_end|>")
    assert chat.end not in chat.content("<|im_end|>")
