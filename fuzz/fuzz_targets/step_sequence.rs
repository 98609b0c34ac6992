//! Whatever happens to a node, in whatever order, the rules keep their promises: operations of eight bytes each, behind one
//! byte of policy. What must hold after each is in `testing::life`, which the random walk of the tests lives through too.
//! A test of the library, `the_corpus_of_lives_reaches_every_rule`, counts what the committed corpus comes to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustkeep::testing::life::Life;

fuzz_target!(|bytes: &[u8]| drop(Life::of_bytes(bytes)));
