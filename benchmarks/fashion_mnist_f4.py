"""Fashion-MNIST in 49 tokens of 1000 codes: the test PSNR of the small image tokenizer while it trains.

    python benchmarks/fashion_mnist_f4.py --data_root=FOLDER

trains 28x28 -> 7x7 (f4) with finite scalar quantization for 3000 steps, a few minutes on 2 CPU cores, and writes the
curve to `benchmarks/reports/fashion_mnist_f4.json`: PSNR in dB over the 10,000 test pictures, share of the codes
used, perplexity, and seconds of all threads together.
"""

import sys
import time
from pathlib import Path

from absl import flags

from vqdit.command import run
from vqdit.files import write_json
from vqdit.tokenizers.autoencoder import Autoencoder
from vqdit.tokenizers.frozen import LearnedTokenizer
from vqdit.tokenizers.pixels import Pixels
from vqdit.tokenizers.quantizers import FiniteScalarQuantizer
from vqdit.training.defaults import optimization
from vqdit.training.host import prepare_host
from vqdit.training.trial import measure, read_pictures, shuffled, training

REPORT = Path(__file__).parent / 'reports' / 'fashion_mnist_f4.json'
STEPS, EVERY = 3000, 250

flags.DEFINE_string('data_root', None, 'folder of TFDS sets with fashion_mnist', required=True)


def main() -> None:
    prepare_host(cpu_devices=1)
    root = flags.FLAGS.data_root
    train, test = (read_pictures('fashion_mnist', root, *part) for part in (('train', 60_000), ('test', 10_000)))
    autoencoder = Autoencoder(FiniteScalarQuantizer((8, 5, 5, 5)), 1, (128,), 2, (4, 4))
    tokenizer, section = LearnedTokenizer(Pixels((28, 28), 1), autoencoder), optimization(STEPS, 64, 3e-3)
    section.ema_decay = 0.995
    curve: list[dict[str, float | None]] = []
    for step, variables in enumerate(training(tokenizer, shuffled(train, section.batch_size), section), start=1):
        if step % EVERY == 0:
            figures = measure(tokenizer, variables, test)._asdict()
            curve.append({'step': step, 'seconds': time.process_time()} | figures)
            write_json(REPORT, curve)
            sys.stdout.write(f'step {step}: {figures["psnr"]:.2f} dB, {figures["usage"]:.1%} of the codes\n')


if __name__ == '__main__':
    run(main)
