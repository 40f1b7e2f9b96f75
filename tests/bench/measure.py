"""Runs one command and writes what it cost: `python -I -S measure.py OUT COMMAND…`, JSON into OUT.

A process of its own, and a small one: the kernel counts what a child shares with its parent before it becomes another
program into the child's peak memory.
"""

import json
import os
import sys
import time
from pathlib import Path

out, *command = sys.argv[1:]
began = time.monotonic()
pid = os.posix_spawnp(command[0], command, os.environ)
_, status, usage = os.wait4(pid, 0)
ended = time.monotonic()
cost = {
    "code": os.waitstatus_to_exitcode(status),
    "began": began,
    "wall": ended - began,
    "cpu": usage.ru_utime + usage.ru_stime,
    # Linux counts in KiB.
    "rss": usage.ru_maxrss * 1024,
}
Path(out).write_text(json.dumps(cost))
