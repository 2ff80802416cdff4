"""Trains the tokenizers and the diffusion transformer of a config, then evaluates them.

python train.py --config=configs/quickstart.py --workdir=runs/quickstart

The same command goes on where a stopped run left off.
"""

import logging

from absl import flags

from vqdit.command import config_flag, run
from vqdit.evaluation.report import evaluate
from vqdit.training.host import cores, prepare_host
from vqdit.training.pipeline import train
from vqdit.training.sharding import fixed_size

CONFIG = config_flag()
WORKDIR = flags.DEFINE_string('workdir', None, 'folder of everything that the run makes', required=True)
CPU_DEVICES = flags.DEFINE_integer(
    'cpu_devices', 0, 'virtual devices on a CPU; 0 is what the mesh uses, at most one a core', lower_bound=0)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    for noisy in ('absl', 'jax'):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.info(prepare_host(CPU_DEVICES.value or min(fixed_size(CONFIG.value.mesh), cores())))
    train(CONFIG.value, WORKDIR.value)
    evaluate(WORKDIR.value)


if __name__ == '__main__':
    run(main)
