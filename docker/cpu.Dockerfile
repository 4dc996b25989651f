# `rectune serve` on a CPU. Not built yet: this file was written and linted where there was no Docker (docker/README.md).
FROM python:3.11-slim

# An index with CPU builds of torch, as PyTorch's installation page names it; without it torch comes with its CUDA libraries.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /src
COPY . .
RUN pip install -c constraints.txt '.[serve]' && useradd --create-home --uid 10001 rectune \
    && mkdir /cache && chown rectune /cache

# What is taken from the Hub stays between containers.
ENV HF_HOME=/cache
VOLUME /cache
WORKDIR /home/rectune
USER 10001
EXPOSE 8000
# A model is loaded before the first answer, so the first minutes do not count.
HEALTHCHECK --interval=30s --timeout=5s --start-period=5m --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["rectune", "serve", "--host", "0.0.0.0"]
# A bundle: a folder of the container, or USER/REPO.
CMD ["/bundle"]
