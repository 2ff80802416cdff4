"""Losses of tokenizers: of what they reconstruct, of how it looks and sounds, and against a discriminator."""

from vqdit.tokenizers.losses.reconstruction import peak_signal_to_noise, reconstruction_loss

__all__ = ['peak_signal_to_noise', 'reconstruction_loss']
