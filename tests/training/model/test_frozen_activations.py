"""The frozen-activation cache: the numbers of a run without it, files trusted only where they belong, refusals."""

import os
import signal
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from forked import run_forked
from helpers import ROOT, results_of, run_in_process, run_script, weights_of
from one_example import encode_instruction, encode_labelled, within
from test_resume import kill_at_a_random_moment

import training.model.frozen_activations
import training.storage.content_cache
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import Adapter
from tasks import Instruction, Labelled
from training.data.batches import collate, epoch_plan, with_all_tokens_labelled, with_response_labelled
from training.evaluation.inference import classify, score_targets, score_texts
from training.flags.common import BLOCK_TARGETS, MethodArgs
from training.flags.compute import ComputeArgs
from training.model.frozen_activations import cache_key, contents, frozen_blocks, with_frozen_activations
from training.model.methods import apply_method
from training.step.losses import class_loss, token_loss
from training.step.update import accumulate

CONFIG = GPT2Config(width=16, blocks=4, heads=2, context=128)
FEW = replace(CONFIG, vocabulary=1000)  # where logits are computed
WORDS = ["a", "few words", "rather more words than that", "x" * 40]
MEMORY = ComputeArgs(cache_frozen="memory")


@pytest.fixture(autouse=True)
def _own_precision():
    """All accelerators of a process share one state, which remembers the first precision."""
    yield
    AcceleratorState._reset_state()


def build(kind, method, seed=0, config=CONFIG, head_training="train"):
    """A random model whose adapters are no longer the identity."""
    model = kind(config, *([3] if kind is Classifier else []))
    initialise(model, torch.Generator().manual_seed(seed), std=0.2)
    if kind is LanguageModel and method.method == "head":
        model.untie()
    apply_method(model, method, seed, head_training)
    draw = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, Adapter):
            torch.nn.init.normal_(module.low_rank.B, std=0.1, generator=draw)
    return model


def labelled(count, max_length=64):
    return [
        encode_labelled(GPT2, Labelled(i, f"{i} " + WORDS[i % 4] * (i % 3 + 1)), i % 3, max_length)
        for i in range(count)
    ]


def instructions(count, mask_prompt=True):
    texts = [Instruction(i, WORDS[i % 4], "", f"{i} " + WORDS[-i % 4] * (i % 3 + 1)) for i in range(count)]
    return [encode_instruction(GPT2, text, 64, mask_prompt) for text in texts]


def update_of(model, examples, micro_batch_size):
    """Loss and gradients of one batch."""

    def loss(batch):
        if isinstance(model, Classifier):
            return class_loss(model(batch.tokens, batch.lengths, batch.hidden), batch.labels)[0]
        return token_loss(model(batch.tokens, batch.lengths, batch.labels, batch.hidden))[0]

    model.zero_grad()
    lengths = [len(e.tokens) for e in examples]
    ((share,),) = epoch_plan(0, 0, lengths, len(examples), micro_batch_size, 1)
    count = sum(e.count for e in examples)
    batches = [collate([examples[i] for i in micro]) for micro in share]
    total = float(accumulate(Accelerator(cpu=True), model.train(), batches, count, loss, (0, 0)))
    return total / count, {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def attached(model, examples, compute=MEMORY, base="base", precision="no"):
    AcceleratorState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    (examples,), facts = with_frozen_activations(accelerator, model, compute, base, [examples])
    return examples, asdict(facts)


@pytest.fixture
def disk(tmp_path):
    return ComputeArgs(cache_frozen="disk", cache_dir=tmp_path / "cache")


def files_in(compute):
    return {path.parent.name: path.stat().st_ino for path in compute.cache_dir.glob("*/hidden")}


LM_HEAD = (*BLOCK_TARGETS, "lm-head")
# (model, what is trained, how the class head is, frozen blocks)
METHODS = [
    (Classifier, MethodArgs("lora", last_blocks=2), "train", 2),
    (Classifier, MethodArgs("lora", last_blocks=1), "frozen+lora", 3),
    (Classifier, MethodArgs("full", last_blocks=1), "train", 3),
    (Classifier, MethodArgs("bitfit", last_blocks=3), "train", 1),
    (Classifier, MethodArgs("head"), "train", 4),
    (LanguageModel, MethodArgs("lora", last_blocks=2, lora_targets=LM_HEAD), "train", 2),
    (LanguageModel, MethodArgs("lora", lora_targets=("lm-head",)), "train", 4),
    (LanguageModel, MethodArgs("full", last_blocks=3), "train", 1),
    (LanguageModel, MethodArgs("bitfit", last_blocks=1), "train", 3),
    (LanguageModel, MethodArgs("head"), "train", 4),
]


@pytest.mark.parametrize(("kind", "method", "head", "frozen"), METHODS)
def test_frozen_blocks_are_counted_on_the_model(kind, method, head, frozen):
    assert frozen_blocks(build(kind, method, head_training=head)) == frozen


@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
@pytest.mark.parametrize("method", ["full", "lora", "bitfit"])
def test_nothing_is_frozen_where_all_blocks_train(kind, method):
    model = build(kind, MethodArgs(method))
    assert frozen_blocks(model) == 0
    with pytest.raises(ValueError, match="--cache-frozen memory: .*--last-blocks"):
        attached(model, labelled(2))


def test_an_embedding_that_trains_leaves_nothing_frozen():
    model = build(LanguageModel, MethodArgs("head"))
    model.transformer.wpe.requires_grad_(True)
    assert frozen_blocks(model) == 0


# The same numbers.


@pytest.mark.parametrize("micro_batch_size", [9, 2])
@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize(("kind", "method", "head", "frozen"), METHODS)
def test_loss_and_gradients_are_those_without_the_cache(kind, method, head, frozen, where, micro_batch_size, tmp_path):
    model = build(kind, method, config=FEW, head_training=head)
    examples = within(labelled(9) if kind is Classifier else instructions(9, frozen != 4), FEW.vocabulary)
    loss, gradients = update_of(model, examples, 9)
    cached, _ = attached(model, examples, ComputeArgs(cache_frozen=where, cache_dir=tmp_path))
    assert all(e.hidden.blocks == frozen for e in cached)
    same_loss, same = update_of(model, cached, micro_batch_size)
    assert same_loss == pytest.approx(loss, rel=1e-5)
    largest = max(float(g.abs().max()) for g in gradients.values())
    assert gradients.keys() == same.keys() and largest > 0
    for name, gradient in same.items():
        assert float((gradient - gradients[name]).abs().max()) <= 1e-6 * largest, name


@pytest.mark.parametrize("last_blocks", [None, 1, 3])
def test_class_logits_are_the_same_in_any_company(last_blocks):
    model = build(Classifier, MethodArgs("lora" if last_blocks else "head", last_blocks=last_blocks)).eval()
    examples = labelled(10)
    cached, _ = attached(model, examples)
    alone = [collate([e]) for e in examples]
    expected = torch.cat([model(b.tokens, b.lengths) for b in alone]).detach()
    for order in (range(10), [7, 3, 3, 9], [5]):
        batch = collate([cached[i] for i in order])
        logits = model(batch.tokens, batch.lengths, batch.hidden).detach()
        assert float((logits - expected[list(order)]).abs().max()) <= 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("targets", [with_all_tokens_labelled, with_response_labelled, lambda e: e])
@pytest.mark.parametrize("method", [MethodArgs("lora", last_blocks=2, lora_targets=LM_HEAD), MethodArgs("head")])
def test_losses_of_every_kind_are_the_same(method, targets):
    model, examples = build(LanguageModel, method, config=FEW), within(instructions(8, False), FEW.vocabulary)
    cached, _ = attached(model, examples)
    accelerator = Accelerator(cpu=True)
    rows, same = (score_targets(model, [targets(e) for e in part], accelerator) for part in (examples, cached))
    assert [r.targets for r in rows] == [r.targets for r in same]
    assert [r.loss for r in same] == pytest.approx([r.loss for r in rows], rel=1e-5)


@pytest.mark.parametrize("mask_prompt", [True, False])
def test_one_pass_over_cached_texts_gives_the_losses_of_three(mask_prompt):
    model = build(LanguageModel, MethodArgs("lora", last_blocks=2), config=FEW)
    examples = within(instructions(8, mask_prompt), FEW.vocabulary)
    accelerator, kinds = Accelerator(cpu=True), (lambda e: e, with_response_labelled, with_all_tokens_labelled)
    expected = [score_targets(model, [targets(e) for e in examples], accelerator) for targets in kinds]
    cached, _ = attached(model, examples)
    for part in (examples, cached[::-1]):
        for rows, same in zip(expected, score_texts(model, part, accelerator), strict=True):
            assert [r.id for r in same] == [e.id for e in part]
            same = sorted(same, key=lambda row: row.id)
            assert [(r.id, r.targets) for r in same] == [(r.id, r.targets) for r in rows]
            assert [r.loss for r in same] == pytest.approx([r.loss for r in rows], rel=1e-5)
    assert sum(r.targets for r in expected[1]) < sum(r.targets for r in expected[2])


def test_evaluation_uses_what_is_cached():
    """The embedding is spoilt afterwards, so that only the cached states can give the numbers of before."""
    model, accelerator = build(Classifier, MethodArgs("lora", last_blocks=2)), Accelerator(cpu=True)
    cached, _ = attached(model, labelled(8))
    before = [r.loss for r in classify(model, cached, accelerator, 3)]
    torch.nn.init.zeros_(model.transformer.wte.weight)
    assert [r.loss for r in classify(model, cached, accelerator, 3)] == before
    assert [r.loss for r in classify(model, labelled(8), accelerator, 3)] != before


def test_a_text_that_occurs_twice_is_held_once_and_parts_keep_their_order():
    model, accelerator = build(Classifier, MethodArgs("lora", last_blocks=2)), Accelerator(cpu=True)
    first, second = labelled(6), [replace(e, id=e.id + 100) for e in reversed(labelled(6))]
    (a, b), facts = with_frozen_activations(accelerator, model, MEMORY, "base", [first, second])
    assert facts.texts == 6
    assert facts.bytes == sum(len(e.tokens) for e in first) * CONFIG.width * 4
    assert [e.id for e in a] == [e.id for e in first] and [e.id for e in b] == [e.id for e in second]
    assert all(torch.equal(x.hidden.states, y.hidden.states) for x, y in zip(a, reversed(b), strict=True))


def test_a_classifier_whose_head_alone_trains_keeps_one_row_a_text_and_an_lm_all():
    examples, records = labelled(6), instructions(6)
    cached, facts = attached(build(Classifier, MethodArgs("head")), examples)
    assert facts["bytes"] == 6 * CONFIG.width * 4
    assert {tuple(e.hidden.states.shape) for e in cached} == {(1, CONFIG.width)}
    cached, facts = attached(build(LanguageModel, MethodArgs("head")), records)
    assert [len(e.hidden.states) for e in cached] == [len(e.tokens) for e in records]


def test_a_batch_of_nothing_stands_in_without_hidden_states():
    model = build(Classifier, MethodArgs("lora", last_blocks=2))
    batch = collate([])
    assert model(batch.tokens, batch.lengths, batch.hidden).shape == (1, 3)


@pytest.mark.parametrize("kind", [Classifier, LanguageModel])
def test_half_precision_is_held_in_half_the_bytes_and_used_in_fp32(kind, disk):
    model = build(kind, MethodArgs("lora", last_blocks=2))
    examples = labelled(9) if kind is Classifier else instructions(9)
    _, whole = attached(model, examples, disk)
    cached, half = attached(model, examples, disk, precision="bf16")
    assert half["bytes"] == whole["bytes"] // 2 and half["where"] != whole["where"]
    assert {e.hidden.states.dtype for e in cached} == {torch.bfloat16}
    seen = []
    model.transformer.h[2].register_forward_pre_hook(lambda block, args: seen.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = update_of(model, examples, 9)
        same_loss, _ = update_of(model, cached, 9)
    assert set(seen) == {torch.float32}
    assert same_loss == pytest.approx(loss, rel=1e-2)


def test_hidden_states_that_overflow_are_refused(monkeypatch):
    monkeypatch.setitem(training.model.frozen_activations.HALF, "bf16", torch.float16)  # fp16 itself needs a GPU
    model = build(Classifier, MethodArgs("lora", last_blocks=2))
    torch.nn.init.constant_(model.transformer.wpe.weight, 1e5)
    with pytest.raises(ValueError, match="--cache-frozen: .*overflow in torch.float16"):
        attached(model, labelled(2), precision="bf16")


# The file on disk.


def test_a_file_serves_other_seeds_methods_and_orders(disk):
    """What a text leads to is looked up by its tokens: the order of the examples may change with the split."""
    examples = labelled(9)
    cached, facts = attached(build(Classifier, MethodArgs("lora", last_blocks=2)), examples, disk)
    known = files_in(disk)
    assert facts["built"] and list(known) == [Path(facts["where"]).parent.name]
    other = build(Classifier, MethodArgs("full", last_blocks=2))
    again, found = attached(other, list(reversed(examples)), disk)
    assert not found["built"] and found["where"] == facts["where"] and files_in(disk) == known
    for one, other in zip(cached, reversed(again), strict=True):
        assert one.id == other.id and torch.equal(one.hidden.states, other.hidden.states)


LAST_TWO, NINE = MethodArgs("lora", last_blocks=2), labelled(9)


def key_of(
    kind=Classifier,
    method=LAST_TWO,
    examples=NINE,
    base="a",
    precision="no",
    config=CONFIG,
    bits=32,
):
    model = build(kind, method, config=config)
    return cache_key(contents(model, examples, precision), model, base, precision, bits)


DIFFERENT = [
    {"base": "b"},
    {"examples": labelled(9, max_length=6)},
    {"examples": labelled(8)},
    {"method": MethodArgs("lora", last_blocks=1)},
    {"precision": "bf16"},
    {"precision": "no+tf32"},
    {"bits": 8},
    {"config": replace(CONFIG, heads=4)},
    {"config": replace(CONFIG, layer_norm_epsilon=1e-6)},
]


@pytest.mark.parametrize("difference", DIFFERENT, ids=lambda d: str(next(iter(d))))
def test_whatever_changes_the_content_changes_the_name(difference):
    assert key_of(**difference) != key_of()


SAME = [
    {"method": MethodArgs("bitfit", last_blocks=2)},
    {"method": MethodArgs("lora", last_blocks=2, lora_rank=3)},
    {"examples": [replace(e, id=e.id + 5, labels=0) for e in reversed(labelled(9))]},
    {"kind": LanguageModel},
    {"config": replace(CONFIG, tied_head=False), "kind": LanguageModel},
]


@pytest.mark.parametrize("other", SAME, ids=lambda d: str(next(iter(d))))
def test_what_does_not_change_the_content_does_not_change_the_name(other):
    assert key_of(**other) == key_of()


def test_a_classifiers_last_rows_are_not_mistaken_for_a_language_models():
    head = MethodArgs("head")
    assert key_of(method=head) != key_of(kind=LanguageModel, method=head)


@pytest.mark.parametrize("size", [0, 100, 10**6])
def test_a_file_of_the_wrong_size_is_made_again(size, disk):
    model = build(Classifier, MethodArgs("lora", last_blocks=2))
    cached, facts = attached(model, labelled(9), disk)
    expected = torch.cat([e.hidden.states for e in cached])
    Path(facts["where"]).unlink()  # else it would be cut below the eyes of the mapping above
    Path(facts["where"]).write_bytes(b"\1" * size)
    again, found = attached(model, labelled(9), disk)
    assert found["built"]
    assert torch.equal(torch.cat([e.hidden.states for e in again]), expected)


DIES = """
import os, signal, torch
import training.model.frozen_activations
from pathlib import Path
from test_frozen_activations import *

training.model.frozen_activations.TOKENS_PER_BATCH = 20
real, done = torch.isfinite, []

def dies(states):
    done.append(states)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(states)

torch.isfinite = dies
compute = ComputeArgs(cache_frozen="disk", cache_dir=Path({folder!r}))
attached(build(Classifier, MethodArgs("lora", last_blocks=2)), labelled(9), compute)
"""


def test_a_kill_while_writing_leaves_nothing_that_is_trusted(disk, tmp_path):
    (tmp_path / "dies.py").write_text(DIES.format(folder=str(disk.cache_dir)))
    done = run_forked([tmp_path / "dies.py"])
    assert done.returncode == -signal.SIGKILL, done.stderr
    (folder,) = disk.cache_dir.iterdir()
    assert {path.name for path in folder.iterdir()} == {"lock", ".hidden.new"}
    model = build(Classifier, MethodArgs("lora", last_blocks=2))
    cached, facts = attached(model, labelled(9), disk)
    assert facts["built"] and {path.name for path in folder.iterdir()} == {"lock", "hidden"}
    expected, _ = attached(model, labelled(9))
    assert all(torch.equal(a.hidden.states, b.hidden.states) for a, b in zip(cached, expected, strict=True))


def test_two_that_need_the_same_file_at_once_make_it_once(disk, tmp_path):
    """The second waits for the lock that the first holds, and then finds the file."""
    code = (
        "from test_frozen_activations import *\n"
        f"compute = ComputeArgs(cache_frozen='disk', cache_dir=Path({str(disk.cache_dir)!r}))\n"
        "model = build(Classifier, MethodArgs('lora', last_blocks=2))\n"
        "states = training.model.frozen_activations._states\n"
        "def counted(*a, **k):\n    yield from states(*a, **k)\n    print('computed')\n"
        "training.model.frozen_activations._states = counted\n"
        "cached, _ = attached(model, labelled(400), compute)\n"
        "print(float(torch.cat([e.hidden.states for e in cached]).double().sum()))"
    )
    (tmp_path / "code.py").write_text(code)
    with ThreadPoolExecutor(3) as runs:
        done = list(runs.map(run_forked, [[tmp_path / "code.py"]] * 3))
    assert [run.returncode for run in done] == [0] * 3, done
    assert "".join(run.stdout for run in done).count("computed") == 1
    assert len({run.stdout.splitlines()[-1] for run in done}) == 1


# What cannot be.


def test_a_cache_larger_than_the_memory_is_refused(monkeypatch):
    model, free = build(Classifier, MethodArgs("lora", last_blocks=2)), namedtuple("Memory", "available")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free(2**21))
    examples = labelled(2000)
    size = sum(len(e.tokens) for e in examples) * CONFIG.width * 4
    assert 2**20 < size < 2**21
    attached(model, examples)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="--cache-frozen memory: needs . MiB, 2 MiB are free for 2 copies.*disk"):
        attached(model, examples)


def test_a_cache_larger_than_the_disk_is_refused_and_what_a_kill_left_is_counted_as_room(monkeypatch, disk):
    model, usage = build(Classifier, MethodArgs("lora", last_blocks=2)), namedtuple("Usage", "free")
    examples = labelled(50)
    size = sum(len(e.tokens) for e in examples) * CONFIG.width * 4
    monkeypatch.setattr(training.storage.content_cache.shutil, "disk_usage", lambda path: usage(size - 1))
    with pytest.raises(ValueError, match=f"--cache-frozen disk: needs .*--cache-dir {disk.cache_dir}; make room"):
        attached(model, examples, disk)
    assert not disk.cache_dir.exists()
    folder = disk.cache_dir / cache_key(contents(model, examples, "no"), model, "base", "no")
    folder.mkdir(parents=True)
    (folder / ".hidden.new").write_bytes(b"\1" * 100)
    assert attached(model, examples, disk)[1]["built"]
    monkeypatch.setattr(training.storage.content_cache.shutil, "disk_usage", lambda path: usage(0))
    assert not attached(model, examples, disk)[1]["built"]


def test_the_model_is_left_in_the_mode_it_was_in(disk):
    model = build(Classifier, MethodArgs("lora", last_blocks=2))
    for mode in (True, False):
        attached(model.train(mode), labelled(3), disk)
        assert model.training == mode


# The scripts.


def flags_of(script, few_tokens, mail_file, question_file, *more):
    data = mail_file if script == "finetune_cls" else question_file
    flags = ["--data", data, "--model", few_tokens, "--max-steps", 8, "--eval-every", 3, "--lr", 1e-2]
    flags += ["--new-tokens", 4] if script == "finetune_ift" else []
    return [*flags, *more]


CURVE = ("train_loss", "val_loss", "grad_norm")


def assert_same_run(folder, reference, rel):
    ours, theirs = results_of(folder), results_of(reference)
    for point, expected in zip(ours["curve"], theirs["curve"], strict=True):
        assert {k: point[k] for k in CURVE if k in point} == pytest.approx(
            {k: expected[k] for k in CURVE if k in expected}, rel=rel
        )
    for part in ("before", "val", "test"):
        for name in ("loss", "response_perplexity", "text_perplexity"):
            if name in theirs[part]:
                assert ours[part][name]["value"] == pytest.approx(theirs[part][name]["value"], rel=rel)


RUNS = [
    ("finetune_cls", "disk", "--last-blocks", 2),
    ("finetune_cls", "memory", "--method", "head"),
    ("finetune_ift", "memory", "--last-blocks", 1, "--lora-targets", *LM_HEAD, "--no-mask-prompt"),
    ("finetune_ift", "disk", "--method", "full", "--last-blocks", 2),
]


@pytest.mark.parametrize(("script", "where", "flags"), [(script, where, flags) for script, where, *flags in RUNS])
def test_a_run_with_the_cache_draws_the_curve_of_one_without(
    script, where, flags, few_tokens, mail_file, question_file, tmp_path
):
    flags = flags_of(script, few_tokens, mail_file, question_file, *flags)
    cache = ["--cache-frozen", where, "--cache-dir", tmp_path / "cache"]
    runs = {"plain": [], "cached": cache} | ({"other": [*cache, "--seed", 1]} if where == "disk" else {})
    for name, more in runs.items():
        done = run_in_process(script, *flags, *more, "--output-dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
        facts = results_of(tmp_path / name).get("frozen_activations")
        assert (facts is None) == (name == "plain")
        if facts:
            assert f"{facts['blocks']} of 3 blocks" in done.stdout
            assert facts["built"] == (name == "cached") and {"where", "texts", "bytes", "seconds"} <= set(facts)
    assert_same_run(tmp_path / "cached", tmp_path / "plain", 1e-4)


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift"])
def test_training_and_evaluation_read_nothing_but_the_cache(script, few_tokens, mail_file, question_file, tmp_path):
    """A file that is wrong, though of the right size, is believed: every loss shows it."""
    flags = flags_of(script, few_tokens, mail_file, question_file, "--last-blocks", 1, "--cache-frozen", "disk")
    flags += ["--cache-dir", tmp_path / "cache"]
    assert run_in_process(script, *flags, "--output-dir", tmp_path / "right").returncode == 0
    (path,) = tmp_path.glob("cache/*/hidden")
    path.write_bytes(b"\0" * path.stat().st_size)
    assert run_in_process(script, *flags, "--output-dir", tmp_path / "wrong").returncode == 0
    right, wrong = results_of(tmp_path / "right"), results_of(tmp_path / "wrong")
    for name in ("train_loss", "val_loss"):
        pairs = zip(right["curve"], wrong["curve"], strict=True)
        assert all(abs(a[name] - b[name]) > 1e-3 * a[name] for a, b in pairs if name in a)
    metric = "loss" if script == "finetune_cls" else "text_perplexity"
    for part in ("before", "val", "test"):
        assert abs(right[part][metric]["value"] - wrong[part][metric]["value"]) > 1e-3


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_two_processes_share_the_cache_and_do_the_same_as_one(where, few_tokens, mail_file, tmp_path):
    common = flags_of("finetune_cls", few_tokens, mail_file, None, "--last-blocks", 2, "--micro-batch-size", 3)
    common += ["--cache-frozen", where, "--optimizer", "sgd"]
    for name, run in {"one": run_in_process, "two": partial(run_script, processes=2)}.items():
        flags = ["--output-dir", tmp_path / name, "--cache-dir", tmp_path / f"cache-{name}"]
        done = run("finetune_cls", *common, *flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("frozen   ") == 1
    assert_same_run(tmp_path / "two", tmp_path / "one", 1e-4)
    assert len(list(tmp_path.glob("cache-two/*/*"))) == (2 if where == "disk" else 0)


@pytest.mark.parametrize(("script", "where"), [("finetune_cls", "disk"), ("finetune_ift", "memory")])
def test_a_killed_run_goes_on_with_its_cache(script, where, few_tokens, mail_file, question_file, tmp_path):
    flags = flags_of(script, few_tokens, mail_file, question_file, "--last-blocks", 1, "--cache-frozen", where)
    flags += ["--max-steps", 60, "--save-every", 3]
    caches = {name: ["--cache-dir", tmp_path / f"cache-{name}"] for name in "ab"}
    assert run_in_process(script, *flags, *caches["a"], "--output-dir", tmp_path / "a").returncode == 0
    broken = [*flags, *caches["b"], "--output-dir", tmp_path / "b"]
    kill_at_a_random_moment(script, 1, broken, tmp_path / "b", seed=script)
    other = run_in_process(script, *broken, "--resume", "--last-blocks", 2)
    assert other.returncode == 2 and "--last-blocks" in other.stderr
    resumed = run_in_process(script, *broken, "--resume", *caches["a"])  # another place holds the same numbers
    assert resumed.returncode == 0, resumed.stderr
    ours, theirs = weights_of(tmp_path / "b"), weights_of(tmp_path / "a")
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert results_of(tmp_path / "a")["curve"] == results_of(tmp_path / "b")["curve"]
    assert results_of(tmp_path / "b")["frozen_activations"]["built"] == (where == "memory")


def test_a_full_disk_while_writing_leaves_nothing_and_says_what_to_do(few_tokens, mail_file, tmp_path):
    flags = flags_of("finetune_cls", few_tokens, mail_file, None, "--last-blocks", 1, "--cache-frozen", "disk")
    flags += ["--cache-dir", tmp_path / "cache", "--output-dir", tmp_path / "run"]
    words = [ROOT / "scripts" / "finetune_cls.py", *flags]
    done = run_forked(words, largest_file=10_000)  # as on a disk that is full
    assert done.returncode == 2, done.stderr
    assert f"--cache-dir {tmp_path / 'cache'}" in done.stderr and "could not be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in (tmp_path / "cache").glob("*/*")] == ["lock"]
    assert not (tmp_path / "run").exists()
    assert run_in_process("finetune_cls", *flags).returncode == 0


@pytest.mark.parametrize("script", ["finetune_cls", "finetune_ift", "finetune_dpo"])
def test_the_former_name_of_the_flag_is_answered_with_the_new_one(script):
    done = run_in_process(script, "--dataset", "preferences", "--cache-prefix", "disk")
    assert done.returncode == 2 and "--cache-frozen" in done.stderr


REFUSED = [
    ("finetune_cls", [], "--cache-frozen disk: all 3 blocks train; add --last-blocks"),
    ("finetune_cls", ["--last-blocks", "3"], "--cache-frozen disk: all 3 blocks train"),
    ("finetune_cls", ["--method", "full"], "--cache-frozen disk: all 3 blocks train"),
    ("finetune_ift", ["--method", "bitfit"], "--cache-frozen disk: all 3 blocks train"),
    ("finetune_cls", ["--last-blocks", "1", "--dropout", "0.1"], "--cache-frozen disk: --dropout 0.1"),
    ("finetune_ift", ["--last-blocks", "1", "--dropout", "0.1"], "--cache-frozen disk: --dropout 0.1"),
    ("finetune_cls", ["--last-blocks", "1", "--cache-dir", "README.md"], "--cache-dir README.md: is a file"),
    (
        "finetune_cls",
        ["--last-blocks", "1", "--cache-dir", "README.md/x"],
        "--cache-dir README.md/x: is a file, or lies in one",
    ),
]


@pytest.mark.parametrize(("script", "flags", "message"), REFUSED)
def test_a_script_refuses_at_once_what_it_cannot_cache(
    script, flags, message, few_tokens, mail_file, question_file, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    given = flags_of(script, few_tokens, mail_file, question_file, "--output-dir", tmp_path / "run")
    if "--cache-dir" not in flags:
        flags = [*flags, "--cache-dir", tmp_path / "cache"]
    done = run_in_process(script, *given, "--cache-frozen", "disk", *flags)
    assert done.returncode == 2
    assert message in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []
