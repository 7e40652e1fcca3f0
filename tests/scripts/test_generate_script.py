"""scripts/generate.py and its siblings: which model answers, with which tokens, and what is refused."""

import shutil
from functools import partial

import pytest
import torch
from helpers import questions, run_in_process, write_rows
from safetensors.torch import load_file, save_file
from test_commands import load_script

from gpt2_scratch.own_tokenizer import FILES
from training.flags.cli import given_flags
from training.flags.command_line import parse

ASK = ["--prompt", "Count to 3", "--new-tokens", 4]


@pytest.fixture
def generate(run_here):
    return partial(run_here, load_script("generate"))


def tuned(base, folder, *flags, script="finetune_ift"):
    data = write_rows(folder.with_suffix(".jsonl"), questions(40))
    own = ["--data", data, "--model", base, "--max-steps", 3, "--output-dir", folder, *flags]
    done = run_in_process(script, *own, *(["--new-tokens", 0] if script == "finetune_ift" else []))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def tutor(tiny_model, tmp_path_factory):
    return tuned(tiny_model, tmp_path_factory.mktemp("runs") / "lora", "--lr", 0.05)


@pytest.fixture(scope="module")
def whole(tiny_model, tmp_path_factory):
    """A run of full fine-tuning, whose base is gone."""
    base = shutil.copytree(tiny_model, tmp_path_factory.mktemp("bases") / "moved")
    folder = tuned(base, tmp_path_factory.mktemp("runs") / "full", "--method", "full", "--lr", 0.05)
    shutil.rmtree(base)
    return folder


@pytest.fixture(scope="module")
def other_model(tiny_model, tmp_path_factory):
    """The tiny model with other weights."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("bases") / "other")
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor + 0.1 for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


def test_a_whole_model_answers_without_its_base_and_beside_no_other(
    whole, tiny_model, other_model, generate, run_here, tmp_path
):
    status, said, err = generate("--run", whole, *ASK)
    assert status == 0 and said.startswith("> Count to 3"), err
    status, both, err = generate("--run", whole, *ASK, "--model", tiny_model, "--compare")
    assert status == 0 and both.splitlines()[2] == "fine-tuned: " + said.splitlines()[1], err
    for flags, message in (
        (["--model", other_model, "--compare"], "was trained on other weights than"),
        (["--model", tiny_model], "the run has a whole model"),
        (["--compare"], "if it has moved, name it with --model"),
    ):
        status, said, err = generate("--run", whole, *ASK, *flags)
        assert (status, said) == (2, "") and message in err
    data = write_rows(tmp_path / "new.jsonl", questions(3))
    flags = ["--run", whole, "--model", other_model, "--data", data, "--output", tmp_path / "out.jsonl"]
    status, _, err = run_here(load_script("predict"), *flags)
    assert status == 2 and "the run has a whole model, and needs no base" in err


@pytest.fixture(scope="module")
def two_tokenizers(tiny_model, few_tokens, tmp_path_factory):
    """A base with a tokenizer of its own; a copy that lacks its files, so that GPT-2's would be taken; a run on it."""
    root = tmp_path_factory.mktemp("tokens")
    base, bare = root / "base", root / "bare"
    for folder in (base, bare):
        folder.mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(tiny_model / name, folder)
    for name in FILES:
        if (few_tokens / name).exists():
            shutil.copy(few_tokens / name, base)
    return base, bare, tuned(base, root / "run")


def test_a_base_with_another_tokenizer_than_in_training_is_refused_by_all(two_tokenizers, run_here, tmp_path):
    base, bare, folder = two_tokenizers
    rows = [{"prompt": f"Is {i} odd?", "chosen": "yes", "rejected": "no"} for i in range(40)]
    pairs = write_rows(tmp_path / "pairs.jsonl", rows)
    asked = {
        "generate": [*ASK, "--adapter", folder / "adapter"],
        "predict": ["--data", write_rows(tmp_path / "new.jsonl", questions(3)), "--adapter", folder / "adapter"],
        "merge_lora": ["--adapter", folder / "adapter"],
        "finetune_dpo": ["--data", pairs, "--start-from", folder, "--batch-size", 2, "--dry-run"],
    }
    for name, flags in asked.items():
        place = (
            [] if name == "generate" else ["--output" + "-dir" * (name == "finetune_dpo"), tmp_path / f"{name}.jsonl"]
        )
        status, _, err = run_here(load_script(name), *flags, "--model", bare, *place)
        assert status == 2 and "was trained with another tokenizer than" in err, (name, err)
        status, said, err = run_here(load_script(name), *flags, "--model", base, *place)
        assert status == 0, (name, err)
        assert name != "generate" or said.startswith("note    texts are read with the model's own tokenizer")


def test_a_diverged_adapter_is_refused_before_anything_is_written(tutor, tiny_model, run_here, tmp_path):
    bad = shutil.copytree(tutor / "adapter", tmp_path / "bad")
    tensors = load_file(bad / "adapter_model.safetensors")
    name = sorted(tensors)[0]
    tensors[name][0, 0] = torch.nan
    save_file(tensors, bad / "adapter_model.safetensors")
    merge, merged = load_script("merge_lora"), tmp_path / "merged"
    assert run_here(merge, "--adapter", tutor / "adapter", "--output", merged)[0] == 0
    before = (merged / "model.safetensors").read_bytes()
    data = write_rows(tmp_path / "new.jsonl", questions(3))
    for script, flags in (
        (merge, ["--adapter", bad, "--output", merged, "--overwrite"]),
        (load_script("generate"), ["--model", tiny_model, "--adapter", bad, *ASK]),
        (load_script("predict"), ["--adapter", bad, "--data", data, "--output", tmp_path / "out.jsonl"]),
    ):
        status, _, err = run_here(script, *flags)
        assert status == 2 and f"{name} holds numbers that are not finite (nan or inf): its training diverged" in err
    assert (merged / "model.safetensors").read_bytes() == before and not (tmp_path / "out.jsonl").exists()


def test_a_merge_deletes_nobodys_folder_and_keeps_out_of_runs(tutor, run_here, tmp_path, monkeypatch):
    merge = load_script("merge_lora")
    for name in ("merged.old", "merged.new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    for overwrite in ([], ["--overwrite"]):
        status, _, err = run_here(merge, "--run", tutor, "--output", tmp_path / "merged", *overwrite)
        assert status == 0, err
    assert all((tmp_path / name / "mine").exists() for name in ("merged.old", "merged.new"))
    for name, message in (("model", "keeps what it trained"), ("adapter", "holds other files")):
        status, _, err = run_here(merge, "--run", tutor, "--output", tutor / name, "--overwrite")
        assert status == 2 and message in err
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    status, _, err = run_here(merge, "--run", tutor, "--output", ".")
    assert status == 2 and "is the current folder" in err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--raw", "--prompt", "Sum up:", "--input", "a text"], "--input: --raw continues the prompt as it stands"),
        (["--prompt", "caf\udce9"], "--prompt: holds bytes that are not UTF-8"),
        (["--prompt", "a", "--new-tokens", 512], "--new-tokens 512: the context of"),
    ],
)
def test_what_would_not_be_used_is_refused(flags, message, tiny_model, generate):
    status, said, err = generate("--model", tiny_model, *flags)
    assert (status, said) == (2, "") and message in err


def test_an_answer_that_has_less_room_than_asked_for_says_so(tiny_model, generate):
    flags = ["--model", tiny_model, "--raw", "--new-tokens", 4, "--prompt"]
    status, said, _ = generate(*flags, "end " * 508)
    assert status == 0 and "note    the answer to" in said and "has room for 3 tokens" in said
    assert "note" not in generate(*flags, "end " * 200)[1]


def test_a_prompt_that_spells_a_special_token_is_said_to_be_read_as_text_or_as_that_token(tiny_model, generate):
    flags = ["--model", tiny_model, "--raw", "--new-tokens", 1, "--prompt", "<|endoftext|>The end", "Plain"]
    status, said, err = generate(*flags)
    assert status == 0 and "prompts that spell special tokens (<|endoftext|> 1): read as ordinary text" in said, err
    assert "--special-tokens tokens" in said
    assert "read as tokens" in generate(*flags, "--special-tokens", "tokens")[1]


def test_a_classifier_writes_no_text(tiny_model, mail_file, generate, tmp_path):
    done = run_in_process(
        "finetune_cls", "--data", mail_file, "--model", tiny_model, "--method", "full", "--max-steps", 2,
        "--output-dir", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status, _, err = generate("--model", tmp_path / "run" / "model", *ASK)
    assert status == 2 and "is a classifier, which writes no text; scripts/predict.py applies it" in err


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ("--mask-prompt --response-header", {"mask_prompt": True, "response_header": True}),
        ("--no-mask-prompt", {"mask_prompt": False}),
        ("--prompt_column=q", {"prompt_column": "q"}),
        ("", {}),
    ],
)
def test_what_stood_on_the_command_line_is_given_whatever_its_value(words, given):
    args = parse(load_script("predict").Args, ["--data", "x", "--model", "gpt2", *words.split()])
    assert given_flags(args.prompt) == given and given_flags(args.text) == {}


def test_predictions_use_a_flag_that_is_at_its_default_and_count_what_is_not_scored(
    tutor, tiny_model, run_here, tmp_path
):
    predict = partial(run_here, load_script("predict"))
    loose = tuned(tiny_model, tmp_path / "loose", "--no-mask-prompt", "--no-response-header")
    data = write_rows(tmp_path / "new.jsonl", questions(4))
    out = tmp_path / "out.jsonl"

    def header(*flags):
        status, _, err = predict(
            "--run", loose, "--data", data, "--output", out, "--overwrite", "--new-tokens", 1, *flags
        )
        assert status == 0, err
        return "### Response" in out.read_text()

    assert header("--response-header") and not header()
    both = ["--text-column", "instruction", "--prompt-column", "response"]
    status, _, err = predict("--run", loose, "--data", data, *both, "--output", tmp_path / "x.jsonl")
    assert status == 2 and "--prompt-column: --text-column names the same column" in err

    long = [{"instruction": "Count " * 60, "response": "1"}, {"instruction": "Count", "response": "1 " * 60}]
    data = write_rows(tmp_path / "long.jsonl", [*long, {"instruction": "Count", "response": "1"}])
    flags = ["--run", tutor, "--data", data, "--output", out, "--overwrite", "--new-tokens", 1, "--max-length", 50]
    status, said, err = predict(*flags)
    assert status == 0, err
    assert "responses not scored, since their prompts leave no room within --max-length 50: 1" in said
    assert "responses scored in part within --max-length 50: 1" in said
    metrics = (tmp_path / "out.metrics.json").read_text()
    assert '"response_unscored": 1' in metrics and '"response_cut": 1' in metrics


def test_predictions_refuse_what_they_have_no_room_or_use_for(tiny_model, few_tokens, mail_file, run_here, tmp_path):
    predict, out = partial(run_here, load_script("predict")), ["--output", tmp_path / "out.jsonl"]
    data = write_rows(tmp_path / "new.jsonl", questions(3))
    status, _, err = predict("--model", tiny_model, "--data", data, "--new-tokens", 600, *out)
    assert status == 2 and "--new-tokens 600: the context of" in err
    classifier = tmp_path / "cls"
    flags = ["--data", mail_file, "--model", few_tokens, "--max-steps", 2, "--output-dir", classifier]
    assert run_in_process("finetune_cls", *flags).returncode == 0
    status, _, err = predict("--run", classifier, "--data", mail_file, "--pad-to", 64, *out)
    assert status == 2 and "--pad-id 50256: the model has 757 tokens" in err
    rows = [{"prompt": f"Is {i} odd?", "chosen": "yes", "rejected": "no"} for i in range(40)]
    pairs = ["--data", write_rows(tmp_path / "pairs.jsonl", rows), "--model", tiny_model]
    done = run_in_process("finetune_dpo", *pairs, "--max-steps", 2, "--output-dir", tmp_path / "dpo")
    assert done.returncode == 0, done.stderr
    status, _, err = predict("--adapter", tmp_path / "dpo" / "adapter", "--data", data, *out)
    assert status == 2 and "is an adapter of finetune_dpo; scripts/generate.py asks it" in err
