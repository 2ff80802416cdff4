"""Samplers: from noise to codes or vectors, each one `lax.scan`."""

from vqdit.diffusion.guidance import guided
from vqdit.diffusion.samplers.adaptive import EntropyBounded, FirstHitting
from vqdit.diffusion.samplers.ancestral import Ancestral
from vqdit.diffusion.samplers.gibbs import LeaveOneOutGibbs
from vqdit.diffusion.samplers.multistep import DPMSolverPlusPlus, DPMSolverPlusPlusSDE, UniPC
from vqdit.diffusion.samplers.ordered import Ordered, blocks, levels
from vqdit.diffusion.samplers.remasking import Remasking, capped, during, rescaled
from vqdit.diffusion.samplers.shared import sample_keys
from vqdit.diffusion.samplers.solvers import DDIM, Churn, Euler, EulerMaruyama, Heun, RungeKutta4, Solver, solve
from vqdit.diffusion.samplers.truncation import top_k, top_p

SAMPLERS = {'ancestral': Ancestral, 'ordered': Ordered}

__all__ = ['DDIM', 'SAMPLERS', 'Ancestral', 'Churn', 'DPMSolverPlusPlus', 'DPMSolverPlusPlusSDE', 'EntropyBounded',
           'Euler', 'EulerMaruyama', 'FirstHitting', 'Heun', 'LeaveOneOutGibbs', 'Ordered', 'Remasking', 'RungeKutta4',
           'Solver', 'UniPC', 'blocks', 'capped', 'during', 'guided', 'levels', 'rescaled', 'sample_keys', 'solve',
           'top_k', 'top_p']
