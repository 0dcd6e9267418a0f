import logging
import threading
import warnings

import pytest

from cleft_bundle.data.quiet import mute_other_readers, quiet
from tests import processes
from tests.conftest import ROOT


def test_what_a_library_says_is_kept_back_and_the_rest_goes_on(caplog):
    logging.getLogger("pydicom")  # as importing the library does
    with warnings.catch_warnings(record=True) as caught, caplog.at_level("DEBUG"):
        warnings.simplefilter("always")
        with quiet() as said:
            warnings.warn("secret", stacklevel=1)
            logging.getLogger("pydicom").warning("secret")
            with quiet() as inner:
                warnings.warn("deeper", stacklevel=1)
            warnings.warn("after", stacklevel=1)
        warnings.warn("open", stacklevel=1)
        logging.getLogger("pydicom").warning("open")
        logging.getLogger("cleft_bundle").warning("ours")
    assert (said, inner) == (["secret", "after"], ["deeper"])
    assert [str(w.message) for w in caught] == ["open"]
    assert caplog.messages == ["open", "ours"]


def test_other_threads_go_on_and_the_filters_come_back_in_any_order():
    inside, leave, outside = threading.Event(), threading.Event(), threading.Event()

    def read():
        with quiet():
            inside.set()
            leave.wait(5)
        outside.set()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        with quiet():
            thread = threading.Thread(target=read)
            thread.start()
            inside.wait(5)
        warnings.warn("while another thread reads", stacklevel=1)
        leave.set()
        outside.wait(5)
        thread.join()
        assert list(warnings.filters) == before
        warnings.warn("afterwards", stacklevel=1)
    assert [str(w.message) for w in caught] == ["while another thread reads", "afterwards"]


def printed(code):
    """What the code prints to the standard error of a process that has no other threads yet, as MLflow's would be."""
    code = "import os, threading\nfrom cleft_bundle.data.quiet import mute_decoder\n" + code
    return processes.run(["-c", code], ROOT, check=True).stderr


def test_what_a_decoder_prints_in_the_main_thread_stays_off_the_console():
    code = """
with mute_decoder():
    os.write(2, b"Unsupported JPEG data precision 12\\n")
os.write(2, b"after\\n")
try:
    with mute_decoder():
        raise ValueError
except ValueError:
    os.write(2, b"after an error\\n")
"""
    assert printed(code) == "after\nafter an error\n"


@pytest.mark.parametrize("daemon", [False, True])
def test_what_others_print_is_never_lost_to_a_decoder(daemon):
    """Beside a thread of the user's own nothing is muted, and nothing in that thread; beside a helper's, it is."""
    code = f"""
inside, leave = threading.Event(), threading.Event()

def other():
    with mute_decoder():
        os.write(2, b"from another thread\\n")
    inside.set()
    leave.wait(5)

thread = threading.Thread(target=other, daemon={daemon})
thread.start()
inside.wait(5)
with mute_decoder():
    os.write(2, b"from the main thread\\n")
leave.set()
thread.join()
"""
    assert printed(code) == "from another thread\n" + ("" if daemon else "from the main thread\n")


def test_monai_speaks_of_another_reader_only_where_that_is_wanted(monkeypatch):
    assert printed("from monai.transforms import LoadImage\nLoadImage('cleft_bundle.data.RadiographReader')\n") == ""
    monkeypatch.setenv("MONAI_DICOM_READER", "nvimgcodec")
    with warnings.catch_warnings():
        before = list(warnings.filters)
        mute_other_readers()
        assert list(warnings.filters) == before


def test_a_closed_console_is_no_error():
    code = "import os; from cleft_bundle.data.quiet import mute_decoder as m; os.close(2)\nwith m(): print('read')"
    done = processes.run(["-c", code], check=True)
    assert done.stdout == "read\n"


def test_a_jpeg_of_12_bits_is_read_in_silence():
    code = """
from tests.data.radiographs import installed, load
image, meta = load(installed("pydicom") / "data" / "test_files" / "JPEG-lossy.dcm")
assert meta["decoder"].startswith("gdcm") and image.any()
"""
    assert printed(code) == ""
