"""How an adapter is made: its rank, what its update is multiplied by, and where it starts. Imports no torch."""

import math
from collections.abc import Callable
from dataclasses import dataclass

# How (alpha, rank) scale the update. `paper` is what the report's authors ran.
SCALINGS: dict[str, Callable[[float, int], float]] = {
    "standard": lambda alpha, rank: alpha / rank,  # Hu et al. 2021, section 4.1
    "rslora": lambda alpha, rank: alpha / math.sqrt(rank),  # Kalajdzievski 2023
    "paper": lambda alpha, rank: alpha,
}

# A is drawn uniformly between minus and plus this, given (inputs, rank). The authors' A is stored transposed, so that
# kaiming_uniform_ took the rank for the number of inputs.
INITS: dict[str, Callable[[int, int], float]] = {
    "standard": lambda inputs, rank: 1 / math.sqrt(inputs),
    "paper": lambda inputs, rank: 1 / math.sqrt(rank),
}


@dataclass(frozen=True)
class Spec:
    """How one adapter is made. `scaling` is one of SCALINGS, `init` one of INITS; `dropout` is the probability
    with which an input of A is dropped."""

    rank: int
    alpha: float = 16.0
    scaling: str = "standard"
    init: str = "standard"
    dropout: float = 0.0

    @property
    def scale(self) -> float:
        return SCALINGS[self.scaling](self.alpha, self.rank)
