"""EnCodec (arXiv:2210.13438) as transformers saves it, and its network SEANet, which others have too."""

import math
from collections.abc import Mapping

import numpy as np

from vqdit.interop.codec_rows import CONVOLUTION, TRANSPOSED, Config, Rows, check_settings, module_rows
from vqdit.interop.layout import SAME, VECTOR, Conversion, Row
from vqdit.interop.weights import StateDict
from vqdit.tokenizers.codec import EncoderDecoder
from vqdit.tokenizers.padding import Causal, Centred
from vqdit.tokenizers.quantizers.codebooks import MovingAverageCodebook
from vqdit.tokenizers.quantizers.metrics import Euclidean
from vqdit.tokenizers.quantizers.residual import Residual
from vqdit.tokenizers.quantizers.vector import VectorQuantizer
from vqdit.tokenizers.ranges import unbounded
from vqdit.tokenizers.waveform import Elu, Trunk, WaveformDecoder, WaveformEncoder

GATE = Conversion(lambda x: x.T, lambda y, shape: y.T)
GATES = 'ifgo'
"""The order of PyTorch's LSTM gates."""
MODES = {'constant': 'constant', 'reflect': 'reflect', 'replicate': 'edge'}
"""PyTorch's names of what lies beyond the ends."""


def encodec(config: Config) -> EncoderDecoder:
    """The codec that a config describes. Raises CheckpointError for settings that it does not have."""
    check_settings(config, norm_type='weight_norm', normalize=False, chunk_length_s=None, trim_right_ratio=1.0)
    encoder, decoder = seanet(config, config['num_lstm_layers'])
    trunk, dimension = encoder.trunk, encoder.dimension
    rate = -(-config['sampling_rate'] // trunk.hop) * math.ceil(math.log2(config['codebook_size']))
    level = VectorQuantizer(config['codebook_size'], dimension, metric=Euclidean(), codebook=MovingAverageCodebook)
    levels = int(1000 * config['target_bandwidths'][-1] // rate)
    return EncoderDecoder(Residual(tuple(level.clone() for _ in range(levels))), encoder, decoder)


def seanet(config: Config, recurrent: int) -> tuple[WaveformEncoder, WaveformDecoder]:
    """The encoder and the decoder of a config, with so many LSTMs."""
    padding = (Causal if config.get('use_causal_conv', True) else Centred)(MODES[config['pad_mode']])
    growth = config['dilation_growth_rate']
    trunk = Trunk(tuple(config['upsampling_ratios'])[::-1], padding, Elu, config['residual_kernel_size'],
                  tuple(growth**unit for unit in range(config['num_residual_layers'])), config['compress'],
                  config['use_conv_shortcut'], recurrent)
    width, kernels = config['num_filters'], (config['kernel_size'], config['last_kernel_size'])
    return (WaveformEncoder(trunk, width, config['hidden_size'], kernels),
            WaveformDecoder(trunk, width * 2 ** len(trunk.strides), config['audio_channels'], kernels, unbounded))


def encodec_rows(model: EncoderDecoder) -> Rows:
    """The table of its weights."""
    trunk: Trunk = model.encoder.trunk  # type: ignore[attr-defined]
    yield from seanet_rows(trunk)
    for level in range(model.quantizer.levels):
        ours, theirs = f'codebook/quantizer/quantizers_{level}', f'quantizer.layers.{level}.codebook'
        for name, key in (('codes', 'embed'), ('sums', 'embed_avg'), ('counts', 'cluster_size')):
            yield Row(f'{ours}/{name}', (f'{theirs}.{key}',), SAME)


def seanet_rows(trunk: Trunk, within: str = '') -> Rows:
    """The layers of encoder and decoder, which are numbered one after the other with their activations."""
    for side in ('encoder', 'decoder'):
        number, ours = 0, f'{side}{within}'
        yield from module_rows(f'{ours}/enter/conv', f'{side}.layers.0.conv', CONVOLUTION)
        if side == 'decoder' and trunk.recurrent:
            number += 1
            yield from _lstm_rows(side, number, trunk.recurrent)
        for stage in range(len(trunk.strides)):
            if side == 'decoder':
                number += 2
                yield from module_rows(f'{ours}/resample_{stage}/conv', f'{side}.layers.{number}.conv', TRANSPOSED)
            for unit in range(len(trunk.dilations)):
                number += 1
                yield from _unit_rows(f'{ours}/unit_{stage}_{unit}', f'{side}.layers.{number}', trunk.shortcut)
            if side == 'encoder':
                number += 2
                yield from module_rows(f'{ours}/resample_{stage}/conv', f'{side}.layers.{number}.conv', CONVOLUTION)
        if side == 'encoder' and trunk.recurrent:
            number += 1
            yield from _lstm_rows(side, number, trunk.recurrent)
        yield from module_rows(f'{ours}/leave/conv', f'{side}.layers.{number + 2}.conv', CONVOLUTION)


def _unit_rows(ours: str, theirs: str, shortcut: bool) -> Rows:
    yield from module_rows(f'{ours}/convolution_0/conv', f'{theirs}.block.1.conv', CONVOLUTION)
    yield from module_rows(f'{ours}/convolution_1/conv', f'{theirs}.block.3.conv', CONVOLUTION)
    if shortcut:
        yield from module_rows(f'{ours}/shortcut/conv', f'{theirs}.shortcut.conv', CONVOLUTION)


def _lstm_rows(side: str, number: int, layers: int) -> Rows:
    """Gate by gate, as `encodec_state` splits them."""
    for layer in range(layers):
        ours, theirs = f'params/{side}/recurrence/lstm_{layer}', f'{side}.layers.{number}.lstm'
        for gate in GATES:
            yield Row(f'{ours}/i{gate}/kernel', (f'{theirs}.weight_ih_l{layer}.{gate}',), GATE)
            yield Row(f'{ours}/h{gate}/kernel', (f'{theirs}.weight_hh_l{layer}.{gate}',), GATE)
            yield Row(f'{ours}/h{gate}/bias', (f'{theirs}.bias_l{layer}.{gate}',), VECTOR)


def encodec_state(state: Mapping[str, np.ndarray]) -> StateDict:
    """LSTM weights gate by gate, their two biases in one; whether a codebook has started is left out."""
    prepared: dict[str, np.ndarray] = {}
    for key, tensor in state.items():
        if key.endswith('.inited') or '.lstm.bias_hh' in key:
            continue
        if '.lstm.bias_ih' in key:
            key, tensor = key.replace('bias_ih', 'bias'), tensor + state[key.replace('bias_ih', 'bias_hh')]
        parts = zip(GATES, np.split(tensor, 4)) if '.lstm.' in key else ()
        prepared |= {f'{key}.{gate}': part for gate, part in parts} or {key: tensor}
    return prepared
