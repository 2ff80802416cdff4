"""The tokens that a config leads to, before its tokenizers are trained."""

from ml_collections import ConfigDict

from vqdit.tokenizers.spec import TokenLayout, TokenSpec
from vqdit.training.factory import build_learned_tokenizer, learned_modalities
from vqdit.training.tokenizer_stage import make_text_tokenizer


def rough_layout(config: ConfigDict) -> TokenLayout:
    """The layout but for the number of codes of a text, which is not known before its vocabulary is."""
    learned = learned_modalities(config)
    return TokenLayout({name: build_learned_tokenizer(config, name).spec if name in learned
                        else TokenSpec((section.length,), 2) for name, section in config.tokenizers.items()})


def expected_layout(config: ConfigDict) -> TokenLayout:
    """The layout that training will find: captions are read for their vocabulary, nothing is written.

    Raises DataError where captions cannot be read.
    """
    learned = learned_modalities(config)
    return TokenLayout({name: build_learned_tokenizer(config, name).spec if name in learned
                        else make_text_tokenizer(config, name).spec for name in config.tokenizers})
