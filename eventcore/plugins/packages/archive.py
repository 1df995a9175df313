"""Archives and folders that plugins are installed from: checked to the last byte before one is written.

An archive comes from a stranger. What is refused, and named: paths that lead out (`..`, absolute, with a drive or a
backslash), links, devices and other things that are neither file nor folder, two entries that one file system would
take for the same (case, Unicode form), a file where another entry needs a folder, encrypted entries, and more entries
or bytes than a plugin has. Sizes are counted while reading: what an archive says of itself is not believed.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import os
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

from eventcore.kernel.errors import PackageRefused
from eventcore.plugins.manifest import MANIFEST_NAMES
from eventcore.plugins.packages.bounded import Bounded, Header, Table

#: The largest archive file, and the most that may come out of one. Bytes.
MAX_BYTES = 64 * 1024 * 1024
#: The most files and folders.
MAX_ENTRIES = 10_000
#: How many folders deep an entry may lie.
MAX_DEPTH = 32
#: The longest part of a path, in bytes: what Linux's file systems take.
MAX_NAME = 255

_CHUNK = 256 * 1024
_BAD_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\\]")
#: Folders of a source folder that are no part of the plugin.
NOT_PACKED = frozenset({"__pycache__", ".git", ".hg", ".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache"})
#: What the libraries raise for bytes that make no sense to them.
_DAMAGED = (
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    NotImplementedError,
    RecursionError,  # a header of a tar file may say of the next one that it goes on there
)


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or folder: its path as parts, and for a file whether it may be run."""

    parts: tuple[str, ...]
    folder: bool
    executable: bool = False


#: Called with each entry and what reads it (None for a folder).
Take: TypeAlias = Callable[[Entry, IO[bytes] | None], None]


def digest_of(source: Path) -> str:
    """SHA-256 (hex) of an archive's bytes, or of a folder's names and contents.

    Raises:
        PackageRefused: it is neither, or larger than a plugin may be.
    """
    digest = hashlib.sha256()
    if source.is_dir():

        def take(entry: Entry, content: IO[bytes] | None) -> None:
            digest.update(f"{'/'.join(entry.parts)}\0{entry.folder:d}{entry.executable:d}\0".encode())
            for chunk in iter(lambda: content.read(_CHUNK) if content else b"", b""):
                digest.update(len(chunk).to_bytes(8) + chunk)

        _Walk(source).each(take)
        return digest.hexdigest()
    with _opened(source) as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def unpack(source: Path, target: Path) -> None:
    """Copy the plugin in an archive or folder into the new folder `target`. Files are on the disk when this returns.

    An archive holds the plugin itself, or one folder that does.

    Raises:
        PackageRefused: something in it is not allowed; nothing was written.
        OSError: it cannot be read or written.
    """
    walk = _reader(source)
    entries: list[Entry] = []
    checker = _Checker()

    def check(entry: Entry, content: IO[bytes] | None) -> None:
        checker.check(entry)
        entries.append(entry)
        while content is not None and (chunk := content.read(_CHUNK)):
            checker.count(len(chunk), entry)

    walk.each(check)
    root = _root(entries, source)
    target.mkdir(mode=0o755)
    writer = _Writer(target, root)
    walk.each(writer.take)
    writer.finish()


def _reader(source: Path) -> _Walk | _Tar | _Zip:
    if source.is_dir():
        return _Walk(source)
    with _opened(source) as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b":
        return _Tar(source)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _Zip(source)
    raise PackageRefused(f"{source} is neither a .tar.gz nor a .zip archive", hint="name a folder, a .tar.gz or a .zip")


@contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    """An archive's file, if it is a file of a sensible size."""
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise PackageRefused(f"cannot read {source}: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise PackageRefused(f"{source} is not a file")
        if status.st_size > MAX_BYTES:
            raise PackageRefused(f"{source} has {status.st_size:,} bytes; a package has at most {MAX_BYTES:,}")
        yield file


def _refuse(name: str, why: str) -> PackageRefused:
    shown = name if len(name) <= 200 else f"{name[:200]}..."
    return PackageRefused(f"the entry {shown!r} {why}")


def _parts(name: str) -> tuple[str, ...]:
    """The parts of an entry's path.

    Raises:
        PackageRefused: it leads out, or no file system should see it.
    """
    if name.startswith("/") or re.match(r"[A-Za-z]:", name):
        raise _refuse(name, "has an absolute path")
    if _BAD_CHARACTERS.search(name):
        raise _refuse(name, "has a backslash or a control character in its name")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise _refuse(name, "has a name that is not UTF-8") from None
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if ".." in parts:
        raise _refuse(name, "leads out of the package")
    return parts


class _Checker:
    """What holds of all entries together."""

    def __init__(self) -> None:
        self._bytes = self._entries = 0
        self._seen: dict[tuple[str, ...], tuple[tuple[str, ...], bool]] = {}

    def count(self, size: int, entry: Entry) -> None:
        self._bytes += size
        if self._bytes > MAX_BYTES:
            raise _refuse("/".join(entry.parts), f"brings the package to more than {MAX_BYTES:,} bytes")

    def check(self, entry: Entry) -> None:
        name = "/".join(entry.parts)
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise _refuse(name, f"is one too many: a package has at most {MAX_ENTRIES:,} entries")
        if len(entry.parts) > MAX_DEPTH:
            raise _refuse(name, f"lies more than {MAX_DEPTH} folders deep")
        if any(len(part.encode()) > MAX_NAME for part in entry.parts):
            raise _refuse(name, f"has a name of more than {MAX_NAME} bytes")
        for end in range(1, len(entry.parts) + 1):
            self._note(entry.parts[:end], entry.folder or end < len(entry.parts), whole=end == len(entry.parts))

    def _note(self, parts: tuple[str, ...], folder: bool, *, whole: bool) -> None:
        """File systems differ in what they take for one name; a package must mean the same on each."""
        key = tuple(unicodedata.normalize("NFC", part).casefold() for part in parts)
        known = key in self._seen
        other, other_folder = self._seen.setdefault(key, (parts, folder))
        name = "/".join(parts)
        if other != parts:
            raise _refuse(name, f"clashes with {'/'.join(other)!r}: they differ in case or Unicode form only")
        if other_folder != folder:
            raise _refuse(name, "is a file and a folder at once")
        if known and whole and not folder:
            raise _refuse(name, "is there twice")


def _root(entries: list[Entry], source: Path) -> tuple[str, ...]:
    """The folder that holds the manifest: the top, or the one folder there is."""
    files = {entry.parts for entry in entries if not entry.folder}
    tops = {entry.parts[0] for entry in entries if entry.parts}
    if any((name,) in files for name in MANIFEST_NAMES):
        return ()
    if len(tops) == 1 and any((*tops, name) in files for name in MANIFEST_NAMES):
        return (*tops,)
    raise PackageRefused(
        f"{source} holds no plugin: there is no {', '.join(MANIFEST_NAMES)} at its top or in its only folder",
    )


class _Writer:
    """Writes what was checked. Every file is new, and none is followed anywhere."""

    def __init__(self, target: Path, root: tuple[str, ...]) -> None:
        self._target, self._root = target, root
        self._folders: set[Path] = {target}
        self._written = 0

    def take(self, entry: Entry, content: IO[bytes] | None) -> None:
        if entry.parts[: len(self._root)] != self._root or len(entry.parts) <= len(self._root):
            return
        path = self._target.joinpath(*entry.parts[len(self._root) :])
        self._make(path if entry.folder else path.parent)
        if content is not None:
            self._write(path, content, 0o755 if entry.executable else 0o644)

    def _make(self, folder: Path) -> None:
        if folder not in self._folders:
            self._make(folder.parent)
            folder.mkdir(mode=0o755, exist_ok=True)
            self._folders.add(folder)

    def _write(self, path: Path, content: IO[bytes], mode: int) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask: the plugin's own user must be able to read it
            while chunk := content.read(_CHUNK):
                self._written += len(chunk)
                if self._written > MAX_BYTES:  # it was changed between the two readings
                    raise PackageRefused(f"{path.name} grew while it was copied")
                file.write(chunk)
            file.flush()
            os.fsync(descriptor)

    def finish(self) -> None:
        """Folders to the disk, too; names would be lost with them."""
        for folder in self._folders:
            folder.chmod(0o755)
            sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Put a folder's names onto the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Walk:
    """The entries of a folder, in one order everywhere."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def each(self, take: Take) -> None:
        count = 0
        for where, folders, files in os.walk(self._source, onerror=_raise):
            folders[:] = sorted(name for name in folders if name not in NOT_PACKED)
            count += len(folders) + len(files)
            if count > MAX_ENTRIES:
                raise _refuse(
                    os.path.relpath(where, self._source), f"brings the folder to more than {MAX_ENTRIES:,} entries"
                )
            for name in folders:
                path = Path(where, name)
                shown = path.relative_to(self._source).as_posix()
                if path.is_symlink():
                    raise _refuse(shown, "is a link")
                take(Entry(_parts(shown), folder=True), None)
            for name in sorted(files):
                self._file(Path(where, name), take)

    def _file(self, path: Path, take: Take) -> None:
        shown = path.relative_to(self._source).as_posix()
        parts = _parts(shown)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            why = "is a link" if path.is_symlink() else f"cannot be read: {error.strerror}"
            raise _refuse(shown, why) from None
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _refuse(shown, "is neither a file nor a folder")
            take(Entry(parts, folder=False, executable=bool(status.st_mode & 0o100)), file)


def _raise(error: OSError) -> None:
    raise error


class _Tar:
    """A gzipped tar file, read as a stream: nothing is looked up, nothing is kept."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def each(self, take: Take) -> None:
        with _opened(self._source) as file:
            try:
                with gzip.open(file) as plain:
                    # Headers and padding are no content, but there is a bound on them as well.
                    stream: Any = Bounded(plain, MAX_BYTES, MAX_BYTES)
                    with tarfile.open(fileobj=stream, mode="r|", tarinfo=Header) as archive:
                        for member in archive:
                            self._one(archive, member, take)
            except _DAMAGED as error:
                raise PackageRefused(f"{self._source} is damaged: {error}") from None
            except (ValueError, UnicodeError, OverflowError) as error:
                raise PackageRefused(f"{self._source} is not a proper tar file: {error}") from None

    def _one(self, archive: tarfile.TarFile, member: tarfile.TarInfo, take: Take) -> None:
        if member.issym() or member.islnk():
            raise _refuse(member.name, f"is a link (to {member.linkname[:200]!r})")
        if member.issparse() or not (member.isreg() or member.isdir()):
            raise _refuse(member.name, "is neither a file nor a folder")
        parts = _parts(member.name)
        if not parts:
            if member.isdir():
                return  # `./`
            raise _refuse(member.name, "has no name")
        content = archive.extractfile(member) if member.isreg() else None
        take(Entry(parts, folder=content is None, executable=bool(member.mode & 0o100)), content)


class _Zip:
    """A zip file."""

    def __init__(self, source: Path) -> None:
        self._source = source

    def each(self, take: Take) -> None:
        with _opened(self._source) as file:
            try:
                table: Any = Table(file)
                with zipfile.ZipFile(table) as archive:
                    if len(archive.filelist) > MAX_ENTRIES:
                        raise PackageRefused(
                            f"{self._source} has {len(archive.filelist):,} entries; at most {MAX_ENTRIES:,}"
                        )
                    for member in archive.filelist:
                        self._one(archive, member, take)
            except _DAMAGED as error:
                raise PackageRefused(f"{self._source} is damaged: {error}") from None
            except (ValueError, UnicodeError, RuntimeError, OverflowError) as error:
                raise PackageRefused(f"{self._source} is not a proper zip file: {error}") from None
            except OSError as error:
                if error.errno is not None:
                    raise
                raise PackageRefused(f"{self._source} is damaged: {error}") from None  # the words of bzip2

    def _one(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo, take: Take) -> None:
        mode = member.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if kind == stat.S_IFLNK:
            raise _refuse(member.filename, "is a link")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refuse(member.filename, "is neither a file nor a folder")
        if member.flag_bits & 0x1:
            raise _refuse(member.filename, "is encrypted")
        if (name := member.orig_filename) != member.filename and name.replace("\\", "/") != member.filename:
            raise _refuse(name, "has a control character in its name")
        parts = _parts(member.orig_filename)
        if not parts:
            raise _refuse(member.filename, "has no name")
        if member.is_dir():
            take(Entry(parts, folder=True), None)
            return
        with archive.open(member) as content:
            take(Entry(parts, folder=False, executable=bool(mode & 0o100)), content)
