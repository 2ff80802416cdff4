"""A categorical process of its own for every modality, such as a kernel from each one's codebook."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vqdit.diffusion.categorical.process import Categorical
from vqdit.tokenizers.spec import TokenLayout


@dataclass(frozen=True, eq=False)
class ByModality:
    """As `Categorical`, over all tokens of a layout; what is asked with logits is asked of one part, see `part_of`."""

    parts: Mapping[str, Categorical]
    layout: TokenLayout

    def prior(self, key: jax.Array, mask_ids: jax.Array, batch: int) -> jax.Array:
        """Codes at noise level 1, int32 [batch, N]."""
        return self._each(key, lambda part, key, ids: part.prior(key, ids[0], batch), jnp.asarray(mask_ids)[None])

    def corrupt(self, key: jax.Array, codes: jax.Array, clock: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Every token at its own noise level, int32 [B, N]."""
        return self._each(key, lambda part, key, x, t, ids: part.corrupt(key, x, t, ids[0]), codes, clock,
                          jnp.asarray(mask_ids)[None])

    def forward(self, key: jax.Array, noisy: jax.Array, s: jax.Array, t: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Draws z_t from q(z_t | z_s), s <= t; int32 [B, N]."""
        s, t = (jnp.broadcast_to(level, noisy.shape) for level in (s, t))
        return self._each(key, lambda part, key, z, s, t, ids: part.forward(key, z, s, t, ids[0]), noisy, s, t,
                          jnp.asarray(mask_ids)[None])

    def step(self, key: jax.Array, noisy: jax.Array, proposal: jax.Array, t: jax.Array, s: jax.Array,
             mask_ids: jax.Array) -> jax.Array:
        """Draws z_s from q(z_s | z_t, x = proposal), s < t; int32 [B, N]."""
        t, s = (jnp.broadcast_to(level, noisy.shape) for level in (t, s))
        return self._each(key, lambda part, key, z, x, t, s, ids: part.step(key, z, x, t, s, ids[0]), noisy, proposal,
                          t, s, jnp.asarray(mask_ids)[None])

    def weight(self, clock: jax.Array) -> jax.Array:
        """The rate at which noisy tokens become clean, fp32 [B, N]."""
        times = self.layout.split(clock)
        return self.layout.join({name: part.weight(times[name]) for name, part in self.parts.items()})

    def _each(self, key: jax.Array, function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
        """`function(part, key, *its tokens of the arrays [B or 1, N])` of every modality, joined."""
        keys = jax.random.split(key, len(self.parts))
        pieces = [self.layout.split(array) for array in arrays]
        return self.layout.join({name: function(self.parts[name], k, *(piece[name] for piece in pieces))
                                 for k, name in zip(keys, self.layout.modalities)})


Process = Categorical | ByModality
"""What noises the tokens of a whole layout: one process for all of them, or one for each modality."""


def part_of(process: Process, modality: str) -> Categorical:
    """The process that a modality goes through."""
    return process.parts[modality] if isinstance(process, ByModality) else process
