"""What a trained model is to the losses and samplers of codes."""

from collections.abc import Callable, Mapping

import jax

Denoiser = Callable[[jax.Array, jax.Array], Mapping[str, jax.Array]]
"""`(codes int32 [B, N], clock fp32 [B, N]) -> {modality: logits [B, n, K]}`."""
