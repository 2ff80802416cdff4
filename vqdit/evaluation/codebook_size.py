"""Which codebook size do I need? A few short trainings of a config's tokenizer with more and more codes.

    python -m vqdit.evaluation.codebook_size --config=configs/quickstart.py --modality=image --out=FOLDER

replaces the quantizer by finite scalar quantization of 4 to 14 bits a position, trains each for `--steps` steps in
memory, and writes rate against distortion on test data to FOLDER/codebook_sizes.{json,png}. All else is the config's.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from vqdit.command import config_flag, run
from vqdit.data import load
from vqdit.errors import UserError
from vqdit.files import write_bytes, write_json
from vqdit.training.factory import build_learned_tokenizer, learned_modalities
from vqdit.training.host import prepare_host
from vqdit.training.trial import measure, train_in_memory

SIZES = ((4, 4), (8, 8), (8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5), (8, 8, 8, 6, 5))
"""Levels of the scalars: 16, 64, 240, 1,000, 4,375 and 15,360 codes (arXiv:2309.15505, table 1)."""
MEASURED = 1000
ENOUGH = 0.5
"""Decibels below the best that are not worth more codes."""
WIDTH, HEIGHT, MARGIN = 480, 320, 48

Point = dict[str, Any]


def sweep(config: ConfigDict, modality: str, steps: int, sizes: Sequence[tuple[int, ...]] = SIZES) -> list[Point]:
    """Figures of `Trial` for every size, from few codes to many. Raises UserError for a modality without codes."""
    if modality not in learned_modalities(config):
        raise UserError(f'modality "{modality}" has no learned tokenizer; the config has '
                        f'{", ".join(learned_modalities(config))}')
    test = load(config.data, 'test', (modality,))
    held_out = np.stack([test[i][modality] for i in range(min(MEASURED, len(test)))])
    points = []
    for levels in sizes:
        changed = ConfigDict(config.to_dict())
        section = changed.tokenizers[modality]
        with changed.unlocked():
            section.quantizer = ConfigDict({'name': 'finite_scalar', 'scalar_levels': levels})
        section.training.steps = steps
        tokenizer = build_learned_tokenizer(changed, modality)
        variables = train_in_memory(changed, modality, tokenizer)
        points.append({'codes': int(np.prod(levels))} | measure(tokenizer, variables, held_out)._asdict())
    return points


def recommend(points: Sequence[Point]) -> str:
    """One sentence: the fewest codes that come near the best."""
    best = max(point['psnr'] for point in points)
    chosen = next(point for point in points if point['psnr'] >= best - ENOUGH)
    return (f'{chosen["codes"]} codes reach {chosen["psnr"]:.1f} dB at {chosen["bits"]:.0f} bits an example '
            f'({chosen["entropy_bits"]:.0f} after entropy coding), within {ENOUGH} dB of the best in this sweep')


def draw(points: Sequence[Point]) -> Image.Image:
    """PSNR over bits an example: dots as they are, circles after entropy coding."""
    picture = Image.new('RGB', (WIDTH, HEIGHT), 'white')
    pen = ImageDraw.Draw(picture)
    most = max(point['bits'] for point in points)
    low, high = (limit(point['psnr'] for point in points) for limit in (min, max))
    across = lambda bits: MARGIN + bits / most * (WIDTH - 2 * MARGIN)
    up = lambda psnr: HEIGHT - MARGIN - (psnr - low) / max(high - low, 1e-6) * (HEIGHT - 2 * MARGIN)
    pen.line([(MARGIN, MARGIN / 2), (MARGIN, HEIGHT - MARGIN / 2), (WIDTH - MARGIN / 2, HEIGHT - MARGIN / 2)], 'black')
    pen.line([(across(point['bits']), up(point['psnr'])) for point in points], 'steelblue')
    for point in points:
        x, y = across(point['bits']), up(point['psnr'])
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], fill='steelblue')
        pen.ellipse([across(point['entropy_bits']) - 3, y - 3, across(point['entropy_bits']) + 3, y + 3],
                    outline='steelblue')
        pen.text((x - 12, y - 16), f'{point["codes"]}', 'black')
    pen.text((4, 4), f'PSNR in dB, {low:.1f} to {high:.1f}', 'black')
    pen.text((WIDTH // 2, HEIGHT - MARGIN / 2 + 4), f'bits an example, up to {most:.0f}', 'black')
    return picture


def main() -> None:
    prepare_host(cpu_devices=1)
    values = flags.FLAGS
    points, folder, picture = sweep(values.config, values.modality, values.steps), Path(values.out), io.BytesIO()
    draw(points).save(picture, 'PNG')
    write_bytes(folder / 'codebook_sizes.png', picture.getvalue())
    write_json(folder / 'codebook_sizes.json', points)
    for point in points:
        sys.stdout.write(f'{point["codes"]} codes: {point["psnr"]:.2f} dB, {point["usage"]:.0%} used\n')
    sys.stdout.write(f'{recommend(points)}\n')


if __name__ == '__main__':
    config_flag()
    flags.DEFINE_string('modality', 'image', 'whose tokenizer')
    flags.DEFINE_integer('steps', 300, 'of every training', lower_bound=1)
    flags.DEFINE_string('out', None, 'folder for the table and the drawing', required=True)
    run(main)
