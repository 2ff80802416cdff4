"""Trains the tokenizers and the diffusion transformer of a config, then evaluates them.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart

The same command goes on where a stopped run left off.
"""

from absl import flags

from vqdit import command

command.config_flag()
flags.DEFINE_string('workdir', None, 'Folder of everything that the run makes.', required=True)
flags.DEFINE_integer('cpu_devices', 0, 'Virtual devices on a CPU; 0 is one a core.')


def main() -> None:
    from vqdit.evaluation.report import evaluate
    from vqdit.training.pipeline import train

    train(flags.FLAGS.config, flags.FLAGS.workdir, flags.FLAGS.cpu_devices)
    evaluate(flags.FLAGS.workdir)


if __name__ == '__main__':
    command.run(main)
