"""What a person sees while a run goes on."""

import io

from shared.training import progress
from shared.training.progress import Display, clock


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_when_the_output_is_no_terminal(monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    out = io.StringIO()
    display = Display("planet/0", 10_000, stream=out)
    display.update(2500, 300, returned=12.34, evaluated=56.78)
    line = out.getvalue()
    for part in ("[planet/0]", "2,500 of 10,000 env steps", "300 updates", "return 12.3", "evaluated 56.8", "left"):
        assert part in line
    assert "\r" not in line


def test_plain_lines_do_not_flood_a_log_and_the_last_word_is_said():
    out = io.StringIO()
    display = Display("x", 100, stream=out)
    for step in range(1, 101):
        display.update(step, step)
    assert out.getvalue() == ""
    display.close()
    assert out.getvalue().count("\n") == 1 and "100 of 100 env steps" in out.getvalue()


def test_a_bar_on_a_terminal():
    out = Terminal()
    display = Display("planet/0", 10_000, stream=out)
    display.update(2500, 300, returned=12.34)
    display.say("a message")
    display.close()
    text = out.getvalue()
    assert "\r" in text and "300 updates, return 12.3" in text and "a message" in text


def test_a_resumed_bar_starts_where_the_run_stands():
    out = Terminal()
    display = Display("planet/0", 10_000, stream=out)
    display.start_at(5000)
    assert display.bar.n == 5000
    display.update(6000, 1)
    assert display.bar.n == 6000
    display.close()


def test_clock():
    assert clock(3671.9) == "1:01:11"
