import pytest

from kfp_operator.providers.local.worker import last_line, raised, with_iterations

TRACEBACK = """Traceback (most recent call last):
  File "a.py", line 1, in train
    read()
ValueError: no such column
"""


@pytest.mark.parametrize(
    ("stderr", "exception"),
    [
        (TRACEBACK, "ValueError: no such column"),
        ("a warning\n" + TRACEBACK, "ValueError: no such column"),
        (TRACEBACK + "\nDuring handling of the above, another exception:\n\n" + TRACEBACK.replace("no", "a"), "ValueError: a such column"),
        (TRACEBACK + "in the second line\n", "ValueError: no such column\nin the second line"),
        ("Traceback (most recent call last):\n  File \x1b[35m'a'\x1b[0m\n\x1b[1;35mKeyError\x1b[0m: 'x'\n", "KeyError: 'x'"),
        ("Traceback (most recent call last):\n  File 'a', line 1\n    x y\n      ^\nSyntaxError: invalid\n", "SyntaxError: invalid"),
        ("Segmentation fault\n", ""),
        ("Traceback (most recent call last):\n  File cut off", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_exception_of_the_last_traceback_tells_why_a_step_failed(stderr: str, exception: str) -> None:
    assert raised(stderr) == exception


def test_without_a_traceback_the_last_line_is_all_there_is() -> None:
    assert last_line("usage\nerror: no such file\n\n") == ": error: no such file"
    assert last_line("\n") == ""


@pytest.mark.parametrize(
    ("path", "root", "expected"),
    [
        ("train", "/r/p-2026/train", "train"),
        ("for-loop-2/train", "/r/p-2026/for-loop-2-iteration-3/train", "for-loop-2-iteration-3/train"),
        (
            "for-loop-1/for-loop-2/t",
            "/r/p/for-loop-1-iteration-0/for-loop-2-iteration-7/t",
            "for-loop-1-iteration-0/for-loop-2-iteration-7/t",
        ),
        ("inner/train", "", "inner/train"),
    ],
)
def test_the_steps_of_a_loop_are_told_apart_by_their_iteration(path: str, root: str, expected: str) -> None:
    assert with_iterations(path, root) == expected
