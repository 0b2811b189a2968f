#!/bin/busybox sh
# In the place of vch: says how it finds the machine, a fact a line, and waits to be stopped.
b=/bin/busybox
fact() { name=$1; shift; echo "$name" $("$@"); }
address() { $b grep "	$1.localhost" /etc/hosts | $b cut -f1; }
fact arguments echo "$@"
fact name $b hostname
fact whole $b cat /etc/hostname
fact addresses $b sh -c "$b ip -4 -o addr | $b awk '{ print \$4 }'"
fact routes $b ip route
fact resolv $b cat /etc/resolv.conf
for role in client management public bridge; do echo "$role $(address $role)"; done
for name in ip_forward tcp_syncookies conf/all/rp_filter conf/all/accept_redirects conf/eth0/accept_redirects conf/eth1/send_redirects; do
    [ ! -e /proc/sys/net/ipv4/$name ] || fact net/ipv4/$name $b cat /proc/sys/net/ipv4/$name
done
echo that is all
trap 'echo it is asked to stop; exit 0' TERM
while :; do $b sleep 1000 & wait $!; done
