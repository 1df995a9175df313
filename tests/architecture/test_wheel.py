"""The wheel: what it holds, and that it runs where nothing of the checkout is near."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

CONTENT = ("hooks", "plugins", "workflows")


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def tracked(root: Path) -> list[str]:
    """The files under version control, and those that will be with the next commit."""
    if not (root / ".git").exists():
        pytest.skip("this is no git checkout, so there is nothing to compare the wheel with")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "eventcore", *CONTENT, cwd=root)
    return sorted(name for name in set(listed.splitlines()) if (root / name).is_file())


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=root)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of a fresh environment with the wheel in it.

    The libraries that EventCore needs come from the environment of these tests, by a `.pth` file, to spare a download;
    EventCore itself comes from the wheel, and the first line of the test's program checks that.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    [site] = (folder / "lib").glob("python*/site-packages")
    pip = ["-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(sys.executable, *pip, wheel, cwd=folder)
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin"


def test_the_wheel_holds_what_git_tracks(wheel: Path, tracked: list[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"eventcore/_catalogue/{name}" if name.split("/")[0] in CONTENT else name for name in tracked}
    assert names == expected


def test_the_wheel_installs_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"eventcore"}


def test_the_wheel_runs_from_a_folder_with_names_like_ours(installed: Path, tmp_path: Path) -> None:
    """The folder has `plugins/__init__.py` and `workflows/` of its own; both stay what they are."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "__init__.py").write_text("raise RuntimeError('the user code was imported')\n")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "mine.py").write_text("raise RuntimeError('the user code was imported')\n")
    env = {key: value for key, value in os.environ.items() if not key.startswith(("EVENTCORE_", "PYTHON"))}
    command = installed / "eventcore"

    where = run(installed / "python", "-c", "import eventcore; print(eventcore.__file__)", cwd=tmp_path, env=env)
    assert Path(where.strip()).is_relative_to(installed.parent / "lib")

    run(command, "init", cwd=tmp_path, env=env)
    listed = json.loads(run(command, "plugins", "list", "--json", cwd=tmp_path, env=env))
    rows = listed if isinstance(listed, list) else listed["plugins"]
    assert {"hello-world", "time-query", "basic-calculator", "text-processor"} <= {row["slug"] for row in rows}
    assert all("_catalogue" in row["path"] for row in rows)
    run(command, "plugins", "enable", "hello-world", cwd=tmp_path, env=env)
    answer = json.loads(run(command, "run", "hello_world", "--json", cwd=tmp_path, env=env))
    assert "Hello World from plugin!" in json.dumps(answer)
    kept = sorted(path.name for folder in ("plugins", "workflows") for path in (tmp_path / folder).iterdir())
    assert kept == ["__init__.py", "mine.py"]
