# One image for web, worker, beat and setup; docker-compose.yml says which is which.
FROM python:3.11.15-slim-bookworm

# Libraries that OpenCV and Paddle open at import and the slim image lacks.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 libgomp1 \
    && rm -rf /var/lib/apt/lists/*

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    SHITU_VAR_DIR=/var/lib/shitu \
    SHITU_BIND=0.0.0.0:8000

WORKDIR /app
COPY requirements-s3.txt ./
RUN pip install --no-cache-dir --requirement requirements-s3.txt

COPY . .

# Not root: what opens strangers' pictures should own nothing but its data. A new volume laid over
# this directory takes over its owner and the starter models in it, so setup needs no network.
RUN useradd --uid 10001 --create-home shitu \
    && install --directory --owner=shitu --mode=0750 /var/lib/shitu
USER shitu
RUN SHITU_MODELS_DIR=/var/lib/shitu/models python -m recognition.engine.starter

VOLUME /var/lib/shitu
EXPOSE 8000
CMD ["gunicorn", "shitu_site.wsgi", "--config", "shitu_site/gunicorn.conf.py"]
