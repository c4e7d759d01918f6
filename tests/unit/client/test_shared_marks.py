# SPDX-License-Identifier: Apache-2.0
"""One file of marks and several clients at once: no raise is ever lost."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from adyton.marks import MarkFile
from adyton_attestation.marks import NO_MARKS, HighWaterMarks

RAISES = 60
CLIENT = """
import sys
from pathlib import Path
from adyton.marks import MarkFile
from adyton_attestation.marks import HighWaterMarks

file, name = MarkFile(Path(sys.argv[1])), sys.argv[2]
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    file.keep(HighWaterMarks(documents=((f"{name}{number}", number + 1),)))
"""
"""Raises one mark after the other, each of a document of its own, so that none makes up for a lost one."""

MARKS = st.dictionaries(st.sampled_from("abcde"), st.integers(0, 9), max_size=5).map(
    lambda numbers: HighWaterMarks(documents=tuple(sorted(numbers.items())))
)


def test_two_processes_lose_no_raise(tmp_path: Path) -> None:
    """Two clients that begin in the same moment and raise one mark after the other: all of them are kept."""
    path = tmp_path / "state" / "marks.json"
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(path), name, str(RAISES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in ("a", "b")
    ]
    for client in clients:
        assert client.stdout is not None
        assert client.stdout.readline() == b"ready\n"
    for client in clients:
        assert client.stdin is not None
        client.stdin.write(b"go\n")
        client.stdin.flush()
    for client in clients:
        client.communicate()
        assert client.returncode == 0
    expected = {f"{name}{number}": number + 1 for name in ("a", "b") for number in range(RAISES)}
    assert dict(MarkFile(path).load().documents) == expected
    assert {item.name for item in path.parent.iterdir()} == {"marks.json", "marks.json.lock"}


@given(st.lists(MARKS, min_size=1, max_size=8))
@settings(deadline=None, max_examples=40)
def test_threads_keep_the_highest_of_all(seen: list[HighWaterMarks]) -> None:
    """Whatever clients of one process see, in whatever order they come to write: each mark is the highest."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "marks.json"
        with ThreadPoolExecutor(len(seen)) as threads:
            list(threads.map(lambda marks: MarkFile(path).keep(marks), seen))
        expected = NO_MARKS
        for marks in seen:
            expected = expected.merged(marks)
        assert MarkFile(path).load() == expected
