"""TLS without a connection: contexts, certificates, a handshake in memory."""

import contextlib
import ssl

EXPECTED = {"verifies": True, "asks": True, "version": True}


def run(params):
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    link = context.wrap_bio(incoming, outgoing, server_hostname="example.com")
    with contextlib.suppress(ssl.SSLWantReadError):
        link.do_handshake()
    return {
        "verifies": context.verify_mode == ssl.CERT_REQUIRED,
        "asks": len(outgoing.read()) > 100,
        "version": ssl.OPENSSL_VERSION.startswith(("OpenSSL", "LibreSSL")),
    }
