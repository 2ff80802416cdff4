"""The front end of images and video: uint8 pixels to [-1, 1] and back."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Pixels:
    """`analyse` uint8 [B, *size, C] -> fp32 [-1, 1]; `synthesise` is its inverse, clipped and rounded."""

    size: tuple[int, ...]
    channels: int

    def analyse(self, pixels: jax.Array) -> jax.Array:
        return pixels.astype(jnp.float32) / 127.5 - 1.0

    def synthesise(self, x: jax.Array) -> jax.Array:
        return jnp.round(jnp.clip((x + 1.0) * 127.5, 0.0, 255.0)).astype(jnp.uint8)
