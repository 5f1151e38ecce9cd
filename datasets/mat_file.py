"""MATLAB files, read by a process of their own: a damaged one may end the process that reads it."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Kind = type[int] | type[str]
WORDS = {int: "a whole number", str: "a text"}
SECONDS, BYTES = 120, 8 * 2**30  # limits of the reader


def read_mat(path: Path, variable: str, kind: Kind | Mapping[str, Kind]) -> list[Any]:
    """Return the entries of a variable of a MATLAB file; entries with fields as dictionaries.

    `kind` is that of each entry, or of its fields. Raises ValueError where anything is amiss.
    """
    command = [sys.executable, __file__, str(path), variable]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        found = subprocess.run(command, capture_output=True, timeout=SECONDS, env=environment)
        entries, fault = json.loads(found.stdout)
    except subprocess.TimeoutExpired:
        fault = f"it took more than {SECONDS} s"
    except ValueError:  # it died before it could answer
        fault = f"it is damaged, its reader ended with code {found.returncode}"
    if fault:
        raise ValueError(f"{path} cannot be read as a MATLAB file ({fault}).")
    if entries is None:
        raise ValueError(f"{path} lacks the variable {variable!r}; is it the right file?")
    where = f"{path}, {variable}, entry"
    return [_checked(entry, kind, f"{where} {n}") for n, entry in enumerate(entries, start=1)]


def _checked(value: Any, kind: Kind | Mapping[str, Kind], where: str) -> Any:
    """Return a value of a kind; refuse another."""
    if isinstance(kind, Mapping):
        fields = value if isinstance(value, dict) else {}
        if missing := [name for name in kind if name not in fields]:
            raise ValueError(f"{where} lacks the field {missing[0]!r}; is it the right file?")
        return {name: _checked(fields[name], k, f"{where}, {name}") for name, k in kind.items()}
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is {str(value)[:40]!r}, expected {WORDS[kind]}.")
    return value


def _plain(value: Any) -> Any:
    """Return a value of scipy's reader as JSON has it."""
    if hasattr(value, "_fieldnames"):
        return {name: _plain(getattr(value, name)) for name in value._fieldnames}
    return value.tolist() if hasattr(value, "tolist") else value


def _read(path: str, variable: str) -> tuple[list[Any] | None, str]:
    """Return the entries of a variable, None if there is none, and what is wrong."""
    import numpy as np
    from scipy.io import loadmat

    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False, variable_names=[variable])
        if variable not in content:
            return None, ""
        return [_plain(entry) for entry in np.atleast_1d(content[variable]).ravel()], ""
    except Exception as error:  # a reader that is fed with other bytes may raise anything
        return None, " ".join(f"{error}".split())[:200] or type(error).__name__


if __name__ == "__main__":
    sys.path.pop(0)  # this folder
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(json.dumps(_read(*sys.argv[1:]), default=str))
