"""sample.py from flags to files, with a generator that guesses."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from ml_collections import ConfigDict

from vqdit import command
from vqdit.diffusion.clock import GENERATED
from vqdit.errors import CheckpointError
from vqdit.generation import Generator
from vqdit.tokenizers.spec import TokenLayout, TokenSpec

SCRIPT = Path(__file__).parents[1] / 'sample.py'


class Grey:
    """A tokenizer of 8x8 pictures: the brightness of each quarter."""

    spec, fingerprint = TokenSpec((2, 2), 4), 'grey'

    def encode(self, pictures):
        return pictures[:, ::4, ::4, 0].reshape(len(pictures), 4).astype(np.int32) // 64

    def decode(self, codes):
        quarters = codes.reshape(-1, 2, 2, 1).astype(np.uint8) * 64
        return quarters.repeat(4, axis=1).repeat(4, axis=2).repeat(3, axis=3)


class Letters:
    """A tokenizer of two letters a-d."""

    spec, fingerprint = TokenSpec((2,), 4), 'letters'

    def encode(self, texts):
        return np.array([[ord(letter) - ord('a') for letter in text] for text in texts], np.int32)

    def decode(self, codes):
        return [''.join(chr(ord('a') + code) for code in row) for row in codes.tolist()]


def guess(keys, denoiser, codes, roles, layout):
    """A sampler that draws every generated token evenly."""
    drawn = jax.vmap(lambda key: jax.random.randint(key, (layout.length,), 0, 4))(keys)
    return jax.numpy.where(roles == GENERATED, drawn, codes)


@pytest.fixture(scope='module')
def script():
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location('sample_script', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(flags.FLAGS) - before:  # other scripts define flags of the same names
        delattr(flags.FLAGS, name)


@pytest.fixture(scope='module')
def generator():
    tokenizers = {'image': Grey(), 'text': Letters()}
    layout = TokenLayout({name: tokenizer.spec for name, tokenizer in tokenizers.items()})
    return Generator(SimpleNamespace(layout=layout, apply=None), {}, tokenizers, guess, batch_size=4)


@pytest.fixture
def sample(script, generator, tmp_path, monkeypatch):
    """Runs the script in a workdir and returns its exit code."""
    def load_generator(workdir, **overrides):
        if not Path(workdir).exists():
            raise CheckpointError(f'{workdir} has no trained diffusion model yet')
        sampler = {'name': 'ordered', 'steps': 2, **overrides}
        config = {'data': {'source': 'world', 'image': {'size': 8}}, 'diffusion': {'sampler': sampler}}
        return generator, ConfigDict(config)

    prepared = []
    monkeypatch.setattr(script, 'prepare_host', lambda **_: '')  # JAX runs already, with eight devices
    monkeypatch.setattr(script, 'keep_compiled_programs', lambda: prepared.append('programs kept'))
    monkeypatch.setattr(script, 'load_generator', load_generator)
    monkeypatch.setattr(script, 'load_config', lambda _: ConfigDict({'diffusion': {'model': {}}}))

    def run(*arguments, workdir=tmp_path):
        with flagsaver.flagsaver():
            flags.FLAGS.unparse_flags()
            place = [f'--workdir={workdir}'] if workdir else []
            return command.execute(script.main, ['sample.py', *place, *arguments])

    run.prepared = prepared
    return run


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_samples_are_files_and_a_manifest(sample, tmp_path, capsys):
    assert sample('--given', 'text=ab', '--generate=image', '--num=3', '--seed=7', '--steps=3') == 0
    folder = tmp_path / 'samples' / '0001'
    assert sorted(path.name for path in folder.iterdir()) == [
        'given_text_0000.txt', 'grid.png', 'image_0000.png', 'image_0001.png', 'image_0002.png', 'manifest.json',
    ]  # fmt: skip
    manifest = json.loads((folder / 'manifest.json').read_text())
    assert (manifest['task'], manifest['given']) == ('text->image', {'text': 'ab'})
    assert (manifest['seed'], manifest['num'], manifest['sampler']['steps']) == (7, 3, 3)
    assert manifest['tokenizers'] == {'image': 'grey', 'text': 'letters'}
    assert str(folder / 'grid.png') in capsys.readouterr().out


def test_the_next_run_finds_the_compiled_programs(sample):
    assert sample('--generate=image', '--num=1') == 0 and sample.prepared == ['programs kept']


def test_equal_seeds_give_equal_files_and_others_do_not(sample, tmp_path):
    for seed in (1, 1, 2):
        assert sample('--generate=image,text', '--num=5', f'--seed={seed}') == 0
    one, same, other = (read(tmp_path / 'samples' / f'000{number}') for number in (1, 2, 3))
    assert one == same and one['image_0000.png'] != other['image_0000.png']
    assert set(one) == set(other) and 'text_0004.txt' in one


def test_more_samples_keep_the_first_ones(sample, tmp_path):
    assert sample('--generate=image', '--num=3', f'--out={tmp_path}/few') == 0
    assert sample('--generate=image', '--num=6', f'--out={tmp_path}/many') == 0
    few, many = read(tmp_path / 'few'), read(tmp_path / 'many')
    assert all(many[name] == few[name] for name in few if name.startswith('image'))


@pytest.mark.parametrize('given, task', [
    ([], '->image,text'), (['--given', 'text=ab'], 'text->image'),
])  # fmt: skip
def test_all_that_is_not_given_is_generated_unless_a_part_is_named(sample, tmp_path, given, task):
    assert sample('--num=2', *given) == 0
    assert json.loads((tmp_path / 'samples' / '0001' / 'manifest.json').read_text())['task'] == task


@pytest.mark.parametrize('arguments, code, wanted', [
    (['--given', 'text=ab', '--given', 'image=x.png'], 2, '--given names all of image, text'),
    (['--generate=vidio'], 2, 'modality "vidio" is not in this model'),
    (['--generate=txt'], 2, 'Did you mean "text"?'),
    (['--generate=image', '--given', 'image=x.png'], 2, 'both gives and generates image'),
    (['--generate=text', '--given', 'image=missing.png'], 2, '"missing.png" is not there'),
    (['--generate=text', '--given', 'image'], 2, 'write --given modality=value'),
    (['--generate=image', '--num=0'], 2, '--num=0'),
    (['--generate=image', '--ordr=random'], 2, 'Did you mean "order"?'),
    (['--generate=image', '--order=rnadom'], 2, '--order=rnadom'),
    (['--generate=image', 'text=ab'], 2, '"text=ab" stands alone'),
    (['--generate=image', '--workdir=/nowhere'], 4, 'has no trained diffusion model'),
])  # fmt: skip
def test_mistakes_leave_nothing_behind(sample, tmp_path, capsys, arguments, code, wanted):
    assert sample(*arguments) == code
    error = capsys.readouterr().err
    assert wanted in error and len(error.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []


def test_files_are_never_replaced(sample, tmp_path, capsys):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'image_0000.png').write_bytes(b'dear to me')
    assert sample('--generate=image', f'--out={tmp_path}/mine') == 2
    assert (tmp_path / 'mine' / 'image_0000.png').read_bytes() == b'dear to me'


def test_manifest_tells_no_folder_of_the_user(sample, tmp_path):
    from PIL import Image
    Image.new('RGB', (8, 8)).save(tmp_path / 'photo.png')
    assert sample('--given', f'image={tmp_path}/photo.png', '--generate=text', '--num=1') == 0
    assert str(tmp_path) not in (tmp_path / 'samples' / '0001' / 'manifest.json').read_text()


GOLDEN = Path(__file__).parent / 'interop' / 'golden'


def test_images_of_classes_from_weights_of_another_project(sample, tmp_path, capsys):
    """A folder of diffusers as it is fetched: tiny, but with every file under its name."""
    out = tmp_path / 'out'
    assert sample(f'--weights={GOLDEN}/dit_diffusers', f'--vae={GOLDEN}/ldm_gaussian', '--label=2,0', '--num=3',
                  '--steps=2', '--guidance=1.5', f'--out={out}', workdir='') == 0
    assert sorted(path.name for path in out.glob('*.png')) == ['grid.png', *(f'image_000{i}.png' for i in range(3))]
    manifest = json.loads((out / 'manifest.json').read_text())
    assert (manifest['task'], manifest['labels'], manifest['weights']) == ('label->image', [2, 0, 2], 'dit_diffusers')
    assert manifest['sampler'] == {'solver': 'ddpm', 'steps': 2, 'guidance': 1.5, 'family': 'dit'}
    assert f'{out}/grid.png' in capsys.readouterr().out and str(GOLDEN) not in (out / 'manifest.json').read_text()


@pytest.mark.parametrize('arguments, code, wanted', [
    ([], 2, 'name either --workdir'),
    (['--weights=x.pt', '--workdir=y'], 2, 'name either --workdir'),
    (['--weights=x.pt', '--generate=image'], 2, '--generate has no meaning beside --weights'),
    *((['--weights=x.pt', f'--{flag}'], 2, f'--{flag.split("=")[0]} has no meaning beside --weights') for flag in [
        'sampler=ordered', 'guidance_interval=0.1,0.9', 'guidance_schedule=linear', 'guidance_rescale=0.5', 'top_k=2']),
    (['--workdir=y', '--label=3'], 2, '--label has no meaning beside a workdir of modalities'),
    (['--weights=x.pt'], 2, 'there is no weight file x.pt'),
    ([f'--weights={GOLDEN}/dit_diffusers'], 2, '--vae is missing'),
    ([f'--weights={GOLDEN}/dit_diffusers', f'--vae={GOLDEN}/ldm_gaussian', '--label=3'], 2, 'numbers from 0 to 2'),
    ([f'--weights={GOLDEN}/ldm_gaussian', f'--vae={GOLDEN}/ldm_gaussian'], 4, 'AutoencoderKL'),
])  # fmt: skip
def test_mistakes_with_weights_are_told_in_a_line(sample, tmp_path, capsys, monkeypatch, arguments, code, wanted):
    monkeypatch.chdir(tmp_path)
    assert sample(*arguments, workdir='') == code
    error = capsys.readouterr().err
    assert wanted in error and len(error.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []
