"""Weights that two processes share: gradients, norms and checkpoints are those of a model that each has whole."""

import pytest
from test_processes import run_two

# Batches of different sizes, of which only the first process has one. The oracle is the same model, not sharded.
SHARED = """
import os, sys
from pathlib import Path
import torch
from accelerate import Accelerator
from accelerate.utils import patch_environment
from gpt2_scratch.config import GPT2Config
from gpt2_scratch.generate import Sampling, generate
from gpt2_scratch.model import LanguageModel, initialise
from gpt2_scratch.tokenizer import Vocabulary
from torch.distributed.tensor import DTensor
from training.flags.method import METHODS, MethodArgs
from training.flags.update import UpdateArgs
from training.model.methods import apply_compute, apply_method, own_state
from training.flags.compute import ComputeArgs
from training.run.checkpoint import load_shared, shared_state
from training.step.optimizers import build_optimizer
from training.step.processes import part
from training.step.sharding import gather, generating, is_sharded, prepare
from training.storage.shards import save_shards

torch.set_num_threads(1)
os.environ |= {"ACCELERATE_USE_FSDP": "true"}
precision, folder = sys.argv[1], Path(sys.argv[2])
with patch_environment(accelerate_use_fsdp="false"):
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
exact = precision == "no"
tokens = torch.randint(0, 101, (12,), generator=torch.Generator().manual_seed(1))
lengths = torch.tensor([5, 7])
mine = slice(0, 5) if accelerator.process_index == 0 else slice(5, 12)


def built(method):
    model = LanguageModel(GPT2Config(width=16, blocks=2, heads=2, context=64, vocabulary=101))
    initialise(model, torch.Generator().manual_seed(0), std=0.1)
    targets = ("q", "v", "mlp-in", "lm-head")
    apply_method(model, MethodArgs(method=method, lora_rank=4, lora_targets=targets), 0)
    apply_compute(model, method, ComputeArgs(checkpoint_activations=method == "lora"), precision)
    return model


def opened(method):
    model = built(method)
    prepared = prepare(accelerator, model)
    assert is_sharded(model) and all(isinstance(p, DTensor) for p in model.parameters())
    return model, prepared, accelerator.prepare(build_optimizer(model, UpdateArgs()))


def update(model, prepared, optimizer):
    length = torch.tensor([len(tokens[mine])])
    accelerator.backward(-prepared(tokens[mine], length, tokens[mine]).sum() * 2 / 12)
    norm = accelerator.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 0.1)
    gradients = [p.grad.full_tensor() for p in model.parameters() if p.requires_grad]
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()
    optimizer.zero_grad()
    return float(norm), gradients


for method in METHODS if exact else ("full", "lora", "dora"):
    twin, (model, *rest) = built(method), opened(method)
    with accelerator.autocast():
        (-twin(tokens, lengths, tokens).sum() / 12).backward()
    trained = [p for p in twin.parameters() if p.requires_grad]
    wanted = float(torch.nn.utils.clip_grad_norm_(trained, 0.1))
    norm, gradients = update(model, *rest)
    assert abs(norm - wanted) <= (1e-5 if exact else 3e-2) * wanted, (method, norm, wanted)
    most = max(float(p.grad.abs().max()) for p in trained)
    for p, g in zip(trained, gradients, strict=True):
        assert float((g - p.grad).abs().max()) <= (1e-6 if exact else 3e-2) * most, method
    if method not in ("full", "lora", "lora-fa") or not exact:
        continue

    save_shards(folder / method, shared_state(model, rest[1]))
    update(model, *rest)
    resumed, *others = opened(method)
    load_shared(folder / method, resumed, others[1])
    update(resumed, *others)
    for name, tensor in own_state(model).items():
        other = own_state(resumed)[name]
        assert torch.equal(*(t.full_tensor() if isinstance(t, DTensor) else t for t in (tensor, other))), name

    prompts = [[1, 2, 3], [4] * 9] if accelerator.is_main_process else [[5, 6]]
    with generating(accelerator, model):
        written = generate(model, prompts, Vocabulary(101, 100), 20 - 9 * accelerator.process_index, Sampling())
    gather(accelerator, model)
    if accelerator.is_main_process:
        assert not any(isinstance(p, DTensor) for p in model.parameters())
        plain = built(method)
        plain.load_state_dict(model.state_dict())
        assert generate(plain, prompts, Vocabulary(101, 100), 20, Sampling()) == written
part(accelerator)
print("parted\\n", end="")
"""


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_every_method_trains_resumes_and_generates_as_with_whole_weights(precision, tmp_path):
    run_two(SHARED, tmp_path, precision, tmp_path)
