# One binary, two commands to remember: make demo, make test.
export CGO_ENABLED ?= 0
GO ?= go
BIN := bin/quern

.PHONY: all build check test demo bench proto clean

all: build

build:
	$(GO) build -trimpath -o $(BIN) ./cmd/quern

proto:
	cd internal/wire && protoc --go_out=paths=source_relative:. quern.proto

clean:
	rm -rf bin
