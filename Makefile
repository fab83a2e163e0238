# Two commands to remember: make demo, make test.
export CGO_ENABLED ?= 0
GO ?= go
BIN := bin/quern
PACKAGES = $(shell $(GO) list ./... | grep -v /integration)

.PHONY: all build onnx cuda check test test-slow soak demo bench proto clean tools

all: build

build:
	$(GO) build -o $(BIN) ./cmd/quern
	$(GO) build -o $(BIN)-opencl ./cmd/quern-opencl

# The worker for models in the ONNX format: it needs a C compiler, and the library
# onnxruntime when it runs.
onnx:
	CGO_ENABLED=1 $(GO) build -o $(BIN)-onnx ./cmd/quern-onnx

# The worker for NVIDIA's GPUs: it needs a C compiler and a toolkit of CUDA 11 or
# 12 (its cuda.h, and a libcuda to link with), and the driver when it runs.
CUDA ?= /usr/local/cuda
cuda:
	CGO_ENABLED=1 CGO_CFLAGS="-O2 -g -I$(CUDA)/include" $(GO) build -tags cuda \
		-ldflags '-extldflags "-L$(CUDA)/lib64/stubs -L$(CUDA)/lib64"' -o $(BIN)-cuda ./cmd/quern-cuda

# What is quick enough to run after each change.
check:
	@files=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$files" ]; then echo "gofmt would change: $$files"; exit 1; fi
	$(GO) vet ./...
	@if command -v staticcheck >/dev/null; then staticcheck ./...; else echo "staticcheck is not installed: go install honnef.co/go/tools/cmd/staticcheck@latest"; fi
	$(GO) test -timeout 30m $(PACKAGES)

# Programs that the tests use; as root on Debian they are installed.
tools:
	scripts/test-tools.sh

# Everything: unit tests, fuzz seeds among them; the same under the race
# detector; then whole clusters with real processes and mounts.
test: tools build
	$(GO) vet ./...
	$(GO) test -timeout 30m $(PACKAGES)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 40m $(PACKAGES)
	$(GO) test -timeout 60m ./integration/...

# The same where a machine is slow, in five ways; about an hour. PACKAGES='./fs' and
# ROUNDS='busy disk' choose.
test-slow: tools build
	ROUNDS="$(ROUNDS)" scripts/test-slow.sh $(PACKAGES)

# Simulated clusters with new seeds for SOAK (hours), then histories over real
# mounts with many kills. docs/testing.md says how to replay a seed that fails.
SOAK ?= 8h
soak: tools build
	QUERN_SOAK=$(SOAK) $(GO) test -v -timeout 0 -run TestSoak ./integration/sim
	QUERN_LONG=1 $(GO) test -v -timeout 2h -run TestLinearizable ./integration

demo: build
	scripts/demo.sh $(BIN)

bench: build
	$(GO) run ./integration/bench -quern $(BIN) $(BENCH)

# It needs buf and protoc-gen-go: names that are not UTF-8 take an edition that
# older compilers do not read.
proto:
	cd internal/wire && buf generate --template \
		'{"version":"v2","plugins":[{"local":"protoc-gen-go","out":".","opt":"paths=source_relative"}]}' .

clean:
	rm -rf bin
