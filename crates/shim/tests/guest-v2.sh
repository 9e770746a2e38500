#!/usr/bin/env bash
# Runs the tests of shim and runtime on pure cgroup v2, in an emulated machine: most development machines of the project are hybrid,
# most machines of the world are not. `make test-cgroup2`. Needs qemu-system-x86_64, cpio, busybox-static and a kernel: Debian's for clouds is
# fetched and unpacked below target/guest, not installed, unless the environment names another:
#   BERTH_GUEST_KERNEL   a bzImage with virtio-free serial console, tmpfs, cgroup v2 and BPF
#   BERTH_GUEST_MODULES  kernel modules to load, separated by spaces; at least overlay.ko where it is not built in
# Prints what the tests say; ends with 0 only if all of them passed. Takes 2 minutes on a quiet machine, 7 on a busy one.
set -euo pipefail
cd "$(dirname "$0")/../../.."
for tool in qemu-system-x86_64 cpio /bin/busybox; do
    command -v "$tool" >/dev/null || { echo "SKIPPED (needs $tool): cgroup v2 in a guest"; exit 0; }
done

if [ -z "${BERTH_GUEST_KERNEL:-}" ]; then
    guest=$PWD/target/guest
    if ! ls "$guest"/boot/vmlinuz-* >/dev/null 2>&1; then
        mkdir -p "$guest"
        package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1 || true)
        if [ -z "$package" ] || ! (cd "$guest" && apt-get download -q "$package" && dpkg-deb -x "$package"_*.deb . && rm -- *.deb); then
            echo "SKIPPED (needs Debian's linux-image-cloud-amd64, or BERTH_GUEST_KERNEL): cgroup v2 in a guest"
            exit 0
        fi
    fi
    BERTH_GUEST_KERNEL=$(find "$guest/boot" -name 'vmlinuz-*' | sort | tail -n 1)
    BERTH_GUEST_MODULES=$(find "$guest/lib/modules" -name overlay.ko | sort | tail -n 1)
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,etc/ssl/certs,proc,newroot,tests,modules}

# The programs and tests, without their symbols: they live in the guest's memory. The tests know the programs by their full path.
cargo build -p berth-shim
cargo test -p berth-shim -p berth-runtime --no-run --message-format=json 2>/dev/null |
    grep '"overflow_checks":[a-z]*,"test":true}' | grep -o '"executable":"[^"]*"' | cut -d'"' -f4 | while read -r test; do
    strip -o "$root/tests/$(basename "$test")" "$test"
done
target=$(cargo metadata --format-version 1 --no-deps | grep -o '"target_directory":"[^"]*"' | cut -d'"' -f4)/debug
mkdir -p "$root$target"
for program in berth-shim berth-monitor; do strip -o "$root$target/$program" "$target/$program"; done
for file in "$root"/tests/* "$root$target"/*; do ldd "$file" | grep -o '/[^ ]*' || true; done | sort -u | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done

cp /bin/busybox "$root/bin/busybox"
for applet in cat chmod cp echo grep ifconfig insmod ls mkdir mknod mount poweroff rm sh sleep switch_root true; do ln -s busybox "$root/bin/$applet"; done
for module in ${BERTH_GUEST_MODULES:-}; do cp "$module" "$root/modules/"; done
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
cat >"$root/run-tests" <<INIT
#!/bin/sh
export PATH=/bin RUST_BACKTRACE=0 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt BERTH_SHIM_DIR=$target
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t tmpfs tmpfs /tmp; chmod 1777 /tmp; ifconfig lo 127.0.0.1 up
for module in /modules/*; do [ ! -f \$module ] || insmod \$module; done
echo "guest: \$(cat /proc/sys/kernel/osrelease), controllers \$(cat /sys/fs/cgroup/cgroup.controllers)"
failed=
for test in /tests/*; do
    echo "== \$test"
    \$test --test-threads=2 --nocapture 2>&1 || failed="\$failed \$test"
done
for left in /sys/fs/cgroup/berth*; do [ ! -d \$left ] || failed="\$failed \$left"; done
[ -z "\$failed" ] && echo "GUEST: ALL PASSED" || echo "GUEST: FAILED:\$failed"
poweroff -f
INIT
chmod +x "$root/init" "$root/run-tests"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd"

# Not with /dev/kvm: inside a virtual machine it is often there and does not carry a whole boot.
timeout "${BERTH_GUEST_TIMEOUT:-900}" qemu-system-x86_64 -machine pc -accel tcg,thread=multi -cpu max -smp 2 -m 2560 -nographic -no-reboot -nic none \
    -kernel "$BERTH_GUEST_KERNEL" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off" </dev/null | tee "$work/said"
grep -q "GUEST: ALL PASSED" "$work/said"
