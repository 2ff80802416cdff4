"""Sounds: decoding to mono float32, resampling, and cutting to one length."""

import io
import math
import struct
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vqdit.data.settings import require
from vqdit.errors import DataError

MIN_RATE, MAX_RATE = 4000, 192_000
MAX_CHANNELS = 32
MIN_SECONDS, MAX_SECONDS = 0.01, 3600.0
MAX_AMPLITUDE = 4.0
_MAGIC = (b'RIFF', b'RF64', b'fLaC', b'OggS', b'FORM', b'ID3')
_STREAMED = 0xFFFFFFFF  # the length that a recorder writes when it cannot know it yet
SILENCE = 1e-4  # a sound that never exceeds this amplitude is not made louder
_MP3_DELAY = 2400  # samples by which a decoder's count may differ from the header's


@dataclass(frozen=True)
class AudioSettings:
    """How sounds are prepared.

    Attributes:
        rate: samples per second.
        seconds: length; longer sounds are cut at the end, shorter ones followed by silence.
        trim_decibels: both ends are cut where they are this far below the loudest 10 ms; 0 = off.
        peak: amplitude that every sound is scaled to, so that quiet recordings count like loud
            ones; 0 = as loud as they are.
    """

    rate: int = 8000
    seconds: float = 0.5
    trim_decibels: float = 0.0
    peak: float = 0.0

    def __post_init__(self) -> None:
        require(self.rate >= 1, 'audio.rate', self.rate, 'at least 1')
        require(self.samples >= 1, 'audio.seconds', self.seconds, 'one sample or longer')
        require(self.trim_decibels >= 0, 'audio.trim_decibels', self.trim_decibels, '0 or more')
        require(0 <= self.peak <= 1, 'audio.peak', self.peak, 'between 0 and 1')

    @property
    def samples(self) -> int:
        return round(self.seconds * self.rate)


def load_audio(path: Path, name: str) -> tuple[np.ndarray, int]:
    """A sound as mono float32 [samples] (the mean of its channels) and its rate in Hz.

    Raises DataError, naming the sound, for what is damaged, cut short, empty, not finite or absurd.
    """
    with open(path, 'rb') as file:
        check_audio_header(file, name)
    samples, rate = _decode(path, name)
    return check_samples(samples.mean(axis=1), rate, name), rate


def check_samples(samples: np.ndarray, rate: int, name: str) -> np.ndarray:
    """The samples, unless there are too few of them or they are not finite or far too large."""
    if len(samples) < MIN_SECONDS * rate:
        raise _bad(
            name, f'{len(samples)} samples at {rate} Hz are less than {1000 * MIN_SECONDS:g} ms'
        )
    peak = np.abs(samples).max()
    if not np.isfinite(peak):
        raise _bad(name, 'it holds NaN or infinity')
    if peak > MAX_AMPLITUDE:
        raise _bad(name, f'its amplitude of {peak:g} is far beyond 1')
    return samples


def prepare_audio(samples: np.ndarray, rate: int, settings: AudioSettings) -> np.ndarray:
    """Resampled, trimmed, cut or padded, and scaled, to float32 [settings.samples] in [-1, 1]."""
    if not settings.trim_decibels:
        # The rest would be cut anyway; 0.1 s more is for the resampler's filter.
        samples = samples[: math.ceil((settings.seconds + 0.1) * rate)]
    if rate != settings.rate:
        samples = resample(samples, rate, settings.rate)
    if settings.trim_decibels:
        samples = trim_silence(samples, settings.rate, settings.trim_decibels)
    prepared = np.zeros(settings.samples, np.float32)
    kept = min(len(samples), len(prepared))
    prepared[:kept] = samples[:kept]
    loudest = np.abs(prepared).max()
    if settings.peak and loudest > SILENCE:
        return prepared * (settings.peak / loudest)
    return prepared / max(1.0, loudest)


def read_audio(path: Path, name: str, settings: AudioSettings) -> np.ndarray:
    """`load_audio` and `prepare_audio`."""
    return prepare_audio(*load_audio(path, name), settings)


def resampler() -> str:
    """Which library `resample` uses here: `soxr` when it is installed, else `scipy`."""
    try:
        import soxr  # noqa: F401
    except ImportError:
        return 'scipy'
    return 'soxr'


def resample(samples: np.ndarray, rate: int, new_rate: int) -> np.ndarray:
    """Band-limited conversion [samples] -> [about samples * new_rate / rate]."""
    if resampler() == 'soxr':
        import soxr

        return soxr.resample(samples, rate, new_rate)
    from scipy.signal import resample_poly

    common = math.gcd(rate, new_rate)
    return resample_poly(samples, new_rate // common, rate // common).astype(np.float32)


def trim_silence(samples: np.ndarray, rate: int, decibels: float) -> np.ndarray:
    """Without the 10 ms frames at both ends whose power is `decibels` below the loudest frame's."""
    hop = max(1, round(0.01 * rate))
    frames = np.pad(samples, (0, -len(samples) % hop)).reshape(-1, hop)
    power = np.mean(frames.astype(np.float64) ** 2, axis=1)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-decibels / 10))
    return samples[loud[0] * hop : (loud[-1] + 1) * hop]


def check_audio_header(file: BinaryIO, name: str) -> None:
    """Checks the kind of file, and of WAV that all is there that it declares: decoders do not."""
    head = file.read(12)
    if not head:
        raise _bad(name, 'the file is empty')
    if not head.startswith(_MAGIC) and head[:2] < b'\xff\xe0':  # from there on, a frame of MP3
        raise _bad(name, 'it is none of WAV, FLAC, OGG, MP3, AIFF')
    if head.startswith(b'RIFF'):
        try:
            _check_riff(file, name)
        except struct.error as error:
            raise _bad(name, 'its WAV header is cut short') from error


def _check_riff(file: BinaryIO, name: str) -> None:
    end, position, formatted = file.seek(0, io.SEEK_END), 12, False
    while position + 8 <= end:
        file.seek(position)
        key, size = struct.unpack('<4sI', file.read(8))
        if key == b'fmt ':
            _check_format(file.read(16), name)
            formatted = True
        if key == b'data':
            break
        position += 8 + size + size % 2
    else:
        raise _bad(name, 'its WAV header has no data chunk')
    there = end - position - 8
    if not formatted:
        raise _bad(name, 'its WAV header has no format')
    if size == 0 or (size != _STREAMED and there < 0.99 * size):
        raise _bad(name, f'it is cut short: {there} bytes of sound where its header says {size}')


def _check_format(chunk: bytes, name: str) -> None:
    tag, channels, rate, _, _, bits = struct.unpack('<HHIIHH', chunk)
    if tag in (1, 3, 0xFFFE) and bits not in (8, 16, 24, 32, 64):
        raise _bad(name, f'samples of {bits} bits are unknown')
    _check_kind(rate, channels, name)


def _check_kind(rate: int, channels: int, name: str) -> None:
    if not MIN_RATE <= rate <= MAX_RATE:
        raise _bad(name, f'its rate of {rate} Hz is outside of {MIN_RATE} to {MAX_RATE}')
    if not 1 <= channels <= MAX_CHANNELS:
        raise _bad(name, f'it has {channels} channels, not 1 to {MAX_CHANNELS}')


def _decode(path: Path, name: str) -> tuple[np.ndarray, int]:
    """Float32 [samples, channels] and the rate."""
    try:
        import soundfile
    except (ImportError, OSError):  # OSError where libsndfile is not there
        return _decode_pcm(path, name)
    try:
        with soundfile.SoundFile(path) as sound:
            rate, declared = sound.samplerate, sound.frames
            _check_kind(rate, sound.channels, name)
            if declared > MAX_SECONDS * rate:
                raise _bad(name, f'{declared / rate:.0f} s are longer than {MAX_SECONDS:.0f} s')
            samples = sound.read(dtype='float32', always_2d=True)
            tolerance = max(0.01 * declared, _MP3_DELAY if sound.format == 'MP3' else 0)
    except soundfile.SoundFileError as error:
        raise _bad(name, f'the sound cannot be decoded ({error})') from error
    if declared - len(samples) > tolerance:
        raise _bad(name, f'it is cut short: {len(samples)} of {declared} samples')
    return samples, rate


def _decode_pcm(path: Path, name: str) -> tuple[np.ndarray, int]:
    """16-bit WAV by the standard library alone."""
    try:
        with wave.open(str(path)) as sound:
            width, channels, rate = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
            content = sound.readframes(sound.getnframes()) if width == 2 else b''
    except (wave.Error, EOFError):
        width = 0
    if width != 2:
        raise DataError(
            f'{name}: only 16-bit WAV is read without soundfile; pip install "vqdit[audio]"'
        )
    whole = len(content) // (2 * channels) * channels
    samples = np.frombuffer(content, '<i2', whole).reshape(-1, channels)
    return samples.astype(np.float32) / 32768, rate


def _bad(name: str, reason: str) -> DataError:
    return DataError(f'{name}: {reason}; mend or remove it')
