# The service in a small image: nothing beyond Debian's base, no root, no state.

FROM rust:1.95.0-slim-bookworm AS build
WORKDIR /build
COPY . .
# The caches keep compiled dependencies between builds. They are not part of the image, so the
# binary is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin usher \
    && strip --strip-debug -o /usher target/release/usher

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin usher
COPY --from=build /usher /usr/local/bin/usher
COPY LICENSE /usr/share/doc/usher/LICENSE
USER 10001
# In a container, the network decides who can reach the listeners. Publish 8081 (admin, metrics)
# only to operators.
ENV USHER_LISTEN=0.0.0.0:8080 \
    USHER_ADMIN_LISTEN=0.0.0.0:8081 \
    USHER_LOG=json
EXPOSE 8080 8081
# Whether the process is alive. Whether it is ready is a question for the load balancer: GET
# /readyz.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8080 && printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r status <&3 && [[ $status == 'HTTP/1.1 200 '* ]]"]
ENTRYPOINT ["usher"]
CMD ["serve"]
