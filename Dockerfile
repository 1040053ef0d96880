# simmer for the processor.
#
#   docker build -t simmer .
#   docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" simmer train recipe.toml
#
# The folder /work holds recipes, data and runs. Without a recipe, `train` runs the quickstart.

FROM rust:1.95.0-slim-bookworm AS build
# the image's toolchain is the one of rust-toolchain.toml; without this, rustup would add components for developers
ENV RUSTUP_TOOLCHAIN=1.95.0
# the history is not copied: these say which commit `simmer --version` and manifests name
ARG SIMMER_COMMIT=""
ARG SIMMER_COMMIT_DATE=""
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin simmer

FROM debian:bookworm-slim
# certificates are for the hub. Version pins would break the build at every security update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 simmer \
    # caches of the hub and of the quickstart can be written by whatever user `--user` names
    && chmod 1777 /home/simmer \
    && mkdir /work && chown simmer:simmer /work
COPY --from=build /src/target/release/simmer /usr/local/bin/
COPY --from=build /src/LICENSE-APACHE /src/LICENSE-MIT /usr/share/doc/simmer/
ENV HOME=/home/simmer
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["simmer"]
CMD ["--help"]
