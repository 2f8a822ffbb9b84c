"""A cable between two network namespaces: packets take a while, and some are lost.

    cable.py NAMESPACE DEVICE NAMESPACE DEVICE DELAY_MS LOST_PER_MILLE SEED

Makes a TUN device at both ends and says `ready`. `cut` and `mend` on standard input do that; its end ends it.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
# What a router's queue holds; more is lost.
QUEUE = 4096


def end(namespace, device):
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/var/run/netns/{namespace}") as place:
        if libc.setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", device.encode(), IFF_TUN | IFF_NO_PI))
    return tun


def main():
    names, (delay, lost, seed) = sys.argv[1:5], map(int, sys.argv[5:8])
    ends = [end(*names[:2]), end(*names[2:])]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    chance, waiting, order, cut, said = random.Random(seed), [], 0, False, b""
    commands = sys.stdin.fileno()
    print("ready", flush=True)
    while True:
        wait = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 1.0
        for source in select.select([*ends, commands], [], [], wait)[0]:
            if source == commands:
                text = os.read(commands, 100)
                if not text:
                    return
                # A line may come in pieces.
                *lines, said = (said + text).split(b"\n")
                for line in lines:
                    cut = line == b"cut"
                    print("done", flush=True)
                continue
            for _ in range(64):
                try:
                    packet = os.read(source, 65536)
                except BlockingIOError:
                    break
                if cut or len(waiting) >= QUEUE or chance.randrange(1000) < lost:
                    continue
                order += 1
                heapq.heappush(waiting, (time.monotonic() + delay / 1000, order, other[source], packet))
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, target, packet = heapq.heappop(waiting)
            try:
                os.write(target, packet)
            except OSError:
                pass


main()
