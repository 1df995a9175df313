"""The channel to the host: what is dear to read, forged, or out of turn. A value that comes back was believed.

A fresh worker's first call of its entry has the id 2, because loading had 1.
"""

import json
import os
import pickle
import socket
import struct
import sys
import time
from contextlib import suppress

_MIB = 1 << 20
_CALL = 2


def _channel():
    return socket.socket(fileno=os.dup(int(sys.argv[1])))


def _send(*bodies):
    with _channel() as sock:
        for body in bodies:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            sock.sendall(struct.pack(">I", len(data)) + data)


def _raw(data):
    with _channel() as sock:
        sock.sendall(data)


def _answer(result, number=_CALL, **more):
    return {"id": number, "ok": True, "result": result, "stdout": "", "stderr": "", **more}


def _text(result):
    return b'{"id":%d,"ok":true,"result":%s,"stdout":"","stderr":""}' % (_CALL, result)


def _wait():
    time.sleep(30)


def huge_length(planted):
    """Announces a frame of 4 GiB, and sends it bit by bit.

    Stopped by: the length's limit, before anything is kept.
    """
    _raw(b"\xff\xff\xff\xf0")
    for _ in range(300):
        _raw(bytes(_MIB))
    _wait()


def large_frame(planted):
    """Sends an answer of 100 MiB.

    Stopped by: the length's limit.
    """
    _send(_text(b'"' + b"x" * (100 * _MIB // 4) + b'"'))
    _wait()


def dear_frame(planted):
    """Sends 16 MiB that cost the reader a hundred times as much: nothing but empty lists.

    Stopped by: the length's limit.
    """
    _send(_text(b"[" + b"[]," * (16 * _MIB // 3) + b"[]]"))
    _wait()


def dear_frames_within_the_limit(planted):
    """Sends the dearest frames that the limit lets through, many of them.

    Stopped by: the envelope's exact fields; a violation kills.
    """
    body = b'{"id":%d,"ok":true,"result":[%s[]]}' % (_CALL, b"[]," * (_MIB // 3 - 100))
    with suppress(OSError):
        _send(*[body] * 50)
    _wait()


def dear_requests(planted):
    """Asks the host for something with the dearest parameters that the limit lets through, over and over.

    Stopped by: the cap on requests in flight; their rate.
    """
    for number in range(200):
        body = b'{"rid":%d,"call":%d,"method":"no.such","params":{"x":[' % (number + 1, _CALL)
        _send(body + b"[]," * (_MIB // 3 - 100) + b"[]]}}")
    _wait()


def not_json(planted):
    """Sends what is no JSON.

    Stopped by: the parser; a violation kills.
    """
    _send(b"{nonsense")
    _wait()


def not_text(planted):
    """Sends bytes that are no UTF-8, as the value of its answer.

    Stopped by: the parser; a violation kills.
    """
    _send(_text(b'"\xff\xfe\xed\xa0\x80"'))
    _wait()


def not_a_number(planted):
    """Answers with NaN, which compares unequal with everything and is no JSON.

    Stopped by: the parser.
    """
    _send(_text(b"NaN"))
    _wait()


def infinite_number(planted):
    """Answers with a number that becomes infinite when it is read.

    Stopped by: the parser.
    """
    _send(_text(b"1e999"))
    _wait()


def long_number(planted):
    """Answers with a number of half a million digits: reading it takes quadratic time, or an error nobody expects.

    Stopped by: the parser.
    """
    _send(_text(b"9" * (_MIB // 2)))
    _wait()


def deep_nesting(planted):
    """Answers with lists in lists, until the reader's stack is used up.

    Stopped by: the parser.
    """
    _send(_text(b"[" * 200_000 + b"]" * 200_000))
    _wait()


def same_key_twice(planted):
    """Answers with a key twice, which two readers understand differently.

    Stopped by: the parser.
    """
    _send(_text(b'{"role":"user","role":"admin"}'))
    _wait()


def lone_surrogate(planted):
    """Answers with half a character, which whoever prints it stumbles over.

    Stopped by: the parser.
    """
    _send(_text(rb'"\ud800"'))
    _wait()


def cut_off(planted):
    """Sends half a frame, closes its side, and stays.

    Stopped by: the host, which kills what has closed its channel.
    """
    with _channel() as sock:
        sock.sendall(struct.pack(">I", 1000) + b"{")
        sock.shutdown(socket.SHUT_WR)
    _wait()


def close_the_channel(planted):
    """Closes the channel and goes on.

    Stopped by: the host, which kills what has closed its channel.
    """
    with _channel() as sock:
        sock.shutdown(socket.SHUT_RDWR)
    _wait()


def drip(planted):
    """Sends a frame a byte at a time, and never the end of it.

    Stopped by: the host's timer.
    """
    _raw(struct.pack(">I", 100_000))
    while True:
        _raw(b" ")
        time.sleep(0.001)


def answer_unasked(planted):
    """Answers a call that was never made.

    Stopped by: only ids in flight are answered; a violation kills.
    """
    _send(_answer("unasked", 77))
    _wait()


def answer_twice(planted):
    """Answers its call twice.

    Stopped by: one answer for each call; a violation kills.
    """
    _send(_answer(None), _answer("twice"))
    _wait()


def answer_with_odd_id(planted):
    """Answers with an id of the wrong type: true is 1 to Python, and a list is no key.

    Stopped by: the envelope's types.
    """
    _send(_answer("odd", [_CALL]))
    _wait()


def answer_with_more(planted):
    """Answers with fields that the host did not ask for, such as a kind of its own.

    Stopped by: the envelope's exact fields.
    """
    _send(_answer("more", roles=["admin"], __class__="Admin"))
    _wait()


def answer_with_other_types(planted):
    """Answers with a list as its output, and with 1 for true.

    Stopped by: the envelope's types.
    """
    _send({"id": _CALL, "ok": 1, "result": "typed", "stdout": ["x"], "stderr": None})
    _wait()


def answer_with_a_pickle(planted):
    """Answers with a pickle that runs a program when it is read.

    Stopped by: no pickle anywhere.
    """

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {planted['outside']}/left",)

    _send(pickle.dumps(Evil()))
    _wait()


def empty_frames(planted):
    """Sends frames without a body, as many as it can.

    Stopped by: the parser; a violation kills.
    """
    _raw(bytes(4) * 1_000_000)
    _wait()


def request_flood(planted):
    """Asks the host without waiting for answers, and never reads them.

    Stopped by: the cap on requests in flight; their rate.
    """
    for number in range(1, 100_000):
        _send({"rid": number, "call": _CALL, "method": "no.such", "params": {}})
    _wait()


def request_again(planted):
    """Uses the id of a request twice.

    Stopped by: ids must rise.
    """
    _send(*[{"rid": 1, "call": _CALL, "method": "no.such", "params": {}}] * 2)
    _wait()


def request_for_another(planted):
    """Asks in the name of a call that is not its own.

    Stopped by: only calls in flight ask; the host knows whose worker it is.
    """
    _send({"rid": 1, "call": 1, "method": "events.emit", "params": {"type": "forged"}})
    _wait()


def request_as_another(planted):
    """Asks with a tenant, a plugin and roles of its choice.

    Stopped by: the envelope's exact fields.
    """
    body = {"rid": 1, "call": _CALL, "method": "events.emit", "params": {"type": "forged"}}
    _send(body | {"plugin": "neighbour", "tenant": "other", "roles": ["admin"]})
    _wait()


def request_with_odd_id(planted):
    """Asks with a negative id, and with one beyond what numbers can hold exactly.

    Stopped by: ids must rise, and end.
    """
    _send({"rid": -1, "call": _CALL, "method": "log", "params": {}})
    _send({"rid": 2**70, "call": _CALL, "method": "log", "params": {}})
    _wait()


def hostile_log(planted):
    """Logs lines that move the cursor of whoever reads the log, and lines of a megabyte.

    Stopped by: escaping, and a cap.
    """
    from eventcore.sdk import ctx

    for _ in range(20):
        ctx.log("info", "\x1b[2J\x1b]0;owned\x07\r\n[host] all is well" + "x" * _MIB)


def hostile_error(planted):
    """Raises an error with a text of 10 MiB, control characters and half a character.

    Stopped by: escaping, and a cap.
    """
    raise RuntimeError("\x1b[2J\x1b]0;owned\x07\ud800" + "x" * 10 * _MIB)


def words_that_turn_round(planted):
    """Prints and raises words that turn the direction of the line, and a name of the error that does, too.

    Stopped by: escaping.
    """
    from eventcore.sdk import ctx

    ctx.log("info", "\u202ellew si lla\u2028")
    print("\u2066ok\u2069 \u202e")
    raise type("\u202eError", (Exception,), {})("\u202eko")


def hostile_result(planted):
    """Returns 8 MiB.

    Stopped by: the limit of a result.
    """
    return "x" * 8 * _MIB


def raw_words(planted):
    """Writes control characters past the capture, and dies, so that they come into the error's text.

    Stopped by: escaping.
    """
    os.write(2, b"\x1b[2J\x1b]0;owned\x07" * 100)
    os._exit(1)
