"""scripts/merge_lora.py: what transformers makes of the folder it writes, and what it refuses."""

import json
import re
import shutil
from dataclasses import asdict, replace

import pytest
import torch
import transformers
from helpers import questions, run_in_process, write_rows
from safetensors.torch import load_file
from test_commands import load_script
from test_own_tokenizer import surrounded

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.own_tokenizer import find_tokenizer
from gpt2_scratch.pretrained import save_pretrained, weights_hash
from gpt2_scratch.sources import load_config
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import set_strength
from training.flags.common import MethodArgs
from training.flags.method import BLOCK_TARGETS
from training.model.facts import Facts, base_facts
from training.model.merging import combined, compare, logits
from training.model.methods import apply_method
from training.model.saved import adapted, build, save_adapter

TEXTS = [[1, 2, 3, 4, 50, 60, 7], [9], [100, 0, 5, 5]]
LABELS = ["ham", "spam", "other"]
LORA = MethodArgs(lora_rank=2)
WITH_HEAD = MethodArgs(lora_rank=2, lora_targets=(*BLOCK_TARGETS, "lm-head"))


def tokenizer_of(base):
    return find_tokenizer(base, load_config(base))


def made(folder, tokenizer):
    shape = GPT2Config(width=16, blocks=2, heads=2, context=512, vocabulary=tokenizer.vocabulary.size)
    model = LanguageModel(shape)
    initialise(model, torch.Generator().manual_seed(0), std=0.2)
    save_pretrained(model, folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def base(few_tokens, tmp_path_factory):
    """A base of few tokens: what a merge compares are mostly logits."""
    return made(tmp_path_factory.mktemp("base"), tokenizer_of(few_tokens))


def adapter(base, folder, method=LORA, labels=None, seed=5, **flags):
    """The folder of an adapter that is far from where it started."""
    args = asdict(method) | {"model": str(base), "seed": 0, "head_training": "train"} | flags
    facts = Facts(args, base_facts(str(base), base, tokenizer_of(base)), labels)
    model = build(base, load_config(base), facts)
    apply_method(model, method, 0, *([args["head_training"]] if labels else []))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
    save_adapter(folder, model, method.method, facts)
    return folder / "adapter"


SCRIPT = load_script("merge_lora")


@pytest.fixture
def call(run_here):
    return lambda output, *flags: run_here(SCRIPT, "--output", output, *flags)


@pytest.fixture
def merge(call):
    def run(output, *flags):
        status, out, err = call(output, *flags)
        assert status == 0, err
        return out

    return run


def language_model(folder):
    return transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()


def assert_same_logits(ours, theirs, tolerance=1e-5):
    with torch.no_grad():
        for text in TEXTS:
            expected = logits(ours, text)
            found = theirs(torch.tensor([text])).logits[0].view_as(expected)
            assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize(
    ("method", "of_gpt2"), [("lora", True), ("lora", False), ("dora", False), ("pissa", False), ("bitfit", False)]
)
def test_transformers_computes_and_writes_with_the_merged_model_what_base_and_adapter_do(
    method, of_gpt2, base, tmp_path, merge
):
    """With the tokens of GPT-2, and with a tokenizer of the base's own."""
    base = made(tmp_path / "base", GPT2) if of_gpt2 else base
    folder = adapter(base, tmp_path, MethodArgs(method, lora_rank=2))
    said = merge(tmp_path / "merged", "--adapter", folder)
    theirs = language_model(tmp_path / "merged")
    assert_same_logits(adapted(folder), theirs)
    assert theirs.lm_head.weight is theirs.transformer.wte.weight
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    written = theirs.generate(**tokenizer("The movie was", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert written.shape[1] == len(tokenizer("The movie was").input_ids) + 4
    assert "32 of bundled instructions.jsonl" in said
    assert float(re.search(r"differ .* by (\S+) at most", said)[1]) < 1e-3


@pytest.mark.parametrize("training", ["frozen+lora", "train+lora"])
def test_a_class_head_with_an_adapter_beside_a_trained_embedding_is_merged_whole(training, base, tmp_path, merge):
    method = replace(LORA, train_embedding=True)  # which PEFT's format cannot express
    folder = adapter(base, tmp_path, method, LABELS, head_training=training)
    assert (folder / "adapter.safetensors").exists()
    merge(tmp_path / "merged", "--adapter", folder)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert_same_logits(adapted(folder), theirs)
    for text in TEXTS:
        assert torch.allclose(logits(combined([(folder, 1.0)], None), text), logits(adapted(folder), text), atol=1e-5)


def test_the_embedding_is_trained_beside_an_adapter_of_the_head_that_it_is(base, tmp_path, merge):
    method = replace(WITH_HEAD, train_embedding=True)
    model = build(base, load_config(base), Facts(asdict(method) | {"model": str(base)}))
    before = model.transformer.wte.weight.detach().clone()
    apply_method(model, method, 0)
    assert model.transformer.wte.weight.requires_grad
    folder = adapter(base, tmp_path, method)
    assert not torch.equal(adapted(folder).transformer.wte.weight, before)
    merge(tmp_path / "merged", "--adapter", folder)
    assert_same_logits(adapted(folder), language_model(tmp_path / "merged"))


def test_a_merged_classifier_has_its_labels_and_its_logits(base, tmp_path, merge):
    folder = adapter(base, tmp_path, labels=LABELS)
    said = merge(tmp_path / "merged", "--adapter", folder)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert_same_logits(adapted(folder), theirs)
    assert theirs.config.id2label == dict(enumerate(LABELS))
    assert "32 of bundled spamassassin.parquet" in said and "0 of 32 labels differ" in said


def test_a_base_whose_tokenizer_puts_tokens_around_texts_is_merged_into_one_that_does_not(tmp_path, merge):
    own = surrounded("bert", tmp_path / "base")
    said = merge(tmp_path / "merged", "--adapter", adapter(own, tmp_path, labels=LABELS))
    assert "tokens  differ in transformers for 0 of 32 texts" in said and "0 of 32 labels differ" in said
    before, after = (transformers.AutoTokenizer.from_pretrained(tmp_path / name) for name in ("base", "merged"))
    assert after("bad film").input_ids == before("bad film", add_special_tokens=False).input_ids
    assert before("bad film").input_ids != after("bad film").input_ids


def test_an_adapted_lm_head_becomes_a_matrix_of_its_own(base, tmp_path, merge):
    folder = adapter(base, tmp_path, WITH_HEAD)
    merge(tmp_path / "merged", "--adapter", folder)
    theirs = language_model(tmp_path / "merged")
    assert theirs.config.tie_word_embeddings is False
    assert torch.equal(theirs.transformer.wte.weight, adapted(folder).transformer.wte.weight)
    assert not torch.equal(theirs.lm_head.weight, theirs.transformer.wte.weight)
    assert_same_logits(adapted(folder), theirs)


def test_a_head_that_was_trained_itself_is_merged_too(base, tmp_path, merge):
    folder = adapter(base, tmp_path, MethodArgs("head"), untie_head=True)
    assert (folder / "adapter.safetensors").exists()
    merge(tmp_path / "merged", "--adapter", folder)
    assert_same_logits(adapted(folder), language_model(tmp_path / "merged"))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_rounds_the_fp32_merge_once(dtype, base, tmp_path, merge):
    folder = adapter(base, tmp_path)
    merge(tmp_path / "whole", "--adapter", folder)
    said = merge(tmp_path / "half", "--adapter", folder, "--dtype", dtype)
    whole, half = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half"))
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    assert whole.keys() == half.keys()
    assert all(torch.equal(tensor.to(kind), half[name]) for name, tensor in whole.items())
    assert float(re.search(r"differ .* by (\S+) at most", said)[1]) > 1e-3
    assert re.search(r"[\d,]+ of [\d,]+ likeliest next tokens differ", said)


@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
def test_several_adapters_add_their_updates_times_their_weights(method, base, tmp_path, merge):
    a = adapter(base, tmp_path / "a", MethodArgs(method, lora_rank=2))
    b = adapter(base, tmp_path / "b", MethodArgs("lora", lora_rank=3, lora_targets=("v", "mlp-out")), seed=6)
    said = merge(tmp_path / "merged", "--adapter", a, b, "--weights", 0.7, -0.3)
    merge(tmp_path / "one", "--adapter", a)
    merge(tmp_path / "other", "--adapter", b)
    found, one, other, start = (
        load_file(f / "model.safetensors") for f in (tmp_path / "merged", tmp_path / "one", tmp_path / "other", base)
    )
    for name, tensor in found.items():
        expected = start[name] + 0.7 * (one[name] - start[name]) - 0.3 * (other[name] - start[name])
        assert torch.allclose(tensor, expected, atol=1e-5), name
    assert float(re.search(r"differ .* by (\S+) at most", said)[1]) < 1e-3


def test_adapters_that_had_the_same_base_in_two_places_are_merged_on_the_first_ones(base, tmp_path, merge):
    copy = shutil.copytree(base, tmp_path / "copy")
    a, b = adapter(base, tmp_path / "a"), adapter(copy, tmp_path / "b", seed=6)
    shutil.rmtree(copy)
    merge(tmp_path / "merged", "--adapter", a, b)
    b = adapter(base, tmp_path / "b", seed=6)
    merge(tmp_path / "expected", "--adapter", a, b)
    merged, expected = (tmp_path / name / "model.safetensors" for name in ("merged", "expected"))
    assert merged.read_bytes() == expected.read_bytes()


def test_the_unmerged_combination_is_what_the_strengths_say(base, tmp_path):
    folder = adapter(base, tmp_path)
    one = adapted(folder)
    set_strength(one, 0.4)
    difference = compare(one, combined([(folder, 0.4)], None), TEXTS)
    assert difference.logit <= 1e-5 * difference.largest
    assert difference.choices == sum(map(len, TEXTS)) and difference.changed == 0
    moved = compare(adapted(folder), combined([(folder, 0.4)], None), TEXTS)
    assert moved.logit > 0.1


def test_class_heads_are_added_with_the_same_weights(base, tmp_path, merge):
    a, b = (adapter(base, tmp_path / name, labels=LABELS, seed=i) for i, name in enumerate("ab"))
    merge(tmp_path / "merged", "--adapter", a, b, "--weights", 0.25, 0.75)
    heads = [adapted(folder).score.weight for folder in (a, b)]
    found = load_file(tmp_path / "merged" / "model.safetensors")["score.weight"]
    assert torch.allclose(found, 0.25 * heads[0] + 0.75 * heads[1], atol=1e-6)


@pytest.mark.parametrize("method", [LORA, WITH_HEAD], ids=["lora", "lm-head"])
def test_weight_0_gives_the_base_back_bit_for_bit(method, base, tmp_path, merge):
    folder = adapter(base, tmp_path, method)
    said = merge(tmp_path / "merged", "--adapter", folder, "--weights", 0)
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
    assert "the base alone" in said and "texts" not in said


@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
@pytest.mark.parametrize("bits", [4, 8])
def test_an_adapter_of_a_quantised_base_is_merged_into_what_it_was_trained_beside(bits, method, base, tmp_path, merge):
    folder = adapter(base, tmp_path, MethodArgs(method, lora_rank=2, lora_targets=("q", "v")), base_bits=bits)
    said = merge(tmp_path / "merged", "--adapter", folder)
    assert float(re.search(r"differ .* by (\S+) at most", said)[1]) < 1e-3
    whole = adapter(base, tmp_path / "whole", MethodArgs(method, lora_rank=2, lora_targets=("q", "v")))
    assert_same_logits(adapted(folder), language_model(tmp_path / "merged"))
    assert compare(adapted(folder), adapted(whole), TEXTS).logit > 1e-2


def test_weight_0_switches_one_adapter_of_two_off(base, tmp_path, merge):
    a, b = (adapter(base, tmp_path / name, seed=i) for i, name in enumerate("ab"))
    merge(tmp_path / "one", "--adapter", a)
    merge(tmp_path / "both", "--adapter", a, b, "--weights", 1, 0)
    one, both = (tmp_path / name / "model.safetensors" for name in ("one", "both"))
    assert one.read_bytes() == both.read_bytes()


def test_the_untied_base_is_the_base_with_a_head_of_its_own(base, tmp_path, merge):
    merge(tmp_path / "untied", "--model", base, "--untied-base")
    theirs = language_model(tmp_path / "untied")
    assert theirs.config.tie_word_embeddings is False
    assert theirs.lm_head.weight is not theirs.transformer.wte.weight
    with torch.no_grad():
        text = torch.tensor([TEXTS[0]])
        assert torch.equal(theirs(text).logits, language_model(base)(text).logits)


def test_a_run_is_merged_by_its_name_and_compared_on_own_texts(tiny_model, mail_file, tmp_path, merge):
    run = tmp_path / "run"
    flags = ["--data", mail_file, "--model", tiny_model, "--max-steps", 3, "--output-dir", run]
    assert run_in_process("finetune_cls", *flags).returncode == 0
    said = merge(tmp_path / "merged", "--run", run, "--data", mail_file, "--text-column", "text")
    assert "32 of" in said and "mails.jsonl" in said and "of 32 labels" in said
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert_same_logits(adapted(run / "adapter"), theirs)


def test_generate_answers_the_same_with_a_merged_model_and_with_base_and_adapter(base, tmp_path, merge):
    folder = adapter(base, tmp_path)
    merge(tmp_path / "merged", "--adapter", folder)
    asked = ["--prompt", "Count to 3", "--new-tokens", 5]
    attached = run_in_process("generate", "--model", base, "--adapter", folder, *asked)
    merged = run_in_process("generate", "--model", tmp_path / "merged", *asked)
    both = run_in_process("generate", "--model", base, "--adapter", folder, *asked, "--compare")
    assert attached.returncode == merged.returncode == both.returncode == 0, attached.stderr
    assert attached.stdout == merged.stdout
    assert "base: " in both.stdout and "fine-tuned: " in both.stdout


def test_an_adapter_of_peft_is_merged_and_asked_on_the_base_that_it_names(base, tmp_path, merge, run_here):
    folder = adapter(base, tmp_path)
    ours = merge(tmp_path / "ours", "--adapter", folder)
    (folder / "adapter.json").unlink()
    theirs = merge(tmp_path / "theirs", "--adapter", folder)
    assert "fp32" in ours and "fp32" in theirs
    merged = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "theirs")]
    assert merged[0] == merged[1]
    generate, asked = load_script("generate"), ["--adapter", folder, "--prompt", "Count to 3", "--new-tokens", 5]
    status, said, err = run_here(generate, *asked)
    assert status == 0 and "by its settings" not in err, err
    assert said == run_here(generate, *asked, "--model", base)[1]


def test_another_base_than_an_adapter_of_peft_names_is_noted_once(base, tmp_path, call, run_here):
    folder, other = adapter(base, tmp_path), shutil.copytree(base, tmp_path / "other")
    (folder / "adapter.json").unlink()
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"revision": "v1"}))
    asked = ["--adapter", folder, "--prompt", "Count to 3", "--new-tokens", 5]
    for status, _, err in (
        call(tmp_path / "merged", "--adapter", folder, "--model", other),
        run_here(load_script("generate"), *asked, "--model", other),
    ):
        assert status == 0 and err.count(f"its base is {base} by its settings, not {other}") == 1, err
        assert err.count("is of revision v1 of its base") == 1
    there = base.parent / "elsewhere" / ".." / base.name
    (base.parent / "elsewhere").mkdir()
    _, _, err = run_here(load_script("generate"), *asked, "--model", there)
    assert "by its settings" not in err


# What is refused.


@pytest.fixture(scope="module")
def folders(base, tmp_path_factory):
    """Adapters and outputs that are wrong in one way each, and some that are right."""
    root = tmp_path_factory.mktemp("folders")
    places = {"good": adapter(base, root / "good"), "base": base, "root": root}
    places["theirs"] = shutil.copytree(places["good"], root / "theirs", ignore=shutil.ignore_patterns("adapter.json"))
    places["unnamed"] = shutil.copytree(places["theirs"], root / "unnamed")
    settings = json.loads((places["unnamed"] / "adapter_config.json").read_text())
    (places["unnamed"] / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": None}))
    places["file_run"], places["trainer"] = root / "file_run", root / "trainer"
    for folder in (places["file_run"] / "adapter", *(places["trainer"] / f"checkpoint-{i}" for i in (9, 20))):
        shutil.copytree(places["theirs"], folder)
    (places["file_run"] / "results.json").write_text("{}")
    places["classes"] = adapter(base, root / "classes", labels=LABELS)
    places["renamed"] = adapter(base, root / "renamed", labels=["ham", "other", "spam"])
    places["bias"] = adapter(base, root / "bias", MethodArgs("bitfit"), labels=LABELS, head_bias=True)
    places["facts"] = shutil.copytree(places["good"], root / "facts")
    (places["facts"] / "adapter.json").write_text("{")
    places["pointer"] = shutil.copytree(places["good"], root / "pointer")
    (places["pointer"] / "adapter_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    places["half"] = shutil.copytree(places["good"], root / "half")
    weights = places["half"] / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    places["file"] = write_rows(root / "questions.jsonl", questions(3))
    other = LanguageModel(load_config(base))
    initialise(other, torch.Generator().manual_seed(1))
    save_pretrained(other, root / "other", tokenizer_of(base))
    places["other"] = root / "other"
    places["stranger"] = adapter(places["other"], root / "stranger")
    (root / "taken").mkdir()
    (root / "taken" / "thesis.tex").write_text("years of work")
    places["taken"] = root / "taken"
    return places


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "--adapter, --run or --untied-base: give exactly one"),
        ("--adapter {good} --untied-base --model {base}", "give exactly one"),
        ("--untied-base", "which base? add --model"),
        ("--untied-base --model {base} --weights 0.3", "--weights: --untied-base writes the base alone"),
        ("--adapter {good} {good} --weights 1", "--weights: 1 for 2 adapters"),
        ("--adapter {good} --weights nan", "--weights: must be finite"),
        ("--adapter {good} --data {file}", "which column is the text"),
        ("--adapter {good} --text-column text", "--text-column: needs --data"),
        ("--adapter {good} --encoding cp1252", "--encoding: needs --data"),
        ("--adapter {good} --data {file} --text-column body", "'body' is missing"),
        ("--adapter {root}/absent", "absent: no such folder"),
        ("--adapter {taken}", "missing or damaged"),
        ("--adapter {facts}", "adapter.json is damaged"),
        ("--adapter {pointer}", "adapter_model.safetensors is a pointer of Git LFS, not the file itself"),
        ("--adapter {half}", "missing or damaged"),
        ("--adapter {good} --model {other}", "was trained on other weights"),
        ("--adapter {good} --model gpt2-nano", "was trained on other weights"),
        ("--adapter {good} {classes}", "classes differ"),
        ("--adapter {classes} {renamed}", "classes differ"),
        ("--adapter {good} {stranger}", "stranger/adapter: were trained on different weights ({base}; {other})"),
        ("--adapter {good} {stranger} --model {base}", "were trained on different weights"),
        ("--adapter {unnamed}", "does not say what it was trained on; give it as --adapter, and its base as --model"),
        ("--adapter {file_run}", "is a run; give it as --run, or as --adapter {file_run}/adapter"),
        (
            "--run {file_run}/adapter",
            "(results.json is missing); it is a part of one: give {file_run}",
        ),
        ("--run {good}", "it is an adapter without its run: give it as --adapter"),
        ("--adapter {trainer}", "an adapter is in {trainer}/checkpoint-20: give that folder as --adapter"),
        ("--adapter {base}", "is a model, not an adapter; give it as --model"),
        ("--adapter me/my-lora", "no such folder; one of the hub is fetched by: hf download me/my-lora"),
        ("--adapter {bias}", "transformers has no such head"),
        ("--run {root}", "no finished run"),
    ],
)
def test_wrong_input_gets_one_message_and_leaves_nothing(flags, message, folders, tmp_path, call):
    words = [word.format(**folders) for word in flags.split()]
    status, _, err = call(tmp_path / "merged", *words)
    assert status == 2
    assert err.count("error:") == 1 and message.format(**folders) in " ".join(err.split())
    assert not (tmp_path / "merged").exists()


def test_no_other_files_are_overwritten_and_a_model_only_when_asked(folders, tmp_path, call, merge):
    status, _, err = call(folders["taken"], "--adapter", folders["good"], "--overwrite")
    assert status == 2 and "holds other files (thesis.tex)" in err
    assert (folders["taken"] / "thesis.tex").read_text() == "years of work"
    merge(tmp_path / "merged", "--adapter", folders["good"])
    before = (tmp_path / "merged" / "model.safetensors").read_bytes()
    status, _, err = call(tmp_path / "merged", "--adapter", folders["good"], "--weights", 0)
    assert status == 2 and "--overwrite" in err
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() == before
    merge(tmp_path / "merged", "--adapter", folders["good"], "--weights", 0, "--overwrite")
    assert (tmp_path / "merged" / "model.safetensors").read_bytes() != before


def test_the_base_itself_is_never_overwritten(folders, call):
    base = folders["base"]
    before = (base / "model.safetensors").read_bytes()
    status, _, err = call(base, "--adapter", folders["good"], "--overwrite")
    assert status == 2 and "is the base itself" in err
    assert (base / "model.safetensors").read_bytes() == before


def test_a_fully_fine_tuned_run_has_nothing_to_merge(tmp_path, call):
    results = {"args": {"model": "gpt2", "method": "full"}, "data": {"sha256": ""}, "model": {"sha256": ""}}
    results |= {"schema": 1, "script": "finetune_cls"}
    (tmp_path / "results.json").write_text(json.dumps(results))
    status, _, err = call(tmp_path / "merged", "--run", tmp_path)
    assert status == 2 and "whole model already" in err


def test_json_of_an_adapter_says_what_it_was_made_from(base, tmp_path):
    facts = json.loads((adapter(base, tmp_path) / "adapter.json").read_text())
    sums = {"sha256": weights_hash(base), "tokenizer": tokenizer_of(base).sha256}
    assert facts["base"] == {"name": str(base)} | sums
    assert facts["args"]["lora_rank"] == 2
