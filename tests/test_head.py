"""What Ray says by itself is kept from the terminal, and nothing else is."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """\
import os, sys, threading
from sweeper.head import silence

def say(text):
    print(text, file=sys.stderr)
    os.write(2, f"Ray {text}\\n".encode())

def other():
    with silence:
        inside.set()
        left.wait()
        say("of one thread inside")

say("before")
inside, left = threading.Event(), threading.Event()
thread = threading.Thread(target=other)
with silence:
    thread.start()
    inside.wait()
    say("of two threads inside")
left.set()
thread.join()
say("after")
"""


def test_whichever_thread_leaves_last_stderr_is_whole_again_and_pythons_lines_were_never_lost() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == [
        "before",
        "Ray before",
        "of two threads inside",
        "of one thread inside",
        "after",
        "Ray after",
    ]
