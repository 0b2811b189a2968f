/* What a machine must not have in common with another one, as lines of `name value`; then the time, once for each line on standard input. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/klog.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void bytes(const char *name, const unsigned char *all, int count) {
    printf("%s ", name);
    while (count--) printf("%02x", *all++);
    putchar('\n');
}

static void line(const char *name, const char *path) {
    char text[256] = "none\n";
    FILE *file = fopen(path, "r");
    if (file && !fgets(text, sizeof text, file)) fail(path);
    if (file) fclose(file);
    printf("%s %s", name, text);
}

static long long now(void) {
    struct timespec time;
    if (clock_gettime(CLOCK_REALTIME, &time)) fail("clock_gettime");
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

/* The kernel's own part of an initial sequence number: it adds the time, in units of 64 ns (net/core/secure_seq.c). The ports are the same everywhere. */
static void sequence(const char *name, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}}, from = to;
    int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), one = 1, queue = 2;
    uint32_t number;
    socklen_t size = sizeof number;
    from.sin_port = htons(port + 1);
    if (bind(listener, (void *)&to, sizeof to) || listen(listener, 1)) fail("listen");
    if (bind(client, (void *)&from, sizeof from)) fail("bind");
    long long before = now();
    if (connect(client, (void *)&to, sizeof to)) fail("connect");
    long long after = now();
    if (setsockopt(client, IPPROTO_TCP, TCP_REPAIR, &one, sizeof one)) fail("TCP_REPAIR");
    if (setsockopt(client, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue, sizeof queue)) fail("TCP_REPAIR_QUEUE");
    if (getsockopt(client, IPPROTO_TCP, TCP_QUEUE_SEQ, &number, &size)) fail("TCP_QUEUE_SEQ");
    printf("%s %u %lld\n", name, number - (uint32_t)(before >> 6), (after - before) >> 6);
}

/* Waits until the kernel itself has noticed that it is a copy: an interrupt tells it. */
static void noticed(void) {
    static char log[1 << 18];
    for (int tries = 0; tries < 100; tries++) {
        int count = klogctl(3, log, sizeof log - 1);
        if (count < 0) fail("klogctl");
        log[count] = 0;
        if (strstr(log, "crng reseeded due to virtual machine fork")) {
            /* a clock that is wrong may have been measured wrong, in the template */
            char *tsc = strstr(log, "tsc: Detected");
            printf("noticed %d\ntsc %.*s\n", tries * 100, tsc ? (int)strcspn(tsc, "\n") : 4, tsc ? tsc : "none");
            return;
        }
        usleep(100000);
    }
    puts("noticed never");
}

int main(void) {
    unsigned char random[32];
    uintptr_t canary;
    int file = open("/dev/urandom", O_RDONLY);
    if (read(file, random, sizeof random) != sizeof random) fail("/dev/urandom");
    bytes("urandom", random, sizeof random);
    if (getrandom(random, sizeof random, 0) != sizeof random) fail("getrandom");
    bytes("getrandom", random, sizeof random);
    bytes("at_random", (void *)getauxval(AT_RANDOM), 16);
    __asm__("mov %%fs:0x28, %0" : "=r"(canary));
    printf("canary %lx\n", canary);
    void *map = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    printf("program %p\nstack %p\nmap %p\n", (void *)main, (void *)random, map);
    line("uuid", "/proc/sys/kernel/random/uuid");
    line("boot_id", "/proc/sys/kernel/random/boot_id");
    line("machine_id", "/etc/machine-id");
    line("mac", "/sys/class/net/eth0/address");
    line("clocksource", "/sys/devices/system/clocksource/clocksource0/current_clocksource");
    line("host", "/proc/sys/kernel/hostname");
    sequence("sequence1", 40001);
    sequence("sequence2", 40003);
    noticed();
    puts("end");
    fflush(stdout);
    char text[16];
    while (fgets(text, sizeof text, stdin)) {
        printf("%lld\n", now());
        fflush(stdout);
    }
}
