"""The other side of the comparison: transformers' GPT-2, PEFT's LoRA on it, and the update that our side makes too.

Both sides have the same weights, the same token ids in a batch, the same loss, clipping, weight decay and optimizer.
Memory is allocated as each side's own launch does it: ours asks glibc to keep what is freed. Otherwise the other side
is what transformers and PEFT do by default. What is not the same:

- PEFT gives the fused matrix of queries, keys and values one A of the rank asked for, we give each of the three an A of
  its own (as the report counts), so that our side has more adapters to compute: 48 rows of A instead of 16.
- In bf16 and fp16 the other side holds the frozen base in fp32, and autocast casts every matrix at each use. With LoRA
  ours stores the frozen matrices of the blocks in half precision. Whoever loads the base with `dtype=torch.bfloat16`
  has all of it in half precision.
- GPT-2's activation is `gelu_new`, which transformers computes by a formula of several operations, most of which keep
  a tensor for the backward pass. `activation_function="gelu_pytorch_tanh"` is the same function in one operation.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from _steps import CLIP, LEARNING_RATE, random_model
from _work import PRECISIONS, Work
from gpt2_scratch.config import GPT2Config as OurConfig
from gpt2_scratch.config import to_hf
from gpt2_scratch.model import Classifier, LanguageModel
from gpt2_scratch.precision import DTYPES
from gpt2_scratch.pretrained import hf_state
from gpt2_scratch.tokenizer import END_OF_TEXT
from training.data.batches import IGNORED, Encoded
from training.flags.common import MethodArgs
from training.step.optimizers import parameter_groups


def untrained(classifies: bool, config: OurConfig, **more: Any) -> nn.Module:
    """Returns transformers' GPT-2 with weights of its own; attention is its default (SDPA)."""
    kind = GPT2ForSequenceClassification if classifies else GPT2LMHeadModel
    return kind(GPT2Config.from_dict(to_hf(config, kind.__name__, pad_token_id=END_OF_TEXT, **more)))


def transformers_model(ours: Classifier | LanguageModel, **more: Any) -> nn.Module:
    """Returns the same with the weights of `ours`."""
    model = untrained(isinstance(ours, Classifier), ours.config, **more)
    missing, unexpected = model.load_state_dict(hf_state(ours), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return model


def with_peft(model: nn.Module, method: MethodArgs) -> nn.Module:
    """Adds LoRA as PEFT documents it, on all matrices of the blocks (and the LM head, if asked)."""
    targets = ["c_attn", "c_proj", "c_fc", *(["lm_head"] if "lm-head" in method.lora_targets else [])]
    kind = "SEQ_CLS" if isinstance(model, GPT2ForSequenceClassification) else "CAUSAL_LM"
    rank, alpha = method.lora_rank, int(method.lora_alpha)
    config = LoraConfig(task_type=kind, r=rank, lora_alpha=alpha, target_modules=targets, fan_in_fan_out=True)
    return get_peft_model(model, config)


def padded(chosen: Sequence[Encoded]) -> dict[str, Tensor]:
    """Makes what transformers takes: rows (B, T) padded on the right to the longest, with a mask and targets of -100.

    Our targets already are the next tokens, which `shift_labels` says: no further token goes through the model.
    """
    longest = max(len(e.tokens) for e in chosen)

    def rows(parts: list[np.ndarray], filling: int) -> Tensor:
        whole = [np.pad(part.astype(np.int64), (0, longest - len(part)), constant_values=filling) for part in parts]
        return torch.from_numpy(np.stack(whole))

    inputs = {"input_ids": rows([e.tokens for e in chosen], END_OF_TEXT)}
    inputs["attention_mask"] = rows([np.ones_like(e.tokens) for e in chosen], 0)
    if isinstance(chosen[0].labels, int):
        return inputs | {"labels": torch.tensor([e.labels for e in chosen])}
    targets = rows([np.asarray(e.labels) for e in chosen], IGNORED)
    return inputs | {"labels": targets, "shift_labels": targets}


class PeerTraining:
    """The model about to be trained, and the usual loop around it. No key-value cache is kept while it trains. `model`
    None: random weights, those of our side."""

    def __init__(self, work: Work, method: MethodArgs, model: nn.Module | None = None) -> None:
        self.accelerator = Accelerator(mixed_precision=PRECISIONS[work.precision])  # for its device and its name
        model = model or transformers_model(random_model(work), use_cache=False)
        self.model = (with_peft(model, method) if method.method == "lora" else model).to(self.accelerator.device)
        self.model.train()
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        groups = parameter_groups(self.model, work.update.weight_decay, work.update.decay_all)
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
        self.dtype = DTYPES[work.precision]
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=work.precision == "fp16")

    def update(self, chosen: Sequence[Encoded]) -> Tensor:
        """Makes an update and returns the mean loss before it."""
        device = self.accelerator.device
        inputs = {name: tensor.to(device) for name, tensor in padded(chosen).items()}
        with torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32):
            loss = self.model(**inputs).loss
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.trained, CLIP)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return loss.detach()
