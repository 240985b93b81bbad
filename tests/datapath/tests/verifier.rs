//! What the programs cost the kernel's verifier. Older kernels know fewer tricks, and an emulated one
//! takes long: the budget is far below their limit of a million.
#![allow(
    clippy::unwrap_used,
    reason = "a fixture that cannot be made is a failed test"
)]

use datapath_tests::kernel::{Kernel, program};
use gateway_common::abi::Direction;

const BUDGET: u32 = 250_000;

#[test]
fn the_programs_stay_within_the_verifiers_budget() {
    let mut gate = Kernel::open().unwrap();
    for direction in Direction::ALL {
        let info = program(gate.datapath.object(), direction)
            .unwrap()
            .info()
            .unwrap();
        let walked = info
            .verified_instruction_count()
            .expect("known since Linux 5.16");
        println!("{direction:?}: {walked} instructions walked");
        assert!(
            walked < BUDGET,
            "{direction:?}: {walked} instructions walked"
        );
    }
}
