"""Makes golden/discrete.json: what the schedulers of codes in diffusers do, their draws taken out.

Run by the test of the same peer, `-m peers`. Where a scheduler draws from probabilities, they are what is kept.
"""

import json
from pathlib import Path
from unittest import mock

import numpy as np

PATH = Path(__file__).parent / 'golden' / 'discrete.json'
CODES, STEPS, INDEX = 5, 10, 3
TOKENS, CHOICES = 34, 6


def table():
    """p(x | z) for every z, float64 [K, K]."""
    return np.random.default_rng(0).dirichlet(np.ones(CODES), size=CODES)


def logits():
    """Of a denoiser that looks at nothing, float32 [TOKENS, CHOICES]."""
    return np.random.default_rng(1).normal(size=(TOKENS, CHOICES)).astype(np.float32)


def _replacing():
    """DiscreteDDIMScheduler at one step: q(z_s | z_t, x) [x, z_t, z_s], and the conditional of the Gibbs corrector."""
    import torch
    from diffusers import DiscreteDDIMScheduler
    scheduler = DiscreteDDIMScheduler(STEPS, corrector_steps=1, corrector_k=CODES, corrector_selection='random')
    x, z = (torch.tensor(grid.reshape(1, -1)) for grid in np.meshgrid(*[np.arange(CODES)] * 2, indexing='ij'))
    asked = []

    def likeliest(probabilities, num_samples, generator=None):
        asked.append(probabilities.double().numpy())
        return probabilities.argmax(-1, keepdim=True)

    with mock.patch('torch.multinomial', likeliest):
        scheduler.step(100.0 * torch.eye(CODES)[x], INDEX, z, temperature=0.0)
        scheduler.step_correct(torch.log(torch.tensor(table()[None])), INDEX, torch.arange(CODES)[None])
    routes, conditional = asked
    law = routes[:, :1] * np.eye(CODES)[x[0]] + routes[:, 1:2] * np.eye(CODES)[z[0]] + routes[:, 2:] / CODES
    return {'posterior': law.reshape(CODES, CODES, CODES).tolist(),
            'conditional': np.sort(conditional, axis=0).tolist()}


def _masking():
    """AmusedScheduler on its cosine without noise: the codes after each of 4 steps; the mask is CHOICES."""
    import torch
    from diffusers import AmusedScheduler
    scheduler = AmusedScheduler(mask_token_id=CHOICES, masking_schedule='cosine')
    scheduler.set_timesteps(4, temperature=(0, 0))
    z, chain = torch.full((1, TOKENS), CHOICES), []
    with mock.patch('torch.multinomial', lambda p, n, generator=None: p.argmax(-1, keepdim=True)):
        for t in scheduler.timesteps:
            z = scheduler.step(torch.tensor(logits()[None]), t, z).prev_sample
            chain.append(z[0].tolist())
    return chain


def make():
    import diffusers
    import torch
    return {'diffusers': diffusers.__version__, 'torch': torch.__version__, 'seeds': [0, 1],
            'replacing': _replacing(), 'masking': _masking()}


def write():
    PATH.write_text(json.dumps(make()))


if __name__ == '__main__':
    write()
