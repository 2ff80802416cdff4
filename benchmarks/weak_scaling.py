"""Bytes between devices in a training step, from the compiled program, against the least that the mathematics allow.

python -m benchmarks.weak_scaling

The batch grows with the devices (weak scaling). Data parallelism must add up the gradients of all parameters: an
all-reduce, 2 (n - 1) / n of their bytes over the links of each of n devices. With fsdp every device keeps 1 / n of
the parameters: it gathers the others once and keeps its share of the summed gradients, which is as much.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training.compilation import compile_step
from vqdit.training.defaults import defaults
from vqdit.training.diffusion_stage import diffusion_step
from vqdit.training.sharding import make_mesh, planned_arguments

LAYOUT = TokenLayout({'image': TokenSpec((4, 4), 64), 'text': TokenSpec((8,), 32)})
ROWS = 4
RESULTS = Path(__file__).with_name('weak_scaling.json')


def measure(axis: str, devices: int) -> dict[str, Any]:
    """One row of the table."""
    config = defaults()
    config.diffusion.tasks = {'text->image': 1.0, '->image,text': 1.0}
    config.diffusion.model.update(width=64, depth=2, heads=4)
    config.diffusion.training.batch_size = ROWS * devices
    config.mesh.update({'data': 1, axis: devices})
    mesh = make_mesh(config.mesh)
    step, create = diffusion_step(config, LAYOUT)
    rows = jax.ShapeDtypeStruct((ROWS * devices, LAYOUT.length), jnp.int32)
    arguments = planned_arguments(create, {'codes': rows}, config.sharding_rules, mesh)
    _, cost = compile_step(step, mesh, *arguments)
    least = 2 * (devices - 1) / devices * sum(4 * leaf.size for leaf in jax.tree.leaves(arguments[0].params))
    return {'devices': devices, 'bytes': cost.traffic.links, 'least': least,
            'ratio': cost.traffic.links / least if least else 1.0, 'kinds': dict(cost.traffic.collectives)}


def main() -> None:
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 8)
    results = {}
    for axis, counts in (('data', (1, 2, 4, 8)), ('fsdp', (8,))):
        for devices in counts:
            results[f'{axis} {devices}'] = row = measure(axis, devices)
            sys.stdout.write(f'{axis} {devices}: {row["bytes"]:,} bytes, least {row["least"]:,.0f}, '
                             f'{row["ratio"]:.3f} x {row["kinds"]}\n')
            sys.stdout.flush()
            RESULTS.write_text(json.dumps(results, indent=2) + '\n')


if __name__ == '__main__':
    main()
