"""What a step of the configs for accelerators costs, compiled for TPUs that are not there: run with -m tpu.

    JAX_PLATFORMS=cpu python tests/test_accelerator_costs.py imagenet256_dit_xl2 v5e:4x4 mesh.fsdp=4

makes one golden file anew, or the first of a config.
"""

import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import pytest

from vqdit.config_file import load_config, override
from vqdit.errors import UserError
from vqdit.performance.chips import GIB
from vqdit.training.ahead import cost_ahead

ROOT = Path(__file__).parents[1]
GOLDEN = sorted((ROOT / 'tests' / 'golden' / 'accelerator_costs').glob('*.json'))


def cost(name: str, topology: str, changes: Mapping[str, str]) -> dict:
    """To three digits: GiB of a chip, and where it fits FLOPs of all chips and bytes that one sends."""
    config = load_config(f'{ROOT}/configs/{name}.py')
    for path, value in changes.items():
        override(config, path, value)
    try:
        _, found = cost_ahead(config, topology)
    except UserError as error:
        needed = re.search(r'does not fit \S+ ([\d.]+) GiB a chip', str(error))
        return {'fits': False, 'gibibytes': float(needed[1])}
    digits = lambda value: float(f'{value:.3g}')
    sent = {kind: digits(size) for kind, size in sorted(found.traffic.collectives.items())}
    return {'fits': True, 'gibibytes': digits(found.memory / GIB), 'flops': digits(found.flops.model),
            'collective_bytes': sent}


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ('jax', 'jaxlib', 'libtpu', 'flax', 'optax')}


@pytest.fixture
def optimised():
    """As users compile: other tests leave most optimisations out."""
    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', True)


@pytest.mark.tpu
@pytest.mark.usefixtures('optimised')
@pytest.mark.parametrize('path', GOLDEN, ids=lambda path: path.stem)
def test_a_step_costs_what_it_did(path):
    """FLOPs are counted in the traced program; what a compiler decides may move a little with its version."""
    if importlib.util.find_spec('libtpu') is None:
        pytest.skip('libtpu compiles for TPUs, and it is not here: pip install "vqdit[tpu]"')
    golden = json.loads(path.read_text())
    found, told = cost(path.stem, golden['topology'], golden['changes']), f'then {golden}, now {_versions()}'
    assert found['fits'] == golden['fits'], told
    assert found['gibibytes'] == pytest.approx(golden['gibibytes'], rel=0.05), told
    if golden['fits']:
        assert found['flops'] == golden['flops'], told
        sent = [sum(figures['collective_bytes'].values()) for figures in (found, golden)]
        assert sent[0] == pytest.approx(sent[1], rel=0.05), told


def _make(name: str, topology: str, *settings: str) -> None:
    changes = dict(setting.split('=') for setting in settings)
    made = {'topology': topology, 'changes': changes, **cost(name, topology, changes), 'versions': _versions()}
    path = ROOT / 'tests' / 'golden' / 'accelerator_costs' / f'{name}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{json.dumps(made, indent=2)}\n')


if __name__ == '__main__':
    _make(*sys.argv[1:])
