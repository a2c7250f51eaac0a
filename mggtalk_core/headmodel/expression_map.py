"""MediaPipe's 52 scores -> the head model's 52 coefficients, for inputs that have scores but no landmarks.

The two share names, not meaning or scale (a score of 1 rarely is the full action, and scores leak into each other).
Where the 478 landmarks are known, fitting them (headmodel/fitting.py) is better still.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

EXPRESSION_MAP_FILE = Path(__file__).parents[1] / "weights" / "expression_map.safetensors"
LAYERS = 3


@dataclass(frozen=True)
class ExpressionMap:
    """f(scores) = linear skip + small MLP with SiLU; only differences of f mean anything."""

    skip: np.ndarray  # (52, 52), output row by input column
    weights: tuple[np.ndarray, ...]  # each (out, in)
    biases: tuple[np.ndarray, ...]  # each (out,)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """f (T, 52) of scores (T, 52)."""
        hidden = scores
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases)):
            hidden = hidden @ weight.T + bias
            if layer < LAYERS - 1:
                hidden = hidden / (1 + np.exp(-hidden))
        return scores @ self.skip.T + hidden

    def expression(self, scores: np.ndarray, source_scores: np.ndarray, source_expression: np.ndarray) -> np.ndarray:
        """Coefficients (T, 52) 0..1 of scores (T, 52), given one frame (52,), (52,) where both are known.

        For a driving video of somebody else that frame is their neutral one with coefficients 0.
        """
        change = self(scores) - self(source_scores[None])
        return np.clip(source_expression + change, 0, 1).astype(np.float32)


@lru_cache(maxsize=1)
def load_expression_map(path: Path = EXPRESSION_MAP_FILE) -> ExpressionMap:
    """The map that ships (MODEL_CARD.md says what it was trained on)."""
    tensors = load_file(str(path))
    return ExpressionMap(
        tensors["skip"],
        tuple(tensors[f"weight{layer}"] for layer in range(LAYERS)),
        tuple(tensors[f"bias{layer}"] for layer in range(LAYERS)),
    )
