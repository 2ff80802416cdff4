"""The processes of published networks of images: what a network is told of the noise level, and what it answers.

    DiT   the 1000 variances of DDPM: told the step, 0 to 999; answers the noise, then the share of the learned variance
    SiT   the straight line: told how much of the data is there, 1 - t; answers the velocity towards the data

Latents are [B, H, W, C], noise levels [B] or a scalar. Both are trained on the mean squared error of the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import chex
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.clock import stratified_times
from vqdit.diffusion.gaussian.paths import Betas, Flow, Path
from vqdit.diffusion.gaussian.predictions import PREDICTIONS, clean_and_noise, predicted, spread
from vqdit.diffusion.gaussian.variance import learned_range, variational_term
from vqdit.errors import UserError

Network = Callable[[jax.Array, jax.Array], jax.Array]
"""`(z [B, H, W, C], what it is told fp32 [B] or [B, 2]) -> fp32 [B, H, W, outputs]`; there may be more than C."""


class ImageProcess(Protocol):
    """A process with the conventions of the networks that were trained with it.

    Attributes:
        path: from data to noise.
        solver: the name of the sampler that goes with it.
    """

    @property
    def path(self) -> Path: ...

    @property
    def solver(self) -> str: ...

    def at(self, step: jax.Array) -> 'ImageProcess':
        """As it is trained after so many steps: most are the same all the time."""

    @property
    def told(self) -> Callable[..., jax.Array]:
        """`t -> fp32 [...]`, what the network is told of the noise level; models of strides are told more,
        `t, s -> fp32 [..., 2]`."""

    def read(self, out: jax.Array, z: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The clean latents [B, H, W, C] that an answer stands for, and what else it says, [B, H, W, outputs - C]."""

    def grid(self, steps: int) -> jax.Array:
        """The noise levels of a sampler of so many steps, fp32 [steps + 1]."""

    def loss(self, key: jax.Array, network: Network, latents: jax.Array,
             without: Network | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The loss of the network on a batch, and its parts; `without` is the network told no labels, for processes
        that guide in training."""


@dataclass(frozen=True)
class DenoisingDiffusion:
    """DDPM with learned variances (arXiv:2006.11239; arXiv:2102.09672), as DiT is trained.

    The loss is that of the noise, and the variational bound in bits per dimension for the variance alone. In place of
    DDPM's term for 8-bit pixels, its first step has the density of the latents.
    """

    path: Betas = field(default_factory=Betas.linear)
    solver: str = 'ddpm'

    def at(self, step: jax.Array) -> 'ImageProcess':
        return self

    @property
    def _steps(self) -> int:
        return len(self.path.betas)

    def told(self, t: jax.Array) -> jax.Array:
        return t * self._steps - 1.0

    def read(self, out: jax.Array, z: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        noise, share = jnp.split(out, [z.shape[-1]], axis=-1)
        return clean_and_noise(PREDICTIONS['noise'], noise, z, self.path, t)[0], share

    def grid(self, steps: int) -> jax.Array:
        """Evenly spaced steps of training from the last to the first, then 0. Raises UserError for more than those."""
        if not 1 <= steps <= self._steps:
            raise UserError(f'{steps} steps cannot be taken out of the {self._steps} of training')
        kept = np.rint(np.linspace(self._steps - 1, 0, steps))
        return jnp.asarray(np.append((kept + 1) / self._steps, 0.0), jnp.float32)

    def loss(self, key: jax.Array, network: Network, latents: jax.Array,
             without: Network | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        draw, noise_key = jax.random.split(key)
        t = jnp.ceil(stratified_times(draw, len(latents)) * self._steps) / self._steps
        z, noise = _corrupt(noise_key, self.path, latents, t)
        out = network(z, self.told(t))
        clean, share = self.read(out, z, t)
        losses = {'noise_error': jnp.mean((out[..., :latents.shape[-1]] - noise) ** 2)}
        if share.shape[-1]:
            chex.assert_equal_shape([clean, share])
            losses['variance_bits'] = jnp.mean(self._bits(z, latents, jax.lax.stop_gradient(clean), share, t))
        return sum(losses.values(), jnp.zeros(())), losses

    def _bits(self, z: jax.Array, latents: jax.Array, guess: jax.Array, share: jax.Array, t: jax.Array) -> jax.Array:
        """The term of the variational bound of the step down from t, in bits, [B, H, W, C]."""
        first = spread(t, z) < 1.5 / self._steps
        s = jnp.where(t < 1.5 / self._steps, 0.0, t - 1.0 / self._steps)
        log_variance = learned_range(self.path, share, t, s)
        inner = jnp.where(s > 0, s, 0.5 * t)
        divergence = variational_term(self.path, z, latents, guess, log_variance, t, inner)
        density = 0.5 * (np.log(2 * np.pi) + log_variance + (latents - guess) ** 2 * jnp.exp(-log_variance))
        return jnp.where(first, density, divergence) / np.log(2)


@dataclass(frozen=True)
class FlowMatching:
    """Velocities on the straight line, as SiT is trained (arXiv:2401.08740); outputs beyond C are left alone."""

    path: Flow = field(default_factory=Flow)
    solver: str = 'heun'

    def at(self, step: jax.Array) -> 'ImageProcess':
        return self

    def told(self, t: jax.Array) -> jax.Array:
        return 1.0 - t

    def read(self, out: jax.Array, z: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        towards_data, rest = jnp.split(out, [z.shape[-1]], axis=-1)
        return clean_and_noise(PREDICTIONS['velocity'], -towards_data, z, self.path, t)[0], rest

    def grid(self, steps: int) -> jax.Array:
        """Equal steps. Raises UserError for fewer than one."""
        if steps < 1:
            raise UserError(f'a sampler needs at least 1 step, not {steps}')
        return jnp.linspace(1.0, 0.0, steps + 1)

    def loss(self, key: jax.Array, network: Network, latents: jax.Array,
             without: Network | None = None) -> tuple[jax.Array, dict[str, jax.Array]]:
        draw, noise_key = jax.random.split(key)
        t = stratified_times(draw, len(latents))
        z, noise = _corrupt(noise_key, self.path, latents, t)
        wanted = -predicted(PREDICTIONS['velocity'], latents, noise, self.path, t)
        error = jnp.mean((network(z, self.told(t))[..., :latents.shape[-1]] - wanted) ** 2)
        return error, {'velocity_error': error}


def _corrupt(key: jax.Array, path: Path, latents: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """z and the noise in it, each [B, H, W, C], at noise levels `t [B]`."""
    noise, t = jax.random.normal(key, latents.shape, latents.dtype), spread(t, latents)
    return path.alpha(t) * latents + path.sigma(t) * noise, noise


IMAGE_PROCESSES: dict[str, Callable[[], ImageProcess]] = {'dit': DenoisingDiffusion, 'sit': FlowMatching}
"""By the family of networks that each was published with."""
