"""DAC (arXiv:2306.06546) as transformers saves it."""

from vqdit.interop.codec_rows import CONVOLUTION, PROJECTION, TRANSPOSED, Config, Rows, module_rows
from vqdit.interop.layout import SAME, Conversion, Row
from vqdit.tokenizers.codec import EncoderDecoder
from vqdit.tokenizers.quantizers.codebooks import GradientCodebook
from vqdit.tokenizers.quantizers.combine import Projected
from vqdit.tokenizers.quantizers.metrics import Angular
from vqdit.tokenizers.quantizers.residual import Residual
from vqdit.tokenizers.quantizers.vector import VectorQuantizer
from vqdit.tokenizers.waveform import CentredShort, Trunk, WaveformDecoder, WaveformEncoder

CHANNELS = Conversion(lambda x: x[None, :, None], lambda y, shape: y.reshape(shape))


def dac(config: Config) -> EncoderDecoder:
    """The codec that a config describes."""
    trunk = Trunk(tuple(config['downsampling_ratios']), CentredShort())
    width, levels = config['encoder_hidden_size'], config['n_codebooks']
    dimension = config.get('hidden_size') or width * 2 ** len(trunk.strides)
    level = VectorQuantizer(config['codebook_size'], config['codebook_dim'], metric=Angular(),
                            codebook=GradientCodebook, commitment=config['commitment_loss_weight'])
    return EncoderDecoder(Residual(tuple(Projected(level.clone(), dimension) for _ in range(levels))),
                          WaveformEncoder(trunk, width, dimension),
                          WaveformDecoder(trunk, config['decoder_hidden_size']))


def dac_rows(model: EncoderDecoder) -> Rows:
    """The table of its weights."""
    trunk: Trunk = model.encoder.trunk  # type: ignore[attr-defined]
    for side, transposed in (('encoder', False), ('decoder', True)):
        resample, conversion = ('conv_t1', TRANSPOSED) if transposed else ('conv1', CONVOLUTION)
        yield from module_rows(f'{side}/enter/conv', f'{side}.conv1', CONVOLUTION)
        yield from module_rows(f'{side}/leave/conv', f'{side}.conv2', CONVOLUTION)
        yield Row(f'params/{side}/activation/alpha', (f'{side}.snake1.alpha',), CHANNELS)
        for stage in range(len(trunk.strides)):
            block = f'{side}.block.{stage}'
            yield Row(f'params/{side}/activation_{stage}/alpha', (f'{block}.snake1.alpha',), CHANNELS)
            yield from module_rows(f'{side}/resample_{stage}/conv', f'{block}.{resample}', conversion)
            for unit in range(len(trunk.dilations)):
                ours, theirs = f'{side}/unit_{stage}_{unit}', f'{block}.res_unit{unit + 1}'
                for part in range(2):
                    yield Row(f'params/{ours}/activation_{part}/alpha', (f'{theirs}.snake{part + 1}.alpha',), CHANNELS)
                    yield from module_rows(f'{ours}/convolution_{part}/conv', f'{theirs}.conv{part + 1}', CONVOLUTION)
    for level in range(model.quantizer.levels):
        ours, theirs = f'quantizer/quantizers_{level}', f'quantizer.quantizers.{level}'
        yield from module_rows(f'{ours}/project_in', f'{theirs}.in_proj', PROJECTION)
        yield from module_rows(f'{ours}/project_out', f'{theirs}.out_proj', PROJECTION)
        yield Row(f'params/{ours}/quantizer/codes', (f'{theirs}.codebook.weight',), SAME)
