# CPU: docker build -t dimenet-tf .
# GPU: docker build -t dimenet-tf:gpu --build-arg EXTRAS=cuda,serving .
#      docker run --rm --gpus all -v "$PWD:/work" dimenet-tf:gpu train dimenet
ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS build
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:${PYTHON}-slim
ARG EXTRAS=serving
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    pip install --no-cache-dir "$(echo /wheels/*.whl)[${EXTRAS}]" \
    && useradd --create-home --uid 1000 user
USER 1000
WORKDIR /work
ENTRYPOINT ["dimenet-tf"]
CMD ["--help"]
