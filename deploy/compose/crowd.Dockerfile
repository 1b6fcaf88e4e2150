# The simulated users of docker-compose.yml: Locust with clients/python.
FROM python:3.13-slim-bookworm
COPY loadtest/requirements.txt /usher/loadtest/requirements.txt
RUN pip install --no-cache-dir --requirement /usher/loadtest/requirements.txt \
    && useradd --system --uid 10001 --user-group --no-create-home crowd
COPY loadtest/*.py /usher/loadtest/
COPY clients/python/src /usher/clients/python/src
USER 10001
WORKDIR /usher
EXPOSE 8089
ENTRYPOINT ["locust", "--locustfile", "loadtest/locustfile.py"]
