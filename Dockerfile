# The images of ascend-serving; `docker build --target router -t ascend-serving/router:0.1.0 .`
#
#   operator     kopf and a Kubernetes client; no torch, no HTTP framework
#   router       the HTTP server; no torch
#   engine-cpu   the engine with torch from TORCH_INDEX
#   engine-npu   the engine on NPU_BASE, whose torch and torch_npu are left as they are
#
# Every stage installs into a virtual environment at the same path, so that an image is laid
# together by copies: what seldom changes below, our own wheel on top. The images have no RUN of
# their own, and thus hold nothing of what a build leaves behind.
ARG VERSION=0.1.0
ARG BASE=python:3.11-slim
# CANN with a torch and a torch_npu that match. Its chip family has to be the cluster's.
ARG NPU_BASE=quay.io/ascend/vllm-ascend:v0.21.0rc1


FROM ${BASE} AS tools
# The official Python image ships its standard library without byte code: what is missing is made,
# before anything else runs, and kept aside. Byte code that is never checked against its source
# loads fastest and survives copies.
RUN mkdir -p /bytecode /build && touch /build/before \
 && stdlib="$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && python3 -m compileall -q --invalidation-mode unchecked-hash \
      -x '/(site-packages|dist-packages|test|tests|idlelib|lib2to3|tkinter|turtledemo|ensurepip)/' \
      "$stdlib" \
 && find "$stdlib" -name '*.pyc' -newer /build/before -exec cp --parents '{}' /bytecode ';'
# A mirror of the package index, where the default one cannot be reached.
ARG PIP_INDEX_URL=
ENV PATH=/opt/uv/bin:$PATH \
    VIRTUAL_ENV=/opt/ascend-serving \
    PIP_INDEX_URL=$PIP_INDEX_URL \
    PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    UV_COMPILE_BYTECODE=1 \
    UV_DEFAULT_INDEX=$PIP_INDEX_URL \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=1
ARG UV_VERSION=0.13.9
RUN python3 -m venv /opt/uv && /opt/uv/bin/pip install --quiet --no-cache-dir "uv==$UV_VERSION"
WORKDIR /build
RUN python3 -m venv --without-pip "$VIRTUAL_ENV"
RUN getent passwd 1000 || useradd --uid 1000 --user-group --home-dir /tmp --no-create-home serving


# The lock is one for everything, so each image's part of it is taken here: uv resolves the extra
# within the lock, and the lines of those pins, hashes and all, are copied from the lock. A pin that
# the lock does not have ends the build. Later stages copy one file of these each: a change of the
# lock rebuilds only the layers that it is about.
#
# TORCH_INDEX names an index for torch. Empty is the default index, whose torch brings 5 GB of CUDA;
# PyTorch's index of CPU wheels makes a small image. Its files are not those of the lock (their
# version has a local part, as in 2.15.0+cpu): their version is the lock's, their hash is unchecked.
FROM tools AS pins
COPY pyproject.toml requirements.lock ./
ARG TORCH_INDEX=
RUN set -eu; \
    resolve() { uv pip compile --quiet --no-header --no-annotate --constraints requirements.lock "$@"; }; \
    locked() { awk 'NR == FNR {pins[$1]; next} /^[^ ]/ {keep = $1 in pins; if (keep) delete pins[$1]} \
      keep; END {for (pin in pins) {print pin " is not in requirements.lock" >"/dev/stderr"; exit 1}}' \
      "$1" requirements.lock; }; \
    resolve pyproject.toml --extra operator >operator.pins; locked operator.pins >operator.txt; \
    resolve pyproject.toml --extra router >router.pins; locked router.pins >router.txt; \
    index=; test -z "$TORCH_INDEX" || index="--index=$TORCH_INDEX --index-strategy=unsafe-best-match"; \
    echo torch | resolve $index - >torch-all.pins; \
    resolve $index pyproject.toml --extra runtime | grep -vxFf torch-all.pins >runtime.pins; \
    locked runtime.pins >runtime.txt; \
    grep '+' torch-all.pins >torch-unlocked.txt || true; \
    grep -v '+' torch-all.pins >torch.pins; locked torch.pins >torch.txt


FROM tools AS wheel
ARG HATCHLING_VERSION=1.28.0
RUN python3 -m venv --without-pip /opt/backend \
 && uv pip install --quiet --python /opt/backend/bin/python "hatchling==$HATCHLING_VERSION"
COPY pyproject.toml README.md LICENSE ./
COPY operator operator
COPY router router
COPY runtime runtime
RUN uv build --quiet --wheel --no-build-isolation --python /opt/backend/bin/python --out-dir dist \
 && uv pip install --quiet --no-deps dist/*.whl


FROM tools AS operator-packages
COPY --from=pins /build/operator.txt ./
RUN uv pip install --quiet --no-deps --require-hashes --requirements operator.txt


FROM tools AS router-packages
COPY --from=pins /build/router.txt ./
RUN uv pip install --quiet --no-deps --require-hashes --requirements router.txt


# What the images on BASE have in common. /tmp is the home because it is what can be written to
# where the root file system is read-only.
FROM ${BASE} AS image
COPY --from=tools /etc/passwd /etc/group /etc/
COPY --from=tools /bytecode/ /
ENV PATH=/opt/ascend-serving/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 1000:1000


FROM image AS operator
COPY --from=operator-packages /opt/ascend-serving /opt/ascend-serving
COPY --from=wheel /opt/ascend-serving /opt/ascend-serving
ENTRYPOINT ["ascend-serving", "operator"]
CMD []
ARG VERSION
LABEL org.opencontainers.image.title="ascend-serving operator" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"


FROM image AS router
COPY --from=router-packages /opt/ascend-serving /opt/ascend-serving
COPY --from=wheel /opt/ascend-serving /opt/ascend-serving
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["ascend-serving", "router"]
CMD []
ARG VERSION
LABEL org.opencontainers.image.title="ascend-serving router" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"


# Torch and what it brings: 5 GB that change only when the lock's torch does.
FROM tools AS torch
COPY --from=pins /build/torch.txt /build/torch-unlocked.txt ./
ARG TORCH_INDEX=
RUN uv pip install --quiet --no-deps --require-hashes --requirements torch.txt \
 && { test ! -s torch-unlocked.txt \
      || uv pip install --quiet --no-deps --index "$TORCH_INDEX" --requirements torch-unlocked.txt; }


FROM tools AS runtime-packages
COPY --from=pins /build/runtime.txt ./
RUN uv pip install --quiet --no-deps --require-hashes --requirements runtime.txt


FROM image AS engine-cpu
COPY --from=torch /opt/ascend-serving /opt/ascend-serving
COPY --from=runtime-packages /opt/ascend-serving /opt/ascend-serving
COPY --from=wheel /opt/ascend-serving /opt/ascend-serving
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["ascend-serving", "replica"]
CMD []
ARG VERSION
LABEL org.opencontainers.image.title="ascend-serving engine-cpu" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"


# What is installed here lies beside the base image's torch and torch_npu, never in their place.
FROM ${NPU_BASE} AS npu-tools
USER root
COPY --from=tools /opt/uv/bin/uv /opt/uv/bin/uv
ARG PIP_INDEX_URL=
ENV PATH=/opt/uv/bin:$PATH \
    VIRTUAL_ENV=/opt/ascend-serving \
    PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    UV_COMPILE_BYTECODE=1 \
    UV_DEFAULT_INDEX=$PIP_INDEX_URL \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=1
WORKDIR /build
ARG NPU_BASE
RUN python3 -m venv --without-pip --system-site-packages "$VIRTUAL_ENV" \
 && "$VIRTUAL_ENV/bin/python" -c 'import importlib.metadata as m; m.version("torch"), m.version("torch_npu")' \
 || { echo "$NPU_BASE lacks torch or torch_npu: name a CANN image with both by --build-arg NPU_BASE=..." >&2; exit 1; }
RUN getent passwd 1000 || useradd --uid 1000 --user-group --home-dir /tmp --no-create-home serving
# CANN is set up by scripts that only a login shell would run. The program does it, so that
# Kubernetes may name the program as the command.
RUN mkdir -p /opt/cann/bin && printf '%s\n' '#!/bin/bash' \
      'for setup in /usr/local/Ascend/{ascend-toolkit,nnal/atb}/set_env.sh; do' \
      '  if [ -r "$setup" ]; then source "$setup"; fi' \
      'done' \
      'exec /opt/ascend-serving/bin/ascend-serving "$@"' >/opt/cann/bin/ascend-serving \
 && chmod 755 /opt/cann/bin/ascend-serving


FROM npu-tools AS npu-pins
COPY pyproject.toml requirements.lock ./
RUN set -eu; \
    printf 'torch\ntorch_npu\n' >of-the-base; \
    uv pip compile --quiet --no-header --no-annotate --constraints requirements.lock \
      --excludes of-the-base --extra runtime pyproject.toml >npu.pins; \
    awk 'NR == FNR {pins[$1]; next} /^[^ ]/ {keep = $1 in pins; if (keep) delete pins[$1]} \
      keep; END {for (pin in pins) {print pin " is not in requirements.lock" >"/dev/stderr"; exit 1}}' \
      npu.pins requirements.lock >npu.txt


FROM npu-tools AS npu-packages
COPY --from=npu-pins /build/npu.txt ./
RUN uv pip install --quiet --no-deps --require-hashes --requirements npu.txt


FROM npu-tools AS npu-wheel
COPY --from=wheel /build/dist dist
RUN uv pip install --quiet --no-deps dist/*.whl


FROM ${NPU_BASE} AS engine-npu
COPY --from=npu-tools /etc/passwd /etc/group /etc/
COPY --from=npu-tools /opt/cann /opt/cann
COPY --from=npu-packages /opt/ascend-serving /opt/ascend-serving
COPY --from=npu-wheel /opt/ascend-serving /opt/ascend-serving
ENV PATH=/opt/cann/bin:/opt/ascend-serving/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
USER 1000:1000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health')"]
ENTRYPOINT ["ascend-serving", "replica"]
CMD []
ARG VERSION
LABEL org.opencontainers.image.title="ascend-serving engine-npu" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
