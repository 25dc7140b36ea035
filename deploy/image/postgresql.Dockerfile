# SPDX-License-Identifier: Apache-2.0
# PostgreSQL 15 under Patroni, for the operator. From the root of the tree:
#   docker build -f deploy/image/postgresql.Dockerfile -t kbcli/postgresql:15 deploy/image
# The agent is not in it: it runs beside it, from the image of kbcli.Dockerfile, on the
# same volume.
FROM debian:12-slim
COPY postgresql.packages postgresql.sh /tmp/
RUN groupadd -r -g 999 postgres \
 && useradd -r -u 999 -g postgres -d /var/lib/postgresql -s /bin/bash postgres \
 && mkdir -p /etc/postgresql-common \
 && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(grep -v '^#' /tmp/postgresql.packages) \
 && sh /tmp/postgresql.sh \
 && rm /tmp/postgresql.packages /tmp/postgresql.sh
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=en_US.UTF-8 PGDATA=/var/lib/postgresql/data
USER 999:999
WORKDIR /var/lib/postgresql
