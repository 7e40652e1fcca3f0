"""Whatever the order of its product, a layer is F.linear: the same numbers and derivatives, trained and adapted."""

from itertools import chain, combinations

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gpt2_scratch.config import GPT2Config
from gpt2_scratch.linear import FEW, WIDE, Linear, with_gaps
from gpt2_scratch.model import Classifier, LanguageModel
from lora.adapter import Spec
from lora.variants import adapter_class

NAMES = ("x", "weight", "bias")
VERY = WIDE + 1
SUBSETS = list(chain.from_iterable(combinations(NAMES, n) for n in range(4)))


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def inputs(tokens=5, width=512, outputs=VERY):
    """Numbers of such a size that the results are some units large."""
    rng = torch.Generator().manual_seed(0)
    shapes = ((tokens, width), (outputs, width), (outputs,))
    x, weight, bias = (torch.randn(*s, generator=rng) for s in shapes)
    return dict(zip(NAMES, (x, weight / width**0.5, bias), strict=True))


def products(*given):
    """Counts the matrix products that reach a kernel."""
    count = 0

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, op, types, args=(), kwargs=None):
            nonlocal count
            count += str(op).startswith(("aten.mm", "aten.addmm"))
            return op(*args, **(kwargs or {}))

    with Products():
        Linear.product(*given)
    return count


def close(a, b):
    """To the rounding of fp32 sums."""
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("outputs", [48, VERY])
@pytest.mark.parametrize("tokens", [1, 3, 8, 9, 16, 31, FEW, FEW + 1])
def test_the_product_is_that_of_the_plain_layer(tokens, outputs, threads):
    x, weight, bias = inputs(tokens, outputs=outputs).values()
    for added in (bias, None):
        for grad in (False, True):
            with torch.set_grad_enabled(grad):
                y = Linear.product(x, weight, added)
            assert close(y, F.linear(x, weight, added)) and (outputs == VERY or y.is_contiguous())


@pytest.mark.parametrize("wanted", SUBSETS, ids="-".join)
def test_derivatives_of_a_wide_product_are_those_of_the_plain_layer(wanted):
    given = inputs()
    for name in wanted:
        given[name].requires_grad_()
    for bias in (given["bias"], None):
        tensors = (given["x"], given["weight"], bias)
        asked = [t for t in tensors if t is not None and t.requires_grad]
        ours, plain = Linear.product(*tensors), F.linear(*tensors)
        assert ours.requires_grad == bool(asked)
        if asked:
            gradient = torch.randn(plain.shape, generator=torch.Generator().manual_seed(1)) / 100
            found = zip(*(torch.autograd.grad(y, asked, gradient) for y in (ours, plain)), strict=True)
            assert all(close(a, b) for a, b in found)


def test_rows_of_logits_begin_on_a_cache_line_and_what_is_between_them_can_be_overwritten():
    y = Linear.product(*inputs().values())
    assert y.stride() == (VERY + 15, 1) and y.data_ptr() % 64 == 0
    before, rows = y.clone(), with_gaps(y)
    rows[:, VERY:] = -torch.inf
    assert rows.shape == (5, VERY + 15) and rows.is_contiguous() and torch.equal(y, before)
    assert with_gaps(before) is before and with_gaps(before.t()).shape == before.t().shape


def test_only_products_in_fp32_on_a_cpu_are_divided(threads):
    x, weight, bias = inputs().values()
    assert products(x, weight, bias) == 5 > products(x, weight[:WIDE], bias[:WIDE]) == 1
    assert products(x.double(), weight.double(), None) == products(x.bfloat16(), weight.bfloat16(), None) == 1
    assert products(x.to("meta"), weight.to("meta"), None) == 1
    with torch.autocast("cpu", torch.bfloat16):
        assert products(x, weight, bias) == 1
    assert F.linear(x[0], weight).shape == Linear.product(x[0], weight, None).shape


@pytest.mark.parametrize("adapted", [False, True])
def test_the_heads_of_both_models_are_such_layers_with_and_without_an_adapter(adapted):
    config = GPT2Config(width=8, blocks=1, heads=2, vocabulary=VERY, context=16)
    for model in (LanguageModel(config), Classifier(config, 2, embedding_head=True)):
        weight = torch.nn.init.normal_(model.head.weight.requires_grad_(False))
        head = adapter_class("lora")(model.head, Spec(rank=2, alpha=2)) if adapted else model.head
        if adapted:
            torch.nn.init.normal_(head.low_rank.B)
            weight = weight + head.factors().product().flatten(0, 1)
        x = inputs(width=8)["x"].requires_grad_()
        y, plain = head(x), F.linear(x, weight)
        assert y.stride(0) == VERY + 15 and close(y, plain)
        assert close(*(torch.autograd.grad(z.sin().sum() / 100, x)[0] for z in (y, plain)))
