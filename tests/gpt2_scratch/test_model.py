"""GPT-2 against Hugging Face's: logits, the gradient of every parameter, and independence of the batch."""

import json
from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from gpt2_scratch.attention import attend, attend_padded, layout_of
from gpt2_scratch.config import SIZES
from gpt2_scratch.lm_head import LOGIT_ROWS, label_log_probabilities
from gpt2_scratch.model import Classifier, LanguageModel, initialise
from gpt2_scratch.pretrained import load_weights, save_pretrained, without_storage
from gpt2_scratch.sources import load_config, resolve
from gpt2_scratch.tokenizer import GPT2

# Every size with its own heads and a sixth of its depth, narrow enough for a test: head width 8.
SCALED = {
    name: replace(c, width=8 * c.heads, blocks=max(2, c.blocks // 6), vocabulary=211, context=64)
    for name, c in SIZES.items()
}
SMALL = SCALED["gpt2-nano"]
TEXTS = [[5, 9, 2, 7, 200, 3], [8], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [7, 7]]
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def packed(texts=TEXTS):
    return torch.tensor([t for text in texts for t in text]), torch.tensor([len(text) for text in texts])


def random_model(kind, config, *args, std=0.05):
    model = kind(config, *args)
    initialise(model, torch.Generator().manual_seed(1), std)
    return model.eval()


def hugging_face_twin(model, folder, kind, **more):
    save_pretrained(model, folder, GPT2, **more)
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


def relative_error(a, b):
    return float((a - b).detach().abs().max() / b.detach().abs().max())


def next_tokens(texts):
    return torch.tensor([t for text in texts for t in [*text[1:], -100]])


def hugging_face_loss(hf, texts):
    total = 0.0
    for text in texts:
        logits = hf(torch.tensor([text])).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(text[1:], dtype=torch.long), reduction="sum")
    return total


def assert_gradients_equal(model, hf, tolerance):
    theirs = {name: p.grad for name, p in hf.named_parameters()}
    ours = {name: p.grad.t() if name.endswith(TRANSPOSED) else p.grad for name, p in model.named_parameters()}
    assert ours.keys() == theirs.keys()
    largest = max(float(g.abs().max()) for g in theirs.values())
    assert largest > 0
    for name, gradient in ours.items():
        assert float((gradient - theirs[name]).abs().max()) <= tolerance * largest, name


@pytest.mark.parametrize("name", SIZES)
def test_language_model_logits_and_every_gradient_equal_hugging_faces(name, tmp_path):
    model = random_model(LanguageModel, SCALED[name])
    hf = hugging_face_twin(model, tmp_path, transformers.GPT2LMHeadModel)
    tokens, lengths = packed()
    logits = model.lm_head(model.transformer(tokens, layout_of(lengths, tokens.device))).split(lengths.tolist())
    for text, ours in zip(TEXTS, logits, strict=True):
        assert relative_error(ours, hf(torch.tensor([text])).logits[0]) <= 1e-5
    loss, reference = -model(tokens, lengths, next_tokens(TEXTS)).sum(), hugging_face_loss(hf, TEXTS)
    loss.backward()
    reference.backward()
    assert relative_error(loss, reference) <= 1e-6
    assert_gradients_equal(model, hf, 1e-6)


@pytest.mark.parametrize("name", SIZES)
def test_classifier_logits_and_every_gradient_equal_hugging_faces(name, tmp_path):
    model = random_model(Classifier, SCALED[name], 3)
    hf = hugging_face_twin(
        model, tmp_path, transformers.GPT2ForSequenceClassification, id2label={0: "a", 1: "b", 2: "c"}
    )
    tokens, lengths = packed()
    logits = model(tokens, lengths)
    theirs = torch.cat([hf(torch.tensor([text])).logits for text in TEXTS])
    assert relative_error(logits, theirs) <= 1e-5
    for out in (logits, theirs):
        torch.nn.functional.cross_entropy(out, torch.tensor([0, 1, 2, 1]), reduction="sum").backward()
    assert_gradients_equal(model, hf, 1e-6)


def test_gradients_equal_hugging_faces_to_the_last_digits_in_double_precision(tmp_path):
    model = random_model(LanguageModel, SMALL, std=0.3)
    hf = hugging_face_twin(model, tmp_path, transformers.GPT2LMHeadModel).double()
    model.double()
    tokens, lengths = packed()
    (-model(tokens, lengths, next_tokens(TEXTS)).sum()).backward()
    hugging_face_loss(hf, TEXTS).backward()
    assert_gradients_equal(model, hf, 1e-12)


def test_the_bundled_model_equals_hugging_faces_as_it_is():
    folder = resolve("gpt2-nano")
    model = without_storage(LanguageModel, load_config(folder))
    load_weights(model, folder)
    hf = transformers.GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [[464, 3807, 373, 257, 1049], [40, 1842, 340], [50256], list(range(1000, 1300))]
    tokens, lengths = packed(texts)
    logits = model.eval().lm_head(model.transformer(tokens, layout_of(lengths, tokens.device))).split(lengths.tolist())
    for text, ours in zip(texts, logits, strict=True):
        assert relative_error(ours, hf(torch.tensor([text])).logits[0]) <= 1e-5
    model, hf = model.double(), hf.double()  # in fp32 trained weights leave up to 2e-6, as the processor has it
    (-model(tokens, lengths, next_tokens(texts)).sum()).backward()
    hugging_face_loss(hf, texts).backward()
    assert_gradients_equal(model, hf, 1e-10)


@pytest.mark.parametrize("kind", [LanguageModel, Classifier])
def test_an_output_does_not_depend_on_what_else_is_in_the_batch(kind):
    model = random_model(kind, SMALL, *([3] if kind is Classifier else []))

    def run(texts):
        extra = [next_tokens(texts)] if kind is LanguageModel else []
        return model(*packed(texts), *extra)

    alone = torch.cat([run([text]) for text in TEXTS])
    together = run(TEXTS)
    assert relative_error(together, alone) <= 1e-5
    backwards = run(TEXTS[::-1])
    per_text = [len(text) - 1 for text in TEXTS[::-1]] if kind is LanguageModel else [1] * len(TEXTS)
    assert relative_error(torch.cat(backwards.split(per_text)[::-1]), alone) <= 1e-5


def test_packed_attention_equals_padded_attention_forward_and_backward():
    generator = torch.Generator().manual_seed(0)
    layout = layout_of(torch.tensor([3, 1, 7]), torch.device("cpu"))
    qkv = torch.randn(11, 3, 2, 8, generator=generator, requires_grad=True)
    weight = torch.randn(11, 2, 8, generator=generator)
    gradients = []
    for route in (attend, attend_padded):
        out = route(qkv, layout)
        gradients.append([out, *torch.autograd.grad((out * weight).sum(), qkv)])
    for a, b in zip(*gradients, strict=True):
        assert relative_error(a, b) <= 1e-5


def test_logits_in_chunks_give_the_same_log_probabilities_and_gradients():
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(4, 7, bias=False)
    labels = torch.randint(7, (2 * LOGIT_ROWS + 5,), generator=generator)
    chunked = torch.randn(len(labels), 4, generator=generator, requires_grad=True)
    whole = chunked.detach().clone().requires_grad_()
    label_log_probabilities(head, chunked, labels).sum().backward()
    gradient, head.weight.grad = head.weight.grad, None
    head(whole).log_softmax(1).gather(1, labels[:, None]).sum().backward()
    assert relative_error(chunked.grad, whole.grad) <= 1e-5
    assert relative_error(gradient, head.weight.grad) <= 1e-5


def test_in_fp16_the_scale_of_the_loss_saves_the_gradients_of_rare_tokens():
    """Against autograd of the plain logits under the same loss scale: rows of p = 1e-8 get a gradient."""
    torch.manual_seed(0)
    hidden, labels = torch.randn(3, 8), torch.tensor([0, 1, 2])
    hidden[:, 0] = 1
    weight = torch.randn(10, 8) * 0.1
    weight[5:] = 0
    weight[5:, 0] = -torch.linspace(14, 18, 5)
    found = []
    for ours in (True, False):
        head = torch.nn.Linear(8, 10, bias=False)
        head.weight.data.copy_(weight)
        with torch.autocast("cpu", torch.float16):
            if ours:
                losses = label_log_probabilities(head, hidden, labels)
            else:
                losses = head(hidden).float().log_softmax(1)[range(3), labels]
        (losses.sum() * (65536 / 1000)).backward()
        found.append(head.weight.grad)
    ours, plain = found
    assert 0 < plain[9].abs().max() < 1e-5
    for row, expected in zip(ours, plain, strict=True):
        assert torch.allclose(row, expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


def test_nothing_labelled_gives_an_empty_result_that_still_has_gradients():
    model = random_model(LanguageModel, SMALL)
    log_probabilities = model(*packed(), torch.full((20,), -100))
    assert log_probabilities.shape == (0,)
    log_probabilities.sum().backward()
    assert float(model.transformer.wpe.weight.grad.abs().max()) == 0


def test_dropout_acts_in_training_only():
    model = random_model(Classifier, replace(SMALL, dropout=0.5), 3)
    assert torch.equal(model(*packed()), model(*packed()))
    model.train()
    assert not torch.equal(model(*packed()), model(*packed()))


# Weights in Hugging Face's format.


def test_keys_with_and_without_prefix_masks_and_tied_heads_load_the_same(tmp_path):
    model = random_model(LanguageModel, SMALL)
    save_pretrained(model, tmp_path / "a", GPT2)
    state = load_file(tmp_path / "a" / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    bare |= {"h.0.attn.bias": torch.ones(1, 1, 64, 64), "h.1.attn.masked_bias": torch.tensor(-1e4)}
    bare["lm_head.weight"] = bare["wte.weight"].clone()
    (tmp_path / "b").mkdir()
    save_file(bare, tmp_path / "b" / "model.safetensors")
    for folder in ("a", "b"):
        loaded = without_storage(LanguageModel, SMALL)
        load_weights(loaded, tmp_path / folder)
        assert all(torch.equal(p, q) for p, q in zip(loaded.parameters(), model.parameters(), strict=True))
        assert loaded.lm_head.weight is loaded.transformer.wte.weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("transformer.h.1.attn.c_attn.bias"), "missing transformer.h.1.attn.c_attn.bias"),
        (lambda s: s.update(extra=torch.ones(1)), "unexpected extra"),
        (lambda s: s.update({"transformer.ln_f.bias": torch.ones(3)}), "transformer.ln_f.bias has shape"),
        (lambda s: s.update({"lm_head.weight": s["transformer.wte.weight"] + 1}), "lm_head.weight differs"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message, tmp_path):
    model = random_model(LanguageModel, SMALL)
    save_pretrained(model, tmp_path, GPT2)
    state = load_file(tmp_path / "model.safetensors")
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_weights(without_storage(LanguageModel, SMALL), tmp_path)


def test_a_damaged_weight_file_is_refused(tmp_path):
    save_pretrained(random_model(LanguageModel, SMALL), tmp_path, GPT2)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_weights(without_storage(LanguageModel, SMALL), tmp_path)


def test_an_untied_head_is_saved_and_loaded_as_its_own(tmp_path):
    model = random_model(LanguageModel, SMALL)
    model.untie()
    with torch.no_grad():
        model.lm_head.weight.add_(1.0)
    hf = hugging_face_twin(model, tmp_path, transformers.GPT2LMHeadModel)
    assert torch.equal(hf.lm_head.weight, model.lm_head.weight)
    loaded = without_storage(LanguageModel, load_config(tmp_path))
    load_weights(loaded, tmp_path)
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight)
    assert not torch.equal(loaded.transformer.wte.weight, model.lm_head.weight)


@pytest.mark.parametrize("setting", [{"activation_function": "relu"}, {"n_inner": 7}, {"model_type": "bert"}])
def test_a_configuration_with_other_arithmetic_is_refused(setting, tmp_path):
    settings = json.loads((resolve("gpt2-nano") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | setting))
    with pytest.raises(ValueError, match=next(iter(setting))):
        load_config(tmp_path)


@pytest.mark.parametrize("source", ["gpt3", "no/such/folder", "/nowhere"])
def test_an_unknown_model_is_refused_with_the_list(source):
    with pytest.raises(ValueError, match="gpt2-nano"):
        resolve(source)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"lacks model\.safetensors"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "tied", "with_classes"),
    [
        ("gpt2", 124_439_808, 124_441_344),
        ("gpt2-medium", 354_823_168, 354_825_216),
        ("gpt2-large", 774_030_080, 774_032_640),
        ("gpt2-xl", 1_557_611_200, 1_557_614_400),
    ],
)
def test_parameter_totals_are_gpt2s(name, tied, with_classes):
    model = without_storage(LanguageModel, SIZES[name])
    model.tie()
    assert sum(p.numel() for p in model.parameters()) == tied
    assert sum(p.numel() for p in without_storage(Classifier, SIZES[name], 2).parameters()) == with_classes


def test_a_vocabulary_head_of_an_untied_base_is_that_of_the_file(tmp_path):
    base = random_model(LanguageModel, SMALL)
    base.untie()
    with torch.no_grad():
        base.lm_head.weight.add_(1.0)
    save_pretrained(base, tmp_path, GPT2)
    model = without_storage(Classifier, load_config(tmp_path), 2, embedding_head=True)
    load_weights(model, tmp_path)
    assert torch.equal(model.score.weight, base.lm_head.weight)
