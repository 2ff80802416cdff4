"""The tokens that a config leads to, before its tokenizers are trained."""

from collections.abc import Callable

from ml_collections import ConfigDict

from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training.factory import build_learned_tokenizer, learned_modalities
from vqdit.training.tokenizer_stage import make_text_tokenizer


def rough_layout(config: ConfigDict) -> TokenLayout:
    """The layout but for the number of codes of a text, which is not known before its vocabulary is."""
    return _layout(config, lambda name: TokenSpec((config.tokenizers[name].length,), 2))


def expected_layout(config: ConfigDict) -> TokenLayout:
    """The layout that training will find: captions are read for their vocabulary, nothing is written.

    Raises DataError where captions cannot be read.
    """
    return _layout(config, lambda name: make_text_tokenizer(config, name).spec)


def _layout(config: ConfigDict, spec_of_text: Callable[[str], TokenSpec]) -> TokenLayout:
    learned = learned_modalities(config)
    return TokenLayout({name: build_learned_tokenizer(config, name).spec if name in learned else spec_of_text(name)
                        for name in config.tokenizers})
