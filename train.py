"""Trains the tokenizers and the diffusion transformer of a config, if it has one, then evaluates them.

python train.py --config=configs/quickstart.py --workdir=runs/quickstart

The same command goes on where a stopped run left off. On a cluster it is run once by every host, see `launch/`.

python train.py --config=configs/quickstart.py --compile_only --topology=v5e:4x4

compiles the diffusion step, says what it costs and whether it fits, and trains nothing.
"""

import logging

import jax
from absl import flags

from vqdit.command import config_flag, run
from vqdit.errors import UserError
from vqdit.evaluation.directions import find_scorer
from vqdit.evaluation.report import evaluate
from vqdit.training.ahead import compile_ahead
from vqdit.training.host import cores, join_processes, keep_compiled_programs, prepare_host
from vqdit.training.pipeline import train
from vqdit.training.sharding import fixed_size

CONFIG = config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'folder of everything that the run makes')
CPU_DEVICES = flags.DEFINE_integer(
    'cpu_devices', 0, 'virtual devices on a CPU; 0 is what the mesh uses, at most one a core', lower_bound=0)
COMPILE_ONLY = flags.DEFINE_boolean('compile_only', False, 'compile the diffusion step, say what it costs, and stop')
TOPOLOGY = flags.DEFINE_string('topology', '', 'with --compile_only: TPU slice that need not be there, such as v5e:4x4')


def main() -> None:
    # Forced, because a library that warns while it is imported has set up logging already.
    logging.basicConfig(level=logging.INFO, format='%(message)s', force=True)
    for noisy in ('absl', 'jax'):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if not (WORKDIR.value or COMPILE_ONLY.value):
        raise UserError(f'--workdir is missing: {flags.FLAGS["workdir"].help}')
    logging.info(prepare_host(CPU_DEVICES.value or min(fixed_size(CONFIG.value.mesh), cores())))
    keep_compiled_programs()
    if COMPILE_ONLY.value:
        logging.info(compile_ahead(CONFIG.value, TOPOLOGY.value))
        return
    join_processes()
    if jax.process_index() > 0:
        logging.getLogger().setLevel(logging.WARNING)
    if 'evaluation' in CONFIG.value:
        find_scorer(CONFIG.value)  # The evaluation would refuse an unknown one after the training.
    train(CONFIG.value, WORKDIR.value)
    if jax.process_count() == 1:
        evaluate(WORKDIR.value)
    else:
        logging.info('evaluate with one process: python -m vqdit.evaluation --workdir=%s', WORKDIR.value)


if __name__ == '__main__':
    run(main)
