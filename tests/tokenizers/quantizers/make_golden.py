"""What other libraries compute, on seeded random weights and inputs, for the tests of parity.

    python tests/tokenizers/quantizers/make_golden.py

with the extra "peers" installed writes `golden/*.npz` beside this file. Every case is three training steps.
"""

import importlib.metadata
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / 'golden'
STEPS, SHAPE, NUM_CODES = 3, (2, 5, 8), 16
PACKAGES = ('vector-quantize-pytorch', 'torch', 'dm-haiku')


def inputs(width: int = SHAPE[-1], seed: int = 0) -> np.ndarray:
    """Latents fp32 [steps, 2, 5, width]."""
    return np.random.default_rng(seed).normal(size=(STEPS, *SHAPE[:-1], width)).astype(np.float32)


def make() -> dict[str, dict[str, np.ndarray]]:
    """Arrays by `case/name`, of every file."""
    return {'vector_quantize_pytorch': _torch_cases(), 'haiku': _haiku_cases(), 'resize': _resize_cases()}


def write() -> None:
    versions = ' '.join(f'{name}=={importlib.metadata.version(name)}' for name in PACKAGES)
    for name, arrays in make().items():
        np.savez_compressed(FOLDER / f'{name}.npz', versions=np.asarray(versions), **arrays)


def _torch_cases() -> dict[str, np.ndarray]:
    import torch
    import vector_quantize_pytorch as peer
    torch.manual_seed(0)
    vector = {'dim': 8, 'codebook_size': NUM_CODES, 'decay': 0.9, 'rotation_trick': False}
    bits = {'codebook_size': 64, 'dim': 6}
    cases = {
        'euclidean': peer.VectorQuantize(**vector),
        'cosine': peer.VectorQuantize(**vector, use_cosine_sim=True),
        'heads': peer.VectorQuantize(**vector, heads=2, codebook_dim=4),
        'separate_heads': peer.VectorQuantize(**vector, heads=2, codebook_dim=4, separate_codebook_per_head=True),
        'projected': peer.VectorQuantize(**vector, codebook_dim=4),
        'rotation': peer.VectorQuantize(**(vector | {'rotation_trick': True})),
        'directional': peer.VectorQuantize(**vector, directional_reparam=True, directional_reparam_variance=0.0,
                                           threshold_ema_dead_code=1e-9),
        'learned': peer.VectorQuantize(**vector, learnable_codebook=True, ema_update=False),
        'residual': peer.ResidualVQ(num_quantizers=3, **vector),
        'finite_scalar': peer.FSQ([8, 5, 5, 5]),
        'finite_scalar_symmetric': peer.FSQ([8, 5, 2, 3], preserve_symmetry=True),
        'residual_finite_scalar': peer.ResidualFSQ(dim=3, levels=[5, 4, 3], num_quantizers=3),
        'lookup_free': peer.LFQ(**bits, commitment_loss_weight=0.25),
        'binary_spherical': peer.LFQ(**bits, commitment_loss_weight=0.25, spherical=True),
        'sim_vector': peer.SimVQ(dim=8, codebook_size=NUM_CODES, rotation_trick=False),
    }
    return {f'{case}/{name}': array for case, module in cases.items()
            for name, array in _torch_case(case, module).items()}


WIDTHS = {'finite_scalar': 4, 'finite_scalar_symmetric': 4, 'residual_finite_scalar': 3, 'lookup_free': 6,
          'binary_spherical': 6}


def _torch_case(case: str, module) -> dict[str, np.ndarray]:
    """The state before, what every step gives, the gradient of sum(vectors * x^2), and the state after."""
    import torch
    module.train()
    state = lambda moment: {f'{moment}/{name}': value.detach().numpy().copy()
                            for name, value in module.state_dict().items()}
    # At the default of 100 the peer's clipped logarithms leave the entropy.
    options = {'inv_temperature': 1.0} if case in ('lookup_free', 'binary_spherical') else {}
    arrays, steps = state('before'), []
    for x in inputs(WIDTHS.get(case, SHAPE[-1])):
        x = torch.tensor(x, requires_grad=True)
        vectors, codes, *loss = module(x, **options)
        (vectors * x.detach() ** 2).sum().backward()
        value = torch.as_tensor(loss[0]).float().mean() if loss else torch.zeros(())
        steps.append([array.detach().numpy() for array in (vectors, codes, value, x.grad)])
        module.zero_grad()
    arrays |= {name: np.stack(parts) for name, parts in zip(('vectors', 'codes', 'loss', 'gradient'), zip(*steps))}
    return arrays | state('after')


def _haiku_cases() -> dict[str, np.ndarray]:
    import haiku as hk
    import jax
    function = hk.transform_with_state(
        lambda x: hk.nets.VectorQuantizerEMA(SHAPE[-1], NUM_CODES, commitment_cost=0.25, decay=0.9)(x, True))
    xs = inputs()
    _, state = function.init(jax.random.key(0), xs[0])
    name = 'vector_quantizer_ema'
    arrays, steps = {'before/embeddings': np.asarray(state[name]['embeddings'])}, []
    for x in xs:
        out, state = function.apply({}, state, None, x)
        steps.append([np.asarray(out[key]) for key in ('quantize', 'encoding_indices', 'loss', 'perplexity')]
                     + [np.asarray(state[name]['embeddings'])])
    return arrays | {key: np.stack(parts) for key, parts in
                     zip(('vectors', 'codes', 'loss', 'perplexity', 'embeddings'), zip(*steps))}


def _resize_cases() -> dict[str, np.ndarray]:
    import torch
    from torch.nn import functional
    arrays = {}
    for size, target in ((16, 13), (5, 16), (4, 1), (1, 4)):
        x = np.random.default_rng(size).normal(size=(1, size, size + 1, 2)).astype(np.float32)
        moved = torch.tensor(x).permute(0, 3, 1, 2)
        grid = (target, target + 2)
        down = functional.interpolate(moved, size=grid, mode='area')
        up = functional.interpolate(moved, size=grid, mode='bicubic', align_corners=False)
        arrays |= {f'{size}_{target}/x': x, f'{size}_{target}/area': down.permute(0, 2, 3, 1).numpy(),
                   f'{size}_{target}/cubic': up.permute(0, 2, 3, 1).numpy()}
    return arrays


if __name__ == '__main__':
    write()
