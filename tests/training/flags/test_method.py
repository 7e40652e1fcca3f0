"""Rank and alpha by pattern, and which combinations of the adapters' flags are refused."""

import re
from dataclasses import replace
from typing import get_args, get_type_hints

import pytest
import torch

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.pretrained import save_pretrained, without_storage
from gpt2_scratch.tokenizer import GPT2
from lora.adapter import adapters
from lora.variants import VARIANTS, adapter_class
from training.flags.cli import problems_between
from training.flags.common import DataArgs, ModelArgs, UpdateArgs
from training.flags.fields import flags_of
from training.flags.forgetting import ForgettingArgs
from training.flags.help import text_of
from training.flags.method import BLOCK_TARGETS, MethodArgs
from training.flags.task import GenerationArgs, HeadArgs
from training.model.methods import apply_method, build_language_model, quantised_matrices

SMALL = GPT2Config(width=64, blocks=3, heads=2, vocabulary=101, context=32)


def adapted(method, kind=LanguageModel, head_training="train"):
    model = kind(SMALL, *([3] if kind is Classifier else []))
    initialise(model, torch.Generator().manual_seed(0))
    apply_method(model, method, 0, head_training)
    return dict(adapters(model))


def rank_of(adapter):
    return adapter.low_rank.B.shape[1]


def problems(method, **model):
    base = replace(ModelArgs("small"), **model)
    return method.problems() or problems_between(method=method, model=base, config=SMALL, data=DataArgs(max_length=9))


COST = re.compile("time|trained numbers|gradient|products|backward pass|no cost|at the start .* SVD")


def test_help_says_of_every_method_what_it_costs_beside_lora():
    flags = flags_of(MethodArgs)
    does, told = (
        text_of(flags["method"], True).removesuffix(" (lora)").split(". Against lora (gpt2-nano, rank 16, a CPU) ")
    )
    names = set(get_args(get_type_hints(MethodArgs)["method"]))
    assert {clause.split(": ")[0] for clause in does.split("; ")} == names
    costs = dict(clause.split(": ") for clause in told.split("; "))
    assert set(costs) == names - {"lora"}
    costs |= {"loftq": text_of(flags["lora-init"], True), "lora+": text_of(flags["lora-plus-ratio"], True)}
    assert not {name for name, text in costs.items() if not COST.search(text)}


def test_places_are_the_adapted_matrices_of_the_blocks_that_train():
    assert MethodArgs().places(2) == [f"h.{i}.{target}" for i in (0, 1) for target in BLOCK_TARGETS]
    assert MethodArgs(lora_targets=("lm-head", "v"), last_blocks=1).places(3) == ["h.2.v", "lm-head"]


def test_the_last_pattern_that_matches_gives_rank_and_alpha():
    method = MethodArgs(
        lora_targets=(*BLOCK_TARGETS, "lm-head"),
        lora_rank_pattern=("h.2.*=8", "*.mlp-in=2", "h.[01].[qkv]=3"),
        lora_alpha_pattern=("*.mlp-*=4.5", "lm-head=1"),
    )
    assert not problems(method)
    found = {path: (rank_of(a), a.scale * rank_of(a)) for path, a in adapted(method).items()}
    expected = {"lm_head": (16, 1.0)}
    for i in range(3):
        rank = 8 if i == 2 else 16
        expected[f"transformer.h.{i}.attn.c_attn"] = (8 if i == 2 else 3, 16.0)
        expected[f"transformer.h.{i}.attn.c_proj"] = (rank, 16.0)
        expected[f"transformer.h.{i}.mlp.c_fc"] = (2, 4.5)
        expected[f"transformer.h.{i}.mlp.c_proj"] = (rank, 4.5)
    assert {path: (rank, pytest.approx(alpha)) for path, (rank, alpha) in expected.items()} == found


def test_the_adapter_of_a_class_head_is_named_score():
    method = MethodArgs(lora_rank_pattern=("score=2",))
    found = adapted(method, Classifier, "frozen+lora")
    assert {path: rank_of(a) for path, a in found.items() if rank_of(a) != 16} == {"score": 2}


@pytest.mark.parametrize("method", VARIANTS)
def test_every_variant_goes_into_both_models_with_and_without_heads(method):
    everywhere = MethodArgs(method, lora_rank=2, lora_targets=(*BLOCK_TARGETS, "lm-head"), lora_dropout=0.1)
    found = adapted(everywhere)
    assert len(found) == 13 and {type(a) for a in found.values()} == {adapter_class(method)}
    assert {a.dropout for a in found.values()} == {0.1}
    for head_training, heads in (("train", 0), ("frozen+lora", 1), ("train+lora", 1)):
        found = adapted(replace(everywhere, lora_targets=("q", "mlp-in")), Classifier, head_training)
        assert len(found) == 6 + heads


def test_a_pattern_is_for_the_class_head_where_that_has_an_adapter():
    groups = {"model": ModelArgs("small"), "config": SMALL, "data": DataArgs(max_length=9)}
    for training, rank, words in (
        ("train", 4, ["score=4", "matches no matrix"]),
        ("frozen+lora", 4, []),
        ("train+lora", 65, ["--lora-rank-pattern score=65", "1 to 64"]),
    ):
        method = MethodArgs(lora_rank_pattern=(f"score={rank}",))
        found = problems_between(method=method, head=HeadArgs(head_training=training), **groups)
        assert len(found) == bool(words) and all(word in found[0] for word in words), found


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (MethodArgs(lora_rank_pattern=("h.7.*=8",)), ["h.7.*=8", "matches no matrix", "h.0.q to h.2.mlp-out"]),
        (MethodArgs(lora_alpha_pattern=("*.mlp-on=8",)), ["--lora-alpha-pattern *.mlp-on=8", "matches no matrix"]),
        (MethodArgs(lora_rank_pattern=("score=8",)), ["--lora-rank-pattern score=8", "matches no matrix"]),
        (MethodArgs(lora_rank_pattern=("h.0.q=8",), last_blocks=1), ["h.0.q=8", "h.2.q to h.2.mlp-out"]),
        (MethodArgs(lora_rank_pattern=("h.1.q=8",)), ["q, k and v of h.1 differ", "h.0.[qkv]=4"]),
        (MethodArgs(lora_alpha_pattern=("h.[02].k=8",)), ["q, k and v of h.0, h.2 differ"]),
        (MethodArgs(lora_rank_pattern=("h.1.*=65",)), ["--lora-rank-pattern h.1.*=65", "1 to 64, the width of small"]),
        (MethodArgs(lora_rank=65), ["--lora-rank 65", "1 to 64"]),
        (MethodArgs("dora", lora_rank=65), ["--lora-rank 65", "1 to 64"]),
        (MethodArgs(lora_rank_pattern=("h.1.*",)), ["--lora-rank-pattern h.1.*", "PATTERN=VALUE"]),
        (MethodArgs(lora_rank_pattern=("=4",)), ["--lora-rank-pattern =4", "PATTERN=VALUE"]),
        (MethodArgs(lora_rank_pattern=("*=0",)), ["--lora-rank-pattern *=0", "at least 1"]),
        (MethodArgs(lora_rank_pattern=("*=2.5",)), ["--lora-rank-pattern *=2.5", "whole number"]),
        (MethodArgs(lora_alpha_pattern=("*=-1",)), ["--lora-alpha-pattern *=-1", "above 0"]),
        (MethodArgs(lora_alpha_pattern=("*=nan",)), ["--lora-alpha-pattern *=nan", "above 0"]),
        (MethodArgs(lora_alpha_pattern=("*=inf",)), ["--lora-alpha-pattern *=inf", "above 0"]),
        (MethodArgs(lora_dropout=1.0), ["--lora-dropout 1.0", "below 1"]),
        (MethodArgs(lora_dropout=-0.1), ["--lora-dropout -0.1", "at least 0"]),
        (MethodArgs(lora_plus_ratio=0.5), ["--lora-plus-ratio 0.5", "at least 1"]),
        (MethodArgs("full", lora_plus_ratio=16), ["--lora-plus-ratio", "full has no adapters"]),
        (MethodArgs("head", lora_dropout=0.1), ["--lora-dropout", "head has no adapters"]),
        (MethodArgs("bitfit", lora_rank_pattern=("*=4",)), ["--lora-rank-pattern", "bitfit has no adapters"]),
        (MethodArgs("pissa", lora_init="paper"), ["--lora-init paper", "pissa has a start of its own"]),
        (MethodArgs("dora", lora_init="loftq"), ["--lora-init loftq", "--method lora"]),
        (MethodArgs(lora_init="loftq"), ["--lora-init loftq", "--base-bits"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else None,
)
def test_what_does_not_fit_is_refused_in_one_message(method, words):
    (problem,) = problems(method)
    assert all(word in problem for word in words), problem


@pytest.mark.parametrize(
    ("args", "flag"),
    [
        (MethodArgs(lora_alpha=float("nan")), "--lora-alpha nan"),
        (MethodArgs(lora_alpha=float("inf")), "--lora-alpha inf"),
        (MethodArgs(lora_dropout=float("nan")), "--lora-dropout nan"),
        (MethodArgs(lora_plus_ratio=float("inf")), "--lora-plus-ratio inf"),
        (MethodArgs(lora_plus_ratio=float("nan")), "--lora-plus-ratio nan"),
        (MethodArgs(lora_alpha_pattern=("*=nan",)), "--lora-alpha-pattern"),
        (UpdateArgs(weight_decay=float("inf")), "--weight-decay inf"),
        (UpdateArgs(lr_min=float("inf")), "--lr-min inf"),
        (UpdateArgs(lr_init=float("nan")), "--lr-init nan"),
        (UpdateArgs(momentum=float("nan")), "--momentum nan"),
        (UpdateArgs(warmup_ratio=float("nan")), "--warmup-ratio nan"),
        (ModelArgs(dropout=float("nan")), "--dropout nan"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_its_flag(args, flag):
    (problem,) = args.problems()
    assert problem.startswith(flag)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (MethodArgs("full", lora_rank=4), "--lora-rank: --method full has no adapters; leave it out"),
        (MethodArgs("bitfit", lora_targets=("q",)), "--lora-targets: --method bitfit has no adapters; leave it out"),
        (MethodArgs("full", lora_init="paper"), "--lora-init: --method full has no adapters; leave it out"),
        (MethodArgs("head", lora_alpha=9), "--lora-alpha: --method head has no adapters; leave it out"),
        (UpdateArgs(momentum=0.5), "--momentum 0.5: is for --optimizer sgd-momentum; leave it out"),
        (UpdateArgs(schedule="constant", lr_min=0.1), "--lr-min 0.1: --schedule constant does not fall; leave it out"),
        (GenerationArgs(top_p=0.9), "--top-p 0.9: nothing is drawn at --temperature 0; add --temperature 1"),
        (ForgettingArgs("none", forgetting_tokens=5), "--forgetting-tokens: nothing is measured without"),
    ],
)
def test_a_flag_that_would_do_nothing_is_refused(args, said):
    (problem,) = args.problems()
    assert problem.startswith(said)


def test_ranks_may_differ_between_the_parts_of_a_block_that_have_an_adapter_and_those_that_have_none():
    method = MethodArgs(lora_targets=("q", "v", "attn-out"), lora_rank_pattern=("h.1.q=8", "h.1.v=8"))
    assert not problems(method)
    assert rank_of(adapted(method)["transformer.h.1.attn.c_attn"]) == 8


@pytest.mark.parametrize("method", VARIANTS)
def test_a_head_can_be_trained_by_every_variant_and_by_nothing_else(method):
    head = HeadArgs(head_training="frozen+lora")
    assert not head.problems_given(MethodArgs(method), ModelArgs())
    assert head.problems_given(MethodArgs("bitfit"), ModelArgs())


def test_loftq_brings_a_quantised_model_nearer_to_the_original(tmp_path):
    pytest.importorskip("bitsandbytes")
    base = LanguageModel(SMALL)
    initialise(base, torch.Generator().manual_seed(0))
    save_pretrained(base, tmp_path, GPT2)
    errors = []
    for init, source in (("standard", tmp_path), ("loftq", tmp_path), ("loftq", None)):
        model = build_language_model(tmp_path, SMALL, ModelArgs(base_bits=4))
        apply_method(model, MethodArgs(lora_rank=8, lora_init=init), 0, source=source)
        found = {path: base.get_submodule(path).weight - a.merged_weight() for path, a in adapters(model)}
        errors.append({path: float(error.detach().norm()) for path, error in found.items()})
    rounded, started, without = errors
    assert len(rounded) == 12
    assert all(started[path] < 0.9 * rounded[path] for path in rounded)
    assert without == rounded, "whoever gives no source puts saved factors in"


def test_a_model_without_storage_can_be_prepared_for_loftq(tmp_path):
    """As a dry run does."""
    pytest.importorskip("bitsandbytes")
    save_pretrained(LanguageModel(SMALL), tmp_path, GPT2)
    model = without_storage(LanguageModel, SMALL)
    for name, put in quantised_matrices(model, 4).items():
        with torch.device("meta"):
            put(model.get_parameter(name))
    apply_method(model, MethodArgs(lora_init="loftq"), 0, source=tmp_path)
    assert all(a.low_rank.A.is_meta and a.low_rank.A.shape[1] in (64, 256) for _, a in adapters(model))
