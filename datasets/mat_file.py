"""MATLAB files, read by a process of their own: a damaged one may end the process that reads it."""

from __future__ import annotations

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
SECONDS, BYTES = 120, 8 * 2**30  # that the reader may take


def read_mat(path: Path, variable: str, kind: Kind | Mapping[str, Kind]) -> list[Any]:
    """Return the entries of a variable of a MATLAB file.

    Args:
        path: the file.
        variable: its name.
        kind: what each entry is, or what the fields of each entry are.

    Returns:
        Numbers or texts, or for entries with fields a dictionary each.

    Raises:
        ValueError: the file is no MATLAB file, is damaged, lacks the variable, or holds something
            else in it.
    """
    command = [sys.executable, __file__, str(path), variable]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        found = subprocess.run(command, capture_output=True, timeout=SECONDS, env=environment)
        answer = json.loads(found.stdout)
    except subprocess.TimeoutExpired:
        answer = {"error": f"it took more than {SECONDS} s"}
    except ValueError:  # it died before it could answer
        answer = {"error": f"it is damaged, its reader ended with code {found.returncode}"}
    if "error" in answer:
        raise ValueError(f"{path} cannot be read as a MATLAB file ({answer['error']}).")
    if "entries" not in answer:
        raise ValueError(f"{path} lacks the variable {variable!r}; is it the right file?")
    entries, where = answer["entries"], f"{path}, {variable}, entry"
    return [checked(entry, kind, f"{where} {n}") for n, entry in enumerate(entries, start=1)]


def checked(value: Any, kind: Kind | Mapping[str, Kind], where: str) -> Any:
    """Return a value as what it must be.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(kind, Mapping):
        fields = value if isinstance(value, dict) else {}
        if missing := [name for name in kind if name not in fields]:
            raise ValueError(f"{where} lacks the field {missing[0]!r}; is it the right file?")
        return {name: checked(fields[name], k, f"{where}, {name}") for name, k in kind.items()}
    if kind is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not kind:
        raise ValueError(f"{where} is {str(value)[:40]!r}, expected {WORDS[kind]}.")
    return value


def plain(value: Any) -> Any:
    """Return a value of scipy's reader as JSON has it."""
    if hasattr(value, "_fieldnames"):
        return {name: plain(getattr(value, name)) for name in value._fieldnames}
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def answer_of(path: str, variable: str) -> dict[str, Any]:
    """Return the entries of a variable, or what is wrong."""
    import numpy as np
    from scipy.io import loadmat

    try:
        content = loadmat(path, squeeze_me=True, struct_as_record=False, variable_names=[variable])
        if variable not in content:
            return {}
        return {"entries": [plain(entry) for entry in np.atleast_1d(content[variable]).ravel()]}
    except Exception as error:  # a reader that is fed with other bytes may raise anything
        return {"error": " ".join(f"{error}".split())[:200] or type(error).__name__}


def main() -> None:
    """Answer in JSON, within bounds of memory."""
    sys.path.pop(0)  # this folder
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout.write(json.dumps(answer_of(*sys.argv[1:]), default=str))


if __name__ == "__main__":
    main()
