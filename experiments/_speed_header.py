"""What `speed` says before it begins: where it runs, with whom, and how busy the machine is."""

import importlib.metadata
import math
import os
import platform
from pathlib import Path

from experiments import _common as common
from experiments._speed_cases import TITLES
from experiments._speed_grid import AGREEMENT
from experiments._speed_peers import PEERS, cores

BUSY = 0.5  # load average above which the machine is not quiet


def machine(peers: list[str]) -> dict:
    """Versions of all libraries, the processor and how busy it is before the start."""
    packages = dict.fromkeys(["flax", *(PEERS[name].pip for name in peers)])
    return {
        **common.machine(),
        **{package: importlib.metadata.version(package) for package in packages},
        "processor": processor(),
        "cores": cores(),
        "load_before": load(),
    }


def load() -> float:
    """Processes that wanted a core, mean over the last minute; NaN where no one says."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan


def processor() -> str:
    """The name of the processor, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


def print_header(about: dict, lacking: dict[str, str]) -> list[str]:
    """Prints what runs where; returns warnings."""
    say = common.console().print
    own = ("processor", "device", "cores", "system", "load_before")
    say(
        f"{about['processor']}, {about['cores']} cores, {about['system']}, device "
        f"{about['device']}, float32; load average {about['load_before']:.2f} before the start"
    )
    say(", ".join(f"{name} {version}" for name, version in about.items() if name not in own))
    for name, why in lacking.items():
        say(f"{PEERS[name].title}: {why}")
    if not about["load_before"] > BUSY:
        return []
    warning = (
        f"the load average was {about['load_before']:.2f} before the start, above {BUSY:g}: other "
        "work ran on this machine, and times, ratios too, are not to be trusted"
    )
    say(f"Warning: {warning}.")
    return [warning]


def print_agreement(agreement: dict[str, dict]) -> list[str]:
    """Prints how far ours is from PyTorch on its parameters; returns warnings."""
    found = []
    for cell, a in agreement.items():
        words = (
            f"{TITLES[cell]} on parameters copied from PyTorch: outputs within "
            f"{a['outputs']:.1e}, gradients within {a['gradients']:.1e}"
        )
        common.console().print(words)
        if not a["holds"]:
            found.append(f"{words}, allowed is {AGREEMENT:g}: not the same network")
    return found
