"""The multimodal diffusion transformer: tokens and clock in, logits for every modality out.

One sequence, joint attention, one set of parameters. It knows nothing of processes, tokenizers or meshes.
Like the published image DiT it folds patches: the codes of a block of neighbouring positions, with all their levels,
become one place in the sequence of the trunk, and each keeps its own mask, clock and logits. A modality may have one
place more, a summary of all its tokens in their order, which attention alone is slow to learn.
"""

from collections.abc import Mapping

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.folding import depth_to_space, space_to_depth, with_neighbours
from vqdit.models.attention import Implementation, rotary_angles
from vqdit.models.blocks import REMAT_POLICIES, clock_features, modulate, stack_of_blocks
from vqdit.models.codes import CodeEmbedding, CodeHead
from vqdit.models.parts import NORMS, PARTS
from vqdit.registry import choose
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

MODERN = PARTS['modern']()


def fold(tokens: jax.Array, spec: TokenSpec, patch: int) -> jax.Array:
    """[B, n, C] -> [B, n / codes in a patch, codes in a patch, C] in the order of the trunk."""
    batch, _, channels = tokens.shape
    rank = len(spec.grid)
    spread = tokens.reshape(batch, *spec.grid, spec.levels * channels)
    folded = space_to_depth(spread, (patch,) * rank)
    return folded.reshape(batch, -1, patch**rank * spec.levels, channels)


def unfold(places: jax.Array, spec: TokenSpec, patch: int) -> jax.Array:
    """The inverse of `fold`: [B, m, codes in a patch, C] -> [B, n, C]."""
    batch, *_, channels = places.shape
    rank = len(spec.grid)
    folded = places.reshape(batch, *(side // patch for side in spec.grid), -1)
    return depth_to_space(folded, (patch,) * rank).reshape(batch, spec.length, channels)


class MultimodalDiT(nn.Module):
    """`(codes int32 [B, N], clock fp32 [B, N]) -> {modality: logits fp32 [B, n, K]}`.

    With `channels` C the tokens are vectors fp32 [B, N, C] instead of codes, and the answers logits all the same, or
    with `answers_codes` off vectors [B, n, C].

    Attributes:
        layout: the modalities and their tokens; N is its length.
        patches: side of the blocks of positions that are folded, by modality; 1 where nothing is said.
        summaries: the modalities that have a summary.
        neighbours: the modalities whose places are embedded together with the places around them.
        channels: of the tokens, where they are vectors; 0 where they are codes.
        answers_codes: whether the answers are logits over codes.
        width, depth, heads: of the trunk.
        expansion: hidden width of the SwiGLU over the width; 8/3 makes it as large as a plain MLP of 4.
        gate: where the gates of the blocks start; see `blocks.Block`.
        remat: what the backward pass computes again; see `blocks.stack_of_blocks`.
        unroll: blocks in one iteration of the scan over the depth.
        dtype: of the computation, the heads' too; parameters, norms and clock features are fp32, logits given so.
        implementation: of the attention, see `attention.attend`.

    Raises UserError when the heads do not divide the width into even parts, a patch does not divide its grid, or
    remat or the modality of a summary is unknown.
    """

    layout: TokenLayout
    patches: Mapping[str, int]
    width: int = 128
    depth: int = 4
    heads: int = 4
    expansion: float = 8 / 3
    gate: float = 0.0
    remat: str = 'none'
    unroll: int = 1
    dtype: jnp.dtype = jnp.float32
    implementation: Implementation = None
    summaries: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    channels: int = 0
    answers_codes: bool = True

    def __post_init__(self):
        if self.width % (2 * self.heads):
            raise UserError(f'width {self.width} must be divisible by twice the {self.heads} heads')
        if self.remat not in REMAT_POLICIES:
            raise UserError(f'remat "{self.remat}" is unknown; choose one of {", ".join(REMAT_POLICIES)}')
        for name, spec in self.layout.specs.items():
            if any(side % self._patch(name) for side in spec.grid):
                raise UserError(f'the patch {self._patch(name)} of {name} does not divide its token grid {spec.grid}')
        for name in (*self.summaries, *self.neighbours):
            choose(self.layout.specs, name, 'the summary or the neighbours of modality')
        super().__post_init__()

    @property
    def places(self) -> int:
        """M: the length of the trunk's sequence."""
        return len(self.summaries) + sum(
            spec.length // (self._patch(name) ** len(spec.grid) * spec.levels)
            for name, spec in self.layout.specs.items())

    def blank(self, batch: int) -> tuple[jax.Array, jax.Array]:
        """Tokens and a clock of the shapes and types that the model takes."""
        clock = jnp.zeros((batch, self.layout.length))
        return jnp.zeros((*clock.shape, self.channels)) if self.channels else clock.astype(jnp.int32), clock

    @nn.compact
    def __call__(self, tokens: jax.Array, clock: jax.Array) -> dict[str, jax.Array]:
        chex.assert_equal_shape([tokens[..., 0] if self.channels else tokens, clock])
        chex.assert_axis_dimension(tokens, 1, self.layout.length)
        x, features = self._embed(tokens), self._clock(clock)
        context = nn.silu(nn.Dense(self.width, dtype=self.dtype, name='clock_in')(features))
        modulation = nn.Dense(6 * self.width, kernel_init=nn.initializers.zeros, dtype=self.dtype,
                              name='clock_out')(context)
        blocks = stack_of_blocks(
            self.depth, self.remat, self.unroll, width=self.width, heads=self.heads, hidden=self._hidden(),
            parts=MODERN, gate=self.gate, dtype=self.dtype, implementation=self.implementation)
        x, _ = blocks(x, modulation, jnp.asarray(self._angles()))
        shift, scale = jnp.split(modulation[..., :2 * self.width], 2, axis=-1)
        return self._logits(modulate(NORMS[MODERN.norm]('norm')(x), shift, scale))

    def _embed(self, tokens: jax.Array) -> jax.Array:
        """The trunk's input [B, M, D]: embedded tokens, folded, and the summaries, each with a learned vector."""
        parts: dict[str, jax.Array] = {}
        for name, spec in self.layout.specs.items():
            embedding: nn.Module = (nn.Dense(self.width, dtype=self.dtype, name=f'embed_{name}') if self.channels else
                                    CodeEmbedding(spec, self.width, self.dtype, name=f'embed_{name}'))
            folded = fold(embedding(tokens[:, self.layout.slice(name)]), spec, self._patch(name))
            flat = folded.reshape(*folded.shape[:2], -1)
            if name in self.neighbours:
                spread = flat.reshape(len(flat), *self._grid(name), -1)
                flat = with_neighbours(spread).reshape(*flat.shape[:2], -1)
            parts[name] = nn.Dense(self.width, dtype=self.dtype, name=f'fold_{name}')(flat)
        summaries = [nn.Dense(self.width, dtype=self.dtype, name=f'summary_{name}')(
            parts[name].reshape(len(tokens), 1, -1)) for name in self.summaries]
        x = jnp.concatenate([*parts.values(), *summaries], axis=1)
        places = self.param('places', nn.initializers.normal(0.5), x.shape[1:])
        return x + places[None].astype(self.dtype)

    def _clock(self, clock: jax.Array) -> jax.Array:
        """Features of the clock, averaged over the codes of a place, fp32 [B, M, features]."""
        parts = {name: fold(clock_features(clock[:, self.layout.slice(name)]), spec, self._patch(name)).mean(axis=2)
                 for name, spec in self.layout.specs.items()}
        summaries = [parts[name].mean(axis=1, keepdims=True) for name in self.summaries]
        return jnp.concatenate([*parts.values(), *summaries], axis=1)

    def _logits(self, x: jax.Array) -> dict[str, jax.Array]:
        logits, start = {}, 0
        for name, spec in self.layout.specs.items():
            codes_in_patch = self._patch(name) ** len(spec.grid) * spec.levels
            part = x[:, start:start + spec.length // codes_in_patch]
            start += part.shape[1]
            # A vector of C channels is answered as a code of C would be, by numbers.
            answered = spec if self.answers_codes else TokenSpec(spec.grid, self.channels)
            head = CodeHead(answered, codes_in_patch, self.dtype, name=f'head_{name}')
            logits[name] = unfold(head(part), spec, self._patch(name)).astype(jnp.float32)
        return logits

    def _angles(self) -> np.ndarray:
        positions = [TokenSpec(self._grid(name), 1).positions() for name in self.layout.specs]
        nowhere = np.zeros((len(self.summaries), positions[0].shape[1]), positions[0].dtype)
        return rotary_angles(np.concatenate([*positions, nowhere]), self.width // self.heads)

    def _grid(self, name: str) -> tuple[int, ...]:
        """Of the places of a modality."""
        return tuple(side // self._patch(name) for side in self.layout.specs[name].grid)

    def _patch(self, name: str) -> int:
        return self.patches.get(name, 1)

    def _hidden(self) -> int:
        return round(self.width * self.expansion / 32) * 32
