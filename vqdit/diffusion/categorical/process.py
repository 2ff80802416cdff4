"""What all categorical processes have in common."""

from typing import Protocol

import jax


class Categorical(Protocol):
    """A process over codes int32 [B, N] that a clock fp32 [B, N] noises, token by token.

    `mask_ids int32 [N]` holds the mask of every token, which is also the number of its codes. Every loss and step
    takes the plain denoiser p(x | z_t): its logits are [B, N, K], a draw from it is the `proposal`. A network
    that learns to leave a token's own noisy value out is made plain by `as_plain`.
    """

    def prior(self, key: jax.Array, mask_ids: jax.Array, batch: int) -> jax.Array:
        """Codes at noise level 1, int32 [batch, N]."""
        ...

    def corrupt(self, key: jax.Array, codes: jax.Array, clock: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Draws z_t from q(z_t | x), every token at its own noise level; int32 [B, N]."""
        ...

    def forward(self, key: jax.Array, noisy: jax.Array, s: jax.Array, t: jax.Array, mask_ids: jax.Array) -> jax.Array:
        """Draws z_t from q(z_t | z_s), s <= t; int32 [B, N]."""
        ...

    def weight(self, clock: jax.Array) -> jax.Array:
        """The rate at which noisy tokens become clean, backwards in time; fp32 [B, N]."""
        ...

    def likelihood(self, noisy: jax.Array, clock: jax.Array, num_codes: int) -> jax.Array:
        """q(z_t | x) of the noisy tokens for every x; fp32 [B, N, K]."""
        ...

    def loss(self, logits: jax.Array, codes: jax.Array, noisy: jax.Array, clock: jax.Array,
             mask_id: int) -> jax.Array:
        """The integrand over t in [0, 1] of the bound of -log p(x) in continuous time; fp32 [B, N] nats."""
        ...

    def step_loss(self, logits: jax.Array, codes: jax.Array, noisy: jax.Array, t: jax.Array, s: jax.Array,
                  mask_id: int) -> jax.Array:
        """The term of the step from t to s of the bound in finitely many steps; fp32 [B, N] nats."""
        ...

    def rates(self, logits: jax.Array, noisy: jax.Array, t: jax.Array, mask_id: int) -> jax.Array:
        """The rates of the reversed process from z_t to every other code, fp32 [B, N, K]: per unit of noise level."""
        ...

    def step(self, key: jax.Array, noisy: jax.Array, proposal: jax.Array, t: jax.Array, s: jax.Array,
             mask_ids: jax.Array) -> jax.Array:
        """Draws z_s from q(z_s | z_t, x = proposal), s < t; int32 [B, N]."""
        ...
