"""The smallest config of the built-in world that trains: two modalities, a few steps."""

from ml_collections import ConfigDict

from vqdit.training.defaults import defaults, pixels_tokenizer, text_tokenizer


def small_world() -> ConfigDict:
    config = defaults()
    config.data = ConfigDict({'source': 'world', 'train_examples': 16, 'test_examples': 8})
    image = pixels_tokenizer(8, (8,), {'name': 'finite_scalar', 'scalar_levels': (5, 5)})
    image.training.update(steps=1, batch_size=8)
    config.tokenizers = ConfigDict({'image': image, 'text': text_tokenizer('words', 12)})
    config.diffusion.tasks = ConfigDict({'text->image': 1.0, '->image,text': 1.0})
    config.diffusion.model.update(width=16, depth=1, heads=2)
    config.diffusion.training.update(steps=2, batch_size=8)
    config.evaluation.tasks = ('text->image',)
    config.mesh.data = 1
    return config
