"""The GPU decoder, by a library that decodes on the CPU in its place: the machines of CI have no GPU."""

import sys
from types import ModuleType

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless

from cleft_bundle.data.dicom import decoding as dicom_decoding
from cleft_bundle.data.dicom import gpu_decoding
from cleft_bundle.data.dicom.header import read_header
from tests.data.radiographs import EXPECTED, load, make_dicom, scene

pytestmark = pytest.mark.skipif(not gpu_decoding.HAS_DECODERS, reason="needs pydicom 3")


@pytest.fixture
def library(monkeypatch):
    """MONAI's module for nvImageCodec, saying that the library is there; its plug-in is called "pylibjpeg"."""
    module = ModuleType("monai.data.nvimgcodec_pydicom_plugin")
    module.is_nvimgcodec_available = lambda: True
    module.register_as_decoder_plugin = lambda: True
    module.NVIMGCODEC_PLUGIN_LABEL = "pylibjpeg"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(gpu_decoding, "_trusted", {})
    gpu_decoding._registered.cache_clear()
    yield module
    gpu_decoding._registered.cache_clear()


def decoder_of(path):
    decoded = dicom_decoding.decode(read_header(path))
    np.testing.assert_array_equal(decoded.pixels, scene())
    return decoded.decoder


def test_without_the_library_the_cpu_decodes(tmp_path):
    gpu_decoding._registered.cache_clear()
    if gpu_decoding.available():
        pytest.skip("there is a GPU with nvImageCodec")
    assert decoder_of(make_dicom(tmp_path / "x.dcm", syntax=JPEG2000Lossless)) == "gdcm"


def test_with_the_library_it_is_asked_first(tmp_path, library):
    path = make_dicom(tmp_path / "x.dcm", syntax=JPEG2000Lossless)
    assert [decoder_of(path) for _ in range(2)] == ["nvimgcodec"] * 2
    np.testing.assert_allclose(load(path)[0], EXPECTED, atol=1e-6)


def test_other_formats_are_left_to_the_cpu(tmp_path, library):
    assert decoder_of(make_dicom(tmp_path / "x.dcm", syntax=JPEGLSLossless)) == "pyjpegls"
    assert str(JPEGLosslessSV1) not in gpu_decoding._FORMATS


@pytest.mark.parametrize("change", [lambda pixels: pixels + 1, lambda pixels: pixels[:-1]])
def test_a_gpu_that_differs_from_the_cpu_is_not_asked_again(tmp_path, library, monkeypatch, caplog, change):
    ask, asked = gpu_decoding._ask, []

    def wrong(plain, plugin):
        asked.append(plugin)
        return change(ask(plain, plugin)) if len(asked) % 2 else ask(plain, plugin)  # the GPU first, then the CPU

    monkeypatch.setattr(gpu_decoding, "_ask", wrong)
    path = make_dicom(tmp_path / "x.dcm", syntax=JPEG2000Lossless)
    assert [decoder_of(path) for _ in range(2)] == ["gdcm"] * 2
    assert len(asked) == 2
    assert "nvImageCodec decodes JPEG 2000" in caplog.text


def test_a_gpu_that_fails_leaves_the_file_to_the_cpu(tmp_path, library, monkeypatch):
    monkeypatch.setattr(gpu_decoding, "_ask", lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    assert decoder_of(make_dicom(tmp_path / "x.dcm", syntax=JPEG2000Lossless)) == "gdcm"


@pytest.mark.parametrize("missing", ["is_nvimgcodec_available", "register_as_decoder_plugin"])
def test_a_library_without_a_device_is_not_asked(library, monkeypatch, missing):
    monkeypatch.setattr(library, missing, lambda: False)
    assert not gpu_decoding.available()


def test_a_forked_process_is_left_to_the_cpu(library, monkeypatch):
    assert gpu_decoding.available()
    monkeypatch.setattr("multiprocessing.parent_process", object)
    monkeypatch.setattr("multiprocessing.get_start_method", lambda: "fork")
    assert not gpu_decoding.available()
