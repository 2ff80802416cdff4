"""Makes golden/sigma.json: schedulers of diffusers in EDM's and in flow's time, and samplers of k-diffusion.

As `diffusers_golden.py`, with the same start and the same perfect network. k-diffusion needs no more of its many
requirements than torch and scipy for what is run here: `pip install --no-deps k-diffusion==0.1.1.post1`.
"""

import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path
from unittest import mock

import diffusers_golden
import numpy as np
from diffusers_golden import START

PATH = Path(__file__).parent / 'golden' / 'sigma.json'
LARGEST, SMALLEST, STEPS, DEVIATION = 20.0, 0.02, 10, 0.5


def clean_mean(z, sigma):
    """E[x | x + sigma noise = z]."""
    return diffusers_golden.clean_mean(z, 1.0, sigma)


def _edm(scheduler):
    """A scheduler whose network answers what EDM's does: (x - skip z) / size."""
    import torch
    scheduler.set_timesteps(STEPS)
    sigmas = [float(s) for s in scheduler.sigmas]
    z = torch.tensor(START) * sigmas[0]
    for index, t in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(z, t)
        sigma = sigmas[index]
        skip = DEVIATION**2 / (sigma**2 + DEVIATION**2)
        size = sigma * DEVIATION / (sigma**2 + DEVIATION**2) ** 0.5
        answer = (clean_mean(z.numpy(), sigma) - skip * z.numpy()) / size
        z = scheduler.step(torch.tensor(answer), t, z).prev_sample
    return {'sigmas': sigmas, 'sample': z.numpy().ravel().tolist()}


def _flow_heun(scheduler):
    """Its second evaluation of a step stands at the next of its doubled sigmas."""
    import torch
    scheduler.set_timesteps(STEPS)
    z = torch.tensor(START)
    for t in scheduler.timesteps:
        sigma = float(t) / scheduler.config.num_train_timesteps
        clean = diffusers_golden.clean_mean(z.numpy(), 1 - sigma, sigma)
        z = scheduler.step(torch.tensor((z.numpy() - clean) / sigma), t, z).prev_sample
    return {'sigmas': [float(s) for s in scheduler.sigmas], 'sample': z.numpy().ravel().tolist()}


def _k_diffusion():
    """The module of samplers alone, without the packages that only others of its functions need."""
    package = importlib.util.find_spec('k_diffusion')
    stubs = {name: types.ModuleType(name) for name in ('torchsde', 'torchdiffeq', 'k_diffusion', 'k_diffusion.utils')}
    stubs['torchdiffeq'].odeint = None
    stubs['k_diffusion'].utils = stubs['k_diffusion.utils']
    stubs['k_diffusion'].__path__ = package.submodule_search_locations
    stubs['k_diffusion.utils'].append_dims = lambda x, rank: x.reshape(x.shape + (1,) * (rank - x.ndim))
    file = Path(package.submodule_search_locations[0]) / 'sampling.py'
    spec = importlib.util.spec_from_file_location('k_diffusion.sampling', file)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, stubs):
        spec.loader.exec_module(module)
    return module


def _sampled(function, sigmas):
    import torch
    model = lambda z, sigma: torch.tensor(clean_mean(z.numpy(), float(sigma[0])))
    z = function(model, torch.tensor(START) * LARGEST, sigmas, disable=True)
    return {'sigmas': sigmas.tolist(), 'sample': z.numpy().ravel().tolist()}


def _projected(weight=4.0, eta=0.3, radius=2.0, momentum=-0.5):
    """APG through three steps of given predictions c and u [3, 2, 1, 5]."""
    import torch
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance
    c, u = np.random.default_rng(0).normal(size=(2, 3, 2, 1, 5))
    buffer = MomentumBuffer(momentum)
    guided = [normalized_guidance(torch.tensor(c[i]), torch.tensor(u[i]), weight - 1.0, buffer, eta, radius, True)
              for i in range(3)]
    return {'weight': weight, 'eta': eta, 'radius': radius, 'momentum': momentum, 'c': c.tolist(), 'u': u.tolist(),
            'guided': torch.stack(guided).tolist()}


def make():
    import diffusers
    import torch
    k = _k_diffusion()
    edm = {'sigma_min': SMALLEST, 'sigma_max': LARGEST, 'sigma_data': DEVIATION, 'rho': 7.0}
    sigmas = k.get_sigmas_karras(STEPS, SMALLEST, LARGEST).double()
    golden = {
        'diffusers': diffusers.__version__, 'torch': torch.__version__,
        'k-diffusion': importlib.metadata.version('k-diffusion'),
        'edm euler': _edm(diffusers.EDMEulerScheduler(**edm)),
        'edm dpm 2': _edm(diffusers.EDMDPMSolverMultistepScheduler(**edm, solver_order=2)),
        'flow heun': _flow_heun(diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0)),
    }
    golden['apg'] = _projected()
    for name in ('euler', 'heun', 'dpmpp_2m'):
        golden[f'k {name}'] = _sampled(getattr(k, f'sample_{name}'), sigmas)
    return golden


def write():
    PATH.write_text(json.dumps(make()))
