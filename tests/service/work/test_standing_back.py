"""A job's process stands back behind whoever answers requests, also where Linux weighs sessions."""

import subprocess
import sys

import pytest

from innerloop.service.work.child import AUTOGROUP, NICENESS

WORDS = """
import os
from innerloop.service.work.child import AUTOGROUP, stand_back
# Linux says nothing of a process whose session began before sessions were weighed, as in some containers.
group = lambda: (AUTOGROUP.read_text().split() if AUTOGROUP.exists() else []) or ["none"]
before = os.nice(0), group()[-1]
stand_back()
print(*before, os.nice(0), group()[-1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no niceness")
@pytest.mark.parametrize("own_session", [True, False])
def test_a_process_is_nicer_and_so_is_its_session_if_it_is_its_own(own_session: bool) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORDS],
        start_new_session=own_session,
        capture_output=True,
        text=True,
        check=True,
    )
    nice_before, group_before, nice_after, group_after = done.stdout.split()
    assert int(nice_after) == min(int(nice_before) + NICENESS, 19)
    if AUTOGROUP.exists():
        assert group_after == (str(NICENESS) if own_session else group_before)
