# The demo's base model as an image that pods mount: docker build -f test/e2e/demo/parrot.Dockerfile test/fixtures/parrot
FROM scratch
COPY config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json /
