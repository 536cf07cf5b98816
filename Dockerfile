ARG PYTHON=python:3.13-slim

# The wheel is the same for every platform: it is built on the one that builds.
FROM --platform=$BUILDPLATFORM ${PYTHON} AS wheel
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The build backend is locked too, among what development needs.
COPY requirements-dev.txt ./
RUN pip install --require-hashes --no-deps -r requirements-dev.txt
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist .

FROM ${PYTHON} AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/lifecyclehook-operator
# The requirements first: their layer stays while only the code changes.
COPY requirements.txt ./
RUN pip --python /opt/lifecyclehook-operator install --require-hashes --no-deps -r requirements.txt
COPY --from=wheel /dist /dist
# A layer may round the time of a file, and bytecode that goes by that time would be stale: on a read-only root, all of
# it would be compiled at each start.
RUN pip --python /opt/lifecyclehook-operator install --no-deps /dist/*.whl \
    && python -m compileall -q -f --invalidation-mode unchecked-hash /opt/lifecyclehook-operator/lib

FROM ${PYTHON}
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="lifecyclehook-operator" \
      org.opencontainers.image.description="Kubernetes operator for the lifecycle hooks of Open Telekom Cloud Auto Scaling groups" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# Nothing is installed here any more.
RUN pip uninstall --yes --root-user-action=ignore pip
COPY --from=build /opt/lifecyclehook-operator /opt/lifecyclehook-operator
ENV PATH=/opt/lifecyclehook-operator/bin:${PATH} \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["lifecyclehook-operator"]
CMD ["run", "--all-namespaces"]
