//! Whatever happens to a node, in whatever order, the rules keep their promises: operations of eight bytes each, behind one
//! byte of policy. What must hold after each is in `testing::life`, which the random walk of the tests lives through too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustkeep::testing::life::Life;

fuzz_target!(|bytes: &[u8]| {
    let Some((policy, ops)) = bytes.split_first() else { return };
    let mut life = Life::new(*policy);
    for op in ops.as_chunks().0.iter().take(OPS_MAX) {
        life.live(*op);
    }
});

/// Most of the time goes into signatures; longer lives find nothing that shorter ones do not.
const OPS_MAX: usize = 64;
