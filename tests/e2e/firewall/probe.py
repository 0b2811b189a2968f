# Tries each "KIND FROM TO PORT EXPECTED" and prints a line for each: what was answered, or "-".
# What is to be answered is tried until it is; what is to be silent, until all those have been answered and two seconds more:
# so a slow machine is given its time, and silence has meant something.
import os, socket, struct, sys, threading, time

probes = [word.split() for word in sys.argv[1:]]
results = ["-"] * len(probes)
give_up = time.monotonic() + 120
waiting = sum(probe[4] == "answered" for probe in probes)
quiet = [give_up if waiting else time.monotonic() + 2]
lock = threading.Lock()

def answered():
    global waiting
    with lock:
        waiting -= 1
        if waiting == 0:
            quiet[0] = time.monotonic() + 2

def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff

def ping(family, source, target, number, seconds):
    v4 = family == socket.AF_INET
    request, reply = (8, 0) if v4 else (128, 129)
    with socket.socket(family, socket.SOCK_RAW, 1 if v4 else 58) as s:
        s.bind((source, 0))
        own = struct.pack("!HH", 0x4000 + number, os.getpid() & 0xffff)
        data = struct.pack("!BBH", request, 0, 0) + own
        if v4:  # for ICMPv6 the kernel counts
            data = struct.pack("!BBH", request, 0, checksum(data)) + own
        s.sendto(data, (target, 0))
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            s.settimeout(left)
            data, sender = s.recvfrom(2000)
            data = data[(data[0] & 15) * 4:] if v4 else data
            if sender[0] == target and data[0] == reply and data[4:8] == own:
                return "pong"
    return None

def once(number, kind, source, target, port, seconds):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    if kind == "ping":
        return ping(family, source, target, number, seconds)
    with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as s:
        s.settimeout(seconds)
        s.bind((source, 0))
        s.connect((target, port))
        if kind == "udp":
            s.send(b"?")
        return s.recv(100).decode()

def run(number, kind, source, target, port, expected):
    seconds = 1
    while time.monotonic() < (give_up if expected == "answered" else quiet[0]):
        try:
            results[number] = once(number, kind, source, target, int(port), seconds) or "-"
        except ConnectionRefusedError:
            results[number] = "refused"
        except OSError:  # silence, or the own firewall's no
            time.sleep(0.1)
        if results[number] != "-":
            break
        seconds = min(seconds * 2, 30) if expected == "answered" else 1
    if expected == "answered":
        answered()

threading.stack_size(128 << 10)
threads = [threading.Thread(target=run, args=(number, *probe)) for number, probe in enumerate(probes)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("\n".join(results))
