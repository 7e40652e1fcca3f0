"""Random streams from one `--seed`: each purpose has its own, so that none changes when another draws more."""

import hashlib

import torch


def derive(seed: int, *purpose: object) -> int:
    """Returns a 63-bit seed that depends on `seed` and on every part of `purpose`."""
    return int.from_bytes(hashlib.sha256(repr((seed, *purpose)).encode()).digest()[:8]) >> 1


def generator(seed: int, *purpose: object) -> torch.Generator:
    return torch.Generator().manual_seed(derive(seed, *purpose))


def seed_dropout(seed: int, *place: object) -> None:
    """Seeds torch's global generator, which dropout draws from, for one micro-batch. Its masks therefore depend on the
    place in training alone, and a resumed run needs no saved random state."""
    torch.manual_seed(derive(seed, "dropout", *place))
