# `rectune serve` on an NVIDIA GPU. Not built yet: this file was written and linted where there was no Docker (docker/README.md).
# The base holds the torch that constraints.txt names, so none is installed beside it.
FROM pytorch/pytorch:2.13.0-cuda12.6-cudnn9-runtime

# The container is the environment: its Python is the distribution's, which else refuses pip.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

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
