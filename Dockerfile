# CPU:  docker build -t gmsa . && docker run --rm --user "$(id -u)" -v "$PWD:/work" gmsa train --config synthetic
# CUDA: docker build -t gmsa --build-arg TORCH_INDEX=https://pypi.org/simple . , and --gpus all after docker run
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 MPLBACKEND=Agg MPLCONFIGDIR=/tmp/matplotlib

# torch is most of the image: a layer of its own, which a change of gmsa leaves alone.
COPY constraints.txt /build/
RUN pip install -c /build/constraints.txt --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple torch

COPY pyproject.toml setup.py README.md LICENSE /build/
COPY configs /build/configs
COPY gmsa /build/gmsa
RUN pip install -c /build/constraints.txt /build && rm -rf /build

RUN useradd --create-home --uid 1000 gmsa && mkdir /work && chown gmsa /work
USER gmsa
WORKDIR /work
ENTRYPOINT ["gmsa"]
CMD ["--help"]
