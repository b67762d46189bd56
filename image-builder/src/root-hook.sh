#!/bin/sh
# Runs inside mmdebstrap, with the finished root as its argument: removes what differs from build
# to build, adds the user, and writes the EROFS file. Here it needs neither loop devices nor tar.
set -eu
root=$1

# Single files of packages that would bring too much with them.
if [ -s "$BULKHEAD_PICKS" ]; then
    picked=$(mktemp -d)
    cut -d ' ' -f 1 "$BULKHEAD_PICKS" | sort -u | while read -r package; do
        (cd "$picked" && APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get -q download "$package")
        mv "$picked/$package"_*.deb "$picked/$package.deb"
        mkdir "$picked/$package"
        dpkg-deb -x "$picked/$package.deb" "$picked/$package"
    done
    while read -r package pattern; do
        (cd "$picked/$package" && find . -path "$pattern" ! -type d -exec cp -a --parents {} "$root" \; \
            -printf x | grep -q x) || { echo "$package has no file $pattern" >&2; exit 1; }
    done < "$BULKHEAD_PICKS"
    rm -r "$picked"
fi

# What a build leaves behind.
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old \
    "$root"/var/lib/dpkg/*-old "$root"/var/lib/dpkg/lock* "$root"/var/cache/ldconfig/aux-cache \
    "$root"/etc/apt/sources.list.d/* "$root"/etc/apt/sources.list "$root"/etc/resolv.conf \
    "$root"/var/lib/dbus/machine-id "$root"/etc/*-
find "$root"/var/log -type f -delete
: > "$root"/etc/machine-id
: > "$root"/etc/resolv.conf
echo bulkhead > "$root"/etc/hostname

# The one user of a domain or of the test host.
grep -q '^kvm:' "$root"/etc/group || echo 'kvm:x:108:user' >> "$root"/etc/group
grep -q '^render:' "$root"/etc/group || echo 'render:x:109:user' >> "$root"/etc/group
echo 'user:x:1000:' >> "$root"/etc/group
echo 'user:x:1000:1000:user:/home/user:/bin/bash' >> "$root"/etc/passwd
echo 'user:!:20454:0:99999:7:::' >> "$root"/etc/shadow
mkdir -p "$root"/home/user "$root"/usr/lib/bulkhead "$root"/usr/share/bulkhead/images \
    "$root"/out "$root"/share
chown 1000:1000 "$root"/home/user

# Users, services and files that the recipe names. Paths are looked at from inside: what is a link there must
# not lead to a place of the machine that builds.
if [ -d "$BULKHEAD_ADDED" ]; then
    while read -r name uid home; do
        ! grep -q -e "^$name:" -e "^[^:]*:[^:]*:$uid:" "$root"/etc/passwd "$root"/etc/group \
            || { echo "the packages have made the user $name or the number $uid already" >&2; exit 1; }
        echo "$name:x:$uid:" >> "$root"/etc/group
        echo "$name:x:$uid:$uid:$name:$home:/usr/sbin/nologin" >> "$root"/etc/passwd
        echo "$name:!:20454:0:99999:7:::" >> "$root"/etc/shadow
        if [ "$home" != /nonexistent ]; then
            chroot "$root" mkdir -p "$home"
            chroot "$root" chown "$uid:$uid" "$home"
            chroot "$root" chmod 0700 "$home"
        fi
    done < "$BULKHEAD_ADDED"/users
    for service in "$BULKHEAD_ADDED"/services/*; do
        [ -f "$service" ] || continue
        user=$(head -n 1 "$service")
        grep -q "^$user:" "$root"/etc/passwd \
            || { echo "service ${service##*/}: there is no user $user" >&2; exit 1; }
        program=$(sed -n 2p "$service")
        case "$program" in
            # Every guest brings these with it.
            /run/bulkhead/bin/bulkhead-*) ;;
            *)
                chroot "$root" test -x "$program" \
                    || { echo "service ${service##*/}: no program $program" >&2; exit 1; }
                ;;
        esac
        install -D -m 0644 "$service" "$root"/etc/bulkhead/services/"${service##*/}"
    done
    while read -r number path; do
        chroot "$root" mkdir -p "${path%/*}/"
        chroot "$root" sh -c 'umask 022; rm -f "$1"; cat > "$1"' - "$path" \
            < "$BULKHEAD_ADDED/texts/$number"
    done < "$BULKHEAD_ADDED"/files
fi

# Last: the caches compare the time stamps of folders, which mkfs.erofs sets to this same time.
# /dev, /proc and /sys are those of the machine that builds: not ours to touch.
find "$root" -xdev \( -path "$root/proc" -o -path "$root/sys" -o -path "$root/dev" \) -prune -o \
    -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
if [ -x "$root"/usr/bin/fc-cache ]; then
    chroot "$root" fc-cache -s
    find "$root"/var/cache/fontconfig -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
fi

# A root that more is added to: an archive, which keeps owners.
if [ "$BULKHEAD_ROOT_FORM" = tar ]; then
    tar --create --file "$BULKHEAD_ROOT_OUTPUT" --directory "$root" --sort=name --format=gnu \
        --mtime="@$SOURCE_DATE_EPOCH" --numeric-owner --exclude='./dev/*' --exclude='./proc/*' \
        --exclude='./sys/*' --exclude='./run/*' --exclude='./tmp/*' --exclude='*/99mmdebstrap' .
    chmod 0644 "$BULKHEAD_ROOT_OUTPUT"
    exit
fi

# Without extended attributes: looking for them, mkfs.erofs 1.5 walks through /proc even so.
# What is mounted, and mmdebstrap's own files (it still needs them), stay out; in a view of our own
# /proc and /sys are not mounted, since in a user namespace they would belong to nobody.
exclude='^((dev|proc|sys|run|tmp)/.|etc/(apt/apt.conf|dpkg/dpkg.cfg).d/..mmdebstrap)'
export root exclude
unshare --mount sh -c '
    umount -l "$root/proc" "$root/sys" || true
    exec mkfs.erofs -x-1 -T "$SOURCE_DATE_EPOCH" -U 00000000-0000-4000-8000-000000000000 \
        --exclude-regex="$exclude" "$BULKHEAD_ROOT_OUTPUT" "$root"
' > /dev/null
chmod 0644 "$BULKHEAD_ROOT_OUTPUT"
