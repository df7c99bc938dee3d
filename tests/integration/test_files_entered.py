"""How many files `reproduce` runs through: whoever follows one command should not have to open half the package."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import subprocess_environment

ENTERED_FILES = 104

COUNT = """
import inspect, json, sys
from pathlib import Path
import disco_zoo
from disco_zoo.cli import main

package, entered = str(Path(disco_zoo.__file__).parent), set()

def note(frame, event, argument):
    code, caller = frame.f_code, frame.f_back
    # What runs at import is no call: bodies of modules and classes lack this flag, and a comprehension in the body of
    # a module is called by it.
    if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(package):
        if caller is None or caller.f_code.co_name != "<module>":
            entered.add(str(Path(code.co_filename).relative_to(package)))

sys.setprofile(note)
code = main(["reproduce", "effb0", "--steps", "1", "--workers", "0", "--out", sys.argv[1]])
sys.setprofile(None)
print(json.dumps([code, sorted(entered)]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)  # each call goes through the hook
def test_reproduce_enters_few_files(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        env=subprocess_environment(),
        check=True,
    )
    code, entered = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert len(entered) <= ENTERED_FILES, entered
