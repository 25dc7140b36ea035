#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds dist/kbcli_<version>_<arch>.deb: build.sh VERSION BINARY OUTDIR. The same sources,
# the same binary and the same SOURCE_DATE_EPOCH make the same bytes.
set -euo pipefail
version=$1 binary=$2 out=$3
here=$(cd "$(dirname "$0")" && pwd)
: "${SOURCE_DATE_EPOCH:=$(git -C "$here" log -1 --format=%ct 2>/dev/null || echo 0)}"
export SOURCE_DATE_EPOCH
umask 022

# Debian's versions begin with a digit, and know neither "-dirty" as newer nor "v"
deb=${version#v}
[[ $deb =~ ^[0-9] ]] || deb="0~$deb"
deb=${deb//-/+}
deb=${deb//[^A-Za-z0-9.+~]/.}
arch=$(dpkg --print-architecture)

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"
install -D -m 0755 "$binary" "$root/usr/bin/kbcli"
for unit in "$here"/../systemd/*.service; do
	install -D -m 0644 "$unit" "$root/usr/lib/systemd/system/${unit##*/}"
done
complete() { # shell, path
	mkdir -p "$root/$(dirname "$2")"
	"$binary" completion "$1" >"$root/$2"
}
complete bash usr/share/bash-completion/completions/kbcli
complete zsh usr/share/zsh/vendor-completions/_kbcli
complete fish usr/share/fish/vendor_completions.d/kbcli.fish
install -D -m 0644 "$here/copyright" "$root/usr/share/doc/kbcli/copyright"
mkdir -p "$root/usr/share/man/man1"
gzip -9n <"$here/kbcli.1" >"$root/usr/share/man/man1/kbcli.1.gz"

mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do
	install -m 0755 "$here/$script" "$root/DEBIAN/$script"
done
# of what is in it, not of the file system that it is built on
size=$(find "$root" -type f -printf '%s\n' | awk '{ n += int(($1 + 1023) / 1024) } END { print n }')
sed -e "s/@VERSION@/$deb/; s/@ARCH@/$arch/; s/@SIZE@/$size/" "$here/control" >"$root/DEBIAN/control"
(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$out"
dpkg-deb --root-owner-group -Zxz --build "$root" "$out/kbcli_${deb}_$arch.deb"
