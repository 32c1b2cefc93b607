.PHONY: run test clean

# A local fleet on http://127.0.0.1:4096. More by ARGS: make run ARGS="--demo --replicas 5"
run:
	@scripts/run.sh $(ARGS)

# All that continuous integration runs.
test:
	@scripts/test.sh

clean:
	cargo clean
