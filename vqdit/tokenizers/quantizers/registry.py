"""From a config to a quantizer: nested mappings of names and numbers, such as

    {'name': 'residual', 'copies': 4, 'dropout': 0.5,
     'quantizer': {'name': 'vector', 'num_codes': 256, 'metric': 'euclidean', 'start': 'k_means'}}

Names are looked up in registries only.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import optax

from vqdit.errors import UserError, nearest
from vqdit.registry import choose
from vqdit.tokenizers.quantizers.base import Quantizer
from vqdit.tokenizers.quantizers.binary_spherical import BinarySphericalQuantizer
from vqdit.tokenizers.quantizers.bounds import BOUNDS
from vqdit.tokenizers.quantizers.codebooks import CODEBOOKS
from vqdit.tokenizers.quantizers.combine import Grouped, MultiHead, Projected
from vqdit.tokenizers.quantizers.estimators import ESTIMATORS
from vqdit.tokenizers.quantizers.finite_scalar import FiniteScalarQuantizer
from vqdit.tokenizers.quantizers.gaussian import GaussianBottleneck
from vqdit.tokenizers.quantizers.gumbel import GumbelQuantizer
from vqdit.tokenizers.quantizers.identity import Identity
from vqdit.tokenizers.quantizers.index_backprop import IndexBackpropQuantizer
from vqdit.tokenizers.quantizers.lookup_free import LookupFreeQuantizer
from vqdit.tokenizers.quantizers.metrics import METRICS
from vqdit.tokenizers.quantizers.multi_scale import MultiScale
from vqdit.tokenizers.quantizers.random_projection import RandomProjectionQuantizer
from vqdit.tokenizers.quantizers.residual import Residual
from vqdit.tokenizers.quantizers.sim_vector import SimVectorQuantizer
from vqdit.tokenizers.quantizers.starts import STARTS
from vqdit.tokenizers.quantizers.vector import VectorQuantizer

QUANTIZERS: dict[str, Callable[..., Quantizer]] = {
    'finite_scalar': FiniteScalarQuantizer, 'vector': VectorQuantizer, 'lookup_free': LookupFreeQuantizer,
    'binary_spherical': BinarySphericalQuantizer, 'sim_vector': SimVectorQuantizer,
    'index_backprop': IndexBackpropQuantizer, 'gumbel': GumbelQuantizer,
    'random_projection': RandomProjectionQuantizer, 'gaussian': GaussianBottleneck, 'identity': Identity,
    'residual': Residual, 'grouped': Grouped, 'multi_head': MultiHead, 'projected': Projected,
    'multi_scale': MultiScale}
"""Those that a config can name; `Remapped` is none, as which codes it keeps is known after training."""

PARTS: dict[str, Mapping[str, Callable[..., Any]]] = {
    'estimator': ESTIMATORS, 'metric': METRICS, 'start': STARTS, 'bound': BOUNDS,
    'codebook': {name: functools.partial(functools.partial, kind) for name, kind in CODEBOOKS.items()}}
"""Options that are parts with a registry of their own: a name, or a mapping of `name` and options."""

SCHEDULES: Mapping[str, Callable[..., Any]] = {
    'linear': optax.linear_schedule, 'cosine': optax.cosine_decay_schedule,
    'exponential': optax.exponential_decay}
"""What numbers may follow over the training steps, as `optax` names their options."""


def build_quantizer(options: Mapping[str, Any], path: str = 'quantizer') -> Quantizer:
    """The quantizer of a mapping of `name` and options; `path` is what errors call it.

    In a combinator of several, `quantizer` and `copies` stand for so many equal `quantizers`. Raises UserError for an
    unknown or missing name or option.
    """
    options = dict(options)
    kind = choose(QUANTIZERS, options.pop('name', ''), f'{path}.name')
    copies = options.pop('copies', None)
    if copies is not None:
        options['quantizers'] = (options.pop('quantizer', {}),) * copies
    known = [field.name for field in dataclasses.fields(kind) if field.name not in ('parent', 'name')]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise UserError(f'{path}.{name} is no option; it takes {", ".join(known)}.{nearest(name, known)}')
    return _call(kind, {name: _build_option(name, value, f'{path}.{name}') for name, value in options.items()}, path)


def _build_option(name: str, value: Any, path: str) -> Any:
    if name == 'quantizer':
        return build_quantizer(value, path)
    if name == 'quantizers':
        return tuple(build_quantizer(part, f'{path}.{i}') for i, part in enumerate(value))
    if name in PARTS:
        return _build_part(PARTS[name], {'name': value} if isinstance(value, str) else value, path)
    if isinstance(value, Mapping):
        return _build_part(SCHEDULES, value, path)
    return _as_tuple(value)


def _build_part(registry: Mapping[str, Callable[..., Any]], options: Mapping[str, Any], path: str) -> Any:
    options = dict(options)
    return _call(choose(registry, options.pop('name', ''), f'{path}.name'), options, path)


def _call(kind: Callable[..., Any], options: Mapping[str, Any], path: str) -> Any:
    try:
        return kind(**options)
    except TypeError as error:
        raise UserError(f'{path}: {error}') from error


def _as_tuple(value: Any) -> Any:
    """Lists as tuples, all the way down: modules are compared and hashed by their options."""
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list | tuple) else value
