# One static program in an empty image: docker build -t clock:1 .
# A program of your own from this repository: docker build --build-arg PROGRAM="--example kubernetes" .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
ARG PROGRAM="--bin bactrian"
ARG FEATURES=cluster-kubernetes
RUN FEATURES="$FEATURES" image/contents /image $PROGRAM

FROM scratch
COPY --from=build /image/ /
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 9876
ENTRYPOINT ["/bactrian"]
