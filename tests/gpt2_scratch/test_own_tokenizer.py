"""Bases with a tokenizer of their own, against transformers' reading of the same folder."""

import json
import random
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from helpers import mails, questions, results_of, run_in_process, write_rows
from one_example import encode_instruction, encode_labelled
from tokenizers import (
    AddedToken,
    ByteLevelBPETokenizer,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import generate
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.own_tokenizer import AROUND, find_tokenizer, needed_end
from gpt2_scratch.plain_tokenizer import is_gpt2s_own
from gpt2_scratch.pretrained import save_pretrained
from gpt2_scratch.sources import ASSETS, BUNDLED, load_config
from gpt2_scratch.tokenizer import GPT2, GPT2Tokenizer
from page.models import open_answerers
from tasks import Instruction, Labelled
from tasks._task import BUNDLED as DATA
from training.data.corpus import tokenised
from training.data.special_tokens import special_tokens_note
from training.flags.common import ModelArgs
from training.model.facts import Facts, base_facts
from training.model.methods import build_language_model

TEXT = (DATA / "general.txt").read_text(encoding="utf-8")
ENDS = {"bpe": "<|endoftext|>", "wordpiece": "[EOS]", "unigram": "</s>"}
COLUMNS = ("--text-column", "text", "--label-column", "label")
ROWS = 700  # token embeddings of the models
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1355256\n"


def trained(kind: str) -> Tokenizer:
    """A tokenizer of 600 tokens, with added tokens, special and not."""
    return Tokenizer.from_str(_trained(kind))


@cache
def _trained(kind: str) -> str:
    if kind == "bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        special = [ENDS[kind], "<|pad|>"]
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ENDS[kind]]
        trainer = trainers.WordPieceTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        special = ["<unk>", "<pad>", ENDS[kind]]
        trainer = trainers.UnigramTrainer(
            vocab_size=600, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    made.train_from_iterator(TEXT.split("\n\n")[:300], trainer)
    made.add_special_tokens([AddedToken("<|user|>", special=True)])
    made.add_tokens(["kookaburra"])
    return made.to_str()


def base_folder(folder: Path, rows: int = ROWS, **settings: object) -> Path:
    """A random model with so many token embeddings, without a tokenizer."""
    model = LanguageModel(GPT2Config(width=16, blocks=2, heads=2, context=512, vocabulary=rows))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, folder, GPT2)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (folder / name).unlink()
    config = json.loads((folder / "config.json").read_text())
    kept = {name: value for name, value in config.items() if not name.endswith("token_id")}
    (folder / "config.json").write_text(json.dumps(kept | settings))
    return folder


@pytest.fixture(scope="session", params=ENDS)
def own(request, tmp_path_factory) -> Path:
    folder = base_folder(tmp_path_factory.mktemp(request.param))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained(request.param), eos_token=ENDS[request.param]
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bpe(tmp_path_factory) -> Path:
    """Byte-level, as vocab.json and merges.txt alone."""
    folder = base_folder(tmp_path_factory.mktemp("bytes"))
    trained("bpe").model.save(str(folder))
    return folder


def opened(folder: Path):
    return find_tokenizer(folder, GPT2Config(vocabulary=ROWS))


def mixed_texts(count: int) -> list[str]:
    rng = random.Random(0)
    words = [*TEXT.split()[:400], "naïve", "東京", "🙂", "👩\u200d👩\u200d👧", "नमस्ते", "kookaburra"]
    words += ["def f(x):\n\treturn x**2", "\x00", "\x1b[0m"]
    words += [" ", "   ", "\n\n", "\t", "\u00a0", "\u200b", "\r\n", "don't", "1,234.5", "ﬁ", "é", "\ufffd"]
    words += ["<|endoftext|>", "</s>", "[SEP]", "[EOS]", "<|user|>", "<pad>", "<|im_start|>", "[UNK]", "##ing", "▁a"]
    return ["", " ", *(rng.choice(["", " "]).join(rng.choices(words, k=rng.randint(1, 25))) for _ in range(count - 2))]


def foreign_ends(text: str, tokenizer) -> set[str]:
    """End markers of other models, which stand for the base's own where special tokens are read as tokens."""
    return {marker for marker in ENDS.values() if marker in text and marker not in tokenizer.special}


def test_token_ids_equal_transformers_for_500_mixed_texts_in_both_meanings_of_special_tokens(own):
    theirs = transformers.AutoTokenizer.from_pretrained(own)
    for meaning in ("text", "tokens"):
        ours, split = opened(own).reading(meaning), meaning == "text"
        texts = [text for text in mixed_texts(500) if split or not foreign_ends(text, ours)]
        assert len(texts) > 250
        found = list(ours.encode_all(texts))
        for text, tokens in zip(texts, found, strict=True):
            wanted = theirs(text, add_special_tokens=False, split_special_tokens=split).input_ids
            assert tokens == wanted == ours.encode(text), text
            assert ours.decode(tokens) == theirs.decode(tokens)


def test_the_end_of_text_is_the_bases_own_and_stands_for_the_end_markers_of_other_models(own):
    tokenizer = opened(own)
    theirs = transformers.AutoTokenizer.from_pretrained(own)
    end = theirs.eos_token_id
    assert tokenizer.vocabulary[:2] == (max(theirs.get_vocab().values()) + 1, end) and end < 10
    assert encode_labelled(tokenizer, Labelled(0, ""), 0, 10).tokens.tolist() == [end]
    asked = Instruction(0, "Name a bird.", response="A wren.")
    plain = encode_instruction(tokenizer, asked, 400)
    assert plain.labels[-1] == end and (plain.labels == end).sum() == 1
    for marker in ("</s>", "<|im_end|>", "<|endoftext|>", theirs.eos_token):
        marked = Instruction(0, "Name a bird.", response="A wren." + marker)
        as_end = encode_instruction(tokenizer.reading("tokens"), marked, 400)
        assert as_end.labels.tolist() == plain.labels.tolist() and as_end.tokens.tolist() == plain.tokens.tolist()
        as_text = encode_instruction(tokenizer, marked, 400)
        assert (as_text.labels == end).sum() == 1
        if end not in tokenizer.encode(marker):  # a unigram vocabulary has it among its pieces, whatever is asked
            assert len(as_text.tokens) > len(plain.tokens)


def test_pieces_are_the_text_and_cut_characters_go(own):
    tokenizer = opened(own)
    for text in mixed_texts(60)[2:]:
        tokens = tokenizer.encode(text)
        pieces = tokenizer.pieces(tokens)
        assert sum(count for _, count in pieces) == len(tokens)
        assert "".join(piece for piece, _ in pieces) == tokenizer.decode(tokens)
    tokens = tokenizer.encode("wet 東京")
    if len(tokens) > 6:  # bytes
        for length in range(1, len(tokens)):
            kept = tokenizer.whole_characters(tokens[:length])
            assert length - len(kept) < 3 and "wet 東京".startswith(tokenizer.decode(kept))


def test_gpt2s_own_is_known_in_whatever_form_its_files_have(tmp_path):
    (tmp_path / "ours").mkdir()
    GPT2.save(tmp_path / "ours", 1024)
    read = transformers.GPT2Tokenizer.from_pretrained(tmp_path / "ours")
    read.save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "theirs" / "tokenizer.json").exists()
    for name in ("ours", "theirs"):
        assert is_gpt2s_own(tmp_path / name)
        assert isinstance(find_tokenizer(tmp_path / name, GPT2Config()), GPT2Tokenizer)
    assert find_tokenizer(BUNDLED["gpt2-nano"], GPT2Config()).notes == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("added_tokens.json", {"[PAD]": 50257}),
        ("special_tokens_map.json", {"pad_token": "[PAD]"}),
        ("tokenizer_config.json", {"add_prefix_space": True}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"50257": {"content": "<|user|>", "special": True}}}),
    ],
)
def test_gpt2s_own_with_something_added_is_read_as_transformers_reads_it(tmp_path, name, content):
    GPT2.save(tmp_path, 1024)
    (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    ours = find_tokenizer(tmp_path, GPT2Config(vocabulary=50304))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert not is_gpt2s_own(tmp_path) and ours.vocabulary.end == 50256
    for text in (text for text in mixed_texts(80) if not foreign_ends(text, ours)):
        assert ours.reading("tokens").encode(text) == theirs(text, add_special_tokens=False).input_ids
    assert ours.reading("tokens").encode("a [PAD] <|user|> b") != GPT2.encode("a [PAD] <|user|> b")


def test_a_tokenizer_json_that_names_no_class_is_read_as_it_stands(tmp_path):
    """transformers takes it for byte-pair encoding in a GPT-2's folder, whatever it is."""
    for kind in ENDS:
        folder = base_folder(tmp_path / kind, eos_token_id={"bpe": 0, "wordpiece": 3, "unigram": 2}[kind])
        made = trained(kind)
        made.save(str(folder / "tokenizer.json"))
        ours = opened(folder).reading("tokens")
        for text in (text for text in mixed_texts(80) if not foreign_ends(text, ours)):
            assert ours.encode(text) == made.encode(text, add_special_tokens=False).ids
        assert opened(folder).vocabulary.end == {"bpe": 0, "wordpiece": 3, "unigram": 2}[kind]


@pytest.mark.parametrize("kind", ["prefix", "lower case", "digits"])
def test_a_byte_level_tokenizer_json_that_splits_unlike_gpt2_is_read_as_it_stands(tmp_path, kind):
    folder, made = base_folder(tmp_path / "base", eos_token_id=0), trained("bpe")
    if kind == "prefix":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    elif kind == "lower case":
        made.normalizer = normalizers.Lowercase()
    else:
        split = pre_tokenizers.Split(Regex(r"\d"), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    made.save(str(folder / "tokenizer.json"))
    ours = opened(folder)
    texts = ["Hello cat 12345", "A 7 and The end"]
    assert [ours.encode(text) for text in texts] == [made.encode(text).ids for text in texts]
    assert trained("bpe").encode(texts[0]).ids != made.encode(texts[0]).ids
    assert len(ours.notes) == 1
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2TokenizerFast"}')
    assert "names GPT-2's class" in opened(folder).notes[-1]


def test_special_tokens_that_a_tokenizer_puts_around_a_text_are_said_to_be_left_out(tmp_path):
    GPT2.save(tmp_path, 1024)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings | {"add_bos_token": True}))
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = find_tokenizer(tmp_path, GPT2Config())
    assert theirs("Hello").input_ids == [50256, *ours.encode("Hello")]
    assert "special tokens around a text" in ours.notes[0]


@pytest.mark.parametrize("alone", [True, False])
def test_those_of_a_post_processor_beside_gpt2s_own_tokenizer_are_said_too(tmp_path, alone):
    GPT2.save(tmp_path, 1024)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    made = transformers.AutoTokenizer.from_pretrained(tmp_path)
    around = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 50256)])
    plain = processors.ByteLevel(trim_offsets=False)
    made.backend_tokenizer.post_processor = around if alone else processors.Sequence([plain, around])
    made.save_pretrained(tmp_path)
    ours, theirs = find_tokenizer(tmp_path, GPT2Config()), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs("Hello").input_ids == [50256, *ours.encode("Hello")]
    assert isinstance(ours, GPT2Tokenizer) and ours.notes == [AROUND]
    made.backend_tokenizer.post_processor = plain
    made.save_pretrained(tmp_path)
    assert find_tokenizer(tmp_path, GPT2Config()).notes == []


@pytest.mark.parametrize(
    ("listed", "named"),
    [([50256, 13], "'.'"), ([13], ""), (50256, ""), ([50256], ""), (None, ""), ([50256, "x", 99999, -1], "")],
)
@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_other_tokens_at_which_transformers_ends_an_answer_are_said(tmp_path, file, listed, named):
    GPT2.save(tmp_path, 1024)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "eos_token_id": 50256}')
    (tmp_path / file).write_text(json.dumps({"model_type": "gpt2", "eos_token_id": listed}))
    found = find_tokenizer(tmp_path, GPT2Config())
    assert [f"ends at {named} too (eos_token_id)" in note for note in found.notes] == [True] * bool(named)
    assert found.vocabulary.stops == (frozenset({13}) if named else frozenset())
    assert GPT2.vocabulary.stops == frozenset()


def test_an_end_of_answers_beside_the_bases_own_end_of_text_is_said(tmp_path):
    folder = base_folder(tmp_path / "base", eos_token_id=0)
    trained("bpe").save(str(folder / "tokenizer.json"))
    before = opened(folder).notes
    for listed, said in (([0, 300], True), (300, False), (0, False)):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
        notes = opened(folder).notes
        assert notes[: len(before)] == before and len(notes) == len(before) + said


def test_an_answer_ends_where_transformers_ends_it_and_so_does_that_of_the_saved_model(tmp_path):
    made = trained("bpe")
    folder = base_folder(tmp_path / "base", made.get_vocab_size(), eos_token_id=0)
    made.save(str(folder / "tokenizer.json"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = [[5, 7 + i, 9] for i in range(12)]

    def of_transformers(model, **more):
        asked = dict(max_new_tokens=8, do_sample=False, pad_token_id=0, attention_mask=torch.ones(1, 3), **more)
        return [model.generate(torch.tensor([prompt]), **asked)[0, 3:].tolist() for prompt in prompts]

    without = of_transformers(theirs)
    listed = [0, *sorted({answer[3] for answer in without[:4]})]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": listed}))
    wanted = of_transformers(theirs, eos_token_id=listed)
    assert sum(map(len, wanted)) < sum(map(len, without))

    tokenizer = opened(folder)
    model = build_language_model(folder, load_config(folder), ModelArgs())
    found = generate(model, prompts, tokenizer.vocabulary, 8)
    assert [one.tokens for one in found] == [answer[: len(answer) - (answer[-1] in listed)] for answer in wanted]
    assert [one.stopped for one in found] == [answer[-1] in listed for answer in wanted]
    save_pretrained(model, tmp_path / "saved", tokenizer)
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert of_transformers(saved) == wanted and opened(tmp_path / "saved").vocabulary == tokenizer.vocabulary


@pytest.mark.parametrize("place", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_chat_template_beside_gpt2s_tokenizer_goes_on_with_the_model(tmp_path, place):
    template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    GPT2.save(tmp_path, 1024)
    if place.endswith("jinja"):
        (tmp_path / place).write_text(template)
    else:
        settings = json.loads((tmp_path / place).read_text())
        (tmp_path / place).write_text(json.dumps(settings | {"chat_template": template}))
    (tmp_path / "saved").mkdir()
    find_tokenizer(tmp_path, GPT2Config()).reading("tokens").save(tmp_path / "saved", 1024)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert read.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Hi<|endoftext|>"


def test_the_playground_opens_a_full_run_of_a_base_with_its_own_tokenizer(tmp_path):
    base = base_folder(tmp_path / "base", eos_token_id=0)
    trained("bpe").save(str(base / "tokenizer.json"))
    tokenizer = opened(base)
    run = tmp_path / "run"
    save_pretrained(build_language_model(base, load_config(base), ModelArgs()), run / "model", tokenizer)
    assert opened(run / "model").sha256 != tokenizer.sha256  # the export is another file
    args = {"model": str(base), "method": "full", "special_tokens": "text"}
    results = {"args": args, "model": base_facts(str(base), base, tokenizer).entry(), "data": {}}
    assert [one.name for one in open_answerers([(run, results)], None, torch.device("cpu"))][0] == "Base model"
    results["model"]["tokenizer"] = "0" * 64
    with pytest.raises(ValueError, match="was trained with another tokenizer"):
        open_answerers([(run, results)], None, torch.device("cpu"))


def test_a_corpus_is_parted_at_the_end_of_text_where_special_tokens_are_read_as_tokens(bpe):
    for tokenizer in (GPT2, opened(bpe)):
        end = tokenizer.vocabulary.end
        text = "One story.<|endoftext|>Another one.<|endoftext|></s>A third."
        parts = tokenised([text], tokenizer.reading("tokens"))
        wanted = ["One story.", "Another one.", "A third."]
        assert [part.tolist() for part in parts] == [[*tokenizer.encode(part), end] for part in wanted]
        (whole,) = tokenised([text], tokenizer)
        assert list(whole).count(end) == 1 and tokenizer.decode(whole[:-1].tolist()) == text


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "the model has 700 tokens, GPT-2's tokenizer 50,257; put the model's own tokenizer files"),
        ({"tokenizer.json": "{"}, "tokenizer.json is damaged"),
        ({"tokenizer.json": "[1, 2]"}, "tokenizer.json holds no JSON object"),
        ({"tokenizer.json": '{"model": [1]}'}, "do not have the form that transformers writes"),
        ({"tokenizer.json": '{"added_tokens": [1]}'}, "do not have the form that transformers writes"),
        ({"tokenizer_config.json": "[]", "vocab.json": "{}"}, "tokenizer_config.json holds no JSON object"),
        ({"tokenizer_config.json": '{"added_tokens_decoder": [1]}', "vocab.json": "{}"}, "do not have the form"),
        ({"added_tokens.json": "[]", "vocab.json": "{}"}, "added_tokens.json holds no JSON object"),
        ({"special_tokens_map.json": '"x"', "vocab.json": "{}"}, "special_tokens_map.json holds no JSON object"),
        ({"tokenizer.json": POINTER}, "tokenizer.json is a pointer of Git LFS, not the file itself; run: git lfs pull"),
        ({"vocab.json": "{}", "merges.txt": POINTER}, "merges.txt is a pointer of Git LFS"),
        ({"spiece.model": POINTER}, "spiece.model is a pointer of Git LFS"),
        ({"vocab.json": '{"a": 0}'}, "its tokenizer cannot be read"),
        ({"vocab.txt": "[PAD]\n[UNK]\na\nb\n"}, '"tokenizer_class": "BertTokenizer"'),
        ({"spiece.model": "x", "tokenizer_config.json": '{"tokenizer_class": "T5Tokenizer"}'}, "sentencepiece"),
        ({"tokenizer_config.json": '{"tokenizer_class": "Mine"}', "vocab.json": "{}"}, "its tokenizer cannot be read"),
    ],
)
def test_a_tokenizer_that_cannot_be_used_is_refused_with_a_remedy(tmp_path, files, message):
    folder = base_folder(tmp_path / "m")
    for name, content in files.items():
        (folder / name).write_text(content)
    with pytest.raises(ValueError) as error:
        opened(folder)
    assert message in str(error.value) and len(str(error.value).replace(str(folder), "")) <= 300


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(bpe):
    with pytest.raises(ValueError, match=r"its tokenizer has 600 tokens, the model 599"):
        find_tokenizer(bpe, GPT2Config(vocabulary=599))


def test_a_base_without_an_end_of_text_classifies_but_follows_no_instructions(tmp_path):
    folder = base_folder(tmp_path / "m")
    nameless = json.loads(trained("wordpiece").to_str().replace("[EOS]", "[X]"))
    (folder / "tokenizer.json").write_text(json.dumps(nameless))
    assert opened(folder).vocabulary.end is None
    common = ("--model", folder, "--max-steps", 1, "--max-length", 32, "--output-dir", tmp_path / "run")
    asked, texts = write_rows(tmp_path / "q.jsonl", questions(20)), write_rows(tmp_path / "m.jsonl", mails(40))
    columns = ("--prompt-column", "instruction", "--response-column", "response")
    done = run_in_process("finetune_ift", "--data", asked, *columns, *common)
    assert done.returncode == 2 and '"eos_token": "[SEP]"' in done.stderr
    done = run_in_process("finetune_cls", "--data", texts, *COLUMNS, *common)
    assert done.returncode == 0, done.stderr
    assert "end of text none" in done.stdout


def test_a_run_predicts_and_merges_with_the_tokenizer_of_its_base(own, tmp_path):
    data, run, merged = write_rows(tmp_path / "m.jsonl", mails(40)), tmp_path / "run", tmp_path / "merged"
    short = ("--max-steps", 2, "--max-length", 400)
    done = run_in_process("finetune_cls", "--data", data, *COLUMNS, "--model", own, *short, "--output-dir", run)
    assert done.returncode == 0, done.stderr
    assert "the model's own tokenizer" in done.stdout
    assert results_of(run)["model"]["tokenizer"] == opened(own).sha256
    assert run_in_process("predict", "--run", run, "--data", data, "--output", tmp_path / "p.jsonl").returncode == 0
    assert run_in_process("merge_lora", "--run", run, "--output", merged).returncode == 0
    theirs = transformers.AutoTokenizer.from_pretrained(merged)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(merged)
    assert theirs.pad_token_id == model.config.pad_token_id and theirs.pad_token is not None
    classify = transformers.pipeline("text-classification", model=model, tokenizer=theirs, top_k=None)
    texts = [row["text"] for row in mails(40)]
    wanted = transformers.AutoTokenizer.from_pretrained(own)
    assert theirs(texts, add_special_tokens=False).input_ids == wanted(texts, add_special_tokens=False).input_ids
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    for line, scores in zip(lines, classify(texts, batch_size=4, padding=True), strict=True):
        found = {score["label"]: score["score"] for score in scores}
        assert found == pytest.approx(line["probabilities"], abs=1e-4)


def surrounded(style: str, folder: Path) -> Path:
    """A base whose tokenizer puts tokens around every text, as transformers reads it."""
    base_folder(folder)
    if style in ("bert", "bert vocab.txt"):
        made = trained("wordpiece")
        if style == "bert":
            transformers.BertTokenizerFast(tokenizer_object=made).save_pretrained(folder)
        else:
            made.model.save(str(folder))
            (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    elif style == "llama":
        names = {"eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<pad>", "add_bos_token": True}
        transformers.PreTrainedTokenizerFast(
            tokenizer_object=trained("unigram"), add_eos_token=True, **names
        ).save_pretrained(folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps(settings | names | {"add_eos_token": True}))
    else:
        made = trained("bpe")
        if style == "roberta":
            made.post_processor = processors.RobertaProcessing(("<|endoftext|>", 0), ("<|pad|>", 1))
        else:
            around = [("<|endoftext|>", 0)]
            made.post_processor = processors.TemplateProcessing(
                single="<|endoftext|> $A <|endoftext|>", special_tokens=around
            )
        made.enable_truncation(4)
        made.enable_padding(length=9, pad_id=1, pad_token="<|pad|>")
        transformers.PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>").save_pretrained(folder)
    return folder


SURROUNDED = ("bert", "bert vocab.txt", "llama", "roberta", "template")


@pytest.mark.parametrize("style", SURROUNDED)
def test_an_exported_tokenizer_gives_the_tokens_that_were_trained_on_to_whoever_calls_it(tmp_path, style):
    folder = surrounded(style, tmp_path / "base")
    ours, before = opened(folder), transformers.AutoTokenizer.from_pretrained(folder)
    assert len(before("bad").input_ids) > len(ours.encode("bad"))
    exported = base_folder(tmp_path / "exported")
    ours.save(exported, 64)
    theirs, again = transformers.AutoTokenizer.from_pretrained(exported), opened(exported)
    assert theirs.model_max_length == 64 and theirs.pad_token_id == ours.pad == again.pad
    assert again.vocabulary.size == ours.vocabulary.size and (theirs.eos_token_id == before.eos_token_id)
    for text in mixed_texts(80):
        read = theirs(text, split_special_tokens=True)
        assert read.input_ids == ours.encode(text) == again.encode(text), text
        assert set(read) == {"input_ids", "attention_mask"}  # token types would be added as words
        assert theirs.decode(read.input_ids) == ours.decode(read.input_ids)
    texts = ["bad", TEXT[:300]]
    assert theirs(texts).input_ids == [ours.encode(text) for text in texts]


@pytest.mark.parametrize("style", ["bert", "roberta"])
def test_a_batched_pipeline_of_an_exported_classifier_gives_its_own_labels(tmp_path, style):
    ours = opened(surrounded(style, tmp_path / "base"))
    model = Classifier(GPT2Config(width=16, blocks=2, heads=2, context=128, vocabulary=ROWS), 3)
    initialise(model, torch.Generator().manual_seed(0), std=0.3)
    save_pretrained(model.eval(), tmp_path / "c", ours, **Facts(labels=["a", "b", "c"]).label_names)
    classify = transformers.pipeline("text-classification", model=str(tmp_path / "c"), top_k=None)
    texts = [TEXT[i : i + 3 + i // 9] for i in range(0, 700, 35)]
    with torch.no_grad():
        for text, scores in zip(texts, classify(texts, batch_size=5), strict=True):
            tokens = torch.tensor(ours.encode(text))
            wanted = model(tokens, torch.tensor([len(tokens)]))[0].softmax(0).tolist()
            found = {score["label"]: score["score"] for score in scores}
            assert found == pytest.approx(dict(zip("abc", wanted, strict=True)), abs=1e-5)


def from_scratch(folder: Path, **config: object) -> Path:
    """As the usual recipe for training from scratch leaves it: vocab.json and merges.txt with RoBERTa's tokens."""
    base_folder(folder, **config)
    made = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(TEXT.split("\n\n")[:300], vocab_size=650, special_tokens=special, show_progress=False)
    made.save_model(str(folder))
    return folder


@pytest.mark.parametrize("configured", [600, 50256, [600, 300], None])
def test_an_ordinary_word_ends_no_text_whatever_config_json_says(tmp_path, configured):
    tokenizer = opened(from_scratch(tmp_path / "m", eos_token_id=configured))
    assert tokenizer.vocabulary.end == 2 and tokenizer.decode([2]) == "</s>"
    assert "end of text '</s>'" in tokenizer.notes[0] and len(tokenizer.notes[0]) <= 300
    assert ("config.json has" in tokenizer.notes[0]) == (configured is not None)
    assert tokenizer.reading("tokens").vocabulary.end == 2


def test_without_a_known_spelling_an_ordinary_word_leaves_a_base_without_an_end(tmp_path):
    folder = from_scratch(tmp_path / "m", eos_token_id=600)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).write_text((folder / name).read_text().replace("</s>", "<END>"))
    assert opened(folder).vocabulary.end is None
    with pytest.raises(ValueError, match="neither its tokenizer nor its config.json says"):
        needed_end(opened(folder), "m")


@pytest.mark.parametrize(("configured", "end"), [(2, 2), ([599, 2], 2), (600, 600), (3, 3)])
def test_a_special_token_or_a_known_end_in_config_json_is_the_end_of_text(tmp_path, configured, end):
    folder = base_folder(tmp_path / "m", eos_token_id=configured)
    made = trained("unigram")  # <unk>, <pad>, </s>
    if end == 3:
        made = trained("wordpiece")  # [SEP] is the fourth
    made.save(str(folder / "tokenizer.json"))
    assert opened(folder).vocabulary.end == end and "config.json" not in opened(folder).notes[0]


def test_generate_writes_what_transformers_writes_from_the_folder(own):
    model = transformers.AutoModelForCausalLM.from_pretrained(own)
    tokenizer = transformers.AutoTokenizer.from_pretrained(own)
    prompt = "We shall not fail"
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    end = tokenizer.eos_token_id
    written = model.generate(ids, max_new_tokens=12, do_sample=False, eos_token_id=end, pad_token_id=end)
    new = written[0, ids.shape[1] :]
    done = run_in_process("generate", "--model", own, "--raw", "--new-tokens", 12, "--prompt", prompt)
    assert done.returncode == 0, done.stderr
    text = tokenizer.decode(new[new != end]).strip()
    assert text
    assert " ".join(text.split()) in " ".join(done.stdout.split())


def test_a_base_with_rearranged_tokens_is_gpt2_nano(tmp_path):
    """Token ids in another order, with vocab.json to match: the same texts."""
    folder = tmp_path / "moved"
    shutil.copytree(BUNDLED["gpt2-nano"], folder)
    from safetensors.torch import load_file, save_file

    order = torch.cat([torch.randperm(50256, generator=torch.Generator().manual_seed(1)), torch.tensor([50256])])
    state = load_file(folder / "model.safetensors")
    (key,) = [name for name in state if name.endswith("wte.weight")]
    state[key] = torch.empty_like(state[key]).index_copy_(0, order, state[key])
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    vocabulary = json.loads((ASSETS / "encoder.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({token: int(order[i]) for token, i in vocabulary.items()}))
    shutil.copy(ASSETS / "vocab.bpe", folder / "merges.txt")
    words = ("--prompt", "The movie was", "--raw", "--new-tokens", 20)
    a, b = (run_in_process("generate", "--model", model, *words) for model in (folder, "gpt2-nano"))
    assert a.returncode == b.returncode == 0
    note, said = a.stdout.split("\n", 1)
    assert said == b.stdout and note.startswith("note    texts are read with the model's own tokenizer: 50,257 tokens")


def test_special_tokens_in_the_data_are_counted_and_said_with_what_becomes_of_them():
    texts = ["plain", "a<|endoftext|>", "<|im_start|>user\nb<|im_end|>", "c</s></s>", "d <|user|> e"]
    (note,) = special_tokens_note(GPT2, texts, "texts")
    assert "</s> 1" in note and "<|endoftext|> 1" in note and "<|im_end|> 1" in note and "<|user|>" not in note
    assert "read as ordinary text; --special-tokens tokens" in note and len(note) <= 300
    (note,) = special_tokens_note(GPT2.reading("tokens"), texts, "texts")
    assert "read as tokens where the base has them" in note
    assert special_tokens_note(GPT2, ["plain", "<|x|>"], "texts") == []


def test_a_run_says_what_special_tokens_its_data_spell_and_keeps_the_flag(tiny_model, tmp_path):
    rows = [{**row, "response": row["response"] + "<|im_end|>"} for row in questions(30)]
    flags = ("--prompt-column", "instruction", "--response-column", "response", "--max-steps", 1, "--new-tokens", 0)
    data, lengths = write_rows(tmp_path / "q.jsonl", rows), {}
    for meaning in ("text", "tokens"):
        run = tmp_path / meaning
        more = ("--model", tiny_model, "--special-tokens", meaning, "--output-dir", run)
        done = run_in_process("finetune_ift", "--data", data, *flags, *more)
        assert done.returncode == 0, done.stderr
        assert "spell special tokens (<|im_end|> 30)" in done.stdout
        assert results_of(run)["args"]["special_tokens"] == meaning
        lengths[meaning] = results_of(run)["data"]["lengths"]["train"]["longest"]
    assert lengths["text"] - lengths["tokens"] == len(GPT2.encode("<|im_end|>"))
