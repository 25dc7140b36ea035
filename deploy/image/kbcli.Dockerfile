# SPDX-License-Identifier: Apache-2.0
# kbcli alone: the program, certificates, a user without rights. From the root of the tree:
#   docker build -f deploy/image/kbcli.Dockerfile --build-arg VERSION=v0.0.0 -t kbcli/kbcli .
FROM golang:1.26-bookworm AS build
ARG VERSION=devel
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN make build VERSION="$VERSION" \
 && mkdir -p /root-of-image/usr/bin /root-of-image/etc/ssl/certs /root-of-image/tmp \
 && chmod 1777 /root-of-image/tmp \
 && cp bin/kbcli /root-of-image/usr/bin/ \
 && cp /etc/ssl/certs/ca-certificates.crt /root-of-image/etc/ssl/certs/ \
 && printf 'root:x:0:0::/:/nonexistent\npostgres:x:999:999::/tmp:/nonexistent\nkbcli:x:65532:65532::/tmp:/nonexistent\n' >/root-of-image/etc/passwd \
 && printf 'root:x:0:\npostgres:x:999:\nkbcli:x:65532:\n' >/root-of-image/etc/group

FROM scratch
COPY --from=build /root-of-image /
ENV PATH=/usr/bin
USER 65532:65532
ENTRYPOINT ["/usr/bin/kbcli"]
