# A CPU image with the command: docker build -t landscape . && docker run --rm -v "$PWD:/work" landscape surface --help
FROM python:3.11-slim
COPY . /src
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
        --constraint /src/constraints.txt '/src[hdf5,examples]' \
    && rm -rf /src
WORKDIR /work
ENTRYPOINT ["landscape"]
