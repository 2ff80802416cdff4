"""Makes the golden files of the image tokenizers with transformers: python tests/interop/peers_codebooks.py

Their normalisation has 32 groups, so that no network is small. The golden files hold names and shapes of the weights
instead of these, which `codebook_weights` draws.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers
from codebook_weights import SEED, weights
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAE, ChameleonVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE, JanusVQVAEConfig

GOLDEN = Path(__file__).parent / 'golden'
SHAPE = {'base_channels': 32, 'channel_multiplier': [1, 2], 'num_res_blocks': 1, 'latent_channels': 4, 'embed_dim': 3,
         'num_embeddings': 16}


def images():
    return np.random.default_rng(SEED).uniform(-1, 1, (2, 3, 8, 8)).astype(np.float32)


def filled(model):
    """Drawn weights, with code vectors among the latents, so that many are used."""
    state = model.state_dict()
    model.load_state_dict({key: torch.from_numpy(weights(key, tuple(tensor.shape))) for key, tensor in state.items()})
    with torch.no_grad():
        latents = model.quant_conv(model.encoder(torch.from_numpy(images())))
        model.quantize.embedding.weight.copy_(1.1 * latents.permute(0, 2, 3, 1).reshape(-1, 3)[::2])
    return model.eval()


def chameleon():
    return filled(ChameleonVQVAE(ChameleonVQVAEConfig(**SHAPE, resolution=8, attn_resolutions=[4])))


def janus():
    return filled(JanusVQVAE(JanusVQVAEConfig(**SHAPE, num_patches=4)))


def output(model):
    with torch.no_grad():
        x = torch.from_numpy(images())
        codes = model.encode(x).image_tokens.reshape(2, -1)
        found = {'latents': model.quant_conv(model.encoder(x)).numpy(), 'codes': codes.numpy(),
                 'codebook': model.quantize.embedding.weight.numpy()}
        return found | ({'decoded': model.decode(codes).numpy()} if hasattr(model, 'decoder') else {})


if __name__ == '__main__':
    for name, model in (('codebook_chameleon', chameleon()), ('codebook_janus', janus())):
        model.config.save_pretrained(GOLDEN / name)
        shapes = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
        (GOLDEN / name / 'shapes.json').write_text(json.dumps(shapes, indent=0) + '\n')
        made_by = f'transformers {transformers.__version__}, torch {torch.__version__}, seed {SEED}'
        np.savez_compressed(GOLDEN / f'{name}.npz', images=images(), **output(model), made_by=made_by)
