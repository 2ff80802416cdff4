"""The settings of an image DiT: classes to images, through the latents of a frozen autoencoder."""

from dataclasses import fields
from typing import Any

from ml_collections import ConfigDict

from vqdit.models.parts import Parts
from vqdit.models.published import published_dit
from vqdit.training.defaults import defaults


def published_autoencoder(weights: str = '') -> ConfigDict:
    """The latents of somebody's KL autoencoder, a folder of diffusers such as stabilityai/sd-vae-ft-ema."""
    return ConfigDict({'kind': 'published', 'weights': weights, 'stride': 8, 'channels': 4})


def learned_autoencoder(tokenizer: ConfigDict, space: str) -> ConfigDict:
    """A tokenizer that this run trains first, and what of it the network makes: its "code_vectors", or its "latents"
    before they are quantised. Both are standardised by what was measured on data."""
    section = ConfigDict(tokenizer)
    section.space = space
    return section


def image_model(name: str, **changes: Any) -> ConfigDict:
    """The published size of a name, "DiT-XL/2" or "SiT-B/4"."""
    model = published_dit(name)
    return ConfigDict({
        'name': 'dit',
        'patch': model.patch, 'width': model.width, 'depth': model.depth, 'heads': model.heads,
        'classes': model.classes,
        # Of the blocks: "published", "modern" or "lightning", and single ones in place of its own, see models/parts.py.
        'parts': {'name': 'published'} | dict.fromkeys(field.name for field in fields(Parts)),
        'registers': 0,                  # learned tokens beside those of the latents
        'remat': 'none', 'unroll': 1, 'dtype': 'float32', 'implementation': None,
    } | changes)


def image_defaults(name: str) -> ConfigDict:
    """The training of the paper of the network `name`: constant rate, no decay, no warm-up, a long average."""
    config = defaults()
    family = name[:3].lower()
    training = config.diffusion.training
    training.update(steps=400_000, batch_size=256, learning_rate=1e-4, schedule='constant', warmup_steps=0, beta2=0.999,
                    weight_decay=0.0, ema_decay=0.9999)
    config.diffusion = ConfigDict({
        'process': {'name': family},     # "dit": DDPM with learned variances; "sit": velocities on the straight line
        'label_dropout': 0.1,            # share of labels hidden in training, for guidance
        'model': image_model(name),
        'training': training,
        'sampler': {'solver': 'ddpm' if family == 'dit' else 'heun', 'steps': 50, 'guidance': 4.0, 'batch_size': 16,
                    'average': None},    # or the deviation of a power average, see training/averages.py
    })
    config.sharding_rules = (
        ('attention/qkv/kernel', ('fsdp', None, 'tensor', None)),
        ('attention/out/kernel', ('tensor', None, 'fsdp')),
        ('mlp/(up|gate_up)/kernel', ('fsdp', 'tensor')),
        ('mlp/out/kernel', ('tensor', 'fsdp')),
        ('modulation/kernel', ('fsdp', 'tensor')),
    )
    config.checkpoints.update(every=10_000, keep=2)
    config.logging.update(every=100, samples_every=10_000)
    del config.evaluation
    return config
