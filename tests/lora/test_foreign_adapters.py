"""Adapters as PEFT's users have them: of another base, cut short, with settings of each start; and what a card says."""

import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_merge import adapter, tokenizer_of
from test_merge import base as base

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.pretrained import save_pretrained
from gpt2_scratch.sources import BUNDLED, load_config
from gpt2_scratch.tokenizer import GPT2
from lora.peft_config import config_problems
from training.evaluation.applied import find_applied
from training.flags.common import MethodArgs
from training.model.card import card
from training.model.facts import BaseFacts, Facts
from training.model.merging import common_facts, logits
from training.model.saved import adapted

TEXT = [1, 2, 3, 4, 50, 60, 7]


def peft_alone(folder, **settings):
    """The adapter without what we say of it, as PEFT's users have one."""
    for name in ("adapter.json", "README.md"):
        (folder / name).unlink()
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return folder


def test_an_adapter_of_a_base_with_fewer_blocks_is_refused(base, tmp_path):
    folder = peft_alone(adapter(base, tmp_path / "run"))
    deeper = LanguageModel(replace(load_config(base), blocks=3))
    initialise(deeper, torch.Generator().manual_seed(0))
    save_pretrained(deeper, tmp_path / "deeper", tokenizer_of(base))
    assert adapted(folder, str(base)) is not None
    with pytest.raises(ValueError, match=r"no factors of transformer\.h\.2\.attn\.c_attn: it is of another base"):
        adapted(folder, str(tmp_path / "deeper"))


def test_an_adapter_that_lacks_a_block_is_refused_unless_it_says_so(base, tmp_path):
    folder = peft_alone(adapter(base, tmp_path / "run"))
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({k: t for k, t in tensors.items() if ".h.1." not in k}, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="no factors of"):
        adapted(folder, str(base))
    path = folder / "adapter_config.json"
    for blocks in ([0], 0):
        said = {"layers_to_transform": blocks, "layers_pattern": ["h"]}
        path.write_text(json.dumps(json.loads(path.read_text()) | said))
        assert adapted(folder, str(base)) is not None


def test_adapters_that_name_different_bases_are_merged_only_on_a_base_that_is_named(base, tmp_path):
    names = ("gpt2", "openai-community/gpt2", "distilbert/distilgpt2")
    first, same, other = (
        peft_alone(adapter(base, tmp_path / str(i)), base_model_name_or_path=name) for i, name in enumerate(names)
    )
    assert common_facts([first, same])
    with pytest.raises(ValueError, match="were trained on different bases"):
        common_facts([first, other])
    assert common_facts([first, other], asked=str(base))


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "Gaussian", "eva", "orthogonal"])
def test_starts_that_leave_the_base_as_it_is_are_taken(init):
    config = {"peft_type": "LORA", "r": 4, "init_lora_weights": init}
    assert config_problems(config | {"corda_config": {"a": 1}, "lora_ga_config": {"b": 2}}) == []


@pytest.mark.parametrize("init", ["pissa", "corda", "lora_ga", "PiSSA", 3])
def test_starts_that_change_the_base_are_refused(init):
    (problem,) = config_problems({"peft_type": "LORA", "r": 4, "init_lora_weights": init})
    assert "has changed its base" in problem


def test_a_head_of_one_output_is_no_classifier(base, tmp_path):
    folder = peft_alone(adapter(base, tmp_path / "run", labels=["a", "b"]))
    tensors = load_file(folder / "adapter_model.safetensors")
    (head,) = [name for name in tensors if name.endswith("score.weight")]
    save_file(tensors | {head: tensors[head][:1].clone()}, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="has one output, for regression or rewards"):
        find_applied(None, folder, str(base))


def code_of(folder):
    return re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_the_card_of_an_adapter_on_a_quantised_base_loads_that_base(tmp_path, bits):
    """Both libraries store the same numbers; bitsandbytes' layers round activations besides, to 8 bits or to bf16."""
    pytest.importorskip("bitsandbytes")
    wide = LanguageModel(GPT2Config(width=64, blocks=2, heads=2, context=64))  # its kernels take no less
    initialise(wide, torch.Generator().manual_seed(0), std=0.2)
    save_pretrained(wide, tmp_path / "base", GPT2)
    folder = adapter(tmp_path / "base", tmp_path / "run", MethodArgs(lora_rank=8, lora_init="loftq"), base_bits=bits)
    assert f"load_in_{bits}bit=True" in code_of(folder)
    ours = logits(adapted(folder), TEXT)

    def distance(code):
        known = {}
        exec(code, known)
        with torch.no_grad():
            theirs = known["model"](torch.tensor([TEXT])).logits[0].float()
        return float((theirs - ours.view_as(theirs)).abs().max() / ours.abs().max())

    assert distance(code_of(folder)) < 0.04
    if bits == 4:  # whose rounding errors the adapter makes up for
        assert distance(code_of(folder).replace(", quantization_config=quantised", "")) > 0.1


def test_peft_finds_the_bundled_base_by_the_card(tmp_path):
    peft = pytest.importorskip("peft")
    source = str(BUNDLED["gpt2-nano"])
    folder = adapter(BUNDLED["gpt2-nano"], tmp_path / "run", model="gpt2-nano")
    assert json.loads((folder / "adapter.json").read_text())["args"]["model"] == "gpt2-nano"
    facts = Facts({}, BaseFacts("gpt2-nano"), None)
    assert source in card(facts, "place", "peft") and source not in card(facts, "place", "transformers")
    known = {}
    exec(code_of(folder), known)
    assert isinstance(known["model"], peft.PeftModel)
    assert known["model"].peft_config["default"].base_model_name_or_path == source


@pytest.mark.parametrize(
    ("base", "named"),
    [("gpt2", True), ("me/mine", True), ("gpt2-nano", False), ("/gone/base", False), ("./base", False)],
)
def test_the_head_of_a_card_names_a_base_of_the_hub_alone(base, named):
    text = card(Facts({}, BaseFacts(base), None), "place", "transformers")
    assert (f'base_model: "{base}"' in text) == named and f"of {base}." in text


def test_the_card_of_a_model_that_writes_shows_the_script_that_asks_it():
    facts = Facts({"method": "bitfit"}, BaseFacts("gpt2"), None)
    assert "scripts/generate.py --adapter FOLDER --prompt" in card(facts, "place", "--adapter")
    quantised = Facts({"base_bits": 4}, BaseFacts("gpt2"), None)
    assert "fits that one alone" in card(quantised, "place", "peft")
    assert "fits that one alone" not in card(quantised, "place", "transformers")  # merged, it needs no base
    labelled = Facts({"method": "bitfit"}, BaseFacts("gpt2"), ["a", "b"])
    assert "scripts/predict.py --adapter FOLDER --data" in card(labelled, "place", "--adapter")


def test_untie_head_holds_where_learning_starts_from_an_adapter_of_peft(base, tmp_path):
    from test_start import find

    from training.flags.common import ModelArgs
    from training.model.start import start_model

    folder = peft_alone(adapter(base, tmp_path / "run"), base_model_name_or_path=str(base))
    model, _ = start_model(find(base, folder, untie_head=True), ModelArgs(str(base), untie_head=True))
    assert model.lm_head.weight is not model.transformer.wte.weight


def test_a_damaged_adapter_to_start_from_is_one_message_in_a_dry_run_too(base, tmp_path):
    from test_start import find

    folder = adapter(base, tmp_path / "run")
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="is damaged"):
        find(base, folder).trained_shape()


def test_special_tokens_must_be_read_as_where_learning_started(base, tmp_path):
    from test_start import find

    folder = adapter(base, tmp_path / "run", special_tokens="tokens")
    with pytest.raises(ValueError, match="was trained with --special-tokens tokens; give the same"):
        find(base, folder)
