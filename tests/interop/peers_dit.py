"""Makes the golden files of the image DiT with the packages of the extra "peers": python tests/interop/peers_dit.py

The network of facebookresearch/DiT is on no package index. Its stand-in here is written from the paper under the
original names, which are what the golden file is for; the arithmetic is checked a second time by diffusers.
"""

import argparse
import json
from pathlib import Path

import diffusers
import numpy as np
import torch
from torch import nn
from torch.nn import functional

GOLDEN = Path(__file__).parent / 'golden'
SEED = 7
WIDTH, DEPTH, HEADS, PATCH, CHANNELS, SIZE, CLASSES = 16, 2, 2, 2, 4, 6, 3


def norm(x):
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        rows = self.qkv(x).unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        return self.proj(functional.scaled_dot_product_attention(*rows).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = Attention(), nn.Module()
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))

    def forward(self, x, c):
        a, b, g, d, e, h = self.adaLN_modulation(c)[:, None].chunk(6, -1)
        x = x + g * self.attn(norm(x) * (1 + b) + a)
        return x + h * self.mlp.fc2(functional.gelu(self.mlp.fc1(norm(x) * (1 + e) + d), approximate='tanh'))


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        part = lambda **modules: nn.ModuleDict(modules)
        grid = SIZE // PATCH
        self.x_embedder = part(proj=nn.Conv2d(CHANNELS, WIDTH, PATCH, PATCH))
        self.t_embedder = part(mlp=nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH)))
        self.y_embedder = part(embedding_table=nn.Embedding(CLASSES + 1, WIDTH))
        self.blocks = nn.ModuleList([Block() for _ in range(DEPTH)])
        self.final_layer = part(linear=nn.Linear(WIDTH, PATCH**2 * 2 * CHANNELS),
                                adaLN_modulation=nn.Sequential(nn.SiLU(), nn.Linear(WIDTH, 2 * WIDTH)))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid**2, WIDTH), requires_grad=False)

    def forward(self, x, t, y):
        frequencies = torch.exp(-np.log(10_000) * torch.arange(128) / 128)
        angles = t[:, None] * frequencies[None]
        c = self.t_embedder['mlp'](torch.cat([angles.cos(), angles.sin()], -1)) + self.y_embedder['embedding_table'](y)
        x = self.x_embedder['proj'](x).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.final_layer['adaLN_modulation'](c)[:, None].chunk(2, -1)
        x = self.final_layer['linear'](norm(x) * (1 + scale) + shift)
        grid = SIZE // PATCH
        x = x.unflatten(1, (grid, grid)).unflatten(-1, (PATCH, PATCH, 2 * CHANNELS))
        return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, 2 * CHANNELS, SIZE, SIZE)


def fill(model):
    """Random weights with nothing at zero."""
    draw = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def original():
    return fill(Original())


def from_diffusers():
    model = fill(diffusers.DiTTransformer2DModel(
        num_attention_heads=HEADS, attention_head_dim=WIDTH // HEADS, in_channels=CHANNELS, out_channels=2 * CHANNELS,
        num_layers=DEPTH, sample_size=SIZE, patch_size=PATCH, num_embeds_ada_norm=CLASSES))
    for block in model.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
    return model


def inputs():
    rng = np.random.default_rng(SEED)
    return {'latents': rng.normal(size=(4, CHANNELS, SIZE, SIZE)).astype(np.float32),
            'timesteps': np.array([0, 0.25, 500, 999], np.float32), 'labels': np.array([0, 3, 2, 1])}


def output(model):
    values = [torch.from_numpy(value) for value in inputs().values()]
    with torch.no_grad():
        result = model(*values)
    return (result if torch.is_tensor(result) else result.sample).numpy()


def checkpoint(model):
    """What a training script saves: the average, the optimizer, the arguments."""
    weight = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    return {'model': {'weight': weight}, 'ema': model.state_dict(), 'opt': optimizer.state_dict(),
            'args': argparse.Namespace(model='DiT-XL/2', image_size=256, lr=1e-4, vae='ema')}


def save(name, model):
    made_by = json.dumps({'torch': torch.__version__, 'diffusers': diffusers.__version__, 'numpy': np.__version__,
                          'seed': SEED})
    np.savez_compressed(GOLDEN / f'{name}.npz', **inputs(), output=output(model), made_by=made_by)


if __name__ == '__main__':
    GOLDEN.mkdir(exist_ok=True)
    torch.save(checkpoint(original()), GOLDEN / 'dit_original.pt')
    from_diffusers().save_pretrained(GOLDEN / 'dit_diffusers')
    save('dit_original', original())
    save('dit_diffusers', from_diffusers())
