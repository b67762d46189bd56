#!/bin/sh
# Makes the desktop's root out of Debian's part (an archive) and ours (a folder): as root, or as the
# root of a user namespace. $1 is a folder with the inputs; the results are put there, too.
set -eu
umask 022
work=$1
root=$work/root
mkdir "$root"
tar --extract --file "$work/base.tar" --directory "$root" --numeric-owner --same-owner -p
cp "$root/var/lib/dpkg/status" "$work/dpkg-status"
cp -L "$root/usr/lib/os-release" "$work/os-release"

# What Debian's packages started by themselves starts only if the recipe says so.
rm -rf "$root"/etc/systemd/system/* "$root"/etc/systemd/user/*
# Ours, by copying: in a user namespace the originals belong to nobody.
cp -R --no-dereference --no-target-directory --remove-destination "$work/add" "$root"

# The kernel's modules, and the lists by which they are found.
version=$(basename "$work"/modules/*)
modules=$root/usr/lib/modules/$version
mkdir -p "$modules"
cp "$work/modules/$version"/modules.order "$work/modules/$version"/modules.builtin \
    "$work/modules/$version"/modules.builtin.modinfo "$modules"
while read -r folder; do
    [ -e "$work/modules/$version/$folder" ] || { echo "the kernel has no modules in $folder" >&2; exit 1; }
    mkdir -p "$modules/$(dirname "$folder")"
    cp -R "$work/modules/$version/$folder" "$modules/$folder"
done < "$work/module-folders"
# Its complaints are about modules that the list names and the recipe leaves out.
chroot "$root" depmod "$version" > "$work/depmod.log" 2>&1 || { cat "$work/depmod.log" >&2; exit 1; }

# Microcode goes to the kernel before everything else, so into the boot file.
for maker in GenuineIntel:intel-ucode AuthenticAMD:amd-ucode; do
    folder=$root/usr/lib/firmware/${maker#*:}
    if [ -d "$folder" ]; then
        find "$folder" -type f ! -name '*.asc' ! -name 'README*' | LC_ALL=C sort \
            | xargs cat > "$work/${maker%:*}.bin"
        rm -r "$folder"
    fi
done

# What a finished system does not need. A pattern that fits nothing is a mistake in the recipe.
while read -r pattern; do
    found=
    for path in "$root"$pattern; do
        if [ -e "$path" ] || [ -L "$path" ]; then found=1; rm -rf "$path"; fi
    done
    [ "$found" ] || { echo "remove: nothing fits $pattern" >&2; exit 1; }
done < "$work/remove"
mkdir -p "$root/data" "$root/home" "$root/var" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp"
rm -rf "$root"/home/* "$root"/var/*

# No program runs with more rights than its caller's, but for those that the recipe names.
find "$root" -xdev -type f -perm /6000 | LC_ALL=C sort | while read -r path; do
    grep -qxF "${path#"$root"}" "$work/setuid" || chmod a-s "$path"
done
left=$(find "$root" -xdev -type f -perm /6000 | sed "s,^$root,," | LC_ALL=C sort)
[ "$left" = "$(LC_ALL=C sort "$work/setuid")" ] || {
    echo "programs with special rights: '$left', but the recipe allows '$(cat "$work/setuid")'" >&2
    exit 1
}

mkfs.erofs -zlz4hc -x-1 -T "$SOURCE_DATE_EPOCH" -U 00000000-0000-4000-8000-000000000000 \
    "$work/root.erofs" "$root" > /dev/null
rm -rf "$root"
chmod 0644 "$work/root.erofs" "$work/dpkg-status" "$work/os-release"
