# web, live and the default worker: one image without torch.
# Build from the top of the checkout: docker build -f docker/web.Dockerfile -t prefloop-web .
FROM python:3.11.14-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /prefloop
RUN python -m venv /venv
COPY pyproject.toml constraints.txt README.md ./
COPY config config
COPY labeling labeling
COPY training training
RUN /venv/bin/pip install -c constraints.txt -e '.[web]'

FROM python:3.11.14-slim-bookworm
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PREFLOOP_HOME=/data
RUN useradd --system --uid 10001 --home-dir /data prefloop \
    && install -d -o prefloop -g prefloop -m 700 /data
COPY --from=build /venv /venv
WORKDIR /prefloop
COPY --from=build /prefloop /prefloop
COPY manage.py ./
COPY templates templates
USER 10001
VOLUME /data
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=40s \
    CMD ["python", "-c", "from urllib.request import Request, urlopen; urlopen(Request('http://127.0.0.1:8000/readyz', headers={'X-Forwarded-Proto': 'https'}), timeout=4)"]
CMD ["granian", "--host", "0.0.0.0", "--port", "8000", "--interface", "wsgi", "--workers", "2", "--blocking-threads", "3", "--respawn-failed-workers", "--workers-kill-timeout", "20", "--log-level", "error", "config.wsgi:application"]
