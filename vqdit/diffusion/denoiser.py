"""What a trained model is to the losses and samplers of codes."""

from collections.abc import Callable
from typing import Any

import jax

Denoiser = Callable[[jax.Array, jax.Array], Any]
"""`(codes int32 [B, N], clock fp32 [B, N]) -> {modality: logits [B, n, K]}`."""
