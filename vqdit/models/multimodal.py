"""The multimodal diffusion transformer: tokens and clock in, logits for every modality out.

One sequence, joint attention, one set of parameters. It knows nothing of processes, tokenizers or meshes.
"""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vqdit.errors import UserError
from vqdit.models.blocks import REMAT_POLICIES, RootMeanSquareNorm, clock_features, modulate, rotary_angles, stack_of_blocks
from vqdit.tokenizers.spec import TokenLayout


class MultimodalDiT(nn.Module):
    """`(codes int32 [B, N], clock fp32 [B, N]) -> {modality: logits fp32 [B, n, K]}`.

    Attributes:
        layout: the modalities and their tokens; N is its length.
        width, depth, heads: of the trunk.
        expansion: hidden width of the SwiGLU over the width; 8/3 makes it as large as a plain MLP of 4.
        remat: what the backward pass computes again; see `blocks.stack_of_blocks`.
        dtype: of the computation; parameters, norms, modulation inputs and logits are fp32.
        implementation: of the attention, passed to `jax.nn.dot_product_attention`.

    Raises UserError when the heads do not divide the width into even parts, or remat is unknown.
    """

    layout: TokenLayout
    width: int = 128
    depth: int = 4
    heads: int = 4
    expansion: float = 8 / 3
    remat: str = 'none'
    dtype: jnp.dtype = jnp.float32
    implementation: str | None = None

    def __post_init__(self):
        if self.width % (2 * self.heads):
            raise UserError(f'width {self.width} must be divisible by twice the {self.heads} heads')
        if self.remat not in REMAT_POLICIES:
            raise UserError(f'remat "{self.remat}" is unknown; choose one of {", ".join(REMAT_POLICIES)}')
        super().__post_init__()

    @nn.compact
    def __call__(self, codes: jax.Array, clock: jax.Array) -> dict[str, jax.Array]:
        chex.assert_equal_shape([codes, clock])
        chex.assert_axis_dimension(codes, 1, self.layout.length)
        x = self._embed(codes)
        context = nn.silu(nn.Dense(self.width, name='clock_in')(clock_features(clock)))
        modulation = nn.Dense(6 * self.width, kernel_init=nn.initializers.zeros, dtype=self.dtype,
                              name='clock_out')(context)
        blocks = stack_of_blocks(self.depth, self.remat, heads=self.heads, hidden=self._hidden(), dtype=self.dtype,
                                 implementation=self.implementation)
        x, _ = blocks(x, modulation, jnp.asarray(self._angles()))
        shift, scale = jnp.split(modulation[..., :2 * self.width], 2, axis=-1)
        x = modulate(RootMeanSquareNorm(scaled=False)(x), shift, scale)
        return {name: nn.Dense(spec.num_codes, kernel_init=nn.initializers.zeros, dtype=self.dtype,
                               name=f'head_{name}')(x[:, self.layout.slice(name)]).astype(jnp.float32)
                for name, spec in self.layout.specs.items()}

    def _embed(self, codes: jax.Array) -> jax.Array:
        """Embeddings [B, N, D] of the codes, with a learned place for every token of the layout."""
        # One row more than there are codes: the mask.
        parts = {name: nn.Embed(spec.num_codes + 1, self.width, dtype=self.dtype, name=f'embed_{name}',
                                embedding_init=nn.initializers.normal(0.5))(codes[:, self.layout.slice(name)])
                 for name, spec in self.layout.specs.items()}
        places = self.param('places', nn.initializers.normal(0.5), (self.layout.length, self.width))
        return self.layout.join(parts) + places[None].astype(self.dtype)

    def _angles(self) -> np.ndarray:
        positions = np.concatenate([spec.positions() for spec in self.layout.specs.values()])
        return rotary_angles(positions, self.width // self.heads)

    def _hidden(self) -> int:
        return int(round(self.width * self.expansion / 32)) * 32
