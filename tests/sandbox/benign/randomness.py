"""Random numbers, secrets, identifiers, hashes."""

import hashlib
import hmac
import os
import random
import secrets
import uuid

EXPECTED = {"seeded": 35222, "lengths": [16, 32, 36], "sha": "ba7816bf", "hmac": True, "key": 64}


def run(params):
    return {
        "seeded": random.Random(1).randrange(1 << 17),
        "lengths": [len(os.urandom(16)), len(secrets.token_hex(16)), len(str(uuid.uuid4()))],
        "sha": hashlib.sha256(b"abc").hexdigest()[:8],
        "hmac": hmac.compare_digest(hmac.digest(b"k", b"m", "sha256"), hmac.digest(b"k", b"m", "sha256")),
        "key": len(hashlib.scrypt(b"pass", salt=b"salt", n=1024, r=8, p=1)),
    }
