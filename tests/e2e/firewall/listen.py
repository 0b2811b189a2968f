# Listens at "tcp PORT... udp PORT... at ADDRESS..." and tells everybody at which port he has come.
# A UDP socket is bound to one address, so that its answer comes from there.
import socket, sys, threading, time

def bound(kind, address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        try:
            s.bind((address, port))
            return s
        except OSError:  # the address is new, and not sure yet to be nobody else's
            time.sleep(0.02)

def tcp(s, text):
    while True:
        try:
            with s.accept()[0] as caller:
                caller.sendall(text)
        except OSError:  # he has gone
            pass

def udp(s, text):
    while True:
        try:
            s.sendto(text, s.recvfrom(100)[1])
        except OSError:  # he has gone
            pass

protocol, ports, addresses = None, [], []
for word in sys.argv[1:]:
    if word in ("tcp", "udp", "at"):
        protocol = word
    elif protocol == "at":
        addresses.append(word)
    else:
        ports.append((protocol, int(word)))
threading.stack_size(128 << 10)
for protocol, port in ports:
    for address in addresses:
        kind, serve = {"tcp": (socket.SOCK_STREAM, tcp), "udp": (socket.SOCK_DGRAM, udp)}[protocol]
        s = bound(kind, address, port)
        if protocol == "tcp":
            s.listen(64)
        threading.Thread(target=serve, args=(s, str(port).encode()), daemon=True).start()
print("listening", flush=True)
threading.Event().wait()
