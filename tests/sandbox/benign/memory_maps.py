"""Maps of files and memory, arrays, views, structures."""

import array
import ctypes
import mmap
import struct
import weakref

EXPECTED = {"mapped": "HELLO", "array": 6, "struct": [1, 2], "c": 5, "alive": True}


class _Thing:
    pass


def run(params):
    with open("map.bin", "wb+") as file:
        file.write(b"hello")
        file.flush()
        with mmap.mmap(file.fileno(), 0) as view:
            view[:] = view[:].upper()
            mapped = bytes(view).decode()
    thing = _Thing()
    return {
        "mapped": mapped,
        "array": sum(array.array("i", [1, 2, 3])),
        "struct": list(struct.unpack("<HH", struct.pack("<HH", 1, 2))),
        "c": ctypes.CDLL(None).abs(-5),
        "alive": weakref.ref(thing)() is thing,
    }
