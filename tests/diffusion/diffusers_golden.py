"""Makes golden/diffusers.json: what the schedulers of diffusers do with a perfect network of the mixture's.

Run by the test of the same peer, `-m peers`; the network is E[x | z] of `mixture.py`, in float64.
"""

import contextlib
import json
from pathlib import Path
from unittest import mock

import numpy as np

PATH = Path(__file__).parent / 'golden' / 'diffusers.json'
WEIGHTS, MEANS, DEVIATIONS = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.4, 0.6])
START = np.linspace(-2.0, 2.0, 8).reshape(1, 1, 2, 4)


def clean_mean(z, alpha, sigma):
    variance = (alpha * DEVIATIONS) ** 2 + sigma**2
    shifted = z[..., None] - alpha * MEANS
    logs = np.log(WEIGHTS) - 0.5 * shifted**2 / variance - 0.5 * np.log(variance)
    shares = np.exp(logs - logs.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return (shares * (MEANS + alpha * DEVIATIONS**2 * shifted / variance)).sum(-1)


def _run(scheduler, steps, scale=1.0, **options):
    """The noise levels that the scheduler stops at, and the sample at the end, from START."""
    import torch
    scheduler.set_timesteps(steps, **options)
    z, bars = torch.tensor(START) * scale, scheduler.alphas_cumprod.double()
    for t in scheduler.timesteps:
        bar = float(bars[int(t)])
        noise = (z.numpy() - bar**0.5 * clean_mean(z.numpy(), bar**0.5, (1 - bar) ** 0.5)) / (1 - bar) ** 0.5
        z = scheduler.step(torch.tensor(noise), t, z).prev_sample
    return {'times': [int(t) for t in scheduler.timesteps], 'sample': z.numpy().ravel().tolist()}


def _run_in_sigma(scheduler, steps):
    """The same for schedulers whose samples are x + sigma noise."""
    import torch
    scheduler.set_timesteps(steps)
    z = torch.tensor(START) * float(scheduler.sigmas[0])
    for index, t in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[index])
        scheduler.scale_model_input(z, t)
        alpha = (1 + sigma**2) ** -0.5
        clean = clean_mean(z.numpy() * alpha, alpha, sigma * alpha)
        z = scheduler.step(torch.tensor((z.numpy() - clean) / sigma), t, z).prev_sample
    return {'sigmas': [float(s) for s in scheduler.sigmas], 'sample': z.numpy().ravel().tolist()}


def _run_flow(scheduler, steps):
    import torch
    scheduler.set_timesteps(steps)
    z = torch.tensor(START)
    for index, t in enumerate(scheduler.timesteps):
        sigma = float(scheduler.sigmas[index])
        clean = clean_mean(z.numpy(), 1 - sigma, sigma)
        z = scheduler.step(torch.tensor((z.numpy() - clean) / sigma), t, z).prev_sample
    return {'sigmas': [float(s) for s in scheduler.sigmas], 'sample': z.numpy().ravel().tolist()}


def _quantised(steps=10, codes=5):
    """VQDiffusionScheduler: the posteriors of the steps 3 and 9, from random p(x)."""
    import torch
    from diffusers import VQDiffusionScheduler
    scheduler = VQDiffusionScheduler(num_vec_classes=codes + 1, num_train_timesteps=steps)
    p = np.random.default_rng(0).dirichlet(np.ones(codes), size=codes + 1)
    z = torch.arange(codes + 1)[None]
    found = {'codes': codes, 'p': p.tolist()}
    for t in (3, 9):
        log_p = scheduler.q_posterior(torch.log(torch.tensor(p.T[None])), z, torch.tensor(t))
        found[f'step {t}'] = np.exp(log_p[0].numpy().T).tolist()
    return found


def make():
    import diffusers
    import torch
    betas = {'num_train_timesteps': 1000, 'beta_start': 1e-4, 'beta_end': 0.02, 'beta_schedule': 'linear'}
    ones = lambda shape, **_: torch.ones(shape, dtype=torch.float64)
    ancestral = diffusers.DDPMScheduler(**betas, clip_sample=False, variance_type='fixed_small')
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch('diffusers.schedulers.scheduling_ddpm.randn_tensor', ones))
        golden = {
            'diffusers': diffusers.__version__, 'torch': torch.__version__,
            'ddpm with noise 1': _run(ancestral, 10),
            'ddim': _run(diffusers.DDIMScheduler(**betas, clip_sample=False, timestep_spacing='leading'), 10),
            'unipc 1': _run(diffusers.UniPCMultistepScheduler(**betas, solver_order=1), 16),
            'unipc 2': _run(diffusers.UniPCMultistepScheduler(**betas, solver_order=2), 16),
            'heun': _run_in_sigma(diffusers.HeunDiscreteScheduler(**betas), 10),
            'euler': _run_in_sigma(diffusers.EulerDiscreteScheduler(**betas), 10),
            'flow euler': _run_flow(diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), 10),
            'vq': _quantised(),
        }
        for order in (1, 2, 3):
            golden[f'dpm {order}'] = _run(diffusers.DPMSolverMultistepScheduler(**betas, solver_order=order), 16)
    return golden


def write():
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_text(json.dumps(make()))
