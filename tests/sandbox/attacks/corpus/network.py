"""Ways out to the network, and to sockets on the host. All targets are on this machine."""

import ctypes
import os
import socket
import struct
import sys


def tcp(planted):
    """Connects to a port on the host.

    Stopped by: seccomp; network namespace; Landlock (ABI 4).
    """
    with socket.create_connection(("127.0.0.1", planted["tcp"]), 2) as sock:
        sock.sendall(b"got out")
    return "sent"


def udp(planted):
    """Sends a datagram, which Landlock does not look at.

    Stopped by: seccomp; network namespace.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"got out", ("127.0.0.1", planted["udp"]))


def multipath_tcp(planted):
    """Connects with MPTCP, which Landlock's rule for TCP does not see.

    Stopped by: seccomp; network namespace.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as sock:
        sock.connect(("127.0.0.1", planted["tcp"]))
        sock.sendall(b"got out")
    return "sent"


def raw_socket(planted):
    """Opens a raw socket. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    return "opened"


def packet_socket(planted):
    """Listens to all packets. Needs root.

    Stopped by: seccomp; no capabilities.
    """
    socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)).close()
    return "opened"


def unix_socket(planted):
    """Connects to a socket file of the host, as those of Docker and D-Bus are.

    Stopped by: seccomp; mount namespace.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(planted["unix"])
        sock.sendall(b"got out")
    return "sent"


def abstract_socket(planted):
    """Connects to a socket that has no file.

    Stopped by: seccomp; network namespace; Landlock (ABI 6).
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + planted["abstract"])
        sock.sendall(b"got out")
    return "sent"


def unix_datagram_from_a_pair(planted):
    """Uses a socket pair, which it may make, to send a datagram to a socket file of the host.

    Stopped by: seccomp (pairs of streams only); mount namespace.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        return ours.sendto(b"got out", planted["datagrams"])


def reconnect_a_pair(planted):
    """Connects one end of a pair anew, to a socket of the host.

    Stopped by: seccomp (connect).
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.connect(planted["datagrams"])
        return ours.send(b"got out")


def name_look_up(planted):
    """Sends a secret as the name in a question to a name server.

    Stopped by: seccomp; network namespace.
    """
    question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + b"\6secret\3bad\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(question, ("127.0.0.1", planted["udp"]))


def list_interfaces(planted):
    """Asks the kernel for the host's interfaces and addresses.

    Stopped by: seccomp; network namespace.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.bind((0, 0))
    return [name for _, name in socket.if_nameindex()]


def listen(planted):
    """Opens a port, and waits for others to come in.

    Stopped by: seccomp; network namespace; Landlock (ABI 4).
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def kernel_crypto(planted):
    """Opens the kernel's crypto interface, a surface with a history.

    Stopped by: seccomp.
    Needs: a kernel with AF_ALG.
    """
    with socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET, 0) as sock:
        sock.bind(("hash", "sha256"))
    return "opened"


def virtual_machine_socket(planted):
    """Opens a socket to the machine that hosts this one.

    Stopped by: seccomp.
    """
    socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()
    return "opened"


def send_a_descriptor(planted):
    """Sends an open file to the host along its channel, so that it fills up with descriptors.

    Stopped by: the host, which receives no ancillary data.
    """
    import sys

    sock = socket.socket(fileno=os.dup(int(sys.argv[1])))
    for _ in range(200):
        socket.send_fds(sock, [b"\0\0\0\2{}"], [0, 0, 0])


def fast_open(planted):
    """Is allowed one port, and connects to another by sending with MSG_FASTOPEN, which Landlock does not look at.

    Stopped by: seccomp (the flag).
    Granted: a port.
    """
    with socket.socket() as sock:
        return sock.sendto(b"got out", 0x20000000, ("127.0.0.1", planted["tcp"]))


def another_port(planted):
    """Is allowed one port, and connects to another.

    Stopped by: Landlock (ABI 4).
    Granted: a port.
    """
    return tcp(planted)


def datagrams_beside_a_port(planted):
    """Is allowed one TCP port, and sends datagrams.

    Stopped by: seccomp.
    Granted: a port.
    """
    return udp(planted)


def multipath_beside_a_port(planted):
    """Is allowed one TCP port, and connects to another with MPTCP.

    Stopped by: seccomp.
    Granted: a port.
    """
    return multipath_tcp(planted)


def listen_beside_a_port(planted):
    """Is allowed to connect to one port, and listens on another.

    Stopped by: seccomp; Landlock (ABI 4).
    Granted: a port.
    """
    return listen(planted)


def filter_of_a_socket(planted):
    """Loads a program into the kernel, as the filter of a pair of sockets.

    Stopped by: seccomp (options of sockets).
    """
    one, _ = socket.socketpair()
    code = (ctypes.c_uint64 * 1)(0x0000FFFF_00000006)  # let everything through
    program = (ctypes.c_uint64 * 2)(1, ctypes.addressof(code))
    one.setsockopt(socket.SOL_SOCKET, 26, bytes(program))
    return "loaded"


def handle_of_the_other_side(planted):
    """Asks the channel for a handle of the process that made it: its host.

    Stopped by: seccomp (SO_PEERPIDFD).
    Needs: Linux 6.5.
    """
    with socket.socket(fileno=os.dup(int(sys.argv[1]))) as channel:
        return channel.getsockopt(socket.SOL_SOCKET, 77) > 2 or None


def protocol_above_tcp(planted):
    """Brings the kernel's TLS into a connection that it may make.

    Stopped by: seccomp (options of sockets).
    Granted: a port.
    Needs: CONFIG_TLS.
    """
    with socket.create_connection(("127.0.0.1", planted["granted"]), 1) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, 31, b"tls")
        except FileNotFoundError:
            return None
        return "brought in"
