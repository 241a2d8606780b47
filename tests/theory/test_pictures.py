import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ff3d.theory.images import PAGE_BYTES
from ff3d.theory.pictures import (
    PHOTOGRAPHS,
    PictureError,
    fitted_shape,
    fitted_to,
    is_picture,
    load_picture,
    missing_energy,
    power_spectrum,
    psnr,
    ssim,
    text_picture,
)

RNG = np.random.default_rng(0)
COLORS = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)


def saved(tmp_path, array, ending="png", **options):
    path = tmp_path / f"picture.{ending}"
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_photograph_is_on_this_machine(name):
    picture = load_picture(name)
    assert picture.name == name
    assert picture.pixels.dtype == np.float32
    assert min(picture.pixels.shape[:2]) >= 300


def test_a_file_and_an_array_of_it_are_the_same_pixels(tmp_path):
    picture = load_picture(saved(tmp_path, COLORS))
    assert np.array_equal(picture.pixels, load_picture(COLORS).pixels)
    assert np.array_equal(np.rint(picture.pixels * 255), COLORS)
    assert (picture.name, picture.notes) == ("picture", ())


def test_grey_of_8_and_16_bits_and_black_and_white_become_three_equal_channels(tmp_path):
    shades = RNG.integers(0, 2**16, (10, 11), dtype=np.uint16)
    for array, largest in ((shades, 65535), ((shades >> 8).astype(np.uint8), 255), (shades > 30000, 1)):
        picture = load_picture(saved(tmp_path, array))
        assert np.allclose(picture.pixels, array[..., None].astype(float) / largest, atol=1e-7)
        assert "grey: three equal channels" in picture.notes
    assert "16 bits a channel" in load_picture(shades).notes


def test_transparent_pixels_lie_over_white(tmp_path):
    alpha = np.zeros((12, 9, 1), dtype=np.uint8)
    alpha[:6] = 255
    picture = load_picture(saved(tmp_path, np.concatenate([COLORS, alpha], axis=2)))
    assert np.array_equal(np.rint(picture.pixels[:6] * 255), COLORS[:6])
    assert (picture.pixels[6:] == 1).all()
    assert picture.notes == ("transparent pixels laid over white",)


def test_a_palette_a_turned_photograph_and_an_animation_are_read(tmp_path):
    palette = tmp_path / "palette.png"
    Image.fromarray(COLORS).quantize(256).save(palette)
    assert np.array_equal(np.rint(load_picture(palette).pixels * 255), COLORS)
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    assert load_picture(saved(tmp_path, COLORS, "jpg", exif=turned)).pixels.shape == (9, 12, 3)
    frames = [Image.fromarray(np.full((8, 8), shade, np.uint8)) for shade in (0, 100)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert "an animation: its first frame" in load_picture(tmp_path / "two.gif").notes


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((1, 1, 3), np.uint8), "at least 8 x 8 pixels, got 1 x 1"),
        (np.zeros((7, 100)), "got 100 x 7"),
        (np.zeros((9, 9, 2), np.uint8), r"must be \(h, w\), \(h, w, 3\) or \(h, w, 4\), got \(9, 9, 2\)"),
        (np.full((9, 9), 2.0), "from 0 to 1, got 2 to 2; scale them"),
        (np.full((9, 9), np.nan), "from 0 to 1"),
        (np.zeros((9, 9), np.int64), "uint8, uint16 or floating-point, got int64"),
    ],
)
def test_pixels_that_make_no_picture_are_refused(array, says):
    with pytest.raises(PictureError, match=says):
        load_picture(array)


def test_files_that_are_no_pictures_are_refused_in_one_line(tmp_path):
    (tmp_path / "words.png").write_text("no picture")
    whole = saved(tmp_path, RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    for name, says in (("words.png", "not a picture"), ("half.png", "cannot be read"), ("no.png", "no such file")):
        with pytest.raises(PictureError, match=says) as caught:
            load_picture(tmp_path / name)
        assert len(str(caught.value).splitlines()) == 1


def test_a_hundred_megapixels_are_refused_before_they_are_decoded(tmp_path):
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 10_000)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:200])  # decoding would fail
    with pytest.raises(PictureError, match=r"100 megapixels take 2\.4 GB to read, and 1\.0 GB are available"):
        load_picture(path, max_memory=10**9)


def test_reading_alpha_takes_more(tmp_path):
    noise = RNG.integers(0, 256, (500, 400, 4), dtype=np.uint8)
    path, needed = saved(tmp_path, noise), 60 * 500 * 400
    assert load_picture(path, max_memory=needed).pixels.shape == (500, 400, 3)
    with pytest.raises(PictureError, match="megapixels take"):
        load_picture(path, max_memory=needed - 1)
    load_picture(saved(tmp_path, noise[..., :3]), max_memory=24 * 500 * 400)


def test_the_pages_spectra_take_what_is_counted_for_them():
    truth = RNG.random((400, 500, 3)).astype(np.float32)
    half = truth / 2
    missing_energy(half, truth)
    tracemalloc.start()
    missing_energy(half, truth)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.7 * PAGE_BYTES < peak / (400 * 500) < PAGE_BYTES


def test_text_is_a_function_of_its_seed():
    assert np.array_equal(text_picture(3, 64).pixels, text_picture(3, 64).pixels)
    assert not np.array_equal(text_picture(3, 64).pixels, text_picture(4, 64).pixels)
    assert fitted_to(load_picture("text-3"), 64, square=True).is_text


def test_a_photograph_is_no_text_and_a_mesh_no_picture_whatever_its_name(tmp_path):
    Image.fromarray(np.zeros((20, 20), dtype=np.uint8)).save(tmp_path / "text-book.png")
    assert not load_picture(tmp_path / "text-book.png").is_text
    assert [is_picture(name) for name in ("text-7", "astronaut", "a/Photo.JPG")] == [True] * 3
    assert [is_picture(name) for name in ("text-logo.obj", "bunny", "text-", "astronaut.obj")] == [False] * 4


def test_the_middle_square_and_the_longest_side():
    picture = load_picture(RNG.random((30, 50, 3)))
    middle = fitted_to(picture, 30, square=True)
    assert np.array_equal(middle.pixels, picture.pixels[:, 10:40])
    assert middle.notes == ("its middle 30 x 30 of 50 x 30",)
    assert fitted_to(picture, 60, square=True).pixels.shape == (60, 60, 3)
    assert fitted_to(picture, 25, square=False).pixels.shape == (15, 25, 3)
    assert fitted_to(picture, 60, square=False).pixels is picture.pixels
    for size, square in ((30, True), (60, True), (25, False), (60, False), (8, False)):
        assert fitted_to(picture, size, square=square).pixels.shape[:2] == fitted_shape(picture, size, square=square)
    flat = fitted_to(load_picture(np.full((40, 40), 0.25)), 16, square=True).pixels
    np.testing.assert_allclose(flat, 0.25, atol=1e-6)


def test_noise_of_a_known_size_has_a_known_psnr():
    truth = np.full((64, 64, 3), 0.5, dtype=np.float32)
    assert psnr(truth, truth) == math.inf
    assert psnr(truth + np.float32(0.1), truth) == pytest.approx(20, abs=1e-4)
    assert ssim(truth, truth) == pytest.approx(1)


@given(seed=st.integers(0, 2**32 - 1), height=st.integers(8, 20), width=st.integers(8, 20))
def test_the_spectrum_keeps_the_energy(seed, height, width):
    pixels = np.random.default_rng(seed).random((height, width, 3)).astype(np.float32)
    energy = (pixels.astype(np.float64) ** 2).sum() / 3
    assert power_spectrum(pixels).sum() / (height * width) == pytest.approx(energy)


def test_what_is_missing_is_what_was_taken_away():
    x = np.arange(64) / 64
    low, high = (np.sin(2 * np.pi * cycles * x) / 8 for cycles in (2, 16))
    truth = np.broadcast_to((0.5 + low + high)[None, :, None], (64, 64, 3)).astype(np.float32)
    blurred = np.broadcast_to((0.5 + low)[None, :, None], (64, 64, 3)).astype(np.float32)
    frequencies, missing = missing_energy(blurred, truth)
    assert missing[np.argmin(abs(np.log(frequencies / 2)))] < 1e-6
    assert missing[np.argmin(abs(np.log(frequencies / 16)))] == pytest.approx(1, abs=1e-5)
    assert missing_energy(np.zeros_like(truth), truth)[1] == pytest.approx(np.ones(len(frequencies)))
