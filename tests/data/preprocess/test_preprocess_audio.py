"""Sounds: every encoding to mono floats, resampling, lengths, and what is refused."""

import io
import struct
import sys

import numpy as np
import pytest

from vqdit.data.preprocess.audio import (
    AudioSettings,
    load_audio,
    prepare_audio,
    read_audio,
    resample,
    trim_silence,
)
from vqdit.errors import DataError, UserError

soundfile = pytest.importorskip('soundfile')

RATE = 8000


def tone(seconds=0.5, rate=RATE, hertz=440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def encode(samples, rate=RATE, kind='WAV', subtype=None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=kind)
    return file.getvalue()


@pytest.fixture
def load(tmp_path):
    """Loads a sound from its bytes."""

    def load_bytes(content: bytes) -> tuple[np.ndarray, int]:
        (tmp_path / 'bell').write_bytes(content)
        return load_audio(tmp_path / 'bell', 'bell.wav')

    return load_bytes


def wav(
    data: bytes = bytes(1600),
    rate=RATE,
    channels=1,
    bits=16,
    tag=1,
    size=None,
    chunks=('fmt ', 'data'),
) -> bytes:
    frame = max(1, channels * bits // 8) % 65536
    form = struct.pack('<HHIIHH', tag, channels, rate, rate * frame % 2**32, frame, bits)
    parts = {
        'fmt ': b'fmt ' + struct.pack('<I', 16) + form,
        'data': b'data' + struct.pack('<I', len(data) if size is None else size) + data,
    }
    body = b'WAVE' + b''.join(parts[chunk] for chunk in chunks)
    return b'RIFF' + struct.pack('<I', len(body)) + body


@pytest.mark.parametrize(
    ('kind', 'subtype', 'error'),
    [
        ('WAV', 'PCM_16', 1e-4),
        ('WAV', 'PCM_24', 1e-6),
        ('WAV', 'PCM_32', 1e-7),
        ('WAV', 'PCM_U8', 1e-2),
        ('WAV', 'DOUBLE', 1e-7),
        ('WAV', 'ULAW', 2e-2),
        ('FLAC', 'PCM_16', 1e-4),
        ('AIFF', 'PCM_16', 1e-4),
        ('RF64', 'PCM_16', 1e-4),
    ],
)
def test_encodings(load, kind, subtype, error):
    samples, rate = load(encode(tone(), RATE, kind, subtype))
    assert rate == RATE and samples.dtype == np.float32
    np.testing.assert_allclose(samples, tone(), atol=error)


@pytest.mark.parametrize('kind', ['OGG', 'MP3'])
def test_lossy_encodings_keep_the_length(load, kind):
    samples, rate = load(encode(tone(1.0, 16000), 16000, kind))
    assert rate == 16000 and abs(len(samples) - 16000) < 2400


def test_channels_are_averaged(load):
    stereo = np.stack([tone(), np.zeros(len(tone()))], axis=1)
    np.testing.assert_allclose(load(encode(stereo))[0], tone() / 2, atol=1e-4)


def test_streamed_length_is_accepted(load):
    samples, _ = load(wav(size=0xFFFFFFFF))
    assert len(samples) == 800


def test_trailing_bytes_are_accepted(load):
    assert len(load(wav() + b'LIST')[0]) == 800


@pytest.mark.parametrize('rate', [16000, 22050, 44100])
def test_resampling_keeps_a_tone(rate):
    kept = resample(tone(1.0, rate).astype(np.float32), rate, RATE)
    assert len(kept) == RATE
    np.testing.assert_allclose(kept[400:-400], tone(1.0)[400:-400], atol=2e-3)


def test_resampling_without_soxr(monkeypatch):
    monkeypatch.setitem(sys.modules, 'soxr', None)
    kept = resample(tone(1.0, 16000).astype(np.float32), 16000, RATE)
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept[400:-400], tone(1.0)[400:-400], atol=5e-3)


def test_short_sounds_are_followed_by_silence_and_long_ones_cut():
    short = prepare_audio(tone(0.25).astype(np.float32), RATE, AudioSettings(RATE, 0.5))
    assert short.shape == (4000,) and not short[2000:].any() and short[:2000].any()
    ramp = np.linspace(0, 1, 10000, dtype=np.float32)
    np.testing.assert_array_equal(prepare_audio(ramp, RATE, AudioSettings(RATE, 0.5)), ramp[:4000])


def test_cutting_early_does_not_change_what_is_resampled():
    settings = AudioSettings(RATE, 0.25)
    whole = resample(tone(2.0, 16000).astype(np.float32), 16000, RATE)[: settings.samples]
    np.testing.assert_allclose(
        prepare_audio(tone(2.0, 16000).astype(np.float32), 16000, settings), whole, atol=1e-5
    )


def test_beyond_one_is_scaled_back():
    loud = (3 * tone()).astype(np.float32)
    prepared = prepare_audio(loud, RATE, AudioSettings(RATE, 0.5))
    assert np.abs(prepared).max() == 1.0
    np.testing.assert_allclose(prepared, loud / np.abs(loud).max(), atol=1e-6)


def test_trim_removes_both_ends_and_nothing_between():
    parts = [np.zeros(1600), tone(0.1), np.zeros(800), tone(0.1), 1e-4 * tone(0.2)]
    trimmed = trim_silence(np.concatenate(parts).astype(np.float32), RATE, 40.0)
    np.testing.assert_allclose(trimmed, np.concatenate(parts[1:4]), atol=1e-6)
    silence = np.zeros(1000, np.float32)
    assert len(trim_silence(silence, RATE, 40.0)) == 1000


BAD = {
    'empty': b'',
    'text': b'this is no sound at all',
    'html': b'<html>404 not found</html>',
    'header cut': wav()[:20],
    'no data': wav(b''),
    'length 0 with data behind': wav(size=0),
    'half': wav(bytes(16000))[: 44 + 8000],
    'one sample': wav(bytes(2)),
    'less than 10 ms': wav(bytes(2 * 79)),
    'no channel': wav(channels=0),
    'many channels': wav(channels=65535),
    'rate 0': wav(rate=0),
    'rate 1': wav(rate=1),
    'absurd rate': wav(rate=2**32 - 1),
    '0 bits': wav(bits=0),
    '7 bits': wav(bits=7),
    'unknown codec': wav(tag=0x7777),
    'no format': wav(chunks=('data',)),
    'no data chunk': wav(chunks=('fmt ',)),
    'ID3 before RIFF': b'ID3\x03\x00\x00\x00\x00\x00\x00' + wav(),
    'not a number': encode(np.full(4000, np.nan), subtype='FLOAT'),
    'infinite': encode(np.full(4000, np.inf), subtype='FLOAT'),
    'far beyond 1': encode(np.full(4000, 1e9), subtype='FLOAT'),
    'FLAC cut': encode(tone(2.0), kind='FLAC')[:6000],
}


@pytest.mark.parametrize('case', BAD)
def test_bad_sounds_are_refused_by_name(load, case):
    with pytest.raises(DataError, match=r'^bell\.wav: .*; mend or remove it$'):
        load(BAD[case])


def test_pcm_without_soundfile(load, monkeypatch):
    stereo = np.stack([tone(), tone()], axis=1)
    expected = load(encode(stereo))
    monkeypatch.setitem(sys.modules, 'soundfile', None)
    samples, rate = load(encode(stereo))
    assert rate == expected[1]
    np.testing.assert_allclose(samples, expected[0], atol=1e-6)
    with pytest.raises(DataError, match=r'pip install "vqdit\[audio\]"'):
        load(encode(tone(), kind='FLAC'))
    with pytest.raises(DataError, match=r'pip install "vqdit\[audio\]"'):
        load(encode(tone(), subtype='PCM_24'))


def test_quiet_and_loud_recordings_become_equally_loud():
    settings = AudioSettings(RATE, 0.5, peak=0.7)
    quiet, loud = (prepare_audio((gain * tone(0.5)).astype(np.float32), RATE, settings) for gain in (0.02, 1.0))
    np.testing.assert_allclose(quiet, loud, atol=1e-5)
    assert np.abs(loud).max() == pytest.approx(0.7)


def test_silence_is_not_made_louder():
    hiss = np.full(4000, 5e-5, np.float32)
    np.testing.assert_array_equal(prepare_audio(hiss, RATE, AudioSettings(RATE, 0.5, peak=0.7)), hiss)


def test_read_audio_from_a_file(tmp_path):
    path = tmp_path / 'a.wav'
    path.write_bytes(encode(tone(0.5, 16000), 16000))
    samples = read_audio(path, 'a.wav', AudioSettings(RATE, 0.5))
    assert samples.shape == (4000,) and samples.dtype == np.float32


@pytest.mark.parametrize('wrong', [{'rate': 0}, {'seconds': 0.0}, {'trim_decibels': -1.0}, {'peak': 1.5}])
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match=r'audio\.'):
        AudioSettings(**wrong)
