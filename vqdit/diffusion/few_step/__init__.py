"""Models of whole strides of the probability flow, which sample in one step or a few."""

from vqdit.diffusion.few_step.average_velocity import (
    AverageVelocity,
    Strided,
    conditional_velocity,
    stride,
    stride_along,
)
from vqdit.diffusion.few_step.consistency import (
    LEVELS,
    Renoised,
    bounded,
    consistency_levels,
    consistency_loss,
    doubled,
    level_at,
    place_of,
    pseudo_huber,
    sample_by_consistency,
)
from vqdit.diffusion.few_step.images import Consistency, MeanFlow, Shortcut
from vqdit.diffusion.few_step.mean_flow import adaptive, guide, mean_flow_loss, mean_flow_target
from vqdit.diffusion.few_step.self_conditioning import SelfConditioned, self_conditioned
from vqdit.diffusion.few_step.shortcut import guided_below, shortcut_loss, shortcut_target

__all__ = ['LEVELS', 'AverageVelocity', 'Consistency', 'MeanFlow', 'Renoised', 'SelfConditioned', 'Shortcut',
           'Strided', 'adaptive', 'bounded', 'conditional_velocity', 'consistency_levels', 'consistency_loss',
           'doubled', 'guide', 'guided_below', 'level_at', 'mean_flow_loss', 'mean_flow_target', 'place_of',
           'pseudo_huber', 'sample_by_consistency', 'self_conditioned', 'shortcut_loss', 'shortcut_target', 'stride',
           'stride_along']
