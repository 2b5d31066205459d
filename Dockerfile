# The production image: the service and the packages pinned in locks/run.txt.
# BASE_IMAGE may be any image with a shell and Python 3.11 to 3.13 with venv, for example a digest-pinned one.
ARG BASE_IMAGE=python:3.13-slim

FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# Dependencies first: they change less often than the code. The environment contains no pip.
COPY locks/build.txt locks/run.txt locks/
RUN python3 -m venv /build/tools \
    && /build/tools/bin/pip install --require-hashes --no-deps --only-binary :all: --requirement locks/build.txt \
    && python3 -m venv --without-pip /opt/signer \
    && /build/tools/bin/pip --python /opt/signer/bin/python \
        install --require-hashes --no-deps --only-binary :all: --requirement locks/run.txt
COPY LICENSE README.md pyproject.toml ./
COPY signer signer
RUN /build/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /build/tools/bin/pip --python /opt/signer/bin/python install --no-index --no-deps dist/*.whl

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="challenge-signer" \
      org.opencontainers.image.description="Signs the card API's Sign-In-with-Ethereum challenges for wallet backends" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/signer /opt/signer
ENV PATH=/opt/signer/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    SIGNER_CONFIG=/etc/signer/signer.toml
WORKDIR /opt/signer
# A number, because Kubernetes checks runAsNonRoot by number.
USER 65532:65532
EXPOSE 8080 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["signer", "healthcheck"]
ENTRYPOINT ["signer"]
CMD ["serve"]
