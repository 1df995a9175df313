"""numpy, whose native threads and large maps are what confinement trips over."""

import numpy

EXPECTED = {"sum": 499500, "product": [[7.0, 10.0], [15.0, 22.0]], "sorted": True, "solved": True}


def run(params):
    matrix = numpy.array([[1.0, 2.0], [3.0, 4.0]])
    numbers = numpy.random.default_rng(1).random(100_000)
    large = numpy.random.default_rng(2).random((200, 200))
    return {
        "sum": int(numpy.arange(1000).sum()),
        "product": (matrix @ matrix).tolist(),
        "sorted": bool((numpy.diff(numpy.sort(numbers)) >= 0).all()),
        "solved": bool(numpy.allclose(large @ numpy.linalg.inv(large), numpy.eye(200))),
    }
