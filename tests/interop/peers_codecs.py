"""Makes the golden files of the sound codecs with transformers: python tests/interop/peers_codecs.py"""

import numpy as np
import torch
import transformers
from peers_dit import GOLDEN, SEED, fill
from transformers import DacConfig, DacModel, EncodecConfig, EncodecModel

SAMPLES = 200


def sound():
    return np.random.default_rng(SEED).uniform(-1, 1, (2, 1, SAMPLES)).astype(np.float32)


def spread(tables, latents):
    """Codes where the latents are, then on the scale of what is left at every level, so that many are used."""
    draw = torch.Generator().manual_seed(SEED)
    centre, scale = latents.mean((0, 2)), latents.std((0, 2))
    with torch.no_grad():
        for level, table in enumerate(tables):
            table.copy_(0.6**level * scale * torch.randn(table.shape, generator=draw) + (0 if level else centre))


def louden(model, *names):
    """Gains and slopes about 1, so that the signal outweighs the biases."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(names):
                parameter.abs_().add_(1.0)
    return model


def dac():
    return louden(fill(DacModel(DacConfig(
        encoder_hidden_size=4, downsampling_ratios=[2, 5], decoder_hidden_size=16, n_codebooks=3, codebook_size=16,
        codebook_dim=4))), 'alpha')


def encodec():
    model = louden(fill(EncodecModel(EncodecConfig(
        num_filters=4, upsampling_ratios=[5, 2], hidden_size=6, num_residual_layers=2, codebook_size=16,
        sampling_rate=8000, target_bandwidths=[10.0]))), 'weight.original0')
    with torch.no_grad():
        latents = model.encoder(torch.from_numpy(sound()))
    spread([layer.codebook.embed for layer in model.quantizer.layers], latents)
    for layer in model.quantizer.layers:
        layer.codebook.cluster_size.copy_(torch.arange(16) + 1.0)
        layer.codebook.embed_avg.copy_(layer.codebook.embed * layer.codebook.cluster_size[:, None])
    return model


def dac_output(model):
    with torch.no_grad():
        encoded = model.encode(torch.from_numpy(sound()))
        return {'latents': model.encoder(torch.from_numpy(sound())).numpy(), 'codes': encoded.audio_codes.numpy(),
                'decoded': model.decode(audio_codes=encoded.audio_codes).audio_values.numpy()}


def encodec_output(model):
    """Of a length that is no multiple of the hop too."""
    with torch.no_grad():
        output = {}
        for name, x in (('', sound()), ('odd_', sound()[..., :SAMPLES - 7])):
            x = torch.from_numpy(x)
            encoded = model.encode(x)
            decoded = model.decode(encoded.audio_codes, encoded.audio_scales).audio_values
            output |= {f'{name}latents': model.encoder(x).numpy(), f'{name}codes': encoded.audio_codes[0].numpy(),
                       f'{name}decoded': decoded[:, 0].numpy()}
        return output


if __name__ == '__main__':
    for name, model, output in (('codec_dac', dac(), dac_output), ('codec_encodec', encodec(), encodec_output)):
        model.save_pretrained(GOLDEN / name)
        made_by = f'transformers {transformers.__version__}, torch {torch.__version__}, seed {SEED}'
        np.savez_compressed(GOLDEN / f'{name}.npz', sound=sound(), **output(model), made_by=made_by)
