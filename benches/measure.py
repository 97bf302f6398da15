#!/usr/bin/env python3
"""Runs a command and says what it cost: measure.py RESULT COMMAND…

RESULT gets one line of numbers: seconds by the clock, seconds of CPU (user and system, of the command and all the children it waited
for), peak KiB of its largest process, peak KiB of all its processes together. The first three are the kernel's own figures. The
last is sampled every 50 ms: the sum of the proportional set sizes (PSS, in which memory shared by n processes counts 1/n each).
The exit status is the command's.
"""

import os
import resource
import subprocess
import sys
import threading
import time

INTERVAL_S = 0.05


def children_of():
    """Process id → ids of its children, of all processes."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    # The name in parentheses may hold anything; the parent's id is the second field after it.
                    parent = int(stat.read().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            found.setdefault(parent, []).append(int(entry))
    return found


def pss_kib(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as rollup:
            return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0


def watch(root, done, peak):
    while not done.wait(INTERVAL_S):
        children, open_, total = children_of(), [root], 0
        while open_:
            pid = open_.pop()
            total += pss_kib(pid)
            open_ += children.get(pid, [])
        peak[0] = max(peak[0], total)


def main():
    result, command = sys.argv[1], sys.argv[2:]
    begin = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    done, peak = threading.Event(), [0]
    watcher = threading.Thread(target=watch, args=(child.pid, done, peak))
    watcher.start()
    status = child.wait()
    elapsed = time.monotonic() - begin
    done.set()
    watcher.join()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open(result, "w") as file:
        file.write(f"{elapsed:.2f} {usage.ru_utime + usage.ru_stime:.2f} {usage.ru_maxrss} {peak[0]}\n")
    sys.exit(status if status >= 0 else 128 - status)


main()
