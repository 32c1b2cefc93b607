//! The smallest executable that can be a supervisor; tests use it as one.

use std::process::ExitCode;

fn main() -> ExitCode {
    sandbox::supervisor::main(std::env::args_os().skip(2))
}
