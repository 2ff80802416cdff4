"""The generator: given data of some modalities, samples the others. One compiled program serves every task.

The samples of a batch are split over the devices of this process.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vqdit.diffusion.clock import GIVEN, Task
from vqdit.diffusion.guidance import Guidance, autoguided, guided
from vqdit.diffusion.samplers import VectorSampler, sample_keys
from vqdit.errors import UserError
from vqdit.generation.devices import OnDevices
from vqdit.models.multimodal import MultimodalDiT
from vqdit.tokenizers.frozen import Tokenizer, encode_loosely, stack
from vqdit.tokenizers.spec import TokenLayout

Sampler = Callable[..., jax.Array]


class Pair(NamedTuple):
    """Parameters, and weaker ones that guidance pushes them away from (autoguidance, arXiv:2406.02507)."""

    params: Any
    weaker: Any


def without_guidance(params: Any) -> Any:
    """The parameters of the model itself."""
    return params.params if isinstance(params, Pair) else params


class Generator(OnDevices):
    """A model, its parameters, its tokenizers and a sampler.

    With a `Pair` of parameters, guidance compares the two; else it compares with the lack of what is given.

    Attributes:
        tokenizers: one for every modality of the layout.
        layout: the order of the modalities in the sequence of N tokens.
        batch_size: samples drawn at once, at most; calls that end beyond it are padded to a multiple of it.
    """

    def __init__(self, model: MultimodalDiT, params: Any, tokenizers: Mapping[str, Tokenizer], sampler: Sampler,
                 guidance: float | Guidance = 1.0, batch_size: int = 64):
        self.model, self.tokenizers = model, tokenizers
        self.layout = model.layout
        super().__init__(params, batch_size)
        self._sample = jax.jit(_sample_function(model, self.layout, sampler, guidance))
        whole = getattr(sampler, 'trajectory', None)
        self._trajectory = jax.jit(_sample_function(model, self.layout, whole, guidance)) if whole else None

    def generate(self, task: Task, given: Mapping[str, Sequence[Any]], count: int, seed: int = 0,
                 first_index: int = 0) -> dict[str, Any]:
        """`count` samples of the generated modalities, as data: uint8 pictures, fp32 sound, strings.

        Args:
            given: for every given modality a list of `count` items, or of one, which serves all samples.
            first_index: the global index of the first sample; equal indices and seeds give equal samples.

        Raises UserError for a modality that the model lacks or data that is not given.
        """
        codes = self.generate_codes(task, self.encode(task, given, count), seed, first_index)
        parts = {name: codes[:, self.layout.slice(name)] for name in task.generated}
        return {name: self.tokenizers[name].decode(part) for name, part in parts.items()}

    def encode(self, task: Task, given: Mapping[str, Sequence[Any]], count: int) -> np.ndarray:
        """Codes int32 [count, N] of the given data; every other token is the mask."""
        codes = np.broadcast_to(self.layout.mask_ids, (count, self.layout.length)).copy()
        task.roles(self.layout)
        for name in task.given:
            items = given.get(name)
            if items is None or len(items) not in (1, count):
                raise UserError(f'task "{task}" needs {name}: give one item, or one for each of the {count} samples')
            codes[:, self.layout.slice(name)] = encode_loosely(self.tokenizers[name], stack(items))
        return codes

    def generate_codes(self, task: Task, codes: np.ndarray, seed: int = 0, first_index: int = 0) -> np.ndarray:
        """Codes int32 [count, N] in which the generated modalities are filled in; the given ones are unchanged."""
        return self.fill(codes, np.broadcast_to(task.roles(self.layout), codes.shape), seed, first_index)

    def fill(self, codes: np.ndarray, roles: np.ndarray, seed: int = 0, first_index: int = 0) -> np.ndarray:
        """As `generate_codes`, with a role for every single token (inpainting, infill): `roles` int32 [count, N]."""
        return self._in_batches(self._sample, codes, roles, seed, first_index)

    def trajectory(self, task: Task, codes: np.ndarray, seed: int = 0, first_index: int = 0) -> np.ndarray:
        """The way to `generate_codes`: codes int32 [steps + 1, count, N], noise first.

        Raises UserError for a sampler that does not keep its way.
        """
        if self._trajectory is None:
            raise UserError('this sampler keeps no trajectory; choose one of `vqdit.diffusion.samplers`')
        roles = np.broadcast_to(task.roles(self.layout), codes.shape)
        return self._in_batches(self._trajectory, codes, roles, seed, first_index)

    def _in_batches(self, function: Callable, codes: np.ndarray, roles: np.ndarray, seed: int,
                    first_index: int) -> np.ndarray:
        # The last of several calls for one series, which may be short, is padded to the size of those before it.
        count, size = len(codes), min(first_index + len(codes), self.batch_size)
        root, pieces = jax.random.key(seed), []
        codes = np.where(roles == GIVEN, codes, self.layout.mask_ids[None])
        for start in range(0, count, size):
            rows = np.minimum(np.arange(start, start + size), count - 1)
            keys = sample_keys(root, jnp.asarray(first_index + rows))
            drawn = self.run(function, (keys, codes[rows], roles[rows]))
            pieces.append(np.asarray(drawn)[..., :count - start, :])
        return np.concatenate(pieces, axis=-2)


def _sample_function(model: MultimodalDiT, layout: TokenLayout, sampler: Sampler,
                     guidance: float | Guidance) -> Callable:
    # Samplers of vectors say how answers are compared; those of codes compare log-probabilities.
    options = {'comparable': sampler.comparable} if isinstance(sampler, VectorSampler) else {}

    def sample(params, keys, codes, roles):
        of = lambda params: lambda c, t: model.apply({'params': params}, c, t)
        denoiser = (autoguided(of(params.params), of(params.weaker), layout, guidance, **options)
                    if isinstance(params, Pair) else guided(of(params), layout, roles, guidance, **options))
        return sampler(keys, denoiser, codes, roles, layout)
    return sample
