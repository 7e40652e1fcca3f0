"""The shape of a GPT-2, and its translation from and to Hugging Face's config.json."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class GPT2Config:
    """The shape of one model. `context` is in tokens; `dropout` acts on embeddings, attention and residuals alike."""

    width: int = 768
    blocks: int = 12
    heads: int = 12
    vocabulary: int = 50257
    context: int = 1024
    dropout: float = 0.0
    layer_norm_epsilon: float = 1e-5
    tied_head: bool = True

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not divisible by {self.heads} heads")


# Radford et al. 2019, table 2, and the bundled gpt2-nano.
SIZES = {
    "gpt2-nano": GPT2Config(width=192, blocks=6, heads=6),
    "gpt2": GPT2Config(width=768, blocks=12, heads=12),
    "gpt2-medium": GPT2Config(width=1024, blocks=24, heads=16),
    "gpt2-large": GPT2Config(width=1280, blocks=36, heads=20),
    "gpt2-xl": GPT2Config(width=1600, blocks=48, heads=25),
}

_HF_NAMES = {
    "width": "n_embd",
    "blocks": "n_layer",
    "heads": "n_head",
    "vocabulary": "vocab_size",
    "context": "n_positions",
    "dropout": "resid_pdrop",
    "layer_norm_epsilon": "layer_norm_epsilon",
    "tied_head": "tie_word_embeddings",
}

# Other names that transformers accepts for these; the first one present counts. Old configurations have n_ctx.
_ALIASES = {
    "n_embd": ("hidden_size",),
    "n_layer": ("num_hidden_layers",),
    "n_head": ("num_attention_heads",),
    "n_positions": ("max_position_embeddings", "n_ctx"),
}
# Names of one function, GELU approximated by tanh.
_GELU_BY_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
# Settings that would change the arithmetic, each with the only value that is implemented.
_HF_FIXED = {
    "model_type": "gpt2",
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
_WHOLE = ("n_embd", "n_layer", "n_head", "n_positions", "vocab_size")


def _misshapen(settings: dict[str, Any]) -> str | None:
    """Says which setting of the shape has a value of the wrong kind, if one has."""
    for name in _WHOLE:
        if name in settings and not (type(settings[name]) is int and settings[name] > 0):
            return f"config.json has {name}={settings[name]!r}; it must be a whole number above 0"
    epsilon = settings.get("layer_norm_epsilon", GPT2Config.layer_norm_epsilon)
    if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
        return f"config.json has layer_norm_epsilon={epsilon!r}; it must be a small number above 0"
    if not isinstance(settings.get("tie_word_embeddings", True), bool):
        return f"config.json has tie_word_embeddings={settings['tie_word_embeddings']!r}; it must be true or false"
    return None


def from_hf(settings: dict[str, Any]) -> GPT2Config:
    """Translates config.json of a Hugging Face GPT-2 into our shape, without dropout (training sets its own).

    Raises ValueError for a setting whose arithmetic this model does not have.
    """
    if settings.get("quantization_config"):
        raise ValueError(
            "config.json has a quantization_config: these weights are quantised; give the model they were made from "
            "(--base-bits quantises it here), or save it after transformers' dequantize()"
        )
    if settings.get("auto_map"):
        raise ValueError("config.json has an auto_map: the model is computed by code of its own, which is not run")
    settings = {name: value for name, value in settings.items() if value is not None}
    for name, others in _ALIASES.items():
        settings |= next(({name: settings[other]} for other in (name, *others) if settings.get(other) is not None), {})
    if settings.get("activation_function") in _GELU_BY_TANH:
        settings["activation_function"] = _HF_FIXED["activation_function"]
    # The kind of model is checked first, because another kind has other names for its shape.
    for name, only in _HF_FIXED.items():
        if settings.get(name, only) != only:
            raise ValueError(f"config.json has {name}={settings[name]!r}; this GPT-2 implements {only!r} only")
    if wrong := _misshapen(settings):
        raise ValueError(wrong)
    inner = settings.get("n_inner")
    if inner not in (None, 4 * settings.get("n_embd", GPT2Config.width)):
        raise ValueError(f"config.json has n_inner={inner}; this GPT-2 implements 4 * n_embd only")
    known = {ours: settings[theirs] for ours, theirs in _HF_NAMES.items() if theirs in settings}
    return GPT2Config(**(known | {"dropout": 0.0}))


def to_hf(config: GPT2Config, architecture: str = "GPT2LMHeadModel", **more: Any) -> dict[str, Any]:
    """Translates our shape into the content of a config.json that transformers loads as `architecture`."""
    ours = asdict(config)
    return {
        **_HF_FIXED,
        **{theirs: ours[name] for name, theirs in _HF_NAMES.items()},
        "architectures": [architecture],
        "n_ctx": config.context,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "bos_token_id": 50256,
        "eos_token_id": 50256,
        **more,
    }


def class_names(settings: dict[str, Any]) -> tuple[str, ...]:
    """Returns the names of a classifier's classes, in the order of its head's rows; none if config.json has none.
    Raises ValueError or TypeError if `id2label` does not number them."""
    names = settings.get("id2label") or {}
    return tuple(str(names[i]) for i in sorted(names, key=int))
