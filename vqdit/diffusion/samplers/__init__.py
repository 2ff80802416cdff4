"""Samplers: from noise to codes or vectors, each one `lax.scan`."""

from collections.abc import Callable
from functools import partial

from vqdit.diffusion.guidance import guided
from vqdit.diffusion.samplers.adaptive import EntropyBounded, FirstHitting
from vqdit.diffusion.samplers.ancestral import Ancestral, Corrector, TauLeaping
from vqdit.diffusion.samplers.correctors import ForwardBackward, LeaveOneOutGibbs
from vqdit.diffusion.samplers.momentum import Momentum
from vqdit.diffusion.samplers.multistep import DPMSolverPlusPlus, DPMSolverPlusPlusSDE, UniPC
from vqdit.diffusion.samplers.ordered import Ordered, blocks, levels
from vqdit.diffusion.samplers.remasking import Remasking, capped, during, evenly, looped, on_the_unsure, rescaled
from vqdit.diffusion.samplers.shared import sample_keys
from vqdit.diffusion.samplers.solvers import DDIM, Churn, Euler, EulerMaruyama, Heun, RungeKutta4, Solver, solve
from vqdit.diffusion.samplers.stepwise import State, Stepwise
from vqdit.diffusion.samplers.tolerance import Adaptive
from vqdit.diffusion.samplers.truncation import Truncated, top_k, top_p
from vqdit.diffusion.samplers.vectors import VectorSampler

SOLVERS: dict[str, Callable[..., Solver]] = {
    'ddim': DDIM, 'euler': Euler, 'heun': Heun, 'runge_kutta_4': RungeKutta4, 'dpm_solver': DPMSolverPlusPlus,
    'unipc': UniPC, 'dpm_solver_sde': DPMSolverPlusPlusSDE, 'euler_maruyama': EulerMaruyama,
    'churn': partial(Churn, Heun()), 'adaptive': Adaptive}
"""By name, each with its own settings."""

__all__ = ['DDIM', 'SOLVERS', 'Adaptive', 'Ancestral', 'Churn', 'Corrector', 'DPMSolverPlusPlus',
           'DPMSolverPlusPlusSDE', 'EntropyBounded', 'Euler', 'EulerMaruyama', 'FirstHitting', 'ForwardBackward',
           'Heun', 'LeaveOneOutGibbs', 'Momentum', 'Ordered', 'Remasking', 'RungeKutta4', 'Solver', 'State',
           'Stepwise', 'TauLeaping', 'Truncated', 'UniPC', 'VectorSampler', 'blocks', 'capped', 'during', 'evenly',
           'guided', 'levels', 'looped', 'on_the_unsure', 'rescaled', 'sample_keys', 'solve', 'top_k', 'top_p']
