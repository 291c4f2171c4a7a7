//! The `migrator` command.

fn main() -> std::process::ExitCode {
    migrator::cli::main()
}
