"""Makes the golden files of the autoencoders with diffusers: python tests/interop/peers_latent_diffusion.py"""

import diffusers
import numpy as np
import torch
from peers_dit import GOLDEN, SEED, fill

TRUNK = {'block_out_channels': (4, 8), 'layers_per_block': 1, 'norm_num_groups': 2}


def gaussian():
    return fill(diffusers.AutoencoderKL(**TRUNK, down_block_types=('DownEncoderBlock2D',) * 2,
                                        up_block_types=('UpDecoderBlock2D',) * 2, latent_channels=4))


def codebook():
    """Its vectors lie among the latents, so that many codes are used."""
    model = fill(diffusers.VQModel(
        **TRUNK, down_block_types=('DownEncoderBlock2D', 'AttnDownEncoderBlock2D'),
        up_block_types=('AttnUpDecoderBlock2D', 'UpDecoderBlock2D'), latent_channels=3, num_vq_embeddings=16,
        vq_embed_dim=2))
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(images())).latents
        model.quantize.embedding.weight.copy_(1.1 * latents.permute(0, 2, 3, 1).reshape(-1, 2)[::3])
    return model


def images():
    return np.random.default_rng(SEED).uniform(-1, 1, (2, 3, 8, 12)).astype(np.float32)


def gaussian_output(model):
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(images())).latent_dist
        return {'mean': latents.mean.numpy(), 'log_variance': latents.logvar.numpy(),
                'decoded': model.decode(latents.mean).sample.numpy()}


def codebook_output(model):
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(images())).latents
        codes = model.quantize(latents)[2][2].reshape(latents.shape[0], *latents.shape[2:])
        return {'latents': latents.numpy(), 'codes': codes.numpy(), 'decoded': model.decode(latents).sample.numpy()}


if __name__ == '__main__':
    for name, model, output in (('ldm_gaussian', gaussian(), gaussian_output),
                                ('ldm_codebook', codebook(), codebook_output)):
        model.save_pretrained(GOLDEN / name)
        made_by = f'diffusers {diffusers.__version__}, torch {torch.__version__}, seed {SEED}'
        np.savez_compressed(GOLDEN / f'{name}.npz', images=images(), **output(model), made_by=made_by)
