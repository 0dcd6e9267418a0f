import logging
import threading
import warnings

from cleft_bundle.data.quiet import quiet


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
