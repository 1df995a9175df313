"""Discovery: what is found, what is passed over, and that nothing is run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from eventcore.home.discovery import find_files, find_plugins


def plugin(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names or ("plugin_manifest.json",):
        (folder / name).write_text("{}")
    return folder


def test_finds_plugins_at_any_depth_in_order(tmp_path: Path) -> None:
    wanted = [
        plugin(tmp_path / "ai" / "llm" / "b", "plugin.toml"),
        plugin(tmp_path / "core" / "a", "plugin.yaml"),
        plugin(tmp_path / "zeta"),
    ]
    found = find_plugins([tmp_path])
    assert [entry.path for entry in found] == wanted
    assert [entry.category for entry in found] == ["llm", "core", None]
    assert [entry.manifest.name for entry in found] == ["plugin.toml", "plugin.yaml", "plugin_manifest.json"]
    assert {entry.root for entry in found} == {tmp_path}
    assert not any(entry.problem for entry in found)


def test_skips_hidden_tests_caches_and_the_inside_of_plugins(tmp_path: Path) -> None:
    outer = plugin(tmp_path / "outer")
    plugin(outer / "inner")
    for name in (".hidden", "__pycache__", "tests"):
        plugin(tmp_path / name / "x")
    (tmp_path / "odd" / "plugin.yaml").mkdir(parents=True)
    assert [entry.path for entry in find_plugins([tmp_path])] == [outer]


def test_depth_is_bounded(tmp_path: Path) -> None:
    deep = plugin(tmp_path / "1" / "2" / "3" / "4" / "5" / "6")
    plugin(tmp_path / "a" / "2" / "3" / "4" / "5" / "6" / "7")
    assert [entry.path for entry in find_plugins([tmp_path])] == [deep]


def test_number_of_folders_is_bounded(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").mkdir()
    (last,) = find_plugins([tmp_path], max_folders=10)
    assert "more than its share of folders" in str(last.problem)


def test_links_are_followed_and_loops_are_harmless(tmp_path: Path) -> None:
    elsewhere = plugin(tmp_path / "elsewhere" / "linked")
    root = tmp_path / "plugins"
    first = plugin(root / "first")
    (root / "second").symlink_to(elsewhere)
    (root / "again").symlink_to(first)
    (root / "loop").symlink_to(root)
    (root / "up").symlink_to(tmp_path)
    (root / "broken").symlink_to(tmp_path / "nowhere")
    found = find_plugins([root, tmp_path / "elsewhere", root])
    real = [os.path.realpath(entry.path) for entry in found]
    assert sorted(real) == sorted(map(str, (first, elsewhere)))


def test_two_manifests_are_a_problem_that_names_both(tmp_path: Path) -> None:
    plugin(tmp_path / "p", "plugin.yaml", "plugin.toml")
    (entry,) = find_plugins([tmp_path])
    assert str(entry.problem) == f"{tmp_path / 'p'} holds plugin.toml and plugin.yaml; keep one"


def test_a_root_may_be_a_plugin_or_absent(tmp_path: Path) -> None:
    folder = plugin(tmp_path / "p")
    (entry,) = find_plugins([tmp_path / "absent", folder])
    assert (entry.path, entry.category) == (folder, None)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights for the body: root reads everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_folder_is_a_problem() -> None:
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path: others cannot enter its parents
        root = Path(folder)
        root.chmod(0o755)
        (root / "shut").mkdir(mode=0)
        with as_nobody():
            (entry,) = find_plugins([root])
    assert "cannot be searched" in str(entry.problem)


def test_a_root_that_is_a_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (entry,) = find_plugins([tmp_path / "file"])
    assert "cannot be searched" in str(entry.problem)


def test_no_code_is_run(tmp_path: Path) -> None:
    folder = plugin(tmp_path / "p")
    (folder / "handler.py").write_text("raise SystemExit('imported')")
    (folder / "__init__.py").write_text("raise SystemExit('imported')")
    assert len(find_plugins([tmp_path])) == 1


def test_find_files(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "__init__.py", ".hidden.py", "note.txt", "c.yaml", "d.yml"):
        (tmp_path / name).write_text("")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dir.yaml").mkdir()
    assert [str(p.relative_to(tmp_path)) for p in find_files(tmp_path, (".py",))] == [
        "a.py",
        "b.py",
        "pack/__init__.py",
    ]
    assert [p.name for p in find_files(tmp_path, (".yaml", ".yml"))] == ["c.yaml", "d.yml"]
    assert find_files(tmp_path / "absent", (".py",)) == []
