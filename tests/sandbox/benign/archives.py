"""Zip, tar, and the compressions that Python has."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
import zlib

EXPECTED = {"zip": "hello", "tar": ["a.txt"], "same": [True, True, True, True]}


def run(params):
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "hello")
    with zipfile.ZipFile("a.zip") as archive:
        text = archive.read("a.txt").decode()
        archive.extractall("unpacked")
    with tarfile.open("a.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size, info.mode = 5, 0o640
        archive.addfile(info, io.BytesIO(b"hello"))
    with tarfile.open("a.tar.gz") as archive:
        names = archive.getnames()
        archive.extract("a.txt", "untarred")
    data = b"x" * 10_000
    same = [module.decompress(module.compress(data)) == data for module in (zlib, gzip, bz2, lzma)]
    return {"zip": text, "tar": names, "same": same}
