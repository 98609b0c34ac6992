//! Importing any bytes never panics and keeps the invariants of the tables; and what it takes is what an export writes:
//! importing that takes all of it, and writes the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use trustkeep::testing::doors::import_and_export;

fuzz_target!(|bytes: &[u8]| {
    let Ok((exported, _)) = import_and_export(bytes) else { return };
    let (again, skipped) = import_and_export(&exported).expect("an export is a document");
    assert_eq!(skipped, 0, "{}", String::from_utf8_lossy(&exported));
    assert!(again == exported, "{}\n{}", String::from_utf8_lossy(&exported), String::from_utf8_lossy(&again));
});
