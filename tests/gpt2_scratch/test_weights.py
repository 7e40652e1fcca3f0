"""Weights in all the forms that transformers and others write, and heads that a base brings along."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from helpers import mails, questions, results_of, run_in_process, write_rows
from safetensors.torch import load_file, save_file, save_model

from gpt2_scratch.config import GPT2Config, from_hf
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.pretrained import heads_in, load_weights, read_weight, save_pretrained, without_storage
from gpt2_scratch.sources import load_config, resolve
from gpt2_scratch.tokenizer import GPT2
from gpt2_scratch.weights import keys, weight_files, weights_hash
from training.evaluation.applied import find_applied
from training.flags.common import ModelArgs
from training.model.card import card
from training.model.facts import BaseFacts, Facts
from training.model.heads import head_notes, trained_rows
from training.model.methods import build_classifier, build_language_model
from training.model.saved import adapted, whole_model

SMALL = GPT2Config(width=16, blocks=2, heads=2, context=512)
COLUMNS = ("--text-column", "text", "--label-column", "label")


@pytest.fixture(scope="module")
def theirs() -> transformers.GPT2LMHeadModel:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=512)).eval()


def write(model, folder: Path, form: str) -> Path:
    """`model` in one of the forms that weights have."""
    folder.mkdir(exist_ok=True)
    small = {"max_shard_size": "300KB"} if "shard" in form else {}
    model.save_pretrained(folder, **small)
    if "bin" in form:
        index = folder / "model.safetensors.index.json"
        named = json.loads(index.read_text()) if index.exists() else None
        for path in folder.glob("*.safetensors"):
            new = path.name.replace("model", "pytorch_model").replace(".safetensors", ".bin")
            torch.save(load_file(path), folder / new, _use_new_zipfile_serialization="old" not in form)
            path.unlink()
        if named is not None:
            rename = lambda name: name.replace("model", "pytorch_model").replace(".safetensors", ".bin")  # noqa: E731
            named["weight_map"] = {key: rename(name) for key, name in named["weight_map"].items()}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(named))
            index.unlink()
    return folder


@pytest.mark.parametrize("form", ["safetensors", "shards", "bin", "old bin", "bin shards"])
def test_weights_load_from_every_form_that_transformers_writes(theirs, tmp_path, form):
    folder = write(theirs, tmp_path / "m", form)
    assert len(weight_files(folder)) > 1 if "shard" in form else len(weight_files(folder)) == 1
    model = build_language_model(folder, load_config(folder), ModelArgs()).eval()
    tokens = torch.tensor([464, 3807, 373, 257, 1049])
    ours = model(tokens, torch.tensor([5]), torch.cat([tokens[1:], torch.tensor([50256])]))
    wanted = theirs(tokens[None]).logits[0].log_softmax(1)[range(5), [*tokens[1:].tolist(), 50256]]
    assert torch.allclose(ours, wanted, atol=1e-4)
    name = "transformer.h.1.mlp.c_fc.weight"
    assert torch.equal(read_weight(folder, name), model.get_parameter(name))


def test_the_hash_covers_every_weight_file_and_of_one_file_is_that_files(theirs, tmp_path):
    import hashlib

    one, many = write(theirs, tmp_path / "one", "safetensors"), write(theirs, tmp_path / "many", "shards")
    assert weights_hash(one) == hashlib.sha256((one / "model.safetensors").read_bytes()).hexdigest()
    for path in weight_files(many):
        changed = tmp_path / f"changed-{path.stem}"
        shutil.copytree(many, changed)
        state = load_file(path)
        state[min(state)] = state[min(state)] + 1
        save_file(state, changed / path.name, metadata={"format": "pt"})
        assert weights_hash(changed) != weights_hash(many)


def test_half_precision_is_read_and_integers_are_refused_as_quantised(theirs, tmp_path):
    folder = write(theirs, tmp_path / "m", "safetensors")
    state = load_file(folder / "model.safetensors")
    halves = {name: tensor.half() for name, tensor in state.items()}
    save_file(halves, folder / "model.safetensors")
    model = build_language_model(folder, load_config(folder), ModelArgs())
    assert torch.equal(model.transformer.wpe.weight, halves["transformer.wpe.weight"].float())
    save_file({name: (tensor * 10).to(torch.int8) for name, tensor in state.items()}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="quantised; save the model unquantised"):
        build_language_model(folder, load_config(folder), ModelArgs())
    with pytest.raises(ValueError, match="quantization_config"):
        from_hf({"quantization_config": {"load_in_8bit": True}})


@pytest.mark.parametrize(
    ("form", "harm", "message"),
    [
        ("shards", "lose", "is missing, one of 1 of"),
        ("shards", "cut", "is damaged"),
        ("bin shards", "cut", "cannot be read as weights"),
        ("bin", "cut", "cannot be read as weights"),
        ("bin", "code", "it holds a whole pickled model or other code, which is not run"),
        ("bin", "model", "save the model with transformers' save_pretrained, or torch.save(model.state_dict(), ...)"),
        ("safetensors", "pointer", "model.safetensors is a pointer of Git LFS, not the file itself; run: git lfs pull"),
        ("bin", "pointer", "pytorch_model.bin is a pointer of Git LFS"),
        ("shards", "pointer", "is a pointer of Git LFS"),
        ("bin shards", "pointer", "is a pointer of Git LFS"),
        ("bin", "list", "holds no table of tensors"),
        ("shards", "index", "is not an index of weights"),
        ("shards", "outside", "is not a file beside it"),
    ],
)
def test_what_is_missing_or_damaged_is_named_in_one_message(theirs, tmp_path, form, harm, message):
    folder = write(theirs, tmp_path / "m", form)
    last, index = weight_files(folder)[-1], next(folder.glob("*.index.json"), folder)
    if harm == "lose":
        last.unlink()
    elif harm == "cut":
        last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    elif harm == "code":
        torch.save({"a": os.system}, last)
    elif harm == "model":
        torch.save(theirs, last)
    elif harm == "pointer":
        last.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 497774208\n")
    elif harm == "list":
        torch.save([torch.zeros(1)], last)
    elif harm == "index":
        index.write_text('{"weight_map": ')
    else:
        index.write_text(json.dumps({"weight_map": {"wte.weight": "../x.safetensors"}}))
    with pytest.raises(ValueError) as error:
        build_language_model(folder, load_config(folder), ModelArgs())
    if harm == "pointer":  # said before torch is loaded
        with pytest.raises(ValueError, match="is a pointer of Git LFS"):
            resolve(str(folder))
    assert message in str(error.value) and len(str(error.value).replace(str(folder), "")) <= 300
    assert "PyTorch 2.6" not in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_named_with_their_folder(theirs, tmp_path, dtype, number):
    folder, name = write(theirs, tmp_path / "m", "safetensors"), "transformer.h.1.mlp.c_fc.weight"
    state = {key: tensor.to(dtype) for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors")
    build_language_model(folder, load_config(folder), ModelArgs())
    harmed = state[name].float()
    harmed[2, 3] = number
    save_file(state | {name: harmed.to(dtype)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"weights in {folder}: {name} holds numbers that are not finite"):
        build_language_model(folder, load_config(folder), ModelArgs())
    with pytest.raises(ValueError, match="not finite"):
        read_weight(folder, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab_size": "50257"}, "config.json has vocab_size='50257'; it must be a whole number above 0"),
        ({"n_embd": 16.5}, "config.json has n_embd=16.5"),
        ({"n_head": 0}, "config.json has n_head=0"),
        ({"n_layer": -2}, "config.json has n_layer=-2"),
        ({"n_positions": True}, "config.json has n_positions=True"),
        ({"max_position_embeddings": "64"}, "config.json has n_positions='64'"),
        ({"n_head": [2]}, "config.json has n_head=[2]"),
        ({"n_head": 5}, "width 768 is not divisible by 5 heads"),
        ({"layer_norm_epsilon": "1e-5"}, "config.json has layer_norm_epsilon='1e-5'"),
        ({"tie_word_embeddings": "yes"}, "config.json has tie_word_embeddings='yes'"),
        ({"n_inner": 40}, "config.json has n_inner=40"),
        ({"model_type": "bert", "n_embd": "x"}, "config.json has model_type='bert'"),
        ([], "config.json holds no JSON object"),
        ("gpt2", "config.json holds no JSON object"),
    ],
)
def test_a_config_json_that_does_not_fit_is_named_with_the_flag_and_the_folder(tmp_path, settings, message):
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError) as error:
        load_config(tmp_path, "--init-from")
    assert str(error.value).startswith(f"--init-from {tmp_path}: ") and message in str(error.value)
    assert len(str(error.value).replace(str(tmp_path), "")) <= 300


def test_a_config_json_that_git_lfs_left_a_pointer_of_is_named(tmp_path):
    (tmp_path / "config.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 665\n")
    with pytest.raises(ValueError, match=f"--model {tmp_path}: .*config.json is a pointer of Git LFS"):
        load_config(tmp_path)


@pytest.mark.parametrize("content", ["config.json", "adapter_config.json"])
def test_a_folder_that_holds_only_checkpoints_names_the_last(tmp_path, content):
    for step in (500, 1000, 90):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / content).write_text("{}")
    with pytest.raises(ValueError, match=f"lacks config.json; .* in {tmp_path}/checkpoint-1000") as error:
        resolve(str(tmp_path))
    assert ("merge it with scripts/merge_lora.py" in str(error.value)) == content.startswith("adapter")
    assert len(str(error.value).replace(str(tmp_path), "")) <= 300


@pytest.mark.parametrize("name", ["gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate"])
def test_activations_that_are_the_same_function_are_taken(name):
    x = torch.linspace(-6, 6, 2001)
    ours = torch.nn.functional.gelu(x, approximate="tanh")
    assert torch.allclose(transformers.activations.ACT2FN[name](x), ours, atol=1e-6)
    assert from_hf({"activation_function": name}) == GPT2Config()


@pytest.mark.parametrize("name", ["gelu", "relu", "quick_gelu", "silu"])
def test_other_activations_are_refused(name):
    with pytest.raises(ValueError, match=f"activation_function='{name}'"):
        from_hf({"activation_function": name})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("m.gguf",), "a GGUF"),
        (("config.json", "tf_model.h5"), "TensorFlow's weights"),
        (("config.json", "flax_model.msgpack"), "Flax's weights"),
        (
            ("adapter_config.json", "adapter_model.safetensors"),
            "give its base as --model, and the adapter as --adapter",
        ),
        (("config.json",), "the folder lacks model.safetensors (or "),
        (("config.json", "model.safetensors", "adapter_config.json"), "holds a model and an adapter"),
        (("config.json", "adapter_config.json"), "it holds an adapter: give its base as --model"),
    ],
)
def test_a_folder_of_another_kind_says_what_to_give_instead(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError) as error:
        resolve(str(tmp_path))
    assert message in str(error.value) and len(str(error.value).replace(str(tmp_path), "")) <= 300


def test_null_stands_for_the_default_and_code_of_its_own_is_refused():
    nothing = dict.fromkeys(
        ("tie_word_embeddings", "layer_norm_epsilon", "n_embd", "activation_function", "model_type")
    )
    assert from_hf(nothing) == from_hf({})
    with pytest.raises(ValueError, match="auto_map: the model is computed by code of its own"):
        from_hf({"auto_map": {"AutoModelForCausalLM": "modeling.My"}})


def test_old_and_other_names_of_the_shape_are_read():
    assert from_hf({"n_ctx": 256}).context == 256
    assert from_hf({"n_ctx": 256, "n_positions": 128}).context == 128
    other = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 99}
    assert from_hf(other) == GPT2Config(width=64, blocks=3, heads=4, context=99)
    assert transformers.GPT2Config(**other).n_embd == 64


def classifier(folder: Path, names: list[str]) -> Path:
    model = Classifier(SMALL, len(names))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, folder, GPT2, **Facts(labels=names).label_names)
    return folder


def test_a_class_head_is_used_when_its_classes_match_by_name_in_whatever_order(tmp_path):
    folder = classifier(tmp_path / "c", ["spam", "ham", "other"])
    rows = trained_rows(folder, ["ham", "other", "spam"])
    assert rows == [1, 2, 0]
    built = build_classifier(folder, SMALL, ModelArgs(), 3, 0, rows=rows)
    assert torch.equal(built.score.weight, read_weight(folder, "score.weight")[rows])
    assert "goes on from the class head" in head_notes(folder, ["ham", "other", "spam"], True)[0]
    fresh = build_classifier(folder, SMALL, ModelArgs(), 3, 0)
    assert not torch.equal(fresh.score.weight[0], built.score.weight[0])


def test_the_bias_of_a_class_head_is_kept_whoever_wrote_it(tmp_path):
    """transformers has none, so the oracle is the sum by hand."""
    model = Classifier(SMALL, 2, True)
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    with torch.no_grad():
        model.score.bias.copy_(torch.tensor([0.0, 5.0]))
    save_pretrained(model, tmp_path, GPT2, **Facts(labels=["ham", "spam"]).label_names)
    read = find_applied(None, None, str(tmp_path)).load()
    assert torch.equal(read.score.bias, model.score.bias)
    tokens, lengths = torch.tensor([464, 3807, 373]), torch.tensor([3])
    assert torch.equal(read(tokens, lengths), model.eval()(tokens, lengths))
    assert trained_rows(tmp_path, ["spam", "ham"]) is None
    assert "it has a bias (--head-bias goes on from it)" in head_notes(tmp_path, ["spam", "ham"])[0]
    rows = trained_rows(tmp_path, ["spam", "ham"], bias=True)
    built = build_classifier(tmp_path, SMALL, ModelArgs(), 2, 0, True, rows=rows)
    assert built.score.bias.tolist() == [5.0, 0.0]


def test_classes_scored_by_an_untied_embedding_are_read_back(tmp_path):
    """As finetune_cls.py --method full --head lm-token --untie-head saves them."""
    untied = replace(SMALL, tied_head=False)
    model = Classifier(untied, 2, False, True)
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    save_pretrained(model, tmp_path, GPT2)
    facts = Facts({"head": "lm-token", "untie_head": True}, labels=["no", "yes"])
    read = whole_model(tmp_path, facts)
    tokens, lengths = torch.tensor([464, 3807, 373]), torch.tensor([3])
    assert torch.equal(read(tokens, lengths), model.eval()(tokens, lengths))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_names_that_compilation_and_data_parallelism_wrap_are_read(tmp_path, prefix):
    folder = classifier(tmp_path / "c", ["no", "yes"])
    plain = whole_model(folder, Facts(labels=["no", "yes"])).state_dict()
    state = {prefix + key: tensor for key, tensor in load_file(folder / "model.safetensors").items()}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    read = whole_model(folder, Facts(labels=["no", "yes"])).state_dict()
    assert plain.keys() == read.keys() and all(torch.equal(tensor, read[name]) for name, tensor in plain.items())
    assert heads_in(folder) == ["score"]


def test_a_head_that_is_not_the_embedding_says_how_to_untie_it(theirs, tmp_path):
    folder = write(theirs, tmp_path / "m", "safetensors")
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["transformer.wte.weight"] + 1
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match='set "tie_word_embeddings" to false') as error:
        build_language_model(folder, load_config(folder), ModelArgs())
    assert len(str(error.value).replace(str(tmp_path), "")) <= 300
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": False}))
    model = build_language_model(folder, load_config(folder), ModelArgs())
    assert torch.equal(model.lm_head.weight, state["lm_head.weight"])


def test_a_tied_head_may_stand_for_the_embedding(theirs, tmp_path):
    """As safetensors' save_model keeps them: one of two tensors that are the same."""
    theirs.save_pretrained(tmp_path)
    save_model(theirs, str(tmp_path / "model.safetensors"))
    assert "transformer.wte.weight" not in keys(tmp_path)
    model = build_language_model(tmp_path, load_config(tmp_path), ModelArgs())
    assert torch.equal(model.transformer.wte.weight, theirs.transformer.wte.weight)
    assert model.lm_head.weight is model.transformer.wte.weight


@pytest.mark.parametrize(
    "ours", [["ham", "spam"], ["ham", "other", "junk"], ["a", "b", "c", "d"], ["LABEL_0", "LABEL_1"]]
)
def test_another_class_head_is_named_as_not_used_and_a_new_one_made(tmp_path, ours):
    folder = classifier(tmp_path / "c", ["spam", "ham", "other"] if ours[0] != "LABEL_0" else ours)
    assert trained_rows(folder, ours) is None
    (note,) = head_notes(folder, ours, False)
    assert "class head is not used" in note
    assert build_classifier(folder, SMALL, ModelArgs(), len(ours), 0).score.weight.shape == (len(ours), 16)


def test_heads_of_other_kinds_are_dropped_and_named(tmp_path):
    settings = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=512)
    for kind, word in (
        (transformers.GPT2ForTokenClassification, "token classification head"),
        (transformers.GPT2DoubleHeadsModel, "multiple choice head"),
        (transformers.GPT2ForQuestionAnswering, "question answering head"),
        (transformers.GPT2ForSequenceClassification, "class head"),
    ):
        folder = tmp_path / kind.__name__
        kind(settings).save_pretrained(folder)
        assert head_notes(folder, None, False) == [f"the model's {word} is not used"]
        load_weights(without_storage(LanguageModel, load_config(folder)), folder)


def test_training_goes_on_from_a_merged_classifier_and_a_language_model_of_it_drops_the_head(tmp_path):
    data = write_rows(tmp_path / "m.jsonl", mails(60))
    folder = classifier(tmp_path / "c", ["spam", "ham"])
    common = ("--model", folder, "--max-steps", 1, "--lr", 1e-9, "--max-length", 64)
    done = run_in_process("finetune_cls", "--data", data, *COLUMNS, *common, "--output-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "training goes on from the class head" in done.stdout and "random weights" not in done.stdout
    applied = run_in_process(
        "predict", "--model", folder, "--data", data, *COLUMNS, "--output", tmp_path / "p.jsonl", "--max-length", 64
    )
    assert applied.returncode == 0, applied.stderr
    known = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    for line in map(json.loads, (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()):
        assert line["probabilities"] == pytest.approx(known[line["id"]]["probabilities"], abs=1e-5)
    columns = ("--prompt-column", "instruction", "--response-column", "response")
    done = run_in_process(
        "finetune_ift",
        "--data",
        write_rows(tmp_path / "q.jsonl", questions(30)),
        *columns,
        *common,
        "--new-tokens",
        0,
        "--output-dir",
        tmp_path / "ift",
    )
    assert done.returncode == 0, done.stderr
    assert "the model's class head is not used" in results_of(tmp_path / "ift")["data"]["notes"]


def test_peft_opens_an_adapter_by_its_card_with_the_names_of_the_classes(tiny_model, tmp_path):
    data, run = write_rows(tmp_path / "m.jsonl", mails(40)), tmp_path / "run"
    short = ("--max-steps", 2, "--output-dir", run)
    done = run_in_process("finetune_cls", "--data", data, *COLUMNS, "--model", tiny_model, *short)
    assert done.returncode == 0, done.stderr
    code = (run / "adapter" / "README.md").read_text().split("```python\n")[1].split("```")[0]
    known: dict = {}
    exec(code, known)  # as a reader of the card would
    config = known["model"].config
    assert (config.id2label, config.label2id) == ({0: "ham", 1: "spam"}, {"ham": 0, "spam": 1})
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_model)
    classify = transformers.pipeline(
        "text-classification", model=known["model"], tokenizer=tokenizer, top_k=None, batch_size=4
    )
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    texts = [mails(40)[line["id"]]["text"] for line in lines]
    for line, scores in zip(lines, classify(texts), strict=True):
        assert {s["label"]: s["score"] for s in scores} == pytest.approx(line["probabilities"], abs=1e-4)
    merged = run_in_process("merge_lora", "--run", run, "--output", tmp_path / "merged")
    assert merged.returncode == 0 and "m.jsonl" in merged.stdout  # compared on the texts it was trained on


def test_the_card_of_an_adapter_says_how_to_call_a_tokenizer_of_the_bases_own(tmp_path):
    assert "add_special_tokens=False" in card(Facts(base=BaseFacts("gpt2", "0", "1")), "x", "peft")
    assert "add_special_tokens" not in card(Facts(base=BaseFacts("gpt2", "0")), "x", "peft")


def test_peft_opens_the_adapter_of_a_language_model(tiny_model, tmp_path):
    data, run = write_rows(tmp_path / "q.jsonl", questions(30)), tmp_path / "run"
    flags = ("--prompt-column", "instruction", "--response-column", "response", "--max-steps", 1, "--new-tokens", 0)
    flags = (*flags, "--lr", 0.05)  # a step that shows
    done = run_in_process("finetune_ift", "--data", data, *flags, "--model", tiny_model, "--output-dir", run)
    assert done.returncode == 0, done.stderr
    known: dict = {}
    exec((run / "adapter" / "README.md").read_text().split("```python\n")[1].split("```")[0], known)
    tokens = torch.tensor([464, 3807])
    ours = adapted(run / "adapter")(tokens, torch.tensor([2]), torch.tensor([3807, 373]))
    theirs = known["model"](tokens[None]).logits[0].log_softmax(1)[range(2), [3807, 373]]
    with known["model"].disable_adapter():
        base = known["model"](tokens[None]).logits[0].log_softmax(1)[range(2), [3807, 373]]
    assert torch.allclose(ours, theirs, atol=1e-4) and (theirs - base).abs().max() > 1e-3


def test_what_is_saved_has_the_mode_of_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        folder = classifier(tmp_path / "c", ["spam", "ham"])
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}
    assert list(keys(folder))[0] == "transformer.wte.weight"
