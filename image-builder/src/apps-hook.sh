#!/bin/sh
# Runs inside mmdebstrap, with the finished root as its argument: collects the applications' desktop
# files as they are, and for each icon that they name the one file that suits a menu best. Whoever
# shows them trusts none of it: here nothing is interpreted but the lines `Icon=`.
set -eu
root=$1
out=$BULKHEAD_APPS_OUTPUT
mkdir -p "$out/applications" "$out/icons"

# Read from inside, so that a link means a file of this root.
inside() { chroot "$root" "$@"; }

inside find /usr/share/applications -name '*.desktop' 2> /dev/null | LC_ALL=C sort > "$out/.files" || true
while read -r file; do
    inside cat "$file" > "$out/applications/${file##*/}"
done < "$out/.files"

# Names, or the last part of a path without its suffix. Anything unusual has no icon.
cat "$out"/applications/*.desktop 2> /dev/null | tr -d '\r' \
    | sed -n -e 's/^Icon=//p' | sed -e 's,.*/,,' -e 's/\.\(png\|svg\|xpm\)$//' \
    | grep -E '^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$' | LC_ALL=C sort -u > "$out/.names" || true
inside find -L /usr/share/icons /usr/share/pixmaps -type f -size -1024k \
    \( -name '*.png' -o -name '*.svg' \) 2> /dev/null | LC_ALL=C sort > "$out/.icons" || true

# 48x48 first, then what scales, then larger and smaller pictures; hicolor before Adwaita before others.
awk '
    NR == FNR { wanted[$0] = 1; next }
    {
        count = split($0, part, "/")
        suffix = part[count]; sub(/.*\./, "", suffix)
        name = substr(part[count], 1, length(part[count]) - length(suffix) - 1)
        if (!(name in wanted)) next
        theme = part[5] == "hicolor" ? 0 : part[5] == "Adwaita" ? 1 : 2
        size = part[4] == "icons" ? part[6] : ""
        pixels = size ~ /^[0-9]+x[0-9]+$/ ? size + 0 : 0
        if (pixels == 48 && suffix == "png") rank = 0
        else if (size == "scalable" && suffix == "svg") rank = 1
        else if (pixels > 48 && suffix == "png") rank = 2 + pixels / 10000
        else if (pixels > 0 && suffix == "png") rank = 3 + (48 - pixels) / 100
        else if (part[4] == "pixmaps") rank = 4
        else rank = 5
        score = rank * 10 + theme
        if (!(name in best) || score < best[name]) { best[name] = score; path[name] = $0 }
    }
    END { for (name in path) print name, path[name] }
' "$out/.names" "$out/.icons" | while read -r name path; do
    inside cat "$path" > "$out/icons/$name.${path##*.}"
done
rm "$out/.files" "$out/.names" "$out/.icons"
chmod -R a+rX "$out"
