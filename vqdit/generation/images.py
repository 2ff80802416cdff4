"""Images of a class from an image DiT: noise, one compiled program of sampling, decoded latents."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion import samplers
from vqdit.diffusion.few_step import Consistency, Renoised, Strided
from vqdit.diffusion.gaussian.published import ImageProcess
from vqdit.diffusion.guidance import Guidance, Scale
from vqdit.diffusion.samplers import DDIM, Solver, sample_keys, solve
from vqdit.diffusion.samplers.learned import LearnedAncestral
from vqdit.diffusion.samplers.solvers import normal
from vqdit.errors import UserError
from vqdit.generation.devices import OnDevices
from vqdit.models.dit import DiT
from vqdit.registry import construct
from vqdit.tokenizers.latents import LatentTokenizer

SOLVERS: Mapping[str, Callable[..., Solver]] = samplers.SOLVERS | {
    'ddpm': LearnedAncestral, 'stride': lambda: Strided(DDIM()), 'renoise': Renoised}
"""By name, each with its own settings."""
PATH = 'diffusion.sampler.solver'


class ImageGenerator(OnDevices):
    """An image DiT with its parameters, its process, a solver, and the autoencoder of its latents.

    Args:
        variables: of the autoencoder.
        solver: the name of one of `SOLVERS`, or a mapping of `name` and its settings; that of the process by default.
        guidance: the weight w of `guidance.Scale`, on all channels of the clean latents; 1 is none.
        batch_size: images drawn at once, at most.

    Attributes:
        settings: of the sampler, by name.
        decoder: the variables of the autoencoder.

    Raises UserError when the latents of network and autoencoder differ, for an unknown solver and too many steps.
    """

    def __init__(self, model: DiT, params: Any, process: ImageProcess, autoencoder: LatentTokenizer, variables: Any,
                 steps: int = 50, guidance: float = 4.0, solver: str | Mapping[str, Any] | None = None,
                 batch_size: int = 8):
        super().__init__(params, batch_size)
        self.model, self.decoder = model, OnDevices(variables, batch_size)
        if (*model.size, model.channels) != tuple(autoencoder.shape):
            raise UserError(f'the network makes latents {(*model.size, model.channels)}, but the autoencoder has '
                            f'{tuple(autoencoder.shape)} for its images; choose the autoencoder it was trained with')
        chosen, grid = solver or process.solver, process.grid(steps)
        self.settings = {'solver': chosen, 'steps': steps, 'guidance': guidance}
        self._sample = jax.jit(_sample_function(model, process, build_solver(chosen, model, process), grid, guidance))
        self._decode = jax.jit(autoencoder.decode_latents)

    def generate(self, labels: np.ndarray, seed: int = 0, first_index: int = 0) -> np.ndarray:
        """An image uint8 [H, W, 3] for every label int32 [count]; `model.classes` stands for no class.

        Equal global indices, from `first_index` on, and seeds give equal images.
        """
        count, size, pieces = len(labels), min(len(labels), self.batch_size), []
        for start in range(0, count, size):
            rows = np.minimum(np.arange(start, start + size), count - 1)
            latents = self.latents(seed, first_index + rows, np.asarray(labels, np.int32)[rows])
            images = self.decoder.run(self._decode, (latents,))
            pieces.append(np.asarray(images)[:count - start])
        return np.concatenate(pieces)

    def latents(self, seed: int, indices: np.ndarray, labels: np.ndarray) -> jax.Array:
        """Latents fp32 [B, h, w, C] of the samples of the global `indices [B]`."""
        return self.run(self._sample, (sample_keys(jax.random.key(seed), jnp.asarray(indices)), labels))


def build_solver(settings: str | Mapping[str, Any], model: DiT, process: ImageProcess) -> Solver:
    """The solver of a name, or of a mapping of `name` and settings.

    Raises UserError for an unknown one, unsound settings, and one that needs what the network did not learn.
    """
    solver = construct(SOLVERS, settings, PATH)
    if isinstance(solver, LearnedAncestral) and model.out_channels != 2 * model.channels:
        raise UserError(f'the solver ddpm needs learned variances, {2 * model.channels} output channels; this network '
                        f'has {model.out_channels}: choose another, such as ddim')
    if isinstance(solver, Strided) and not model.strides:
        raise UserError('the solver stride needs a network of strides, trained with diffusion.process.name "mean_flow" '
                        'or "shortcut"; choose another, such as heun')
    if isinstance(process, Consistency) != isinstance(solver, Renoised):
        raise UserError(f'{PATH} {settings} does not fit diffusion.process.name; "consistency" takes renoise, and no '
                        'other process does')
    return solver


def _sample_function(model: DiT, process: ImageProcess, solver: Solver, grid: jax.Array, guidance: float) -> Callable:
    """`(params, keys [B], labels int32 [B]) -> latents fp32 [B, h, w, C]`, every sample from a key of its own."""
    def sample(params: Any, keys: jax.Array, labels: jax.Array) -> jax.Array:
        start, steps = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
        noise = normal(start, jnp.zeros((len(keys), *model.size, model.channels)))
        answer = _guided(model, params, process, labels, Scale(guidance) if guidance != 1.0 else None)
        # Solvers know the clean latents alone, but for the one that was named for the variance.
        clean = answer if isinstance(solver, LearnedAncestral) else lambda *at: answer(*at)[..., :model.channels]
        return solve(solver, clean, process.path, process.path.sigma(grid[0]) * noise, grid, steps)

    return sample


def _guided(model: DiT, params: Any, process: ImageProcess, labels: jax.Array,
            guidance: Guidance | None) -> Callable[..., jax.Array]:
    """`(z [B, h, w, C], t) -> [B, h, w, outputs]`: guided clean latents and, unguided, the rest of the answer.

    `Strided` tells where its steps end, too.
    """
    count = len(labels)
    conditions = jnp.concatenate([labels, jnp.full_like(labels, model.classes)]) if guidance else labels

    def answer(z: jax.Array, t: jax.Array, *end: jax.Array) -> jax.Array:
        both = jnp.concatenate([z] * (len(conditions) // count))
        told = process.told(t, *end)
        out = model.apply({'params': params}, both, jnp.broadcast_to(told, (len(conditions), *told.shape)), conditions)
        clean, rest = process.read(out, both, t)  # type: ignore[arg-type]
        towards = guidance(clean[:count], clean[count:], t) if guidance else clean
        return jnp.concatenate([towards, rest[:count]], axis=-1)

    return answer
