"""Flags, config files and overrides; what goes wrong is told in a line, with the nearest right name."""

import subprocess
import sys

import pytest
from absl import flags

from vqdit import command
from vqdit.config_file import leaves
from vqdit.errors import CheckpointError

CONFIG = """
from ml_collections import ConfigDict

def get_config(size='3'):
    return ConfigDict({
        'seed': 0, 'name': 'x', 'limit': None, 'rate': 0.5, 'on': True, 'grid': (1, 2),
        'data': {'source': 'world', 'image': {'size': int(size), 'channels': 3}},
        'diffusion': {
            'tasks': {'text->image': 1.0},
            'training': {'steps': 10, 'batch_size': 8, 'learning_rate': 1e-3},
        },
    })
"""


@pytest.fixture
def script(tmp_path):
    """Parses arguments as a script does that has the flags config, workdir and num."""
    (tmp_path / 'small.py').write_text(CONFIG)

    def execute(*arguments, main=lambda: None, workdir='--workdir=runs/x'):
        values = flags.FlagValues()
        execute.config = command.config_flag(values)
        flags.DEFINE_string('workdir', None, 'folder of the run', flag_values=values, required=True)
        flags.DEFINE_integer('num', 8, 'how many', flag_values=values)
        arguments = (*arguments, workdir) if workdir else arguments
        argv = ['script.py', *(part.replace('FILE', str(tmp_path / 'small.py')) for part in arguments)]
        return command.execute(main, argv, values)

    return execute


def told(capsys) -> str:
    error = capsys.readouterr().err
    assert 0 < len(error.splitlines()) <= 5 and all(len(line) < 300 for line in error.splitlines())
    assert 'Traceback' not in error
    return error


@pytest.mark.parametrize('override, path, value', [
    ('seed=7', 'seed', 7),
    ('rate=1', 'rate', 1.0),
    ('rate=1e-3', 'rate', 1e-3),
    ('on=false', 'on', False),
    ('name=a=b', 'name', 'a=b'),
    ('name=', 'name', ''),
    ('grid=4,4', 'grid', (4, 4)),
    ('grid=(5,)', 'grid', (5,)),
    ('grid=5', 'grid', (5,)),
    ('grid=text,image->audio', 'grid', ('text,image->audio',)),
    ('limit=3', 'limit', 3),
    ('limit=abc', 'limit', 'abc'),
    ('data.image.size=64', 'data.image.size', 64),
    ('diffusion.tasks.text->image=2', 'diffusion.tasks.text->image', 2.0),
])  # fmt: skip
def test_override_sets_the_value_in_the_type_of_the_setting(script, override, path, value):
    assert script('--config=FILE', f'--config.{override}') == 0
    found = dict(leaves(script.config.value))[path]
    assert found == value and type(found) is type(value)


def test_override_may_come_first_and_stand_apart(script):
    assert script('--config.seed', '5', '--config=FILE:9', '--num', '3') == 0
    assert (script.config.value.seed, script.config.value.data.image.size) == (5, 9)


def test_config_is_locked(script):
    assert script('--config=FILE') == 0
    with pytest.raises(AttributeError):
        script.config.value.diffusion.new = 1


@pytest.mark.parametrize('arguments, wanted', [
    (['--config=FILE', '--config.sed=1'], 'Did you mean "seed"?'),
    (['--config=FILE', '--config.image.size=1'], 'Did you mean "data.image.size"?'),
    (['--config=FILE', '--config.data.image.sise=1'], 'Did you mean "data.image.size"?'),
    (['--config=FILE', '--config.difusion.training.steps=1'], 'Did you mean "diffusion.training.steps"?'),
    (['--config=FILE', '--config.diffusion.training.stesp=1'], 'Did you mean "diffusion.training.steps"?'),
    (['--config=FILE', '--config.diffusion.training.lr=1'], 'no setting "diffusion.training.lr"'),
    (['--config=FILE', '--config.diffusion.training.learningrate=1'], '"diffusion.training.learning_rate"'),
    (['--config=FILE', '--config.diffusion.tasks.text->imge=1'], 'Did you mean "diffusion.tasks.text->image"?'),
    (['--config=FILE', '--config.seed.x=1'], 'no setting "seed.x"'),
    (['--config=FILE', '--config.=1'], 'no setting ""'),
    (['--config=FILE', '--config.data.image=1'], 'set one of data.image.'),
    (['--config=FILE', '--config.seed=abc'], '--config.seed=abc has the wrong type; it must be int'),
    (['--config=FILE', '--config.seed=1e3'], 'it must be int, such as 0'),
    (['--config=FILE', '--config.on=flase'], 'it must be bool'),
    (['--config=FILE', '--config.rate=fast'], 'it must be float'),
    (['--config=FILE', '--config.seed', '--num=3'], 'write --config.seed=VALUE'),
    (['--config.seed=1'], '--config is missing: config file, such as'),
    (['--config=smal.py'], 'the config file "smal.py" is not there'),
    (['--config=.'], 'is not there'),
    (['--wrkdir=x'], 'Did you mean "workdir"?'),
    (['--confg.seed=1'], '--confg.seed is no flag'),
    (['--num=many'], "flag --num=many: invalid literal for int() with base 10: 'many'"),
    (['--config=FILE', 'workdir=x'], '"workdir=x" stands alone; flags are written --name=value. Did you mean'),
])  # fmt: skip
def test_mistakes_are_told_in_a_few_lines(script, capsys, arguments, wanted):
    assert script(*arguments) == 2
    assert wanted in told(capsys)


def test_required_flags_are_named_with_their_meaning(script, capsys):
    assert script('--config=FILE', workdir=None) == 2
    assert told(capsys) == '--workdir is missing: folder of the run\n'


def test_exit_code_is_that_of_the_error(script, capsys):
    def main():
        raise CheckpointError('damaged')

    assert script('--config=FILE', main=main) == 4
    assert told(capsys) == 'damaged\n'


def test_other_errors_are_faults_of_ours(script):
    with pytest.raises(ZeroDivisionError):
        script('--config=FILE', main=lambda: 1 // 0)


def test_script_as_a_process(tmp_path):
    (tmp_path / 'small.py').write_text(CONFIG)
    (tmp_path / 'script.py').write_text(
        '"""Shows a seed."""\n'
        'from vqdit.command import config_flag, run\n'
        'CONFIG = config_flag()\n'
        'def main():\n'
        '    print(CONFIG.value.seed // (CONFIG.value.seed != 13))\n'
        'if __name__ == "__main__":\n'
        '    run(main)\n'
    )

    def call(*arguments):
        return subprocess.run([sys.executable, 'script.py', *arguments], cwd=tmp_path, capture_output=True, text=True)

    good, wrong, fault, shown, nothing = (
        call('--config=small.py', '--config.seed=4'), call('--config=small.py', '--config.sed=4'),
        call('--config=small.py', '--config.seed=13'), call('--help'), call(),
    )  # fmt: skip
    assert (good.returncode, good.stdout) == (0, '4\n')
    assert (wrong.returncode, wrong.stderr) == (2, 'the config has no setting "sed". Did you mean "seed"?\n')
    assert fault.returncode == 1 and 'ZeroDivisionError' in fault.stderr
    assert shown.returncode == 0 and 'Shows a seed.' in shown.stdout and '--config:' in shown.stdout
    assert nothing.returncode == 2 and nothing.stderr.startswith('--config is missing')
