"""Spoken digits at 1.4 kbit/s: what a judge, trained on real recordings, still hears after the codec.

    python benchmarks/spoken_digit_codec.py --data_root=FOLDER

trains a log-mel codec (64 frames a second, two codes of 1,600 each) on spoken_digit for 1500 steps, some minutes on 2
CPU cores, and writes `benchmarks/reports/spoken_digit_codec.json`: the rate in bits a second before and after entropy
coding, SI-SDR, mel distance, and the judge's accuracy on real and on decoded test recordings. Phases are not coded but
found by Griffin-Lim, so that SI-SDR, which compares waveforms, says little of what is heard; `analysed` is the accuracy
on recordings that went through the spectrogram alone, the ceiling of any such codec.
"""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from vqdit.command import run
from vqdit.data import load
from vqdit.evaluation.judges import read_all, sound_judge
from vqdit.evaluation.sound import mel_distance, signal_to_distortion
from vqdit.files import write_json
from vqdit.tokenizers.frozen import FrozenTokenizer
from vqdit.training.defaults import defaults, log_mel_tokenizer
from vqdit.training.factory import build_learned_tokenizer
from vqdit.training.host import prepare_host
from vqdit.training.trial import measure, train_in_memory

REPORT = Path(__file__).parent / 'reports' / 'spoken_digit_codec.json'
RATE, SECONDS = 8000, 0.75

flags.DEFINE_string('data_root', None, 'folder of TFDS sets with spoken_digit', required=True)
flags.DEFINE_integer('steps', 1500, 'of training', lower_bound=1)


def settings(root: str, steps: int) -> ConfigDict:
    """The config of the codec; the recordings are those of `configs/digits.py`."""
    config = defaults()
    config.data = ConfigDict({
        'source': 'tfds', 'name': 'spoken_digit', 'root': root,
        'audio': {'rate': RATE, 'seconds': SECONDS, 'trim_decibels': 40.0, 'peak': 0.7},
        'augment': {'audio_gain': 6.0, 'audio_shift': 0.05, 'audio_speed': 0.12, 'audio_noise': 0.003}})
    scalars = {'name': 'finite_scalar', 'scalar_levels': (8, 8, 5, 5)}
    audio = log_mel_tokenizer(patch=1, widths=(192,), quantizer={'name': 'grouped', 'copies': 2, 'quantizer': scalars})
    audio.update(window=500, hop=125)
    audio.training.update(steps=steps, ema_decay=0.99)
    config.tokenizers = ConfigDict({'audio': audio})
    return config


def main() -> None:
    prepare_host(cpu_devices=1)
    config = settings(flags.FLAGS.data_root, flags.FLAGS.steps)
    plain = {name: value for name, value in config.data.to_dict().items() if name != 'augment'}
    real, test = (load(plain, split, ('audio',)) for split in ('train', 'test'))
    tokenizer = build_learned_tokenizer(config, 'audio')
    variables = train_in_memory(config, 'audio', tokenizer)
    frozen = FrozenTokenizer(tokenizer, jax.tree.map(np.asarray, variables))
    sounds, labels = read_all(test, 'audio')
    decoded, figures = frozen.decode(frozen.encode(sounds)), measure(tokenizer, variables, sounds)
    analysed = jax.jit(lambda x: tokenizer.front_end.synthesise(tokenizer.front_end.analyse(x)))(sounds)
    judge = sound_judge(real, test, RATE)
    accuracy = lambda heard: float(np.mean(judge(np.asarray(heard)) == labels))
    assert figures.bits is not None and figures.entropy_bits is not None
    report: dict[str, Any] = {
        'bits_per_second': figures.bits / SECONDS, 'entropy_coded': figures.entropy_bits / SECONDS,
        'usage': figures.usage, 'si_sdr': float(np.mean(signal_to_distortion(decoded, sounds))),
        'mel_distance': mel_distance(decoded, sounds, RATE), 'accuracy': accuracy(decoded),
        'accuracy_analysed': accuracy(analysed), 'accuracy_real': judge.accuracy, 'count': len(labels)}
    write_json(REPORT, report)
    sys.stdout.write(''.join(f'{name} {value:.4g}\n' for name, value in report.items()))


if __name__ == '__main__':
    run(main)
