"""TPU slices that are described and not there: libtpu compiles for them on any machine with a CPU."""

import os
from collections.abc import Sequence

import jax
from jax.experimental import topologies

from vqdit.errors import UserError, nearest

SQUARES = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
CUBES = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8')
TOPOLOGIES = {'v5e': SQUARES, 'v6e': SQUARES, 'v5p': CUBES, 'tpu7x': CUBES}
"""The shapes of a slice, in chips, by generation."""


def check_topology(name: str) -> None:
    """Raises UserError, with the known ones, for a name that is no `generation:shape`."""
    known = [f'{generation}:{shape}' for generation, shapes in TOPOLOGIES.items() for shape in shapes]
    if name not in known:
        listed = '; '.join(f'{generation}:{{{",".join(shapes)}}}' for generation, shapes in TOPOLOGIES.items())
        raise UserError(f'topology "{name}" is unknown.{nearest(name, known)} Known: {listed}')


def topology_devices(name: str) -> Sequence[jax.Device]:
    """The devices of `name`, such as "v5e:4x4": good for compiling, not for running.

    From here on JAX itself runs on the CPU. Raises UserError for an unknown name and
    without libtpu.
    """
    check_topology(name)
    jax.config.update('jax_platforms', 'cpu')
    # libtpu else asks the metadata server of a cloud machine what it runs on, and waits for an answer.
    for variable, value in (('TPU_SKIP_MDS_QUERY', '1'), ('TPU_WORKER_HOSTNAMES', 'localhost'),
                            ('TPU_MIN_LOG_LEVEL', '3'), ('TPU_STDERR_LOG_LEVEL', '3')):
        os.environ.setdefault(variable, value)
    try:
        return topologies.get_topology_desc(name, platform='tpu').devices
    except (RuntimeError, ValueError) as error:
        raise UserError(f'cannot describe {name} ({str(error).splitlines()[0]:.120}); it takes libtpu: '
                        "pip install 'vqdit[tpu]'") from error
