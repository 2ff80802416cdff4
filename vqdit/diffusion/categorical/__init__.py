"""Categorical processes: codes are masked, replaced, or both."""

from vqdit.diffusion.categorical.absorbing import Absorbing
from vqdit.diffusion.categorical.by_modality import ByModality, Process, part_of
from vqdit.diffusion.categorical.conversion import as_plain, leave_one_out, plain
from vqdit.diffusion.categorical.draws import draw_codes
from vqdit.diffusion.categorical.kernels import CodeDistance, Kernel, Uniform
from vqdit.diffusion.categorical.mask_and_replace import MaskAndReplace, replace
from vqdit.diffusion.categorical.process import Categorical

__all__ = ['Absorbing', 'ByModality', 'Categorical', 'CodeDistance', 'Kernel', 'MaskAndReplace', 'Process', 'Uniform',
           'as_plain', 'draw_codes', 'leave_one_out', 'part_of', 'plain', 'replace']
