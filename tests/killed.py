"""Runs in processes of their own that are killed, for tests of what goes on after that."""

import subprocess
import sys
import time


def train(script, folder, steps, fatal="-", kill_at=None, after=0.0):
    """Runs a script that trains: the step it began at, and its last words.

    The script gets folder, steps and `fatal`; it says "from STEP" first, "saving STEP" at each
    save and "done DIGEST" last. It gets a SIGKILL so many seconds `after` the `kill_at`th save.
    """
    command = [sys.executable, "-W", "error", "-c", script, str(folder), str(steps), fatal]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if len(lines) - 1 == kill_at:
                time.sleep(after)
                process.kill()
    return int(lines[0].split()[1]), lines[-1]
