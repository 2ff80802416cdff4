"""Samplers: from noise to codes or vectors, each one `lax.scan`."""

from vqdit.diffusion.samplers.discrete import SAMPLERS, Ancestral, Ordered, guided, sample_keys
from vqdit.diffusion.samplers.multistep import DPMSolverPlusPlus, DPMSolverPlusPlusSDE, UniPC
from vqdit.diffusion.samplers.solvers import DDIM, Churn, Euler, EulerMaruyama, Heun, RungeKutta4, Solver, solve

__all__ = ['DDIM', 'SAMPLERS', 'Ancestral', 'Churn', 'DPMSolverPlusPlus', 'DPMSolverPlusPlusSDE', 'Euler',
           'EulerMaruyama', 'Heun', 'Ordered', 'RungeKutta4', 'Solver', 'UniPC', 'guided', 'sample_keys', 'solve']
