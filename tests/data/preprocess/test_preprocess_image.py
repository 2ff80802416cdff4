"""Pictures: every mode to L or RGB, fitting, and what is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from vqdit.data.preprocess.image import ImageSettings, load_image, prepare_image, read_image
from vqdit.errors import DataError, UserError

GREY, COLOUR = ImageSettings(16, 1), ImageSettings(16, 3)


def encode(image: Image.Image, kind: str = 'PNG', **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def ramp(dtype=np.uint8, top=255) -> np.ndarray:
    """A 16x16 ramp from 0 to `top`."""
    return np.linspace(0, top, 256).reshape(16, 16).astype(dtype)


def picture(*size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))


def png_header(width: int, height: int) -> bytes:
    chunk = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    return (
        b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + chunk + struct.pack('>I', zlib.crc32(chunk))
    )


def corrupt(content: bytes) -> bytes:
    place = content.index(b'IDAT') + 20
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def test_rgb_of_the_right_size_is_unchanged():
    image = picture(16, 16)
    np.testing.assert_array_equal(read_image(encode(image), 'a.png', COLOUR), np.asarray(image))


def test_grey_is_repeated_over_three_channels():
    pixels = read_image(encode(Image.fromarray(ramp())), 'a.png', COLOUR)
    assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, np.repeat(ramp()[..., None], 3, axis=-1))


@pytest.mark.parametrize('kind', ['PNG', 'TIFF'])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    content = encode(Image.fromarray(ramp(np.uint16, 65535)), kind)
    pixels = read_image(content, 'a', GREY)[..., 0].astype(float)
    np.testing.assert_allclose(pixels, np.linspace(0, 255, 256).reshape(16, 16), atol=0.51)


def test_integers_and_floats_are_scaled_by_their_range():
    for values in (ramp(np.int32, 10**6) - 5000, ramp(np.float32, 1.0), ramp(np.float32, 900.0)):
        pixels = read_image(encode(Image.fromarray(values), 'TIFF'), 'a', GREY)
        np.testing.assert_allclose(pixels[..., 0], ramp(np.float64), atol=0.51)


def test_transparency_is_laid_on_the_background():
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8, :, 0], rgba[:8, :, 3] = 255, 255  # red above, transparent black below
    assert read_image(encode(Image.fromarray(rgba)), 'a', COLOUR)[12, 3].tolist() == [255] * 3
    dark = ImageSettings(16, 3, background=10)
    pixels = read_image(encode(Image.fromarray(rgba)), 'a', dark)
    assert pixels[12, 3].tolist() == [10] * 3 and pixels[2, 3].tolist() == [255, 0, 0]
    half = Image.new('LA', (16, 16), (0, 128))
    assert read_image(encode(half), 'a', GREY)[0, 0, 0] == 127


def test_transparent_palette_is_laid_on_white():
    image = Image.new('P', (16, 16), 1)
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.paste(0, (0, 0, 8, 16))
    pixels = read_image(encode(image, transparency=1), 'a', COLOUR)
    assert pixels[0, 0].tolist() == [200, 0, 0] and pixels[0, 15].tolist() == [255, 255, 255]


def test_one_bit_and_cmyk_and_animation():
    assert read_image(encode(Image.new('1', (16, 16), 1)), 'a', GREY).min() == 255
    cmyk = Image.new('CMYK', (16, 16), (0, 255, 255, 0))
    red = read_image(encode(cmyk, 'TIFF'), 'a', COLOUR)[0, 0]
    assert red.tolist() == [255, 0, 0]
    frames = [Image.new('RGB', (16, 16), colour) for colour in ('red', 'blue')]
    gif = encode(frames[0], 'GIF', save_all=True, append_images=frames[1:])
    assert read_image(gif, 'a', COLOUR)[0, 0].tolist() == [255, 0, 0]


def test_exif_turns_the_picture():
    image = Image.new('L', (16, 8))
    image.paste(255, (0, 0, 8, 8))  # white at the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    turned = load_image(io.BytesIO(encode(image, exif=exif)), 'a')
    assert turned.size == (8, 16)
    assert np.asarray(turned)[0, 0] == 255 and np.asarray(turned)[15, 0] == 0


def test_crop_takes_the_middle_square():
    values = np.zeros((20, 60, 3), np.uint8)
    values[:, 20:40] = 200
    pixels = prepare_image(Image.fromarray(values), ImageSettings(20, 3))
    np.testing.assert_array_equal(pixels, np.full((20, 20, 3), 200))


def test_pad_puts_a_digit_on_its_own_ground():
    digit = np.zeros((28, 28), np.uint8)
    digit[5:20, 5:20] = 255
    pixels = prepare_image(Image.fromarray(digit), ImageSettings(32, 1, 'pad'))
    np.testing.assert_array_equal(pixels[2:30, 2:30, 0], digit)
    assert pixels.sum() == digit.sum()


def test_pad_shrinks_and_repeats_the_border():
    values = np.full((64, 32, 3), 90, np.uint8)
    pixels = prepare_image(Image.fromarray(values), ImageSettings(32, 3, 'pad'))
    np.testing.assert_array_equal(pixels, np.full((32, 32, 3), 90))


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    pixels = prepare_image(Image.fromarray(stripes), ImageSettings(16, 1))
    assert np.abs(pixels[:, 2:-2].astype(int) - 127).max() <= 2


@pytest.mark.parametrize('size', [(9, 31), (33, 17), (8, 160), (100, 8)])
@pytest.mark.parametrize('fit', ['crop', 'pad'])
def test_odd_sizes(size, fit):
    assert prepare_image(picture(*size), ImageSettings(16, 3, fit)).shape == (16, 16, 3)


def test_trailing_bytes_and_a_missing_last_byte_are_accepted():
    content = encode(picture(16, 16))
    np.testing.assert_array_equal(
        read_image(content + b'more', 'a', COLOUR), read_image(content[:-1], 'a', COLOUR)
    )


FLOATS = np.full((16, 16), np.nan, np.float32)
BAD = {
    'empty': b'',
    'text': b'hello, this is no picture',
    'html': b'<!doctype html><html><body>404</body></html>',
    'svg': b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    'eps': b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n',
    'header only': encode(picture(16, 16))[:33],
    'half a PNG': encode(picture(64, 64))[:6000],
    'half a JPEG': encode(picture(64, 64), 'JPEG')[:1500],
    'wrong checksum': corrupt(encode(picture(64, 64))),
    'no pixels': png_header(0, 0),
    'bomb': png_header(60000, 60000),
    'too large': png_header(8000, 8000),
    'too small': encode(picture(7, 7)),
    'too long': encode(picture(10, 1000)),
    'not finite': encode(Image.fromarray(FLOATS), 'TIFF'),
    'pickle': b'\x80\x04\x95\x0b\x00\x00\x00',
}


@pytest.mark.parametrize('case', BAD)
def test_bad_pictures_are_refused_by_name(case):
    with pytest.raises(DataError, match=r'^cat\.png: .*; mend or remove it$'):
        read_image(BAD[case], 'cat.png', COLOUR)


@pytest.mark.parametrize(
    'wrong', [{'size': 0}, {'channels': 2}, {'fit': 'stretch'}, {'background': 256}]
)
def test_wrong_settings(wrong):
    with pytest.raises(UserError, match='image.' + next(iter(wrong))):
        ImageSettings(**wrong)
