"""Sampling frames: the right ones, at the right times, upright, in the budget, or an error that says why."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.Image import Resampling

from tests.unit.video_maker import H264, HEVC, Track, make_video, read_number, remux, steady, turn
from tvg.errors import TvgError
from tvg.segment import Segment
from tvg.settings import FramesSettings
from tvg.video import decode
from tvg.video.budget import fit, pixel_cap
from tvg.video.decode import Frames, describe, moments, sample
from tvg.video.probe import probe

FOUR = FramesSettings(fps=4)
SECOND_30 = steady(30, 30)
FIVE_SECONDS = steady(150, 30)
UNEVEN = [0, 40, 100, 1900, 1950, 2000, 4000, 4040, 4100, 4900]
OPEN_GOP = {**H264, "x264-params": "log-level=none:open-gop=1:keyint=20:bframes=5:b-pyramid=normal:b-adapt=0"}
HEVC_OPEN_GOP = {**HEVC, "x265-params": "log-level=none:keyint=20:open-gop=1"}
VP8 = {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "5"}

EXACT = {
    "constant.mp4": Track(FIVE_SECONDS),
    "constant.mkv": Track(FIVE_SECONDS),
    "no_b_frames.mp4": Track(FIVE_SECONDS, options={**H264, "bf": "0"}),
    "open_gop.mp4": Track(FIVE_SECONDS, options=OPEN_GOP),
    "open_gop.mkv": Track(FIVE_SECONDS, options=OPEN_GOP),
    "open_gop.ts": Track(range(150), options=OPEN_GOP, clock=Fraction(1, 30), last=1),
    "intra_refresh.mp4": Track(FIVE_SECONDS, options={**H264, "x264-params": "log-level=none:intra-refresh=1"}),
    "interlaced.mp4": Track(FIVE_SECONDS, options={**H264, "x264-params": "log-level=none:interlaced=1"}),
    "fields.avi": Track(range(150), "mpeg4", {"bf": "2"}, clock=Fraction(1, 30), last=1),
    "untimed.avi": Track(range(150), clock=Fraction(1, 30), last=1),
    "hevc.mp4": Track(FIVE_SECONDS, "libx265", HEVC_OPEN_GOP),
    "hevc.mkv": Track(FIVE_SECONDS, "libx265", HEVC_OPEN_GOP),
    "vp8.webm": Track(FIVE_SECONDS, "libvpx", VP8),
    "vp9.webm": Track(FIVE_SECONDS, "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
    "uneven.mp4": Track(UNEVEN),
    "uneven.mkv": Track(UNEVEN),
    "late.mp4": Track(steady(150, 30, start=500)),
    "late.mkv": Track(steady(150, 30, start=500)),
    "ntsc.mp4": Track([1001 * i for i in range(150)], clock=Fraction(1, 30000), last=1001),
    "slow.mp4": Track([0, 3000, 6000], last=3000),
    "single.mp4": Track([0], last=100),
}


def on_screen(track: Track, fps: int = 4) -> list[int]:
    """The oracle, in exact arithmetic: the last frame that has begun at k / fps, while before the end."""
    begins = [(tick - track.times[0]) * track.clock for tick in track.times]
    end, wanted, k = begins[-1] + track.last * track.clock, [], 0
    while Fraction(k, fps) < end:
        wanted.append(max(i for i, begin in enumerate(begins) if begin <= Fraction(k, fps)))
        k += 1
    return wanted


def numbers(frames: Frames) -> list[int | None]:
    return [read_number(picture) for picture in frames.pixels]


@pytest.mark.parametrize("name", EXACT)
def test_every_sample_is_the_frame_on_screen(name, tmp_path):
    track = EXACT[name]
    path = make_video(tmp_path / name, track)
    frames, wanted = sample(path, FOUR), on_screen(track)
    assert numbers(frames) == wanted
    times = [float((track.times[i] - track.times[0]) * track.clock) for i in wanted]
    np.testing.assert_allclose(frames.times, times, atol=6e-4)  # half a millisecond: Matroska's clock
    assert frames.fps == 4 and frames.times[0] == 0
    assert frames.pixels.dtype == np.uint8 and frames.pixels.shape[3] == 3
    described = describe(path, fps=4)
    assert described["timestamps"] == frames.times.tolist() and described["duration"] == frames.duration
    assert (described["height"], described["width"], described["frames"]) == (96, 160, len(wanted))


@pytest.mark.parametrize("options", [OPEN_GOP, {**H264, "preset": "slow"}, {**H264, "bf": "16"}])
def test_skipped_pictures_change_no_pixel(options, tmp_path):
    path = tmp_path / "textured.mp4"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 168, 112, "yuv420p"
        texture = random.integers(0, 256, (140, 240, 3), np.uint8)
        for i in range(90):
            view = texture[i % 28 : i % 28 + 112, i % 72 : i % 72 + 168]
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="rgb24")))
        out.mux(stream.encode())
    with av.open(str(path)) as video:
        shown = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert probe(path).skips
    np.testing.assert_array_equal(sample(path, FOUR).pixels, [shown[i] for i in on_screen(Track(steady(90, 30)))])


@pytest.mark.parametrize("name", ["edit.mp4", "edit.mov"])
@pytest.mark.parametrize("codec, options", [("libx264", OPEN_GOP), ("libx265", HEVC_OPEN_GOP)])
def test_edit_lists_hide_frames_before_the_cut(name, codec, options, tmp_path):
    whole = make_video(tmp_path / "whole.mp4", Track(FIVE_SECONDS, codec, options))
    frames = sample(remux(whole, tmp_path / name, after=1.37), FOUR)
    assert numbers(frames) == [42 + i for i in on_screen(Track(steady(108, 30)))]
    assert frames.duration == pytest.approx(3.6, abs=2e-3)


def test_pictures_that_cannot_be_decoded_are_not_counted(tmp_path):
    """A stream copy from the middle of an open GOP: the keyframe's leading pictures miss what they refer to."""
    whole = make_video(tmp_path / "whole.mp4", Track(FIVE_SECONDS, options=OPEN_GOP))
    frames = sample(remux(whole, tmp_path / "cut.mkv", after=1.37), FOUR)
    assert numbers(frames) == [40 + i for i in on_screen(Track(steady(110, 30)))]


@pytest.mark.parametrize(
    "matrix, undo",
    [
        ((0, 1, -1, 0), lambda p: np.rot90(p, 1)),  # as phones held upright write: a quarter turn clockwise
        ((0, -1, 1, 0), lambda p: np.rot90(p, 3)),
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    ],
)
def test_pictures_are_put_upright(matrix, undo, tmp_path):
    path = turn(make_video(tmp_path / "turned.mp4", Track(SECOND_30)), matrix)
    frames, facts = sample(path, FOUR), describe(path)
    assert [read_number(undo(picture)) for picture in frames.pixels] == [0, 7, 15, 22]
    assert (facts["height"], facts["width"]) == ((160, 96) if matrix[0] == 0 else (96, 160))


def test_a_video_takes_one_thread(tmp_path, monkeypatch):
    """Side by side, on a machine of many cores, the scaler's own threads would run into the limit of processes."""
    tasks, seen = Path("/proc/self/task"), []
    if not tasks.exists():
        pytest.skip("threads are counted in /proc")
    monkeypatch.setattr(
        decode.Image, "fromarray", lambda a, of=Image.fromarray: seen.append(len([*tasks.iterdir()])) or of(a)
    )
    path = make_video(tmp_path / "x.mp4", Track(SECOND_30))
    before = len([*tasks.iterdir()])
    sample(path, FOUR)
    assert seen and set(seen) == {before}


def test_sound_does_not_lengthen_a_video(tmp_path):
    for name in ("sound.mp4", "sound.mkv"):
        path = make_video(tmp_path / name, Track(FIVE_SECONDS), audio_seconds=7.0)
        assert describe(path)["duration"] == pytest.approx(5.0, abs=1e-3)


def test_the_stream_that_ffmpeg_would_pick(tmp_path):
    small, large = Track(SECOND_30), Track(SECOND_30, size=(320, 192), first=500)
    two = make_video(tmp_path / "two.mkv", small, large, audio_seconds=1.0)
    assert describe(two)["stream"] == 1 and numbers(sample(two, FOUR)) == [500, 507, 515, 522]
    flagged = make_video(tmp_path / "flagged.mp4", small, large)  # mp4 flags its first track as the default
    assert describe(flagged)["stream"] == 0 and describe(flagged)["width"] == 160
    cover = Track([0], "mjpeg", {}, size=(640, 480), disposition="attached_pic")
    covered = make_video(tmp_path / "covered.mp4", cover, Track(SECOND_30, first=500))
    assert numbers(sample(covered, FOUR)) == [500, 507, 515, 522]


def _cut(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def _damage(path: Path) -> Path:
    data = bytearray(path.read_bytes())
    for at in np.random.default_rng(1).integers(len(data) // 3, len(data) * 2 // 3, 20):
        data[at] ^= 0xFF
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.webm"])
@pytest.mark.parametrize("sound", [0.0, 5.0])
def test_a_cut_file_says_so(name, sound, tmp_path):
    if name.endswith("webm"):
        track, sound = Track(FIVE_SECONDS, "libvpx", VP8), 0.0
    else:
        track = Track(FIVE_SECONDS)
    muxer = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = _cut(make_video(tmp_path / name, track, audio_seconds=sound, muxer=muxer), 0.6)
    with pytest.raises(TvgError, match=r"cut short.*\n.*frames up to [0-4][.].*\n.*5[.][01]"):
        sample(path, FOUR)
    with pytest.raises(TvgError, match="cut short"):
        describe(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_damage_is_an_error_that_names_the_file(suffix, tmp_path):
    path = _damage(make_video(tmp_path / f"bad.{suffix}", Track(range(150), clock=Fraction(1, 30), last=1, noise=19)))
    with pytest.raises(TvgError, match=f"bad.{suffix}: .*(damaged|cut short)"):
        sample(path, FOUR)


def test_no_video_at_all(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "garbage.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    _cut(make_video(tmp_path / "headless.mp4", Track(SECOND_30)), 0.6)
    for name in ("empty.mp4", "garbage.mp4", "headless.mp4"):
        with pytest.raises(TvgError, match=f"{name}: (not a video, damaged or cut short|no video stream)"):
            sample(tmp_path / name, FOUR)
    with pytest.raises(TvgError, match="no such video"):
        sample(tmp_path / "absent.mp4", FOUR)
    with pytest.raises(TvgError, match="directory"):
        sample(tmp_path, FOUR)
    with pytest.raises(TvgError, match="no video stream"):
        sample(make_video(tmp_path / "sound.mp4", audio_seconds=1.0), FOUR)


def test_metadata_in_another_alphabet_is_no_obstacle(tmp_path):
    path = make_video(tmp_path / "titled.mkv", Track(SECOND_30), title="TITLE")
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"\xff\xfe\xc3\x28\xa0"))
    assert numbers(sample(path, FOUR)) == [0, 7, 15, 22]


def test_above_max_frames_they_are_evenly_spaced(tmp_path):
    path = make_video(tmp_path / "long.mp4", Track(FIVE_SECONDS))
    frames = sample(path, FramesSettings(max_frames=7))
    assert numbers(frames) == [int(k * 150 / 7 + 1e-6) for k in range(7)]
    assert frames.fps == pytest.approx(7 / 5) and frames.duration == pytest.approx(5.0)


@given(
    gaps=st.lists(st.integers(1, 4000), min_size=0, max_size=60),
    last=st.integers(1, 4000),
    fps=st.sampled_from([0.5, 1, 2, 4, 25]),
    most=st.integers(1, 300),
)
def test_moments_agree_with_exact_arithmetic(gaps, last, fps, most):
    begins = [Fraction(t, 1000) for t in np.cumsum([0, *gaps]).tolist()]
    end = begins[-1] + Fraction(last, 1000)
    count = max(1, -(-end * Fraction(fps) // 1))
    rate = Fraction(fps) if count <= most else most / end
    which, effective = moments(np.array([float(b) for b in begins]), float(end), fps, most)
    assert len(which) == min(count, most) and effective == pytest.approx(float(rate))
    for k, i in enumerate(which):
        assert begins[i] <= Fraction(k) / rate + Fraction(1, 10**5)
        assert i == len(begins) - 1 or begins[i + 1] > Fraction(k) / rate - Fraction(1, 10**5)


# systems.md 1.1: frames, cap in pixels, side of a square, visual tokens at most
@pytest.mark.parametrize(
    "count, cap, side, tokens",
    [
        (4, 602112, 776, 1536),
        (60, 93662, 306, 3584),
        (100, 56197, 237, 3584),
        (448, 13171, 115, 3763),
        (768, 13171, 115, 6451),
    ],
)
def test_the_pixel_budget(count, cap, side, tokens):
    settings = FramesSettings()
    assert round(pixel_cap(count, settings)) == round(pixel_cap(count - 1, settings)) == cap, "odd counts are filled up"
    assert round(cap**0.5) == side
    for height, width in ((1080, 1920), (1920, 1080), (480, 640), (240, 320), (720, 720)):
        h, w = fit(height, width, count, settings)
        assert h % 28 == 0 and w % 28 == 0 and h * w >= settings.min_pixels
        assert (h * w <= cap and h * w * count / 2 / 784 <= tokens) or h * w <= 20 * 784
    assert fit(720, 720, 448, settings) == (112, 112)
    assert pixel_cap(1, settings) == pixel_cap(4, settings), "fewer than four are filled up to four"


# (frames, source) -> size, from smart_resize of transformers 5.23; below its own minimum it is not followed.
RELEASED = {
    (4, (360, 640)): (364, 644), (4, (480, 854)): (476, 840), (4, (1080, 1920)): (560, 1008),
    (4, (568, 320)): (560, 308), (17, (480, 854)): (392, 728), (60, (360, 640)): (224, 392),
    (60, (1080, 1920)): (224, 392), (60, (568, 320)): (392, 224), (60, (64, 64)): (112, 112),
    (60, (96, 160)): (84, 168), (100, (480, 854)): (168, 308), (300, (1080, 1920)): (84, 168),
    (300, (568, 320)): (168, 84), (768, (64, 64)): (112, 112),
}  # fmt: skip


@pytest.mark.parametrize("count, source", RELEASED)
def test_sizes_equal_the_released_rule(count, source):
    assert fit(*source, count, FramesSettings()) == RELEASED[count, source]


def test_long_videos_keep_the_minimum():
    sizes = {source: fit(*source, 768, FramesSettings()) for source in ((1080, 1920), (480, 640), (96, 160))}
    assert sizes == {(1080, 1920): (84, 168), (480, 640): (112, 140), (96, 160): (84, 168)}


@given(
    height=st.integers(16, 2400),
    width=st.integers(16, 2400),
    count=st.integers(1, 768),
    settings=st.sampled_from([FramesSettings(), FramesSettings(min_pixels=784, max_pixels=3136, total_pixels=50_000)]),
)
def test_sizes_keep_the_aspect_ratio_and_the_limits(height, width, count, settings):
    h, w = fit(height, width, count, settings)
    assert h % 28 == 0 and w % 28 == 0 and h * w >= settings.min_pixels
    scale = (h * w / (height * width)) ** 0.5
    assert abs(h - height * scale) < 28 * 1.5 or abs(w - width * scale) < 28 * 1.5


def _clip(count: int, fps: float = 2.0, duration: float | None = None) -> Frames:
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    return Frames(pixels, np.arange(count) / fps, fps, count / fps if duration is None else duration, "pyav")


def test_a_crop_holds_what_is_on_screen_in_the_segment():
    clip = _clip(20)
    crop = clip.crop(Segment(3.3, 7.0))
    assert crop.pixels[:, 0, 0, 0].tolist() == [7, 8, 9, 10, 11, 12, 13]
    assert crop.times[0] == 0 and len(crop) == 7 and crop.duration == pytest.approx(3.5) and crop.fps == 2
    assert crop.pixels.base is not None, "a crop copies nothing"
    assert clip.crop(Segment(0, 10)).pixels.shape == clip.pixels.shape


def test_short_segments_grow_on_both_sides_inside_the_clip():
    clip = _clip(20)
    assert clip.crop(Segment(5.0, 5.2)).pixels[:, 0, 0, 0].tolist() == [9, 10, 11, 12]  # 4.1 to 6.1
    assert clip.crop(Segment(0.0, 0.1)).pixels[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert clip.crop(Segment(9.9, 30.0)).pixels[:, 0, 0, 0].tolist() == [16, 17, 18, 19]
    assert len(clip.crop(Segment(5, 6), min_seconds=0, min_frames=1)) == 2
    assert len(_clip(3).crop(Segment(0, 0.1))) == 3, "a clip shorter than that stays whole"


@given(
    count=st.integers(1, 200),
    fps=st.floats(0.1, 8),
    start=st.floats(-5, 120),
    length=st.floats(-2, 120),
    least=st.integers(1, 8),
)
def test_crops_are_never_empty_and_lie_in_the_clip(count, fps, start, length, least):
    clip = _clip(count, fps)
    crop = clip.crop(Segment(start, start + length), min_frames=least)
    assert min(least, count) <= len(crop) <= count and len(crop.pixels) == len(crop.times)
    assert crop.times[0] == 0 and 0 < crop.duration <= clip.duration + 1e-6


def test_real_charades_video(real_data):
    path = real_data("videos/OHOFG.mp4")
    with av.open(str(path)) as video:
        stream = video.streams.video[0]
        walked = [(float(f.pts * stream.time_base), f) for f in video.decode(stream)]
    frames, facts = sample(path, FramesSettings()), describe(path)
    wanted = [max(i for i, (t, _) in enumerate(walked) if t <= k / 2) for k in range(71)]
    np.testing.assert_allclose(frames.times, [walked[i][0] for i in wanted], atol=1e-9)
    assert facts["duration"] == pytest.approx(35.1415) and facts["frames"] == 71 and facts["codec"] == "h264"
    height, width = frames.pixels.shape[1:3]
    assert height * width <= 3584 * 784 / 72 * 2 and (height, width) == fit(360, 640, 71, FramesSettings())
    for picture, i in zip(frames.pixels[::10], wanted[::10], strict=True):
        expected = walked[i][1].to_image().resize((width, height), Resampling.BICUBIC)
        np.testing.assert_array_equal(picture, np.asarray(expected))


def test_real_oddities(real_data):
    with pytest.raises(TvgError, match="damaged"):
        sample(real_data("videos/decord_corrupted.mp4"), FramesSettings())
    pancake = describe(real_data("videos/decord_flipping_a_pancake.mkv"))
    assert pancake["duration"] == pytest.approx(10.333) and pancake["frames"] == 21
    turned = describe(real_data("videos/decord_video_90.mov"))
    assert (turned["height"], turned["width"], turned["rotation"], turned["frames"]) == (568, 320, -90, 1)
    hevc = describe(real_data("videos/torchcodec_h265_video.mp4"), fps=10)
    assert hevc["codec"] == "hevc" and hevc["timestamps"] == pytest.approx([k / 10 for k in range(10)])


def test_importing_the_decoder_loads_no_torch():
    code = "import sys, tvg.video.decode, tvg.video.cache; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
