"""Every setting of a config, with its default and what it means; a file in `configs/` changes what differs."""

from ml_collections import ConfigDict


def optimization(steps: int, batch_size: int, learning_rate: float) -> ConfigDict:
    """The settings of one training: optimizer, its length, averages."""
    return ConfigDict({
        'steps': steps,
        'batch_size': batch_size,        # over all devices and accumulation steps
        'accumulate': 1,                 # slices of the batch that are computed one after the other
        'optimizer': 'adamw',            # or "muon": fewer steps to the same loss, each a little slower
        'learning_rate': learning_rate,
        'schedule': 'cosine',            # after the warm-up: "cosine" to zero, or "constant"
        'warmup_steps': 100,
        'beta1': 0.9,
        'beta2': 0.95,
        'weight_decay': 0.01,
        'clip_norm': 1.0,
        'ema_decay': 0.999,
    })


def learned_tokenizer(kind: str, quantizer: dict, **own: object) -> ConfigDict:
    """What the tokenizers of all kinds have, and what one has of its `own`; more kinds stand in `codec_defaults.py`."""
    return ConfigDict({
        'kind': kind,
        'absolute_weight': 0.0,          # of |error| in the loss
        'squared_weight': 1.0,
        'losses': {},                    # further ones: name -> weight, or a mapping of `weight` and options
        'adversary': {},                 # none, or `adversary()`
        'fine_tune': '',                 # a workdir: its codes are kept, and only its decoder trains on
        'quantizer': quantizer,
        'training': optimization(800, 64, 3e-3),
    } | own)


def pixels_tokenizer(patch: int, widths: tuple[int, ...], quantizer: dict) -> ConfigDict:
    """A learned tokenizer of images or video; the token grid is size / (patch 2^(len(widths) - 1))."""
    return learned_tokenizer(
        'pixels', quantizer,
        patch=patch,                     # pixels folded into channels by the first layer
        widths=widths,                   # channels at each resolution
        blocks=1,                        # residual blocks at each resolution
        heads=0,                         # of attention at the lowest resolution; none by default
        control='none',                  # or "adaptive_group_norm": code vectors reach every resolution of the decoder
        bound='unbounded',               # what is done to the output: "tanh" keeps it within the range of the data
        absolute_weight=0.05)            # images with much background need little


def log_mel_tokenizer(patch: int, widths: tuple[int, ...], quantizer: dict) -> ConfigDict:
    """A learned tokenizer of sound through its log-mel spectrogram, one row of bands a frame."""
    return learned_tokenizer(
        'log_mel', quantizer,
        window=512,                      # samples
        hop=128,                         # samples
        bands=64,
        floor=2e-3,                      # amplitude that counts as silence; noise below it costs nothing
        patch=patch, widths=widths, blocks=2, heads=0)


def adversary(*discriminators: dict) -> ConfigDict:
    """The `adversary` of a learned tokenizer: discriminators as mappings of `name` and options, such as "patch"."""
    training = optimization(1, 1, 2e-4)
    for name in ('steps', 'batch_size', 'accumulate', 'ema_decay'):
        del training[name]               # those of the tokenizer's training
    training.update(schedule='constant', beta1=0.5, beta2=0.9, weight_decay=0.0)
    return ConfigDict({
        'discriminators': discriminators,
        'game': 'hinge',                 # or "non_saturating", "least_squares"
        'balance': 'adaptive',           # of its gradient against the reconstruction's; "fixed", or "balancer" for all
        'weight': 0.1,
        'feature_matching': 0.0,         # weight
        'gradient_penalty': 0.0,         # weight of R1
        'penalty_every': 16,             # steps
        'lecam': 0.0,                    # weight
        'start': 0,                      # step from which on the discriminators learn
        'alone': 0,                      # steps in which they learn before they count
        'ramp': 0,                       # steps in which their weight rises
        'training': training,
    })


def text_tokenizer(kind: str, length: int) -> ConfigDict:
    """`kind` "words" (a vocabulary of the training captions) or "bytes" (any UTF-8 string)."""
    return ConfigDict({'kind': kind, 'length': length})


def defaults() -> ConfigDict:
    """The settings outside of `data`, `tokenizers` and `diffusion.tasks`, which every experiment states itself."""
    return ConfigDict({
        'seed': 0,
        'data': {},
        'tokenizers': {},
        'tokens': {
            'shard_size': 4096,          # examples in a file
        },
        'diffusion': {
            'process': {                 # or "uniform", "mask_and_replace", "code_distance", and its settings
                'name': 'absorbing', 'schedule': 'linear',
            },
            'weighting': 'bound',        # of the noise levels: "bound" for likelihood, "masked" learns faster
            'tasks': {},                 # written task -> weight in training
            'model': {
                'patches': {},           # modality -> side of the blocks of codes that share a place in the trunk
                'summaries': (),         # modalities with one more place, made of all their tokens in their order
                'neighbours': (),        # modalities whose places are embedded with those around them
                'width': 128, 'depth': 4, 'heads': 4, 'expansion': 8 / 3,
                'gate': 0.0,             # where the gates of the blocks start; 0.5 speeds up short trainings
                'remat': 'none',         # or "dots", "full": less memory, more computation
                'unroll': 1,             # blocks in an iteration of the scan: all make a CPU a sixth faster
                'dtype': 'float32',      # of the computation; "bfloat16" on accelerators
                'implementation': 'xla',  # of attention: "xla", "cudnn", or "auto": cuDNN on a GPU in bf16
            },
            'training': ConfigDict({
                **optimization(2000, 128, 2e-3),
                'power_averages': (),    # deviations, such as (0.05, 0.1), see training/averages.py
                'reduce_dtype': '',      # of gradients between copies of the model: "bfloat16" halves their traffic,
                                         # "float32" adds in full; '' as computed, see training/gradients.py
            }),
            'sampler': {                 # a name and its own settings, of which None leaves the sampler's default
                'name': 'ordered', 'order': None, 'steps': 16, 'temperature': 1.0, 'choice_temperature': None,
                'top_k': None, 'top_p': None,  # only so many of the likeliest codes; only those of such a mass
                'batch_size': 64,
                'guidance': 1.0,         # the weight: 1 is none
                'guidance_interval': (0.0, 1.0),  # the noise levels that it is for
                'guidance_schedule': 'constant',  # or "linear", "cosine": from none at noise level 1
                'guidance_rescale': 0.0,  # the share of its spread that is taken back
                'guidance_average': None,  # a deviation: guidance pushes away from that power average
                'average': None,         # a deviation: samples with that power average
            },
        },
        'mesh': {'data': -1, 'fsdp': 1, 'sequence': 1, 'tensor': 1},  # see training/sharding.py
        'sharding_rules': (              # (path pattern, mesh axis of each of the last axes)
            ('attention/qkv/kernel', ('fsdp', None, 'tensor', None)),
            ('attention/out/kernel', ('tensor', None, 'fsdp')),
            ('mlp/gate_up/kernel', ('fsdp', 'tensor')),
            ('mlp/out/kernel', ('tensor', 'fsdp')),
            ('embed_.*/embedding', ('fsdp', 'tensor')),
            ('head_.*/codes/kernel', ('fsdp', None, 'tensor')),
        ),
        'checkpoints': {'every': 500, 'keep': 2},
        'logging': {'every': 20, 'samples_every': 500},
        'reliability': {'max_skipped': 5, 'watchdog_seconds': 600},
        'evaluation': {
            'scorer': 'world',           # or "digits", "captions"
            'tasks': (),                 # measured directions; all of training when empty
            'split': 'test',             # of the data; "excluded": only the speakers that training leaves out
            'examples': 256,             # at most, of every direction
            'examples_of': {},           # written task -> its own number
            'seed': 0,
        },
    })
