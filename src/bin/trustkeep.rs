//! The program `trustkeep`.
fn main() {}
