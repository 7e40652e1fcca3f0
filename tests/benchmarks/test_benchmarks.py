"""Both sides of the speed comparison do the same work, and what is reported about it can be counted by hand."""

import json
import math
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
import tyro
from accelerate.state import AcceleratorState
from forked import run_forked
from helpers import real_data, run_in_process
from one_example import encode_labelled
from test_frozen_activations import instructions
from test_model import TRANSPOSED
from torch.utils._python_dispatch import TorchDispatchMode

import _peer
import _results
import _steps
from _flops import update_flops
from _peer import PeerTraining
from _rows import HEAD_TOO, OTHER_ROWS, find_row, row_names
from _steps import Training
from _table import outcome
from _work import Work, in_random_order
from gpt2_scratch.attention import layout_of
from gpt2_scratch.config import SIZES, GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters
from tasks import Labelled
from training.flags.cli import problems_in
from training.flags.common import BLOCK_TARGETS, MethodArgs
from training.flags.compute import ComputeArgs
from training.model.methods import apply_method

TINY = GPT2Config(width=16, blocks=2, heads=2, context=128)
LM_HEAD = (*BLOCK_TARGETS, "lm-head")
assert HEAD_TOO[1:] == LM_HEAD


@pytest.fixture(autouse=True)
def _own_accelerator():
    yield
    AcceleratorState._reset_state()


@pytest.fixture
def tiny(monkeypatch):
    """gpt2-nano is tiny, and its random weights are large enough that attention is far from uniform."""
    monkeypatch.setitem(SIZES, "gpt2-nano", TINY)
    monkeypatch.setattr(_steps, "initialise", partial(initialise, std=0.2))


def labelled(count):
    texts = ("a", "few words", "rather more words than that", "x" * 40)
    return [encode_labelled(GPT2, Labelled(i, f"{i} " + texts[i % 4] * (i % 3 + 1)), i % 2, 64) for i in range(count)]


# (work, examples)
WORK = {
    "cls": (Work("cls", "gpt2-nano"), labelled(8)),
    "ift": (Work("ift", "gpt2-nano", mask_prompt=False), instructions(6, mask_prompt=False)),
    "ift, prompt masked": (Work("ift", "gpt2-nano"), instructions(6)),
}


def update(training, examples):
    """Loss before one update, its gradients as the optimizer gets them, and how far each parameter moves."""
    names = {id(p): name for name, p in training.model.named_parameters()}
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    gradients = {}

    def keep(optimizer, *_):
        gradients.update({names[id(p)]: p.grad.clone() for g in optimizer.param_groups for p in g["params"]})

    getattr(training.optimizer, "optimizer", training.optimizer).register_step_pre_hook(keep)
    loss = float(training.update(examples))
    return loss, gradients, {name: p.detach() - before[name] for name, p in training.model.named_parameters()}


def in_our_layout(tensors):
    return {name: t.t() if name.endswith(TRANSPOSED) else t for name, t in tensors.items()}


def assert_close(found, expected, tolerance):
    assert found.keys() == expected.keys()
    largest = max(float(t.abs().max()) for t in expected.values())
    assert largest > 0
    for name, tensor in found.items():
        assert float((tensor - expected[name]).abs().max()) <= tolerance * largest, name


# The same update.


@pytest.mark.parametrize("name", WORK)
def test_loss_and_every_gradient_of_full_fine_tuning_equal_transformers(name, tiny):
    work, examples = WORK[name]
    loss, gradients, _ = update(Training(work, MethodArgs("full"), ComputeArgs()), examples)
    their_loss, theirs, _ = update(PeerTraining(work, MethodArgs("full")), examples)
    assert loss == pytest.approx(their_loss, rel=1e-5)
    assert_close(gradients, in_our_layout(theirs), 1e-6)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
    assert norm == pytest.approx(_steps.CLIP, rel=1e-4)  # it was clipped, on both sides to the same


@pytest.mark.parametrize("name", WORK)
def test_every_weight_moves_as_with_transformers(name, tiny):
    """In fp64, because a step of Adam makes much of a small gradient's rounding."""
    work, examples = WORK[name]
    moves = []
    for training in (Training(work, MethodArgs("full"), ComputeArgs()), PeerTraining(work, MethodArgs("full"))):
        training.model.double()
        _, gradients, moved = update(training, examples)
        moves.append({n: m * (gradients[n].abs() > 1e-5) for n, m in moved.items()})
    assert_close(moves[0], in_our_layout(moves[1]), 1e-3)


def with_pefts_factors(ours, theirs, draw):
    """Gives all factors of `theirs` random values and copies them into `ours`: A three times where q, k, v share it."""
    modules = dict(theirs.base_model.model.named_modules())
    for name, adapter in adapters(ours):
        a, b = modules[name].lora_A["default"].weight, modules[name].lora_B["default"].weight
        with torch.no_grad():
            b.normal_(0, 0.1, generator=draw)
            adapter.low_rank.A.copy_(a.repeat(len(adapter.active), 1))
            adapter.low_rank.B.copy_(b.unflatten(0, (len(adapter.active), -1)).transpose(1, 2))
        yield name, adapter


@pytest.mark.parametrize("name", WORK)
def test_loss_and_gradients_of_lora_equal_pefts_with_the_same_factors(name, tiny, monkeypatch):
    """The one A of PEFT gets the sum of what our three get, where all three start from it. In fp64, but for
    transformers' loss of a language model: how far sums in fp32 are apart depends on the processor."""
    tolerance = 1e-9 if name == "cls" else 1e-6
    for module in (_steps, _peer):
        monkeypatch.setattr(module, "CLIP", 1e9)  # three A have another norm than their sum
    work, examples = WORK[name]
    method = MethodArgs(lora_rank=3, lora_targets=BLOCK_TARGETS if work.task == "cls" else LM_HEAD)
    training, peer = Training(work, method, ComputeArgs()), PeerTraining(work, method)
    for model in (training.model, peer.model):
        model.double()
    adapted = dict(with_pefts_factors(training.model, peer.model, torch.Generator().manual_seed(0)))
    assert len(adapted) == 4 * TINY.blocks + (work.task == "ift")
    loss, gradients, _ = update(training, examples)
    their_loss, theirs, _ = update(peer, examples)
    assert loss == pytest.approx(their_loss, rel=tolerance)
    theirs = {n.removeprefix("base_model.model."): g for n, g in theirs.items()}
    in_peft = {}
    for path, adapter in adapted.items():
        a, b = (gradients.pop(f"{path}.low_rank.{factor}") for factor in "AB")
        in_peft[f"{path}.lora_A.default.weight"] = a.unflatten(0, (len(adapter.active), -1)).sum(0)
        in_peft[f"{path}.lora_B.default.weight"] = b.transpose(1, 2).flatten(0, 1)
    if work.task == "cls":
        in_peft["score.modules_to_save.default.weight"] = gradients.pop("score.weight")
    assert not gradients
    assert_close(in_peft, theirs, tolerance)


@pytest.mark.parametrize("name", WORK)
def test_before_training_the_loss_is_the_same_with_every_method(name, tiny):
    work, examples = WORK[name]
    losses = [
        update(side, examples)[0]
        for method in (MethodArgs("full"), MethodArgs())
        for side in (Training(work, method, ComputeArgs()), PeerTraining(work, method))
    ]
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-5)


def test_cached_and_checkpointed_steps_have_the_loss_of_plain_ones(tiny):
    work, examples = WORK["ift"]
    method = MethodArgs(last_blocks=1)
    expected, gradients, _ = update(Training(work, method, ComputeArgs()), examples)
    training = Training(work, method, ComputeArgs(cache_frozen="memory", checkpoint_activations=True))
    (cached,) = training.cached([examples])
    assert all(e.hidden is not None for e in cached)
    loss, same, _ = update(training, cached)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(same, gradients, 1e-6)


def test_batches_in_random_order_have_the_same_examples_and_sizes():
    grouped = [labelled(8)[:3], labelled(8)[3:]]
    mixed = in_random_order(grouped)
    assert [len(batch) for batch in mixed] == [3, 5]
    assert sorted(e.id for batch in mixed for e in batch) == list(range(8))
    assert [e.id for batch in mixed for e in batch] != list(range(8))


# Floating-point operations.

LENGTHS = [3, 1, 40, 17]


class Products(TorchDispatchMode):
    """Counts the FLOPs of all matrix products that run, forward and backward; attention is none of them."""

    flops = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name = op._schema.name.removeprefix("aten::")
        assert name not in ("bmm", "baddbmm", "matmul", "linear"), name
        if name in ("mm", "addmm", "addmm_", "baddbmm_"):
            a, b = args[-2:]  # (n, k), (k, m), or several of them
            self.flops += 2 * a.numel() * b.shape[-1]
        return op(*args, **(kwargs or {}))


def attention_flops(lengths, blocks, trained, last_only):
    """Two products forward and four backward, 2 FLOPs for each of C numbers of a query and a key that it sees."""
    total = 0
    for i in blocks:
        seen = sum(lengths) if last_only and i == TINY.blocks - 1 else sum(sum(range(1, t + 1)) for t in lengths)
        total += 2 * TINY.width * seen * (6 if i in trained else 2)
    return total


def thin_flops(model, count, last_only, labelled):
    """Products with A and B: two forward; backward one for B, two for A, and one for what comes in if it depends on
    something trained."""
    total = 0
    for name, adapter in adapters(model):
        last = last_only and name.startswith(f"transformer.h.{TINY.blocks - 1}.") and not name.endswith("c_attn")
        rows = len(LENGTHS) if last or name == "score" else labelled if name == "lm_head" else count
        a, b = adapter.low_rank.A, adapter.low_rank.B
        first = next(adapters(model))[0] == name
        # The head takes the gradient of its input in any case.
        total += 2 * rows * (a.numel() * (2 if first and name != "lm_head" else 3) + b.numel() * 3)
    return total


FLOPS = [
    ("ift", MethodArgs("full"), False),
    ("ift", MethodArgs("bitfit"), False),
    ("ift", MethodArgs(lora_rank=2, lora_targets=LM_HEAD), False),
    ("ift", MethodArgs(lora_rank=2, lora_targets=("v", "mlp-in")), False),
    ("ift", MethodArgs(lora_rank=2, lora_targets=("mlp-out",), last_blocks=1), False),
    ("ift", MethodArgs(lora_rank=2, last_blocks=1), True),
    ("cls", MethodArgs("full"), False),
    ("cls", MethodArgs(lora_rank=2), False),
    ("cls", MethodArgs(lora_rank=2, last_blocks=1), True),
    ("cls", MethodArgs("full", last_blocks=1), True),
    ("cls", MethodArgs("head"), False),
    ("ift", MethodArgs("full", last_blocks=1), False),
]


@pytest.mark.parametrize(("task", "method", "cached"), FLOPS, ids=str)
def test_flops_of_an_update_are_those_of_the_products_that_it_runs(task, method, cached):
    """Attention counted apart. Not in the closed form: thin products, and queries that our last block computes although
    the class does not need them."""
    classifies = task == "cls"
    model = Classifier(TINY, 2) if classifies else LanguageModel(TINY)
    initialise(model, torch.Generator().manual_seed(0), 0.2)
    apply_method(model, method, 0)
    count, c, blocks = sum(LENGTHS), TINY.width, range(TINY.blocks)
    first = TINY.blocks if method.method == "head" else TINY.blocks - (method.last_blocks or TINY.blocks)
    tokens = torch.arange(count)
    labels = torch.where(tokens % 3 == 0, -100, tokens)
    asked = len(LENGTHS) if classifies else int((labels != -100).sum())
    hidden = None
    if cached:
        with torch.no_grad():
            hidden = model.transformer.first_blocks(tokens, layout_of(torch.tensor(LENGTHS), tokens.device), first)
    with Products() as products:
        model(tokens, torch.tensor(LENGTHS), *([] if classifies else [labels]), hidden).sum().backward()

    run = blocks[first:] if cached else blocks
    after_attention = method.method == "lora" and not {"q", "k", "v"} & set(method.lora_targets)
    trained = [i for i in run if i >= first + after_attention]
    expected = products.flops + attention_flops(LENGTHS, run, trained, classifies)
    expected -= thin_flops(model, count, classifies, asked)
    if classifies:  # the queries of all tokens but the last
        weights, inputs = method.method == "full", method.method == "full" or len(trained) > 1
        expected -= 2 * (count - len(LENGTHS)) * c * c * (1 + weights + inputs)
    head = (asked, 2 if classifies else TINY.vocabulary)
    assert update_flops(TINY, method, LENGTHS, head, classifies, cached) == expected


# The rows of the table.


def parsed(words):
    """(module, flags) of the command of one side."""
    script, *flags = words
    module = import_module(Path(script).stem)
    return module, tyro.cli(module.Args, args=flags, config=(tyro.conf.OmitArgPrefixes,))


@pytest.mark.parametrize("name", [*row_names(("fp32", "bf16", "fp16")), *OTHER_ROWS])
def test_both_commands_of_a_row_are_understood_and_mean_the_same_work(name):
    row = find_row(name, "gpt2-medium", 3)
    (peer, theirs), (own, ours) = (parsed(row.words(side, "cpu")) for side in ("peer", "ours"))
    if name.startswith("generate"):
        assert (theirs.by, ours.by) == ("transformers", "ours")
        assert (theirs.model, theirs.prompts, theirs.new_tokens) == (ours.model, ours.prompts, ours.new_tokens)
        return
    for args in (theirs, ours):
        assert problems_in(args) == []
    same = ("task", "model", "batch_size", "max_length", "mask_prompt", "steps", "device")
    assert [getattr(theirs.work, n) for n in same] == [getattr(ours.work, n) for n in same]
    if name.startswith("ours"):
        assert peer is own and theirs.work.precision == ours.work.precision
    else:
        assert theirs.method == ours.method
        assert theirs.work.precision == ("fp32" if name.endswith("default") else ours.work.precision)
        assert ours.work.precision == row.precision and theirs.form == name.split("-")[-1]


def test_a_name_that_is_no_row_is_refused():
    with pytest.raises(ValueError, match="--rows cls-full-fp32: must be among cls-lora-fp32-default, "):
        find_row("cls-full-fp32", "gpt2", 3)


@pytest.mark.parametrize(
    ("theirs", "precision", "same"), [(1.00005, "fp32", True), (1.001, "fp32", False), (1.01, "bf16", True)]
)
def test_sides_with_another_first_loss_are_told_apart(theirs, precision, same):
    row = find_row(f"cls-lora-{precision}-grouped", "gpt2", 3)
    assert ("NOT THE SAME WORK" in outcome(row, [{"first_loss": theirs}], [{"first_loss": 1.0}])) != same


# The programs.


def benchmark(script, *flags):
    return run_forked([f"benchmarks/{script}.py", *flags])


def benchmark_here(script, *flags, **env):
    return run_in_process(import_module(script), *flags, **env)


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        ("step_time", ["--steps", 0], "--steps 0"),
        ("step_time", ["--model", "gpt3", "--batch-size", 0], "--model gpt3"),
        ("step_time", ["--lora-rank", 1000], "--lora-rank 1000"),
        ("step_time", ["--max-length", 2000], "--max-length 2000"),
        ("step_time", ["--lora-targets", "lm-head"], "--lora-targets lm-head"),
        ("step_time", ["--task", "ift", "--method", "head"], "--method head"),
        ("step_time", ["--cache-frozen", "memory"], "--cache-frozen memory"),
        ("step_time", ["--device", "cuda"], "--device cuda"),
        ("peft_time", ["--method", "bitfit"], "--method"),
        ("peft_time", ["--last-blocks", 1], "--last-blocks"),
        ("peft_time", ["--lora-scaling", "paper"], "--lora-scaling"),
        ("peft_time", ["--lora-targets", "q", "v"], "--lora-targets"),
        ("generate_time", ["--prompts", 0], "--prompts 0"),
        ("generate_time", ["--model", "gpt3"], "--model gpt3"),
        ("generate_time", ["--new-tokens", 1024], "--new-tokens 1024"),
        ("against_peft", ["--rows", "cls"], "--rows cls"),
        ("against_peft", ["--alternations", 0], "--alternations 0"),
    ],
)
def test_wrong_flags_are_refused_with_one_message(script, flags, message, tmp_path):
    more = ["--results", tmp_path / "r.jsonl"] if script == "against_peft" else []
    if "cuda" in flags and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = benchmark_here(script, *flags, *more, DATA_DIR=str(tmp_path))
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error:") == 1 and message in done.stderr
    assert "Traceback" not in done.stderr


def test_data_that_is_nowhere_is_refused_with_the_remedy(tmp_path):
    done = benchmark_here("step_time", "--model", "gpt2-nano", "--device", "cpu", DATA_DIR=str(tmp_path))
    assert done.returncode == 2 and "set DATA_DIR" in done.stderr and "Traceback" not in done.stderr


SMALL = ("--model", "gpt2-nano", "--batch-size", 2, "--max-length", 48, "--steps", 2, "--device", "cpu")


@pytest.mark.parametrize(("task", "file"), [("cls", "enron_spam_data.parquet"), ("ift", "alpaca_data.json")])
def test_both_sides_time_the_same_tokens_and_start_from_the_same_loss(task, file, tmp_path):
    real_data(file)
    found = []
    for script in ("step_time", "peft_time"):
        done = benchmark(script, "--task", task, *SMALL, "--json", tmp_path / script)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((tmp_path / script).read_text()))
    ours, theirs = found
    assert ours["tokens"] == theirs["tokens"] > 4
    assert ours["first_loss"] == pytest.approx(theirs["first_loss"], rel=1e-5)
    for numbers in found:
        assert numbers["tokens_per_second"] == pytest.approx(numbers["tokens"] / numbers["ms_per_step"] * 500)
        assert numbers["environment"]["precision"] == "no" and numbers["peak_memory_mib"] > 0
    assert ours["share_of_matrix_product"] == pytest.approx(
        ours["flops_per_second"] / ours["matrix_product_flops_per_second"]
    )


def test_both_sides_write_the_same_texts(tmp_path):
    real_data("alpaca_data.json")
    texts = []
    for by in ("ours", "transformers"):
        flags = ("--by", by, "--prompts", 5, "--new-tokens", 6, "--repeats", 1, "--device", "cpu")
        done = benchmark("generate_time", *flags, "--json", tmp_path / by)
        assert done.returncode == 0, done.stderr
        numbers = json.loads((tmp_path / by).read_text())
        texts.append(numbers["texts"])
        assert numbers["tokens"] == sum(map(len, numbers["texts"])) > 5
    assert texts[0] == texts[1]


ROW = find_row("cls-lora-fp32-grouped", "gpt2-nano", 1)
TABLE = ("--rows", ROW.name, "--model", "gpt2-nano", "--steps", 1, "--device", "cpu")


def measurements():
    """Lines of a finished results file: their 100 and 200 tokens a second, our 250 and 600."""
    place = {"device": "a CPU", "threads": 1, "commit": "0123456789", "libraries": {"torch": "1", "transformers": "2"}}
    lines = []
    for turn, (theirs, ours) in enumerate(((100.0, 250.0), (200.0, 600.0))):
        for side, speed in (("peer", theirs), ("ours", ours)):
            numbers = {"row": ROW.name, "side": side, "command": ROW.command(side, "cpu"), "turn": turn}
            numbers |= {"tokens_per_second": speed, "ms_per_step": 1.0, "peak_memory_mib": 1024.0, "first_loss": 0.7}
            numbers |= {"environment": place, "date": "2026-01-02"}
            if side == "ours":
                names = ("flops_per_second", "matrix_product_flops_per_second", "evaluation_ms_per_step")
                numbers |= dict(zip(names, (3e9, 4e9, 0.5), strict=True)) | {"share_of_matrix_product": 0.75}
            lines.append(json.dumps(numbers) + "\n")
    return lines


@pytest.fixture
def table(monkeypatch):
    """The table's program; what it measures runs in a process that need not import the libraries."""
    monkeypatch.setattr(_results.subprocess, "run", lambda words, **_: run_forked(words[1:]))
    return partial(benchmark_here, "against_peft", *TABLE)


def test_what_is_in_the_results_file_is_not_measured_again_and_makes_the_table(table, tmp_path):
    results = tmp_path / "r.jsonl"
    results.write_text("".join(measurements()))
    done = table("--alternations", 2, "--results", results, DATA_DIR=str(tmp_path))
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert results.read_text() == "".join(measurements())
    assert "| 150 | 425 | 2.83 (2.50, 3.00) | 1.00 | 1.00 | 100% |" in done.stdout
    assert "| 1 | 3 | 4 | 75% | 0 | 2.00 |" in done.stdout
    assert "first loss 0.70000 and 0.70000\n" in done.stdout
    assert "a CPU, 1 threads; 2026-01-02; torch 1, transformers 2; 01234567" in done.stdout
    assert f"`{ROW.command('peer', 'cpu')}`, `{ROW.command('ours', 'cpu')}`" in done.stdout


def test_an_interrupted_table_measures_only_what_is_missing(table, tmp_path):
    real_data("enron_spam_data.parquet")
    results, lines = tmp_path / "r.jsonl", measurements()
    results.write_text(lines[0])
    done = table("--alternations", 1, "--results", results)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in results.read_text().splitlines()]
    assert json.dumps(found[0]) + "\n" == lines[0]
    assert [(n["side"], n["turn"], n["command"]) for n in found[1:]] == [("ours", 0, ROW.command("ours", "cpu"))]
    assert found[1]["tokens_per_second"] > 0 and ROW.command("ours", "cpu") in done.stderr


def test_a_measurement_that_fails_stops_the_table_and_leaves_the_file_as_it_was(table, tmp_path):
    done = table("--results", tmp_path / "r.jsonl", DATA_DIR=str(tmp_path))
    assert done.returncode == 2 and "peft_time.py" in done.stderr and "set DATA_DIR" in done.stderr
    assert not (tmp_path / "r.jsonl").exists()


def test_the_way_from_a_file_to_tokens_is_timed_step_by_step():
    done = benchmark_here("start_of_data", "--texts", 50, "--characters", 40)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()[1:4]] == ["read", "split", "tokenised"]
    refused = benchmark_here("start_of_data", "--texts", 1)
    assert refused.returncode == 2 and "--texts 1: must be at least 10" in refused.stderr


def test_the_way_from_the_command_to_the_first_update_is_timed():
    done = benchmark_here("start", "--texts", 100, "--characters", 100, "--rounds", 1, "--threads", 1)
    assert done.returncode == 0, done.stderr
    rows = dict(line.strip("| ").split(" | ") for line in done.stdout.splitlines()[-2:])
    assert all(float(seconds) > 0.3 for seconds in rows.values()) and {*rows} == {"first run", "later runs"}
    refused = benchmark_here("start", "--threads", -1)
    assert refused.returncode == 2 and "--threads -1: name at least one number, each at least 0" in refused.stderr
