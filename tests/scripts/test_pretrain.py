"""Pretraining: documents become batches exactly, the estimated softmax is right on average, runs resume bit for bit."""

import json
import sys
from functools import partial

import numpy as np
import pandas
import pytest
import torch
import transformers
from helpers import kill_at_a_random_moment, results_of, run_in_process, run_script, write_rows
from safetensors.torch import load_file
from test_commands import load_script

from gpt2_scratch.config import SIZES, GPT2Config
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.tokenizer import GPT2
from training.data.corpus import Documents, Packing, encode_corpus, hold_out, pieces, read_documents, stream, tokenised
from training.step.losses import token_loss
from training.step.short_softmax import ShortSoftmax

CONFIG = GPT2Config(width=16, blocks=2, heads=2, context=64, vocabulary=300)


def documents(count=9, seed=0):
    rng = np.random.default_rng(seed)
    return [np.append(rng.integers(0, 299, rng.integers(1, 40)), 299).astype(np.int32) for _ in range(count)]


def language_model():
    model = LanguageModel(CONFIG)
    initialise(model, torch.Generator().manual_seed(0), std=0.3)
    return model


# Documents.


def test_text_files_tables_and_folders_are_read_once_each(tmp_path):
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "a.txt").write_text("one<br />two\n")
    (tmp_path / "folder" / "deep" / "b.md").write_text("\ufeffthree")
    (tmp_path / "folder" / "c.csv").write_text("left,alone\n")
    table = write_rows(tmp_path / "t.jsonl", [{"body": "three"}, {"body": "  "}, {"body": "four"}])
    texts, notes = read_documents([tmp_path / "folder", table], "body")
    assert texts == ["one\ntwo", "three", "four"]
    assert [note.partition("folder: ")[2] or note for note in notes] == [
        "skipped files that are not text (1): c.csv",
        "in 1 documents <br /> was read as a line break",
        "documents left out: 1 duplicate, 1 empty",
    ]


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_a_row_without_a_text_is_empty_in_every_kind_of_file(tmp_path, gap):
    frame = pandas.DataFrame({"text": ["one", gap, "two"]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for kind in ("parquet", "csv", "jsonl"):
        found = read_documents([tmp_path / f"t.{kind}"], "text")
        assert found == (["one", "two"], ["documents left out: 0 duplicate, 1 empty"])


def test_a_document_keeps_the_indentation_of_its_first_line(tmp_path):
    (tmp_path / "a.txt").write_text("\n  \n    def f():\n        pass\n\n")
    assert read_documents([tmp_path / "a.txt"], "text").texts == ["    def f():\n        pass"]


def test_a_text_file_is_read_in_the_encoding_that_is_named(tmp_path):
    (tmp_path / "a.txt").write_bytes("café".encode("cp1252"))
    assert read_documents([tmp_path / "a.txt"], "text", "cp1252").texts == ["café"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"caf\xe9", "not UTF-8"),
        ("x.csv", b"other\n1\n", "--text-column text: .* has no text there; its columns: other"),
        (
            "x.jsonl",
            b'{"text": "a"}\n{"text": 1}\n',
            "has something other than text there in 1 rows; its columns: text",
        ),
        ("x.rst", b"x", "unknown kind of file; known are .txt, .md for a text"),
        ("x.txt", b"a\nb\0c", "line 2 holds a NUL"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_documents([tmp_path / name], "text")


def test_a_document_is_its_tokens_and_one_end_of_text():
    (document,) = tokenised(["Hello <|endoftext|> there"], GPT2)
    assert document[-1] == 50256
    assert list(document).count(50256) == 1


def test_held_out_documents_are_whole_and_have_the_share_asked_for():
    everything = documents(200)
    train, held = hold_out(everything, 0.1, seed=1)
    assert sorted(map(id, train + held)) == sorted(map(id, everything))
    share = sum(map(len, held)) / sum(map(len, everything))
    assert 0.1 <= share < 0.1 + 40 / sum(map(len, everything)) + 0.01
    assert [id(d) for d in hold_out(everything, 0.1, seed=1)[1]] == [id(d) for d in held]


def test_the_end_of_an_only_document_is_held_out():
    book = np.arange(1000)
    (train,), (held,) = hold_out([book], 0.1, 0)
    assert list(train) == list(range(900)) and list(held) == list(range(900, 1000))
    assert [len(part[0]) for part in hold_out([book[:16]], 0.01, 0)] == [8, 8]
    corpus = encode_corpus([], Documents(["word " * 100], []), GPT2, 0.1, 64, 0)
    assert "its only document is cut in two: the end is for validation" in corpus.facts.notes
    for none in ([], [book[:15]]):
        with pytest.raises(ValueError, match="too few for a training and a validation part"):
            hold_out(none, 0.1, 0)


def test_pieces_ask_for_every_token_but_the_first_of_a_document():
    for document, piece in zip([np.arange(7)] * 3, pieces([np.arange(7)], 2), strict=True):
        assert len(piece.tokens) == 2
        assert list(piece.labels) == list(document[piece.tokens + 1])


# Batches.


def test_the_example_of_the_docstring():
    found = stream([np.array([3, 4, 5, 50256])], 2, 0, 0)
    assert [list(part) for part in found] == [[3, 4, 5], [4, 5, 50256], [0, 2]]


@pytest.mark.parametrize(
    ("batch", "micro", "processes"), [(16, 16, 1), (50, 20, 1), (50, 9, 2), (1000, 64, 3), (7, 9, 4)]
)
def test_an_epoch_has_every_token_once_and_no_sequence_crosses_a_document(batch, micro, processes):
    everything = documents()
    plan = Packing(everything, 10, batch, micro, seed=3)
    seen = []
    for step in range(plan.per_epoch):
        shares = [plan.at(step, rank, processes) for rank in range(processes)]
        assert len({len(share) for share in shares}) == 1
        packed = [b for share in shares for b in share if b.weight]
        first, last = plan.span(step)
        assert sum(len(b.tokens) for b in packed) == last - first <= batch
        for b in packed:
            assert int(b.lengths.min()) > 0
            assert int(b.lengths.max()) <= 10
            seen += zip(b.tokens.split(b.lengths.tolist()), b.labels.split(b.lengths.tolist()), strict=True)
    pairs = sorted((int(t), int(y)) for tokens, labels in seen for t, y in zip(tokens, labels, strict=True))
    assert pairs == sorted((int(t), int(y)) for d in everything for t, y in zip(d, d[1:], strict=False))
    whole = ["," + ",".join(map(str, d)) + "," for d in everything]
    for tokens, labels in seen:
        text = "," + ",".join(map(str, [*tokens.tolist(), int(labels[-1])])) + ","
        assert any(text in document for document in whole)


def test_epochs_differ_and_a_position_alone_brings_a_batch_back():
    plan = Packing(documents(), 10, 16, 16, seed=0)
    first, second = plan.at(0, 0, 1)[0].tokens, plan.at(plan.per_epoch, 0, 1)[0].tokens
    assert not torch.equal(first, second)
    again = Packing(documents(), 10, 16, 16, seed=0).at(plan.per_epoch, 0, 1)[0].tokens
    assert torch.equal(second, again)


def test_gradients_do_not_depend_on_micro_batches_and_processes():
    model, found = language_model().double(), []
    for micro, processes in ((64, 1), (9, 1), (20, 3)):
        plan = Packing(documents(), 12, 64, micro, seed=0)
        for rank in range(processes):
            for b in plan.at(1, rank, processes):
                (token_loss(model(b.tokens, b.lengths, b.labels))[0] * b.weight).backward()
        found.append([p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    for other in found[1:]:
        assert all(torch.allclose(a, b, rtol=0, atol=1e-10) for a, b in zip(found[0], other, strict=True))


# The estimated softmax.


def test_the_estimated_softmax_is_right_on_average_and_whole_when_asked():
    model, batch = language_model(), Packing(documents(), 64, 60, 60, seed=0).at(0, 0, 1)[0]
    objective = ShortSoftmax(model, documents(), 120)
    inputs = batch.tokens, batch.lengths, batch.labels
    exact = model(*inputs)
    assert torch.equal(objective(*inputs, True), exact)
    assert torch.equal(ShortSoftmax(model, documents(), None)(*inputs, False), exact)
    token_loss(exact)[0].backward()
    gradient = model.transformer.wte.weight.grad.clone()
    model.zero_grad()
    torch.manual_seed(0)
    sums = []
    for _ in range(300):
        loss = token_loss(objective(*inputs, False))[0]
        loss.backward()
        sums.append(float(loss.detach()))
    expected = float(token_loss(exact.detach())[0])
    assert len(set(sums)) > 250  # it does draw
    assert abs(np.mean(sums) / expected - 1) < 0.02
    assert float((model.transformer.wte.weight.grad / 300 - gradient).norm() / gradient.norm()) < 0.1


def test_without_drawn_tokens_in_it_the_estimate_would_be_biased():
    """What the correction is for: the plain softmax over the frequent tokens alone is too sure of them."""
    model, batch = language_model(), Packing(documents(), 64, 60, 60, seed=0).at(0, 0, 1)[0]
    objective = ShortSoftmax(model, documents(), 120)
    objective.drawn = 0
    loss = token_loss(objective(batch.tokens, batch.lengths, batch.labels, False))[0]
    exact = token_loss(model(batch.tokens, batch.lengths, batch.labels))[0]
    assert float(loss.detach()) < 0.97 * float(exact.detach())


# The script.


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    rows = [{"text": f"Line {i} of {'many ' * (i % 7)}words, and number {i * i}."} for i in range(60)]
    return write_rows(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", rows)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_model):
    return tiny_model


def flags(corpus, weights, folder, *more):
    sizes = ("--batch-tokens", 128, "--micro-batch-tokens", 64, "--max-length", 64, "--tokens", 2000)
    return ("--data", corpus, "--init-from", weights, *sizes, "--lr", 0.02, "--output-dir", folder, *more)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory, corpus, weights):
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    done = run_in_process("pretrain", *flags(corpus, weights, folder, "--softmax-tokens", 2000, "--evaluations", 8))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("script", "asked", "more"),
    [
        ("generate", "--run", ["--prompt", "x"]),
        ("merge_lora", "--run", ["--output", "{tmp}/merged"]),
        ("predict", "--run", ["--data", "{tmp}/mails.csv"]),
    ],
)
def test_a_pretrained_model_where_a_fine_tuned_one_is_asked_for_is_called_what_it_is(
    script, asked, more, pretrained, run_here, tmp_path
):
    (tmp_path / "mails.csv").write_text("text\nhello\n")
    status, _, err = run_here(load_script(script), asked, pretrained, *(word.format(tmp=tmp_path) for word in more))
    assert status == 2 and err.count("error:") == 1
    assert f"{asked} {pretrained}: is not a run of fine-tuning" in err and f"is a base: {pretrained}/model" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mails.csv"]


def test_it_learns_and_says_so(pretrained):
    results = results_of(pretrained)
    curve = results["curve"]
    assert curve[-1]["val_loss"] < curve[0]["train_loss"] - 1
    assert 2000 <= curve[-1]["tokens"] < 2128
    loss = results["val"]["loss"]
    assert loss["low"] <= loss["value"] <= loss["high"]
    assert results["parameters"]["share"] == 1
    assert {"model", "curves.png", "results.json"} <= {path.name for path in pretrained.iterdir()}


def test_transformers_reads_the_model_and_finds_the_same_loss(pretrained, corpus):
    results = results_of(pretrained)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(pretrained / "model", dtype=torch.float32).eval()
    _, held = hold_out(tokenised(read_documents([corpus], "text").texts, GPT2), 0.02, results["args"]["seed"])
    total = count = 0
    for piece in pieces(held, 64):
        logits = theirs(torch.from_numpy(piece.tokens.astype(np.int64))[None]).logits[0]
        total += float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(piece.labels), reduction="sum"))
        count += len(piece.labels)
    assert results["val"]["loss"]["value"] == pytest.approx(total / count, rel=1e-5)


def test_a_killed_run_ends_like_one_that_was_not(pretrained, corpus, weights, tmp_path):
    folder = tmp_path / "run"
    more = ("--softmax-tokens", 2000, "--evaluations", 8)
    kill_at_a_random_moment("pretrain", 1, flags(corpus, weights, folder, *more), folder, most=4)
    done = run_in_process("pretrain", *flags(corpus, weights, folder, *more, "--resume"))
    assert done.returncode == 0, done.stderr
    ours, other = load_file(folder / "model/model.safetensors"), load_file(pretrained / "model/model.safetensors")
    assert all(torch.equal(tensor, other[name]) for name, tensor in ours.items())
    assert [p["train_loss"] for p in results_of(folder)["curve"]] == [
        p["train_loss"] for p in results_of(pretrained)["curve"]
    ]


def test_two_processes_end_with_the_weights_of_one(corpus, weights, tmp_path):
    found = []
    for name, run in {"one": run_in_process, "two": partial(run_script, processes=2)}.items():
        folder = tmp_path / name
        done = run("pretrain", *flags(corpus, weights, folder, "--lr", 0.002, "--evaluations", 2))
        assert done.returncode == 0, done.stderr
        found.append(load_file(folder / "model/model.safetensors"))
    for name, tensor in found[0].items():
        assert float((tensor - found[1][name]).abs().max()) <= 2e-4, name


def test_a_model_from_nothing_within_a_budget_of_time_in_half_precision(corpus, tmp_path):
    folder = tmp_path / "run"
    sizes = ("--minutes", 0.01, "--batch-tokens", 256, "--softmax-tokens", 1000, "--evaluations", 1)
    sizes += ("--warmup-share", 0)  # on a busy machine the first update takes all of the time
    done = run_in_process("pretrain", "--data", corpus, *sizes, "--save-dtype", "bf16", "--output-dir", folder)
    assert done.returncode == 0, done.stderr
    assert {tensor.dtype for tensor in load_file(folder / "model/model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((folder / "model/config.json").read_text())["dtype"] == "bfloat16"
    assert results_of(folder)["seconds"]["train"] >= 0.6


def test_a_run_whose_last_update_diverges_says_so(corpus, weights, tmp_path, run_here):
    flags = "--tokens", 8, "--batch-tokens", 8, "--warmup-share", 0, "--lr", 1e30, "--output-dir", tmp_path / "run"
    status, _, err = run_here(load_script("pretrain"), "--data", corpus, "--init-from", weights, *flags)
    assert status == 2 and "training diverged" in err and not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("budget", [("--tokens", 100), ("--minutes", 1e-6)])
def test_a_budget_of_one_update_which_trains_nothing_is_refused(budget, corpus, weights, tmp_path):
    sizes = ("--batch-tokens", 128, "--output-dir", tmp_path / "run")
    words = ("--data", corpus, "--init-from", weights, *budget, *sizes)
    done = run_in_process("pretrain", *words)
    assert done.returncode == 2 and f"{budget[0]} {budget[1]:g}: the first update" in done.stderr
    assert not (tmp_path / "run" / "model").exists()
    done = run_in_process("pretrain", *words, "--warmup-share", 0, "--overwrite")
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "run")
    assert results["curve"][0]["lr"] > 0
    assert results["args"]["max_length"] == 512 and "note    --max-length is 512, the context" in done.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "--tokens or --minutes"),
        (("--tokens", 10, "--minutes", 1), "--tokens or --minutes"),
        (("--tokens", 10, "--max-length", 2000), "--max-length 2000"),
        (("--tokens", 10, "--lr", 0), "--lr 0"),
        (("--tokens", 10, "--hold-share", 1), "--hold-share"),
        (("--tokens", 10, "--softmax-whole", 0.2), "--softmax-whole: the softmax is whole throughout"),
        (("--tokens", 10, "--text-column", "body"), "--text-column body"),
        (("--tokens", 10, "--size", "gpt2", "--init-from", "gpt2-nano"), "--size gpt2: gpt2-nano of --init-from has"),
        (("--tokens", 10, "--init-from", "nowhere"), "--init-from nowhere: not a folder"),
        (("--tokens", 10, "--init-from", "{tmp}"), "--init-from {tmp}: the folder lacks config.json"),
        (("--tokens", 10, "--init-from", "{tmp}/bert"), "bert/config.json holds no JSON object"),
        (("--tokens", 10, "--init-from", "{tmp}/small"), "--init-from {tmp}/small: the model has 300 tokens"),
    ],
)
def test_wrong_flags_are_refused_with_one_message(corpus, tmp_path, more, message, run_here):
    for name, content in (("bert", "[]"), ("small", '{"vocab_size": 300}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
        (tmp_path / name / "model.safetensors").touch()
    words = (str(word).format(tmp=tmp_path) for word in more)
    status, _, err = run_here(load_script("pretrain"), "--data", corpus, *words, "--output-dir", tmp_path / "run")
    assert status == 2 and err.count("error:") == 1
    assert message.format(tmp=tmp_path) in err
    assert not (tmp_path / "run").exists()


# Adding a size of GPT-2 takes one line in SIZES: it is then a choice of every command that takes one.


@pytest.fixture
def pretrain(monkeypatch, run_here):
    monkeypatch.delitem(sys.modules, load_script("pretrain").__name__)  # it is loaded anew, and afterwards put back
    monkeypatch.setitem(SIZES, "gpt2-pico", GPT2Config(width=16, blocks=1, heads=2, vocabulary=50257, context=64))
    return partial(run_here, load_script("pretrain"))


def test_an_added_size_is_offered_and_trained(pretrain, tmp_path):
    assert "gpt2-pico" in pretrain("--help")[1]
    (tmp_path / "text.txt").write_text("\n\n".join(f"Line {i} of a short text." for i in range(200)))
    (tmp_path / "more.txt").write_text("Another document, held out.")
    flags = [
        "--data",
        tmp_path / "text.txt",
        tmp_path / "more.txt",
        "--tokens",
        600,
        "--batch-tokens",
        128,
        "--evaluations",
        1,
    ]
    status, _, err = pretrain(*flags, "--size", "gpt2-pico", "--max-length", 64, "--output-dir", tmp_path / "run")
    assert status == 0, err
    results = results_of(tmp_path / "run")
    assert results["args"]["size"] == "gpt2-pico" and results["parameters"]["total"] < 10**6


def test_a_size_that_is_none_is_refused_with_those_that_are(pretrain, tmp_path):
    status, _, err = pretrain("--data", tmp_path, "--tokens", 1, "--size", "gpt2-huge")
    assert status == 2 and "gpt2-pico" in err and "Traceback" not in err
