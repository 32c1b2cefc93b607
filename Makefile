.PHONY: run test bench mutants contrast prove chaos soak versions model sim sim-mutants clean

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

# Does the same to three unmodified OpenCodes that share one home and to Flotilla, and prints who holds what.
contrast:
	@scripts/install.sh redis-server git nodejs npm
	@scripts/clients.sh
	cargo build -q --locked -p flotilla -p suite
	@debug=$${CARGO_TARGET_DIR:-target}/debug; FLOTILLA_BIN=$$(realpath $$debug/flotilla) $$debug/contrast

# Runs the fault tests of tests/prove.toml with many rounds, of what is committed, and writes docs/evidence/prove.md: some
# twenty-five minutes on two cores that do nothing else. A rehearsal by ARGS="--quick", or of some by their names.
prove:
	@scripts/install.sh redis-server nginx haproxy git
	cargo build -q --locked -p flotilla -p suite
	@$${CARGO_TARGET_DIR:-target}/debug/prove $(ARGS)

# Clients, faults and a checker of all that they see, for a minute or SECONDS=n; SEED=n draws others. What it found goes to
# docs/evidence/chaos.md once each fault hit a replica at work 20 times: some half an hour.
chaos:
	@scripts/install.sh redis-server nginx haproxy git
	cargo build -q --locked -p flotilla -p suite
	@debug=$${CARGO_TARGET_DIR:-target}/debug; FLOTILLA_BIN=$$(realpath $$debug/flotilla) $$debug/chaos \
		--seconds $(or $(SECONDS),60) --seed $(or $(SEED),1)

# The same mixed work for half an hour, or SECONDS=n, and what the fleet takes meanwhile: goes to docs/evidence/soak.md.
soak:
	@scripts/install.sh redis-server nginx haproxy git
	cargo build -q --locked -p flotilla -p suite
	@debug=$${CARGO_TARGET_DIR:-target}/debug; FLOTILLA_BIN=$$(realpath $$debug/flotilla) $$debug/soak \
		--seconds $(or $(SECONDS),1800) --seed $(or $(SEED),1)

# A fleet of two builds: what is here, and OLD=commit. Each replica that starts is of the other one.
versions:
	@scripts/two_versions.sh $(OLD)

# Explores the run protocol to the end of a bound larger than the tests' one. Another by ARGS="--prompts 2 --faults 2".
model:
	cargo run -q --release --locked -p model -- $(ARGS)

# Fleets on one thread, each decided by its seed: a thousand, or SEEDS=n, from SEED=n on. What happened in one is printed by
# SEEDS=1 SEED=n ARGS="--trace 1".
sim:
	cargo run -q --release --locked -p simulation -- --seeds $(or $(SEEDS),1000) --first $(or $(SEED),1) $(ARGS)

# Which faults of tests/mutants the simulation finds, with a thousand seeds each: goes to docs/evidence/simulation-mutants.md.
# Some two minutes for each; a few of them by ARGS="name name".
sim-mutants:
	@scripts/install.sh git
	cargo run -q --locked -p suite --bin sim_mutants -- $(ARGS)

clean:
	cargo clean
