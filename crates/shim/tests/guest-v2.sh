#!/usr/bin/env bash
# Runs the tests of shim and runtime on pure cgroup v2, in an emulated machine, and those of volumes that most development machines' kernels
# cannot run (project quotas, NFS): most development machines of the project are hybrid, most machines of the world are not.
# `make test-cgroup2`. Needs qemu-system-x86_64, cpio, busybox-static, mkfs.ext4 and a kernel: Debian's for clouds is fetched and unpacked below
# target/guest, not installed, unless the environment names another:
#   BERTH_GUEST_KERNEL   a bzImage with virtio-free serial console, tmpfs, ext4, cgroup v2 and BPF
#   BERTH_GUEST_MODULES  the folder of its modules (lib/modules/VERSION): of overlay, quotas, NFS, nftables and links
#   BERTH_GUEST_TIMEOUT  seconds after which the machine is given up; 1800
#   CARGO                how cargo is called
# Prints what the tests say and how many there were; ends with 0 only if all of them passed. It writes to target/guest alone, and the emulator
# ends with this script, however that ends.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export PATH=$PATH:/usr/sbin:/sbin
for tool in qemu-system-x86_64 cpio /bin/busybox mkfs.ext4 setpriv; do
    command -v "$tool" >/dev/null || { echo "SKIPPED (needs $tool): cgroup v2 in a guest"; exit 0; }
done
guest=$PWD/target/guest
mkdir -p "$guest"
exec 8>"$guest/lock"
flock 8 # two at a time would write over each other's work

if [ -z "${BERTH_GUEST_KERNEL:-}" ]; then
    if ! ls "$guest"/boot/vmlinuz-* >/dev/null 2>&1; then
        package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1 || true)
        if [ -z "$package" ] || ! (cd "$guest" && apt-get download -q "$package" && dpkg-deb -x "$package"_*.deb . && rm -- *.deb); then
            echo "SKIPPED (needs Debian's linux-image-cloud-amd64, or BERTH_GUEST_KERNEL): cgroup v2 in a guest"
            exit 0
        fi
    fi
    BERTH_GUEST_KERNEL=$(find "$guest/boot" -name 'vmlinuz-*' | sort | tail -n 1)
    BERTH_GUEST_MODULES=$(find "$guest/lib/modules" -mindepth 1 -maxdepth 1 | sort | tail -n 1)
fi

# One of fixed name: what an earlier run could not remove, since it was killed, is removed now.
work=$guest/work
rm -rf "$work"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
root=$work/root
mkdir -p "$root"/{bin,etc/ssl/certs,proc,newroot,tests,modules}

# The programs and tests, without their symbols: they live in the guest's memory. The tests know the programs by their full path.
${CARGO:-cargo} build -p berth-shim
${CARGO:-cargo} test -p berth-shim -p berth-runtime -p berth-agent --no-run --message-format=json-render-diagnostics >"$work/built"
grep -o '"executable":"[^"]*/deps/[^"]*"' "$work/built" | cut -d'"' -f4 | while read -r test; do
    # Docker's runtime does nothing with cgroups itself, and there is no Docker in the guest.
    case $test in */docker-*) continue ;; esac
    strip -o "$root/tests/$(basename "$test")" "$test"
done
target=$(cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4)/debug
mkdir -p "$root$target"
for program in berth-shim berth-monitor berth-seccomp; do strip -o "$root$target/$program" "$target/$program"; done
mkfs=$(command -v mkfs.ext4)
cp -L "$mkfs" "$root/bin/mkfs.ext4"
for file in "$root"/tests/* "$root$target"/* "$mkfs"; do ldd "$file" | grep -o '/[^ ]*' || true; done | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done

cp /bin/busybox "$root/bin/busybox"
for applet in cat chmod cp dd echo grep ifconfig insmod ls mkdir mknod mount poweroff rm sh sleep switch_root true umount; do ln -s busybox "$root/bin/$applet"; done
# Each after those it needs.
: >"$root/modules/order"
for module in overlay loop quota_tree quota_v2 netfs fscache dns_resolver sunrpc grace lockd nfs nfsv4 nfs_acl auth_rpcgss nfsd \
    llc stp bridge veth udp_tunnel ip6_udp_tunnel vxlan sch_ingress cls_bpf libcrc32c nf_defrag_ipv4 nf_defrag_ipv6 nf_conntrack nfnetlink nf_tables \
    nf_conntrack_netlink nf_nat nft_ct nft_chain_nat nft_nat nft_masq nft_fib nft_fib_ipv4 nft_fib_ipv6 nft_fib_inet; do
    file=$(find "${BERTH_GUEST_MODULES:-/nonexistent}" -name "$module.ko" 2>/dev/null | head -n 1 || true)
    [ -z "$file" ] || { cp "$file" "$root/modules/"; echo "$module" >>"$root/modules/order"; }
done
[ ! -f /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
echo 'nameserver 10.0.0.1' >"$root/etc/resolv.conf"

# The first root cannot be pivoted away from, so the tests get another.
cat >"$root/init" <<'INIT'
#!/bin/sh
mount -t proc proc /proc
mount -t tmpfs -o size=1g tmpfs /newroot
for entry in /*; do case $entry in /proc | /newroot | /dev) ;; *) cp -a "$entry" /newroot/ ;; esac; done
mkdir -p /newroot/proc /newroot/sys /newroot/dev /newroot/tmp /newroot/run
exec switch_root /newroot /run-tests
INIT
# Temporary files are apart from /tmp: the programs may be below that.
cat >"$root/run-tests" <<INIT
#!/bin/sh
export PATH=/bin RUST_BACKTRACE=0 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt BERTH_SHIM_DIR=$target TMPDIR=/scratch BERTH_GUEST=1
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mkdir /scratch; mount -t tmpfs tmpfs /scratch; chmod 1777 /scratch /tmp; ifconfig lo 127.0.0.1 up
while read -r module; do insmod /modules/\$module.ko; done </modules/order
echo "guest: \$(cat /proc/sys/kernel/osrelease), controllers \$(cat /sys/fs/cgroup/cgroup.controllers)"
# An NFS server of the kernel's own, without the programs that usually tell it what it exports.
mkdir -p /export /proc/fs/nfsd
if mount -t nfsd nfsd /proc/fs/nfsd && mount -t tmpfs -o size=16m tmpfs /export; then
    for setting in versions=-2 versions=-3 versions=+4.1 nfsv4leasetime=10 nfsv4gracetime=10 threads=0; do
        echo "\${setting#*=}" >/proc/fs/nfsd/\${setting%%=*} 2>/dev/null
    done
    echo "nfsd 127.0.0.1 2147483647 guest" >/proc/net/rpc/auth.unix.ip/channel
    echo "guest /export 2147483647 9234 65534 65534 0" >/proc/net/rpc/nfsd.export/channel
    echo 'guest 1 \\x00000000 2147483647 /export' >/proc/net/rpc/nfsd.fh/channel
    echo "tcp 2049" >/proc/fs/nfsd/portlist && echo 2 >/proc/fs/nfsd/threads && export BERTH_TEST_NFS=127.0.0.1:2049/
    echo Y >/proc/fs/nfsd/v4_end_grace
fi
failed=
for test in /tests/*; do
    only=
    case \$test in */berth_agent-*) only="volumes::" ;; esac
    echo "== \$test \$only"
    \$test \$only --test-threads=2 --nocapture 2>&1 || failed="\$failed \$test"
done
for left in /sys/fs/cgroup/berth*; do [ ! -d \$left ] || failed="\$failed \$left"; done
[ -z "\$failed" ] && echo "GUEST: ALL PASSED" || echo "GUEST: FAILED:\$failed"
poweroff -f
INIT
chmod +x "$root/init" "$root/run-tests"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"
rm -rf "$root"

# Not with /dev/kvm: inside a virtual machine it is often there and does not carry a whole boot.
begun=$SECONDS
setpriv --pdeathsig TERM timeout "${BERTH_GUEST_TIMEOUT:-1800}" qemu-system-x86_64 -machine pc -accel tcg,thread=multi -cpu max -smp 2 -m 2560 -nographic \
    -no-reboot -nic none -kernel "$BERTH_GUEST_KERNEL" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off" \
    </dev/null 8>&- > >(tee "$work/said") &
emulator=$!
trap 'kill "$emulator" 2>/dev/null || true; rm -rf "$work"' EXIT
wait "$emulator" || true
took=$((SECONDS - begun))
passed=$(sed -n 's/^test result: .* \([0-9]*\) passed.*/\1/p' "$work/said" | paste -sd+ | { read -r sum; echo $((sum)); })
skipped=$(grep -c SKIPPED "$work/said" || true)
ending=$(grep -a -o "GUEST: .*" "$work/said" | tail -n 1 | tr -d '\r' || true)
printf '%s (%d tests passed, %d say that they skipped something; %d:%02d minutes in the guest)\n' \
    "${ending:-GUEST: FAILED: it did not come to its end}" "$passed" "$skipped" $((took / 60)) $((took % 60))
[ "$ending" = "GUEST: ALL PASSED" ]
