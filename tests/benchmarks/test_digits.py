"""LoRA on convolutions, measured: the digits, the network, and the run folder of benchmarks/digits.py."""

import json

import numpy as np
import pytest
import torch
from forked import run_forked
from helpers import ROOT, results_of, run_in_process
from sklearn.datasets import load_digits

import digits
from training.model.methods import parameter_counts
from training.storage.run_folder import RESULTS


def adapted(method, rank=4, seed=0):
    model = digits.network()
    digits.apply_method(model, digits.AdaptArgs(method, rank, seed=seed))
    return model


def test_no_image_is_in_two_parts_and_labels_belong_to_their_images():
    parts, everything = digits.read_parts(), load_digits()
    assert {name: len(part.ids) for name, part in parts.items()} == digits.SIZES
    ids = [i for part in parts.values() for i in part.ids]
    assert len(set(ids)) == len(ids) == len(everything.target)
    test = parts["test"]
    assert test.labels.tolist() == everything.target[test.ids].tolist()
    np.testing.assert_allclose(test.images[:, 0].numpy() * 16, everything.images[test.ids], rtol=1e-6)


def test_a_turned_image_is_numpys():
    part = digits.read_parts()["validation"]
    assert np.array_equal(part.turned().images[:, 0].numpy(), np.rot90(part.images[:, 0].numpy(), axes=(1, 2)))


@pytest.mark.parametrize(
    ("method", "rank", "expected"),
    [
        ("full", 4, (9 * 1 + 1) * 16 + (9 * 16 + 1) * 32 + (9 * 32 + 1) * 64 + 257 * 10),
        ("head", 4, 257 * 10),
        # R * (9 in + out) for each convolution, beside the last layer
        ("lora", 1, (9 + 16) + (144 + 32) + (288 + 64) + 257 * 10),
        ("lora", 4, 4 * ((9 + 16) + (144 + 32) + (288 + 64)) + 257 * 10),
    ],
)
def test_trained_parameters_are_those_of_the_formula(method, rank, expected):
    counts = parameter_counts(adapted(method, rank))
    assert counts["trainable"] == expected
    assert counts["total"] == parameter_counts(adapted("full"))["total"]


def test_an_untrained_adapter_leaves_the_network_as_it_was():
    images = digits.read_parts()["test"].images
    assert torch.equal(adapted("lora")(images), digits.network()(images))


def test_a_seed_gives_the_same_curve_and_another_gives_another():
    part = digits.read_parts()["train"]
    one, again, other = (digits.train(adapted("lora", seed=s), part, 1e-2, 2, s) for s in (0, 0, 1))
    assert one == again and one != other
    assert [point["step"] for point in one] == [10, 20] and one[1]["train_loss"] < one[0]["train_loss"]


def test_what_is_frozen_stays_and_the_rest_moves():
    model = adapted("lora")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    digits.train(model, digits.read_parts()["train"], 1e-2, 1, 0)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]) == (".linear." in name), name


def test_a_run_leaves_a_folder_like_the_scripts_and_is_not_overwritten(tmp_path):
    flags = ["--epochs", 5, "--output-dir", tmp_path / "a"]
    done = run_forked([ROOT / "benchmarks" / "digits.py", *flags, "--resume"])
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "a")
    lines = [json.loads(line) for line in (tmp_path / "a" / "predictions.jsonl").read_text().splitlines()]
    right = sum(line["label"] == line["prediction"] for line in lines)
    assert len(lines) == results["test"]["accuracy"]["n"] == 597
    assert results["test"]["accuracy"]["value"] == pytest.approx(right / 597)
    assert f"{right / 597:.4f}" in done.stdout
    assert results["before"]["accuracy"]["value"] < 0.3 < results["test"]["accuracy"]["value"]
    assert results["forgetting"]["difference"]["value"] > 0
    again = run_in_process(digits, *flags)
    assert again.returncode == 2 and "holds a finished run" in again.stderr and (tmp_path / "a" / RESULTS).exists()


def test_wrong_values_are_told_together():
    assert digits.AdaptArgs(lora_rank=0, lr=-1.0, epochs=0).problems() == [
        "--lora-rank 0: must be at least 1",
        "--epochs 0: must be at least 1",
        "--lr -1.0: must be above 0 and finite",
    ]
