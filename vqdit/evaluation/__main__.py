"""Measures a trained workdir and writes its report.

python -m vqdit.evaluation --workdir=runs/quickstart
"""

from absl import flags

from vqdit.command import run
from vqdit.evaluation.report import evaluate
from vqdit.training.host import keep_compiled_programs, prepare_host

WORKDIR = flags.DEFINE_string('workdir', None, 'folder of the trained model', required=True)


def main() -> None:
    prepare_host(cpu_devices=1)
    keep_compiled_programs()
    evaluate(WORKDIR.value)


if __name__ == '__main__':
    run(main)
