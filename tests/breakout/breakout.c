/* Tries, from inside a container, the ways out that are known, and says of each what became of it: a line "NAME refused: WHY" or "NAME BROKE OUT: WHAT".
 * With the argument `works` it tries what must work all the same, and ends with 0 if it does. It is built with `cc -static` by the tests and needs nothing of an image. Arguments: addresses HOST:PORT that must not be reached, pids of others. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/perf_event.h>
#include <linux/reboot.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void refused(const char *name, const char *why) { printf("%s refused: %s\n", name, why); }
static void broke(const char *name, const char *what) { printf("%s BROKE OUT: %s\n", name, what); }

/* A call that must fail. */
static void call(const char *name, long result) {
    if (result < 0) refused(name, strerror(errno));
    else broke(name, "the call succeeded");
}

/* A file that must not be opened. */
static void file(const char *name, const char *path, int flags) {
    int fd = open(path, flags);
    if (fd < 0) {
        refused(name, strerror(errno));
        return;
    }
    broke(name, path);
    close(fd);
}

/* A file that must hold nothing, if it can be read at all. */
static void empty(const char *name, const char *path) {
    char byte;
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        refused(name, strerror(errno));
        return;
    }
    ssize_t got = read(fd, &byte, 1);
    if (got > 0) broke(name, path);
    else refused(name, got == 0 ? "nothing is in it" : strerror(errno));
    close(fd);
}

/* Writes what is there already, so that a hole does no harm. */
static void rewrite(const char *name, const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0 || write(fd, text, strlen(text)) < 0) refused(name, strerror(errno));
    else broke(name, path);
    if (fd >= 0) close(fd);
}

static void mounts(void) {
    const char *kinds[] = {"proc", "sysfs", "tmpfs", "cgroup", "cgroup2", "devtmpfs", "overlay", "debugfs", "securityfs", "bpf", "ext4"};
    char name[64];
    mkdir("/tmp/m", 0755);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        snprintf(name, sizeof name, "mount-%s", kinds[i]);
        call(name, mount(strcmp(kinds[i], "ext4") ? "none" : "/dev/disk", "/tmp/m", kinds[i], 0, ""));
    }
    call("mount-bind", mount("/", "/tmp/m", "", MS_BIND | MS_REC, ""));
    call("remount-proc-writable", mount("none", "/proc/sys", "", MS_REMOUNT | MS_BIND, ""));
    call("umount-masks", umount2("/proc/kcore", MNT_DETACH));
    call("fsopen", syscall(SYS_fsopen, "proc", 0));
    call("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    call("move_mount", syscall(SYS_move_mount, AT_FDCWD, "/tmp", AT_FDCWD, "/tmp/m", 0));
    call("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 32));
    call("pivot_root", syscall(SYS_pivot_root, "/", "/tmp"));
}

static void settings(void) {
    rewrite("proc-sys-core_pattern", "/proc/sys/kernel/core_pattern", "core");
    rewrite("proc-sys-modprobe", "/proc/sys/kernel/modprobe", "/sbin/modprobe");
    rewrite("proc-sys-panic", "/proc/sys/kernel/panic", "0");
    rewrite("proc-sys-ip_forward", "/proc/sys/net/ipv4/ip_forward", "1");
    rewrite("proc-sysrq-trigger", "/proc/sysrq-trigger", "h");
    rewrite("proc-irq", "/proc/irq/default_smp_affinity", "f");
    rewrite("cgroup-release_agent", "/sys/fs/cgroup/memory/release_agent", "/bin/true");
    rewrite("cgroup-notify_on_release", "/sys/fs/cgroup/memory/notify_on_release", "0");
    rewrite("cgroup-memory-limit", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1");
    rewrite("cgroup-memory-max", "/sys/fs/cgroup/memory.max", "max");
    rewrite("cgroup-cpu-quota", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
    rewrite("sys-uevent_helper", "/sys/kernel/uevent_helper", "/bin/true");
    rewrite("sys-power", "/sys/power/state", "freeze");
    call("cgroup-mkdir", mkdir("/sys/fs/cgroup/memory/escape", 0755));
    empty("proc-kcore", "/proc/kcore");
    empty("proc-kmsg", "/proc/kmsg");
    empty("proc-keys", "/proc/keys");
    empty("proc-timer_list", "/proc/timer_list");
    empty("proc-sched_debug", "/proc/sched_debug");
    empty("sys-firmware", "/sys/firmware/acpi/tables/DSDT");
    call("oom_score_adj-below", ({ int fd = open("/proc/self/oom_score_adj", O_WRONLY); fd < 0 ? -1 : write(fd, "-900", 4); }));
}

static void device(const char *name, mode_t kind, unsigned major, unsigned minor) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/%s", name);
    if (mknod(path, kind | 0600, makedev(major, minor)) < 0) {
        refused(name, strerror(errno));
        return;
    }
    /* One that was made must not open. */
    file(name, path, O_RDONLY | O_NONBLOCK);
    unlink(path);
}

static void devices(void) {
    device("mknod-disk-vda", S_IFBLK, 254, 0);
    device("mknod-disk-sda", S_IFBLK, 8, 0);
    device("mknod-mem", S_IFCHR, 1, 1);
    device("mknod-kmsg", S_IFCHR, 1, 11);
    device("mknod-port", S_IFCHR, 1, 4);
    device("mknod-fuse", S_IFCHR, 10, 229);
    device("mknod-kvm", S_IFCHR, 10, 232);
    device("mknod-tun", S_IFCHR, 10, 200);
    file("dev-mem", "/dev/mem", O_RDONLY);
    file("dev-kmsg", "/dev/kmsg", O_RDONLY | O_NONBLOCK);
    file("dev-kvm", "/dev/kvm", O_RDWR);
    file("dev-fuse", "/dev/fuse", O_RDWR);
    file("dev-tun", "/dev/net/tun", O_RDWR);
}

static void kernel(void) {
    struct timeval now;
    union bpf_attr bpf = {0};
    struct perf_event_attr perf = {.type = PERF_TYPE_SOFTWARE, .size = sizeof perf, .config = PERF_COUNT_SW_CPU_CLOCK};
    bpf.map_type = BPF_MAP_TYPE_ARRAY;
    bpf.key_size = 4;
    bpf.value_size = 4;
    bpf.max_entries = 1;
    call("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &bpf, sizeof bpf));
    call("perf_event_open", syscall(SYS_perf_event_open, &perf, 0, -1, -1, 0));
    call("keyctl", syscall(SYS_keyctl, 0, -3, 1, 0, 0));
    call("add_key", syscall(SYS_add_key, "user", "escape", "x", 1, -3));
    call("request_key", syscall(SYS_request_key, "user", "escape", NULL, -3));
    call("init_module", syscall(SYS_init_module, "", 0, ""));
    call("finit_module", syscall(SYS_finit_module, 0, "", 0));
    call("delete_module", syscall(SYS_delete_module, "no_such_module", O_NONBLOCK));
    call("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    call("kexec_file_load", syscall(SYS_kexec_file_load, -1, -1, 0, "", 8));
    /* Of all that it can do, switching Ctrl-Alt-Del off does the least harm where it is let through. */
    call("reboot", syscall(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_OFF, NULL));
    gettimeofday(&now, NULL);
    call("settimeofday", syscall(SYS_settimeofday, &now, NULL));
    call("sethostname", sethostname("escape", 6));
    call("swapon", syscall(SYS_swapon, "/tmp/none", 0));
    call("quotactl", syscall(SYS_quotactl, 0, "/dev/disk", 0, NULL));
    call("acct", syscall(SYS_acct, NULL));
    call("iopl", syscall(SYS_iopl, 3));
    call("syslog", syscall(SYS_syslog, 3, (char[64]){0}, 64));
    call("userfaultfd", syscall(SYS_userfaultfd, 0));
    call("io_uring_setup", syscall(SYS_io_uring_setup, 1, (char[256]){0}));
    call("lookup_dcookie", syscall(SYS_lookup_dcookie, 0, "", 0));
    call("nice-realtime", ({ struct sched_param high = {.sched_priority = 1}; sched_setscheduler(0, SCHED_FIFO, &high); }));
    call("personality-no-randomization", syscall(SYS_personality, 0x0040000));
    unsigned long more_files[2] = {1ul << 40, 1ul << 40};
    call("rlimit-above", syscall(SYS_setrlimit, 7, more_files));
}

static void namespaces(void) {
    const struct { const char *name; int flag; } all[] = {
        {"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
        {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80},
    };
    char name[64];
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        snprintf(name, sizeof name, "unshare-%s", all[i].name);
        call(name, unshare(all[i].flag));
    }
    snprintf(name, sizeof name, "clone-user");
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    call(name, child);
    struct { unsigned long long flags, more[10]; } clone3 = {.flags = CLONE_NEWUSER};
    clone3.more[3] = SIGCHLD;
    child = syscall(SYS_clone3, &clone3, sizeof clone3);
    if (child == 0) _exit(0);
    call("clone3-user", child);
    const char *kinds[] = {"mnt", "pid", "net", "user", "cgroup", "uts", "ipc"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/1/ns/%s", kinds[i]);
        snprintf(name, sizeof name, "setns-%s", kinds[i]);
        int fd = open(path, O_RDONLY);
        call(name, fd < 0 ? -1 : setns(fd, 0));
    }
}

/* Out of a chroot by a folder that was kept open: what is above must still be the container's root. */
static void chroots(void) {
    struct stat real, found;
    stat("/", &real);
    pid_t child = fork();
    if (child == 0) {
        mkdir("/tmp/jail", 0755);
        int kept = open("/", O_RDONLY | O_DIRECTORY);
        if (chroot("/tmp/jail") < 0) {
            refused("chroot-escape", strerror(errno));
            fflush(stdout);
            _exit(0);
        }
        fchdir(kept);
        for (int i = 0; i < 64; i++) chdir("..");
        stat(".", &found);
        if (found.st_ino == real.st_ino && found.st_dev == real.st_dev) refused("chroot-escape", "above is the container's own root");
        else broke("chroot-escape", "above the container's root");
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void handles(void) {
    struct { unsigned bytes; int type; unsigned char handle[128]; } handle = {.bytes = 8, .type = 1, .handle = {2}};
    int root = open("/etc/hosts", O_RDONLY);
    call("open_by_handle_at", syscall(SYS_open_by_handle_at, root, &handle, O_RDONLY));
    close(root);
}

/* Processes of others by their numbers on the machine; in here these are nobody, or others. */
static void others(int pid) {
    char path[64], name[64], byte;
    struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    snprintf(name, sizeof name, "kill-%d", pid);
    call(name, kill(pid, 0));
    snprintf(name, sizeof name, "ptrace-%d", pid);
    call(name, ptrace(PTRACE_SEIZE, pid, 0, 0));
    snprintf(name, sizeof name, "process_vm_readv-%d", pid);
    call(name, process_vm_readv(pid, &here, 1, &there, 1, 0));
    snprintf(name, sizeof name, "pidfd_open-%d", pid);
    call(name, syscall(SYS_pidfd_open, pid, 0));
    const char *files[] = {"root/etc/passwd", "mem", "environ", "cwd/."};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
        snprintf(name, sizeof name, "proc-%d-%s", pid, files[i]);
        for (char *c = name; *c; c++)
            if (*c == '/') *c = '-';
        file(name, path, O_RDONLY);
    }
}

/* The container's own first process leads nowhere but here. */
static void first(void) {
    struct stat here, there;
    if (stat("/", &here) < 0 || stat("/proc/1/root/", &there) < 0) refused("proc-1-root", strerror(errno));
    else if (here.st_ino == there.st_ino && here.st_dev == there.st_dev) refused("proc-1-root", "it is the container's own root");
    else broke("proc-1-root", "another root");
}

static void network(void) {
    call("af_packet", socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL)));
    call("af_packet-dgram", socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL)));
    call("raw-ip", socket(AF_INET, SOCK_RAW, IPPROTO_RAW));
    call("raw-ip6", socket(AF_INET6, SOCK_RAW, IPPROTO_RAW));
    call("af_vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    int udp = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq request;
    memset(&request, 0, sizeof request);
    strcpy(request.ifr_name, "eth0");
    request.ifr_flags = IFF_UP | IFF_PROMISC;
    call("promiscuous", ioctl(udp, SIOCSIFFLAGS, &request));
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("10.255.255.254")};
    memcpy(&request.ifr_addr, &own, sizeof own);
    call("change-address", ioctl(udp, SIOCSIFADDR, &request));
    int on = 1;
    call("transparent", setsockopt(udp, IPPROTO_IP, 19, &on, sizeof on));
    close(udp);
}

/* A socket of the machine's in the abstract namespace. */
static void abstract(const char *socket_name) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    strncpy(to.sun_path + 1, socket_name, sizeof to.sun_path - 2);
    call("abstract-socket", connect(fd, (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + strlen(socket_name)));
    close(fd);
}

/* An address that nobody has given leave to reach. */
static void reach(const char *text) {
    char address[64], name[96];
    strncpy(address, text, sizeof address - 1);
    address[sizeof address - 1] = 0;
    char *colon = strrchr(address, ':');
    if (!colon) return;
    *colon = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(colon + 1)), .sin_addr.s_addr = inet_addr(address)};
    struct timeval patience = {.tv_sec = 1};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    snprintf(name, sizeof name, "connect-%s", text);
    call(name, connect(fd, (struct sockaddr *)&to, sizeof to));
    close(fd);
}

/* ping without raw sockets, as its usual program does it. */
static int works(void) {
    unsigned char echo[8] = {8}, answer[64];
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr("127.0.0.1")};
    struct timeval patience = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (fd < 0 || sendto(fd, echo, sizeof echo, 0, (struct sockaddr *)&to, sizeof to) < 0 || recv(fd, answer, sizeof answer, 0) < 8) {
        perror("ping");
        return 1;
    }
    return 0;
}

int main(int count, char **arguments) {
    if (count == 2 && !strcmp(arguments[1], "works")) return works();
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 1; i < count; i++) {
        if (strchr(arguments[i], ':')) reach(arguments[i]);
        else if (arguments[i][0] == '@') abstract(arguments[i] + 1);
        else others(atoi(arguments[i]));
    }
    mounts();
    settings();
    devices();
    kernel();
    namespaces();
    chroots();
    handles();
    first();
    network();
    puts("all tried");
    return 0;
}
