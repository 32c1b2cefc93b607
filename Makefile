.PHONY: run test bench mutants clean

# A local fleet on http://127.0.0.1:4096. More by ARGS: make run ARGS="--demo --replicas 5"
run:
	@scripts/run.sh $(ARGS)

# All that continuous integration runs.
test:
	@scripts/test.sh

# Measures one replica, three, and OpenCode beside them where OPENCODE_BIN names its program. Less by ARGS="--quick".
bench:
	@scripts/install.sh redis-server git
	cargo build --release --locked -p flotilla -p bench
	@release=$${CARGO_TARGET_DIR:-target}/release; FLOTILLA_BIN=$$(realpath $$release/flotilla) $$release/flotilla-bench $(ARGS)

# Puts each fault of tests/mutants into a copy of what is committed and shows that its test catches it. Some of them by
# ARGS="name name".
mutants:
	@scripts/install.sh redis-server nginx git
	cargo run -q --locked -p suite --bin mutants -- $(ARGS)

clean:
	cargo clean
