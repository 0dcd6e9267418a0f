import io
import sys

import pytest

from cleft_bundle import progress


class Terminal(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0.2), (False, 30.0)])
def test_a_log_file_is_not_filled_with_bars(terminal, seconds, monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal(terminal))
    assert progress.refresh_interval() == seconds


def test_a_bar_gives_what_it_goes_through_and_can_be_hidden(capsys):
    assert list(progress.bar([1, 2], "reading", "image", hidden=True)) == [1, 2]
    assert capsys.readouterr().err == ""
    assert list(progress.bar([1, 2], "reading", "image")) == [1, 2]
    assert "reading: 100%" in capsys.readouterr().err


def test_what_follows_an_error_has_a_line_of_its_own(capsys):
    shown = progress.show(description="training", unit="batch", total=3, leave=False)
    shown.update(1)
    progress.close_bars()
    print("error: SIGTERM", file=sys.stderr)
    assert capsys.readouterr().err.splitlines()[-1] == "error: SIGTERM"
