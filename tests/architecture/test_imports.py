"""What an import costs and brings along; and that content folders are no packages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import eventcore


def loaded(root: Path, statement: str, *flags: str) -> set[str]:
    """The top-level modules in memory after `statement`, in a fresh interpreter that finds only our source."""
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r}); {statement}; import json; "
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


#: Names that the interpreter itself puts there.
OWN = {"__main__", "__mp_main__", "_distutils_hack", "sitecustomize", "usercustomize"}


def third_party(names: set[str]) -> set[str]:
    return {n for n in names if n not in sys.stdlib_module_names and n not in OWN and not n.startswith("__editable__")}


def test_the_sdk_needs_only_the_standard_library(root: Path) -> None:
    # -I -S: no site-packages at all, so that an import of anything else fails.
    assert third_party(loaded(root, "import eventcore.sdk", "-I", "-S")) == {"eventcore"}


def test_importing_eventcore_loads_nothing_else(root: Path) -> None:
    assert third_party(loaded(root, "import eventcore", "-I", "-S")) == {"eventcore"}
    assert not {"anyio", "pydantic", "jinja2", "click", "asyncio"} & loaded(root, "import eventcore")


@pytest.mark.parametrize("name", eventcore.__all__)
def test_public_names_are_there(name: str) -> None:
    assert getattr(eventcore, name) is not None


def test_there_are_no_other_public_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        eventcore.nothing  # noqa: B018


@pytest.mark.parametrize("folder", ["hooks", "plugins", "workflows"])
def test_content_folders_are_no_packages(root: Path, folder: str) -> None:
    assert (root / folder).is_dir()
    assert not (root / folder / "__init__.py").exists()
    if folder != "hooks":  # a hook may be a folder with code of its own
        assert not list((root / folder).glob("*/__init__.py"))
