//! The program `trustkeep`; everything it does is in the library, in `cli`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    trustkeep::cli::main()
}
