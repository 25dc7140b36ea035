#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The last step of the PostgreSQL image, run as root inside it, where packages lie but
# their scripts need not have run. Running it again changes nothing.
set -eu

# merged /usr, and what alternatives would point to
[ -e /bin/sh ] || ln -s dash /usr/bin/sh
[ -e /usr/bin/awk ] || ln -s gawk /usr/bin/awk
for d in /run /tmp /var/tmp /proc /sys /dev /etc/ssl/certs /var/lib /root; do mkdir -p "$d"; done
chmod 1777 /tmp /var/tmp
[ -L /var/run ] || { rm -rf /var/run && ln -s /run /var/run; }
[ -L /var/lock ] || { rm -rf /var/lock && ln -s /run/lock /var/lock; }
[ -e /etc/passwd ] || cp /usr/share/base-passwd/passwd.master /etc/passwd
[ -e /etc/group ] || cp /usr/share/base-passwd/group.master /etc/group
[ -e /etc/nsswitch.conf ] || printf 'passwd: files\ngroup: files\nhosts: files dns\n' >/etc/nsswitch.conf
ldconfig

# 999 is what images of PostgreSQL have long used: volumes of others fit
getent group postgres >/dev/null || groupadd -r -g 999 postgres
getent passwd postgres >/dev/null || useradd -r -u 999 -g postgres -d /var/lib/postgresql -s /bin/bash postgres
install -d -o postgres -g postgres -m 0755 /var/lib/postgresql
install -d -o postgres -g postgres -m 0700 /var/lib/postgresql/data
install -d -o postgres -g postgres -m 2775 /run/postgresql

[ -s /etc/ssl/certs/ca-certificates.crt ] || cat /usr/share/ca-certificates/mozilla/*.crt >/etc/ssl/certs/ca-certificates.crt
localedef --list-archive 2>/dev/null | grep -qi '^en_US.utf8$' || {
	mkdir -p /usr/lib/locale
	localedef -i en_US -c -f UTF-8 -A /usr/share/locale/locale.alias en_US.UTF-8
}

# Python is slow to start where it cannot keep what it compiled
python3 -m compileall -q /usr/lib/python3/dist-packages /usr/lib/python3.[0-9]*

rm -rf /usr/share/doc /usr/share/man /usr/share/i18n /usr/share/info /var/cache/apt /var/lib/apt/lists/* \
	/usr/lib/postgresql/*/lib/bitcode
find /usr/share/locale -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} +
