"""Finding a home, making one, and the state folder."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from eventcore.home.catalogue import catalogue_root, locate
from eventcore.home.layout import Home
from eventcore.kernel.errors import HomeError

REPOSITORY = Path(__file__).resolve().parents[2]

needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="gives a file to another user: needs root"
)


def test_init_makes_the_layout_and_says_so(tmp_path: Path) -> None:
    home, made = Home.init(tmp_path / "new")
    root = (tmp_path / "new").resolve()
    assert home.root == root
    assert [str(path.relative_to(root)) for path in made] == [
        ".", "hooks", "plugins", "workflows", "eventcore.toml", ".gitignore",
    ]  # fmt: skip
    assert (root / ".gitignore").read_text() == ".eventcore/\n"
    assert not home.state.exists()
    assert Home.at(root) == home


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").write_text("[engine]\ndrain_timeout = 7\n")
    (tmp_path / ".gitignore").write_text("mine\n")
    (tmp_path / "hooks").mkdir()
    _, made = Home.init(tmp_path)
    assert [path.name for path in made] == ["plugins", "workflows"]
    assert (tmp_path / "eventcore.toml").read_text() == "[engine]\ndrain_timeout = 7\n"
    assert (tmp_path / ".gitignore").read_text() == "mine\n"
    assert Home.init(tmp_path)[1] == ()


def test_init_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "plugins").write_text("")
    with pytest.raises(HomeError, match="cannot make a home"):
        Home.init(tmp_path)


def test_find_walks_up_to_the_nearest(tmp_path: Path) -> None:
    outer, _ = Home.init(tmp_path / "a")
    inner, _ = Home.init(tmp_path / "a" / "b" / "c")
    deep = inner.root / "x" / "y"
    deep.mkdir(parents=True)
    assert Home.find(deep) == inner
    assert Home.find(inner.root.parent) == outer
    assert Home.find(outer.root) == outer


def test_find_nothing_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(HomeError, match=r"no eventcore\.toml .*eventcore init"):
        Home.find(tmp_path)


def test_a_folder_called_like_the_file_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "eventcore.toml").mkdir()
    with pytest.raises(HomeError):
        Home.at(tmp_path)


def test_the_environment_names_the_home_only_if_handed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = Home.init(tmp_path / "here")
    there, _ = Home.init(tmp_path / "there")
    assert Home.find(here.root, {"EVENTCORE_HOME": str(there.root)}) == there
    assert Home.find(here.root, {"EVENTCORE_HOME": ""}) == here
    monkeypatch.setenv("EVENTCORE_HOME", str(there.root))
    assert Home.find(here.root) == here
    with pytest.raises(HomeError, match="EVENTCORE_HOME names"):
        Home.find(here.root, {"EVENTCORE_HOME": str(tmp_path)})


def test_the_plugin_folder_can_be_elsewhere(tmp_path: Path) -> None:
    home, _ = Home.init(tmp_path)
    root = home.root
    assert home.plugins == root / "plugins"
    assert Home.at(root, {"KARI_PLUGIN_DIR": str(root / "k")}).plugins == root / "k"
    both = {"KARI_PLUGIN_DIR": str(root / "k"), "EVENTCORE_PLUGIN_DIR": str(root / "e")}
    assert Home.at(root, both).plugins == root / "e"
    assert Home.at(root, {"KARI_PLUGIN_DIR": ""}).plugins == root / "plugins"


@needs_root
def test_a_home_of_somebody_else_above_is_refused(tmp_path: Path) -> None:
    home, _ = Home.init(tmp_path)
    os.chown(home.settings, 12345, 12345)
    below = tmp_path / "below"
    below.mkdir()
    with pytest.raises(HomeError, match="another user"):
        Home.find(below)
    assert Home.find(tmp_path).root == home.root
    assert Home.find(below, {"EVENTCORE_HOME": str(tmp_path)}).root == home.root


def test_the_state_folder_is_private(tmp_path: Path) -> None:
    home, _ = Home.init(tmp_path)
    old = os.umask(0)
    try:
        home.ensure_state()
    finally:
        os.umask(old)
    assert stat.S_IMODE(home.state.stat().st_mode) == 0o700
    assert (home.state / ".gitignore").read_text() == "*\n"
    home.state.chmod(0o755)
    home.ensure_state()
    assert stat.S_IMODE(home.state.stat().st_mode) == 0o700
    assert {home.database.parent, home.socket.parent, home.lock.parent} == {home.state}


def test_a_file_in_place_of_the_state_folder(tmp_path: Path) -> None:
    home, _ = Home.init(tmp_path)
    home.state.write_text("")
    with pytest.raises(HomeError, match=r"cannot use .*\.eventcore"):
        home.ensure_state()


def test_finding_a_home_needs_no_pydantic() -> None:
    code = "import sys, eventcore.home.layout, eventcore.home.control_client; sys.exit('pydantic' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-c", code], env=environ, check=True, timeout=60)


def test_the_catalogue_of_a_checkout_is_the_repository() -> None:
    assert catalogue_root() == REPOSITORY


def test_the_catalogue_of_a_wheel_is_inside_the_package(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "eventcore"
    (package / "_catalogue").mkdir(parents=True)
    (package.parent / "plugins").mkdir()
    assert locate(package) == package / "_catalogue"


def test_folders_beside_an_installed_package_are_no_catalogue(tmp_path: Path) -> None:
    package = tmp_path / "site-packages" / "eventcore"
    package.mkdir(parents=True)
    (package.parent / "plugins").mkdir()
    with pytest.raises(HomeError, match="no catalogue"):
        locate(package)
    project = package.parent / "pyproject.toml"
    for text in ("[project]\nname = 'somebody-elses'", "project = 1", "name = 'eventcore-engine'", "not toml"):
        project.write_text(text)
        with pytest.raises(HomeError, match="no catalogue"):
            locate(package)


def test_a_plugins_folder_where_python_runs_does_not_fool_it(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'eventcore-engine'\n")
    code = "from eventcore.home.catalogue import catalogue_root as root; print(root())"
    environ = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environ, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(REPOSITORY)
