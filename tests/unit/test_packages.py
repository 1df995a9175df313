"""Archives and folders that plugins are installed from: what is refused, by which name, before a byte is written."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from eventcore.kernel.errors import PackageRefused
from eventcore.plugins.packages import archive, bounded
from eventcore.plugins.packages.archive import digest_of, unpack

MANIFEST = json.dumps({"name": "box", "version": "1.0.0", "module": "handler"}).encode()
FILES = {"plugin_manifest.json": MANIFEST, "handler.py": b"def run(params): return 1", "data/words.txt": b"a b"}

#: An entry: its name, and its content or what it is.
Item = tuple[str, Any]


def tar_gz(path: Path, items: Iterable[Item]) -> Path:
    with tarfile.open(path, "w:gz", format=tarfile.PAX_FORMAT) as out:
        for name, content in items:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))
                continue
            for key, value in content.items():
                setattr(member, key, value)
            out.addfile(member)
    return path


def zipped(path: Path, items: Iterable[Item]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in items:
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.filename = name  # as a stranger would write it
            if isinstance(content, bytes):
                member.external_attr = (stat.S_IFREG | 0o644) << 16
                out.writestr(member, content)
            else:
                member.external_attr = content << 16
                out.writestr(member, b"target")
    return path


MAKERS: dict[str, Callable[[Path, Iterable[Item]], Path]] = {"box.tar.gz": tar_gz, "box.zip": zipped}
both = pytest.mark.parametrize("name", MAKERS)


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@both
@pytest.mark.parametrize("top", ["", "box-1.0.0/"])
def test_an_archive_comes_out_whole(name: str, top: str, tmp_path: Path) -> None:
    made = MAKERS[name](tmp_path / name, [(top + key, content) for key, content in FILES.items()])
    unpack(made, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    assert stat.S_IMODE((tmp_path / "out/handler.py").stat().st_mode) == 0o644
    assert len(digest_of(made)) == 64


def test_a_folder_comes_in_without_what_is_no_part_of_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, content in {**FILES, ".git/config": b"", "__pycache__/x.pyc": b""}.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "handler.py").chmod(0o755)
    before = digest_of(source)
    unpack(source, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    assert stat.S_IMODE((tmp_path / "out/handler.py").stat().st_mode) == 0o755
    (source / "data/words.txt").write_bytes(b"a c")
    assert digest_of(source) != before


PATHS = {
    "../x": "leads out",
    "data/../../x": "leads out",
    "/etc/x": "absolute path",
    "C:/x": "absolute path",
    "data\\..\\x": "backslash",
    "a\nb": "control character",
    "a" * 300: "300|255",
    "/".join("d" * 40) + "/x": "32 folders",
    "HANDLER.PY": "clashes with 'handler.py'",
    "Data/more.txt": "clashes with 'data'",
    "data": "file and a folder",
    "handler.py/x": "file and a folder",
    "handler.py": "twice",
}


@both
@pytest.mark.parametrize("bad", PATHS)
def test_a_path_is_refused_by_name(bad: str, name: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate") if bad == "handler.py" and "zip" in name else _nothing():
        made = MAKERS[name](tmp_path / name, [*FILES.items(), (bad, b"x")])
    refused(made, tmp_path, PATHS[bad])
    with pytest.raises(PackageRefused) as caught:
        unpack(made, tmp_path / "out")
    assert bad[:60].replace("\n", "\\n").replace("\\..\\", "")[:4] in str(caught.value).replace("\\\\", "\\")


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def refused(made: Path, tmp_path: Path, why: str) -> None:
    with pytest.raises(PackageRefused, match=why):
        unpack(made, tmp_path / "out")
    assert not (tmp_path / "out").exists(), "something was written"


TAR_KINDS = {
    "symlink": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "hard link": {"type": tarfile.LNKTYPE, "linkname": "handler.py"},
    "character device": {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    "block device": {"type": tarfile.BLKTYPE},
    "pipe": {"type": tarfile.FIFOTYPE},
    "contiguous file": {"type": b"Z"},
}


@pytest.mark.parametrize("kind", TAR_KINDS)
def test_links_and_devices_of_a_tar_are_refused(kind: str, tmp_path: Path) -> None:
    made = tar_gz(tmp_path / "box.tar.gz", [*FILES.items(), ("odd-one", TAR_KINDS[kind])])
    refused(made, tmp_path, "'odd-one' is (a link|neither a file nor a folder)")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_of_a_zip_are_refused(kind: int, tmp_path: Path) -> None:
    made = zipped(tmp_path / "box.zip", [*FILES.items(), ("odd-one", kind | 0o777)])
    refused(made, tmp_path, "'odd-one' is (a link|neither a file nor a folder)")


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe"])
def test_links_and_pipes_of_a_folder_are_refused(kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "plugin_manifest.json").write_bytes(MANIFEST)
    odd = source / "odd-one"
    if kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.symlink_to("/etc" if kind == "folder link" else "/etc/passwd")
    refused(source, tmp_path, "'odd-one' is (a link|neither a file nor a folder)")


@both
def test_a_bomb_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_BYTES", 1024 * 1024)
    made = MAKERS[name](tmp_path / name, [*FILES.items(), ("bomb.bin", bytes(8 * 1024 * 1024))])
    assert made.stat().st_size < 64 * 1024
    refused(made, tmp_path, "'bomb.bin' brings the package to more than")


@both
def test_too_many_entries_are_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_ENTRIES", 50)
    made = MAKERS[name](tmp_path / name, [*FILES.items(), *((f"f{number}", b"") for number in range(60))])
    refused(made, tmp_path, "50")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_gigabytes_is_refused(kind: bytes, tmp_path: Path) -> None:
    """Such a header is read into memory whole: not even the size that is there may be."""
    header = tarfile.TarInfo("header")
    header.type, header.size = kind, 2 << 30
    made = tmp_path / "box.tar.gz"
    with gzip.open(made, "wb", 1) as out:
        out.write(header.tobuf(tarfile.GNU_FORMAT))
        out.write(bytes(64 * 1024 * 1024))
    tracemalloc.start()
    refused(made, tmp_path, "has a header of 2,147,483,648 bytes")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 1024 * 1024


def test_headers_of_headers_without_end_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("header")
    header.type = tarfile.XHDTYPE
    made = tmp_path / "box.tar.gz"
    made.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) * 20_000))
    refused(made, tmp_path, "is damaged")


def test_what_is_no_content_is_bounded_as_well() -> None:
    stream: Any = bounded.Bounded(io.BytesIO(bytes(100)), 40, 10)
    assert len(stream.read(50)) == 50
    with pytest.raises(PackageRefused, match="unpacks to more than 40 bytes"):
        stream.read(1)


def test_a_long_table_of_contents_is_refused(tmp_path: Path) -> None:
    """Each entry of it becomes an object, before anybody can count them."""
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, *[0] * 8, 1, *[0] * 6) + b"a"
    table = entry * (5 * 1024 * 1024 // len(entry))
    made = tmp_path / "box.zip"
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(table), 4, 0)
    made.write_bytes(b"PK\3\4" + table + end)
    refused(made, tmp_path, "has a table of contents of more than 4,194,304 bytes")


def test_bytes_that_make_no_sense_to_bzip2_are_refused(tmp_path: Path) -> None:
    made = tmp_path / "box.zip"
    with zipfile.ZipFile(made, "w", zipfile.ZIP_BZIP2) as out:
        out.writestr("plugin_manifest.json", MANIFEST * 100)
    data = bytearray(made.read_bytes())
    place = data.index(b"plugin_manifest.json") + 20
    data[place : place + 30] = b"\xff" * 30
    made.write_bytes(data)
    refused(made, tmp_path, "is damaged: Invalid data stream")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"\x1f\x8b", b"\x1f\x8b" + b"x" * 100, b"PK\x03\x04", b"PK\x05\x06" + b"\xff" * 40],
    ids=["empty", "text", "gzip magic", "bad gzip", "zip magic", "bad zip"],
)
def test_what_is_no_archive_is_refused(content: bytes, tmp_path: Path) -> None:
    made = tmp_path / "box.tar.gz"
    made.write_bytes(content)
    refused(made, tmp_path, "box.tar.gz")


@both
def test_an_archive_cut_short_is_refused(name: str, tmp_path: Path) -> None:
    whole = MAKERS[name](tmp_path / name, [*FILES.items(), ("noise", os.urandom(4096))]).read_bytes()
    for end in range(4, len(whole), 397):
        (tmp_path / name).write_bytes(whole[:end])
        refused(tmp_path / name, tmp_path, "box")


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    made = zipped(tmp_path / "box.zip", FILES.items())
    raw = bytearray(made.read_bytes())
    place = raw.index(b"PK\x01\x02")
    raw[place + 8] |= 1  # the flag in the directory
    made.write_bytes(raw)
    refused(made, tmp_path, "encrypted")


@both
def test_without_a_manifest_there_is_no_plugin(name: str, tmp_path: Path) -> None:
    refused(MAKERS[name](tmp_path / name, [("a/handler.py", b""), ("b/plugin.yaml", b"")]), tmp_path, "holds no plugin")
