# Asks the kernel to delete table inet tether, and prints what it says: a batch of one request for nf_tables (netlink(7)).
import os, socket, struct

def message(kind, flags, body):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body

BEGIN, END, DELETE_TABLE, REQUEST, ACK = 16, 17, 10 << 8 | 2, 1, 4
name = struct.pack("=HH7sx", 11, 1, b"tether\0")
edge = struct.pack("!BBH", 0, 0, 10)
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
    s.send(message(BEGIN, REQUEST, edge) + message(DELETE_TABLE, REQUEST | ACK, b"\1\0\0\0" + name) + message(END, REQUEST, edge))
    s.settimeout(60)
    print(os.strerror(-struct.unpack_from("=i", s.recv(4096), 16)[0]))
