"""Config files that are missing or broken, and overrides that are misspelt, are told with the place of the fault."""

import pytest
from ml_collections import ConfigDict

from vqdit.config_file import leaves, load_config, override
from vqdit.errors import UserError
from vqdit.training.defaults import defaults

GOOD = 'from ml_collections import ConfigDict\ndef get_config(size=3):\n    return ConfigDict({"size": int(size)})\n'


@pytest.fixture
def file(tmp_path):
    path = tmp_path / 'small.py'
    path.write_text(GOOD)
    return path


def test_config_takes_the_argument_after_the_colon_and_is_locked(file):
    assert load_config(str(file)).size == 3
    config = load_config(f'{file}:8')
    assert config.size == 8
    with pytest.raises(AttributeError):
        config.new = 1


def test_missing_file_names_the_nearest(file):
    with pytest.raises(UserError) as error:
        load_config(str(file.parent / 'smal.py'))
    assert f'Did you mean "{file}"?' in str(error.value)


@pytest.mark.parametrize('content, wanted', [
    ('import nothing_of_this_name\n', 'line 1: ModuleNotFoundError'),
    ('\nx = = 1\n', 'line 2: SyntaxError'),
    ('def get_config():\n    return int("x")\n', 'line 2: ValueError'),
    ('x = 1\n', 'must define get_config()'),
    ('def get_config():\n    return None\n', 'returns a ConfigDict'),
    ('from vqdit.errors import UserError\nraise UserError("said by the file")', '^said by the file$'),
])  # fmt: skip
def test_broken_file_is_told_with_its_line(file, content, wanted):
    file.write_text(content)
    with pytest.raises(UserError, match=wanted):
        load_config(str(file))


def test_misspelt_settings_find_the_right_one():
    """Thirty slips of the pen in the settings that every experiment has."""
    names, right = [name for name, _ in leaves(defaults())], 0
    for name in names[:30]:
        middle = (len(name) + name.rfind('.') + 1) // 2  # of the last part
        slip = name[:middle] + name[middle + 1:]
        with pytest.raises(UserError) as error:
            override(defaults(), slip, '1')
        right += f'Did you mean "{name}"?' in str(error.value)
    assert right == 30


def test_override_changes_nothing_when_it_is_wrong():
    config = ConfigDict({'a': {'b': 1}}).lock()
    with pytest.raises(UserError):
        override(config, 'a.b', 'x')
    assert config.to_dict() == {'a': {'b': 1}}


def test_a_section_that_has_a_name_is_replaced_as_a_whole():
    config = defaults().lock()
    override(config, 'diffusion.sampler', '{"name": "entropy_bounded", "bound": 0.5}')
    assert config.diffusion.sampler.to_dict() == {'name': 'entropy_bounded', 'bound': 0.5} and config.is_locked
    override(config, 'diffusion.process.schedule', '{"name": "polynomial", "power": 2.0}')
    assert config.diffusion.process.schedule.power == 2.0 and config.is_locked
    override(config, 'diffusion.process.schedule.power', '3')
    assert config.diffusion.process.to_dict()['schedule'] == {'name': 'polynomial', 'power': 3.0}
    for path, text in (('diffusion.sampler', '{"bound": 0.5}'), ('diffusion.training', '{"name": "x"}')):
        with pytest.raises(UserError, match='is a section'):
            override(config, path, text)
